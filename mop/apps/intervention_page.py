"""Interventions on a page: controls to texts and back, one world with and without, use against need.

The values of controls are plain, by these names: "from L" (of SOURCES), "out L.E" (bool), "weight L.E", "after" (of
AFTER), "threshold", "memory" (of MEMORIES), for layers L and experts E.
"""

import functools
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.routing_data import checked_weights
from mop.apps.episode_player import pair_document
from mop.apps.episode_records import EpisodeRecord, episode_record
from mop.apps.runs import Run
from mop.apps.template import Page, PageFigure
from mop.artifacts.intervention_rows import comparable, load_rows
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import CACHE_DIR, PLOTS_DIR, interventions_path
from mop.common.cli import as_flags
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.common.intervention_grammar import FROZEN, GATE_ONLY, NONE, SWAP, ZEROED, Intervention, parse, together
from mop.plotting.bars import matrix_name, matrix_title, plot_use_and_need
from mop.plotting.style import counted, expert_hues, expert_names, short_name

if TYPE_CHECKING:
    from mop.evaluation.intervention_runs import OneWorld

LEARNED = "learned"
SOURCES = (LEARNED, "mean", "uniform", "shuffle")  # of the weights of a layer
AFTER = ("nothing", "argmax", "threshold")  # what all layers go through at last
MEMORIES = {"goes on": GATE_ONLY, "is frozen": FROZEN, "is zeroed": ZEROED}  # of an expert whose weight is 0
DEFAULT_THRESHOLD = 0.1
_BATCH, _MOST_WORLDS = 32, 256  # that are played at once, and looked through in all, for one that changes

# --- controls and texts -----------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """An expert that has others beside it in its layer."""

    layer: int
    expert: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.expert}"


class Expert(NamedTuple):
    """An expert as a page shows it."""

    name: str  # as in other figures: "GRU 16"
    hue: str
    size: int | None  # None: the data do not tell
    mean: float  # weight over all steps of the evaluation


Experts = Mapping[Place, Expert]


def experts_of(data: RoutingData) -> dict[Place, Expert]:
    """All experts of the layers that have several."""
    layers = checked_weights(data.steps)
    names, hues = expert_names(data.header, layers), expert_hues(data.header, layers)
    sizes = data.header.get("expert_hidden_sizes") or [[None] * weights.shape[1] for weights in layers]
    means = [weights.mean(0, np.float64).tolist() for weights in layers]
    return {
        Place(layer, expert): Expert(
            short_name(names[layer][expert]), hues[layer][expert], sizes[layer][expert], means[layer][expert]
        )
        for layer, weights in enumerate(layers)
        if weights.shape[1] > 1
        for expert in range(weights.shape[1])
    }


def homes_of(experts: Experts, begun: Intervention) -> dict[Place, float]:
    """Where the slider of each expert stands while its weight is learned: beside its mean weight.

    It is no hundredth, and no weight that `begun` clamps: all of these can be asked for.
    """
    taken = {part.value for part in begun.singles if part.kind == "clamp"}
    taken |= {step / 100 for step in range(101)}
    shifts = [sign * shift / 1000 for shift in range(20) for sign in (1, -1)]
    return {
        place: next(home for shift in shifts if 0 <= (home := round(expert.mean + shift, 3)) <= 1 and home not in taken)
        for place, expert in experts.items()
    }


def begin(text: str, experts: Experts) -> Intervention:
    """The intervention of a text, where the controls can show it."""
    intervention = parse(text)
    if intervention.phase is not None or intervention.kind == SWAP:
        raise InputError(
            f"{intervention}: there are no controls for a phase or a swap; `intervene.py --what` makes them"
        )
    layers = {place.layer for place in experts}
    for part in intervention.singles:
        if part.layer is not None and (part.layer not in layers or Place(part.layer, part.expert or 0) not in experts):
            raise InputError(f"{part}: this policy has the experts {', '.join(map(str, experts))}")
        if part.kind == "lesion_size" and all(expert.size != part.size for expert in experts.values()):
            raise InputError(f"{part}: this policy has no experts of that size")
    return intervention


def values_of(intervention: Intervention, experts: Experts, homes: Mapping[Place, float]) -> dict[str, Any]:
    """The values of controls that ask for an intervention, of `begin`; without "memory"."""
    values: dict[str, Any] = {f"from {place.layer}": LEARNED for place in experts}
    values |= {f"weight {place}": home for place, home in homes.items()}
    values |= {f"out {place}": False for place in experts} | {"after": AFTER[0], "threshold": DEFAULT_THRESHOLD}
    for part in intervention.singles:
        if part.kind in SOURCES:
            values[f"from {part.layer}"] = part.kind
        elif part.kind == "clamp":
            values[f"weight {part.layer}.{part.expert}"] = part.value
        elif part.kind == "lesion":
            values[f"out {part.layer}.{part.expert}"] = True
        elif part.kind == "lesion_size":
            values |= {f"out {place}": True for place, expert in experts.items() if expert.size == part.size}
        elif part.kind in AFTER:
            values["after"] = part.kind
            values["threshold"] = DEFAULT_THRESHOLD if part.value is None else part.value
    return values


def asked_for(values: Mapping[str, Any], homes: Mapping[Place, float]) -> Intervention:
    """The intervention that the values of controls ask for; an expert that is left out has no weight to clamp."""
    layers = dict.fromkeys(place.layer for place in homes)
    parts = [Intervention(values[f"from {layer}"], layer) for layer in layers if values[f"from {layer}"] != LEARNED]
    for place, home in homes.items():
        if values[f"out {place}"]:
            parts.append(Intervention("lesion", *place))
        elif (weight := values[f"weight {place}"]) != home:
            parts.append(Intervention("clamp", *place, value=float(weight)))
    if values["after"] == "argmax":
        parts.append(Intervention("argmax"))
    if values["after"] == "threshold":
        parts.append(Intervention("threshold", value=float(values["threshold"])))
    return together(parts)


def state_of(place: Place, expert: Expert, values: Mapping[str, Any], homes: Mapping[Place, float]) -> str:
    """What the controls make of an expert, in words."""
    if values[f"out {place}"]:
        return "left out"
    if values[f"weight {place}"] != homes[place]:
        return f"held at {values[f'weight {place}']:g}"
    source = values[f"from {place.layer}"]
    return {LEARNED: f"learned, mean {expert.mean:.2f}", "mean": f"always {expert.mean:.2f}"}.get(source, source)


def command_of(run: Run, data: RoutingData, intervention: Intervention | None, variant: str = GATE_ONLY) -> str:
    """The command that makes the row of an intervention in these worlds, or of the standard battery (None)."""
    key, header = run.key, data.header
    flags = {"checkpoint": _checkpoint_name(run, data), "task": None if key.trained_on is None else key.task_id}
    flags |= {"num_episodes": header.get("num_episodes", len(data.episodes))}
    flags |= {"eval_seed": header.get("eval_seed") or None}
    flags |= {"cache_dir": None if run.cache_dir == CACHE_DIR else run.cache_dir}
    flags |= {"what": None if intervention is None else str(intervention)}
    flags |= {"variants": None if intervention is None or variant == GATE_ONLY else variant}
    return shlex.join(["python", "intervene.py", *as_flags(flags)])


# --- one world, with and without --------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """An episode of the intact policy, and that of the same world with an intervention."""

    intact: RoutingData
    changed: RoutingData
    intervention: Intervention

    @property
    def first(self) -> int | None:
        """The first step at which they choose another action, None if there is none."""
        mine, other = self.intact.column("action"), self.changed.column("action")
        common = min(len(mine), len(other))
        steps = np.flatnonzero(mine[:common] != other[:common])
        return int(steps[0]) if len(steps) else None

    @property
    def is_identical(self) -> bool:
        """Whether every number of every step is the same."""
        pairs = zip(_columns(self.intact), _columns(self.changed), strict=True)
        return all(np.array_equal(mine, other) for mine, other in pairs)


def open_world(run: Run, data: RoutingData) -> "OneWorld":
    """The policy of a run in the worlds of its evaluation."""
    if run.checkpoint is None or not run.checkpoint.is_file():
        raise InputError(
            f"`{_checkpoint_name(run, data)}` is not on this machine, and episodes with an intervention need the "
            "policy itself: copy it there (`python modal_app.py download` brings what the cloud trained), or name the "
            "folder that has it with `--checkpoint_dir`"
        )
    from mop.evaluation.intervention_runs import open_world

    stat = run.checkpoint.stat()
    return open_world(run.checkpoint, data, stat.st_mtime_ns, stat.st_ino)


def play_pair(world: "OneWorld", number: int, intervention: Intervention, variant: str = GATE_ONLY) -> Pair:
    """Episode `number` of the evaluation, intact and with an intervention."""
    intact = world.episode(number, Intervention(NONE))
    return Pair(intact, world.episode(number, intervention, variant), intervention)


def find_changed(world: "OneWorld", count: int, after: int, intervention: Intervention, variant: str) -> int | None:
    """The first world behind number `after` whose outcome an intervention changes; after the last comes the first.

    count: the worlds of the evaluation, of which no more than 256 are looked through; None: there is none in these.
    """
    numbers = [(after + shift) % count for shift in range(1, min(count, _MOST_WORLDS) + 1)]
    for start in range(0, len(numbers), _BATCH):
        part = numbers[start : start + _BATCH]
        intact = world.episodes(part, Intervention(NONE))
        changed = world.episodes(part, intervention, variant)
        for number, mine, other in zip(part, intact, changed, strict=True):
            if mine.episodes[0]["success"] != other.episodes[0]["success"]:
                return number
    return None


def tell(pair: Pair) -> str:
    """What becomes of the world, in a sentence or two; `...` is code."""
    if pair.intervention.kind == NONE:
        return f"Nothing is changed: the two episodes are identical, step by step, {_outcome(pair.intact)}."
    both = f"Intact: {_outcome(pair.intact)}. With `{pair.intervention}`: {_outcome(pair.changed)}."
    if pair.is_identical:
        return f"{both} The episode is identical, step by step: it made no difference here."
    if pair.first is None:
        return f"{both} They take the same actions; only weights and probabilities differ."
    mine, other = _actions_at(pair)
    return f"{both} They first differ at step {pair.first}: {mine} when intact, {other} with it."


def document_of(pair: Pair) -> str:
    """The HTML of a player of both, with the step marked at which they first differ."""
    intact, changed = _record(pair.intact), _record(pair.changed)
    context = pair.intact.episodes[0]
    both = "nothing is changed" if pair.intervention.kind == NONE else f"intact, and with {pair.intervention}"
    title = f"{run_name(pair.intact.header)}, world {context['seed']}: {both}"
    names = f"intact\n{_outcome(pair.intact)}", f"changed\n{_outcome(pair.changed)}"
    if pair.first is None:
        difference = [(0, "The same action at every step.")]
    else:
        intact, changed = (_with_event(record, pair.first, "first other action") for record in (intact, changed))
        mine, other = _actions_at(pair)
        difference = [
            (0, f"The same actions until step {pair.first}."),
            (pair.first, f"Here they first differ: {mine} when intact, {other} with the intervention."),
            (pair.first + 1, f"They have differed since step {pair.first}."),
        ]
    records = dict(zip(names, (intact, changed), strict=True))
    return pair_document(title, context["mission"], records, difference, pair.first)


def file_of(pair: Pair, variant: str) -> str:
    """The name of the file of `document_of`, without its ending."""
    words = str(pair.intervention).replace(" + ", "_").replace(" ", "_").replace("=", "_")
    memory = "" if variant == GATE_ONLY else f"_{variant}"
    return f"world_{pair.intact.episodes[0]['seed']}_{words}{memory}"


@functools.lru_cache(maxsize=64)
def _record(data: RoutingData) -> EpisodeRecord:
    return episode_record(data, 0)


def _with_event(record: EpisodeRecord, step: int, text: str) -> EpisodeRecord:
    events = sorted([*record.events, (step, text)], key=lambda event: event[0])
    return replace(record, events=events)


def _outcome(data: RoutingData) -> str:
    episode, steps = data.episodes[0], counted(len(data.steps), "step")
    return f"solved in {steps}" if episode["success"] else f"not solved in {steps}"


def _actions_at(pair: Pair) -> tuple[str, str]:
    """What the two do where they first differ."""
    intact, changed = (ACTION_NAMES[data.column("action")[pair.first]] for data in (pair.intact, pair.changed))
    return intact, changed


def _columns(data: RoutingData) -> list[np.ndarray]:
    columns = [values for name, values in data.steps.columns().items() if name != "layer_routing"]
    return [*columns, *checked_weights(data.steps)]


def _checkpoint_name(run: Run, data: RoutingData) -> str:
    """Where the checkpoint is, or was when it was evaluated, or would be."""
    if run.checkpoint is not None:
        return run.checkpoint.as_posix()
    return data.header.get("checkpoint_path") or run.key.checkpoint("checkpoints").as_posix()


# --- use against need -------------------------------------------------------------------------------------------------


def rows_of(run: Run, data: RoutingData) -> list[Mapping]:
    """The rows of a run that belong together: those of the worlds and the checkpoint of its intact row."""
    path = interventions_path(run.cache_dir, run.key)
    rows = load_rows(path)
    intact = next((row for row in rows if row["intervention"] == NONE), None)
    if intact is None:
        raise InputError(
            f"`{path}`: there are no interventions of this run yet; `{command_of(run, data, None)}` makes them"
        )
    return comparable(rows, intact)


def other_checkpoint(run: Run, rows: list[Mapping], data: RoutingData) -> str | None:
    """What to say of rows that were made of another file than the checkpoint here; None if they were not."""
    if run.checkpoint is None or rows[0]["checkpoint_sha256"] == file_digest(run.checkpoint):
        return None
    path = interventions_path(run.cache_dir, run.key)
    remake = command_of(run, data, None)
    return f"`{path}` was made from another checkpoint than `{run.checkpoint}`; `{remake}` makes a new one"


def plot_matrix(run: Run, rows: list[Mapping], variant: str) -> Figure:
    """`plot_use_and_need` of the rows of a run."""
    return plot_use_and_need(rows, matrix_title(run.name, rows[0]["num_episodes"], variant), variant)


def matrix_page(run: Run, rows: list[Mapping], data: RoutingData, variant: str, plots_dir: str = PLOTS_DIR) -> Page:
    """The page of the matrix alone."""
    row, name = rows[0], matrix_name(variant)
    about = "Change of success without each expert in each phase, beside its mean weight there"
    lines = [
        f"Run: {run.name}, checkpoint {row['checkpoint_path']}, its SHA-256 begins with {row['checkpoint_sha256']}.",
        f"Data: {counted(row['num_episodes'], 'world')}, eval_seed {row['eval_seed']}, "
        f"Minigrid {row['minigrid_version']}, phases {row['phases_by']}, memory of what is left out: {variant}.",
    ]
    draw = functools.partial(plot_matrix, run, rows, variant)
    figure = PageFigure(name, about, draw, command=command_of(run, data, None))
    return Page("routing_viz.py", (), run.key.artefacts(plots_dir), [figure], lambda name: lines)
