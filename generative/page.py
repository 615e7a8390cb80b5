"""What the page of the simulator shows: recordings and their episodes, what is chosen, its figures, what a script saves.

Torch is only loaded once more is asked for than the moment itself: `generative.moments`, which computes the rest.
"""

import functools
import html
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np
from matplotlib.figure import Figure
from minigrid.core.actions import Actions

from generative import views
from generative.recordings import BEHAVIOURS, CONFIG, SPLITS, Episode, Recording, open_recording
from mop.base.configuration import Parser, check_flags, choice, integer, optional, text
from mop.base.errors import InputError
from mop.pages.export import Export, save_figure
from mop.pages.figures import Drawing, chosen, save_figures
from mop.pages.flags import parse, saving_parser
from mop.pages.view import View
from mop.plotting.style import counted, expert_names, short_name, task_name
from mop.store.run_keys import PLOTS_DIR

if TYPE_CHECKING:
    from generative.counterfactuals import Edit
    from generative.moments import Cause, Laboratory, Moment
    from generative.targets import Target

APP = "simulator_viz.py"
RECORDINGS_DIR, SIMULATORS_DIR = "recordings", "simulators"
REPOSITORY = Path(__file__).parents[1]
ZOO = "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"
SMALL = {"num_steps": 4000, "name": "UnlockPickup"}  # the recording that the page offers to make
EXACT = "exact"
TAKEN = "taken"  # the target: the action that was taken
OWN, RECORDED = "own", "recorded"
ACTIONS = {"the policy's own": OWN, "as recorded": RECORDED}
PICTURES = {"worlds": views.WORLD, "views": views.VIEW}
ALL = "all"
OUTCOMES = {"succeeded": True, "failed": False}
MAX_HORIZON, MAX_STEPS = 16, 24
_LISTED = 300  # episodes in the menu
_TOP = 6  # things in the figure of causes
_IN_TABLE = 8


# --- recordings and episodes ------------------------------------------------------------------------------------------


def find_recordings(data_dir: str | None) -> dict[str, str]:
    """The recordings that can be shown: name -> folder; the one that is asked for is the first, then those beside it.

    Raises InputError where there is none.
    """
    asked = Path(data_dir or RECORDINGS_DIR)
    root = asked.parent if (asked / CONFIG).is_file() else asked
    found = sorted(path.parent for path in root.glob(f"*/{CONFIG}")) if root.is_dir() else []
    if data_dir is not None and (asked / CONFIG).is_file():
        found = [asked, *(path for path in found if path != asked)]
    if not found:
        raise InputError(
            f"there is no recording under {asked}/: `python -m generative.record --checkpoint {ZOO} "
            f"--num_steps {SMALL['num_steps']} --data_dir {RECORDINGS_DIR}/{SMALL['name']}` makes a small one"
        )
    return {path.name: path.as_posix() for path in found}


def record_small(data_dir: str | None) -> str:
    """Make the small recording, in a process of its own; its folder. Raises InputError where that fails."""
    folder = Path(data_dir or RECORDINGS_DIR) / SMALL["name"]
    flags = ["--checkpoint", REPOSITORY / ZOO, "--num_steps", SMALL["num_steps"], "--data_dir", folder.absolute()]
    again = ["--resume"] if (folder / CONFIG).is_file() else []
    result = subprocess.run(
        [sys.executable, "-m", "generative.record", *map(str, flags), *again], cwd=Path.cwd(), check=False,
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    if result.returncode:
        raise InputError(result.stderr.strip().splitlines()[-1].removeprefix("error: "))
    return folder.as_posix()


@dataclass(frozen=True)
class Filter:
    """Which episodes are listed."""

    split: str = ALL
    behaviour: str = ALL
    outcome: str = ALL
    least_steps: int = 1


def list_episodes(recording: Recording, wanted: Filter) -> np.ndarray:
    """The numbers of the episodes that pass a filter."""
    found = recording.episodes(
        None if wanted.split == ALL else wanted.split, None if wanted.behaviour == ALL else [wanted.behaviour]
    )
    index = recording.index
    passes = index["num_rows"][found] > wanted.least_steps
    if wanted.outcome != ALL:
        passes &= index["success"][found] == OUTCOMES[wanted.outcome]
    return found[passes]


def first_episode(recording: Recording, listed: np.ndarray) -> int:
    """The first to be shown of some: one in which the policy acts by its argmax, in a world of the test split."""
    index = recording.index
    argmax, test = BEHAVIOURS.index("argmax"), SPLITS.index("test")
    score = 2 * (index["behaviour"][listed] == argmax) + (index["split"][listed] == test)
    return int(listed[score.argmax()])


def episode_labels(recording: Recording, listed: np.ndarray, always: int) -> dict[str, int]:
    """What the first of some episodes are called, and one that is always among them -> their numbers."""
    labels, index = {}, recording.index
    for k in dict.fromkeys([*listed[:_LISTED].tolist(), always]):
        steps, success = counted(int(index["num_rows"][k]) - 1, "step"), index["success"][k]
        behaviour, mission = BEHAVIOURS[index["behaviour"][k]], recording.missions[index["mission"][k]]
        labels[f"{k}: {behaviour}, {steps}, {'success' if success else 'failed'} · {mission}"] = k
    return labels


def num_steps_of(episode: Episode) -> int:
    """The number of actions of an episode; its steps are 0, 1, ... below that."""
    return len(episode["action"]) - 1


def first_step(episode: Episode) -> int:
    """The step that is shown first: the one on which the policy spends most, of those with some steps before them."""
    num_steps = num_steps_of(episode)
    after = min(4, num_steps - 1)
    return after + int(np.argmax(episode["lpc"][after:num_steps]))


def find_simulators(asked: str | None) -> dict[str, str]:
    """What a page offers: name -> folder of a simulator, EXACT first."""
    folders = sorted(path.parent.as_posix() for path in Path(SIMULATORS_DIR).glob("*/checkpoint_final.pt"))
    folders = [*([asked] if asked not in (None, EXACT, *folders) else []), *folders]
    return {"exact (Minigrid's rules)": EXACT} | {f"learned: {Path(folder).name}": folder for folder in folders}


# --- what is chosen ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choices:
    """What a page or a script shows of a recording; the words are those of the flags and of the address."""

    episode: int
    step: int
    target: str = TAKEN
    horizon: int = 6
    since: str = RECORDED  # what is done between a cause and the target
    simulator: str = EXACT
    num_sim_steps: int = 8
    actions: str = OWN  # what is done in a future
    edit: str = ""  # "" for the first
    pictures: str = views.WORLD

    @property
    def flags(self) -> list[str]:
        """The flags that choose the same again."""
        words = ["--episode", str(self.episode), "--step", str(self.step)]
        for name, default in _DEFAULTS.items():
            if getattr(self, name) != default:
                words += [f"--{name}", str(getattr(self, name))]
        return words


_DEFAULTS = {
    name: field.default for name, field in Choices.__dataclass_fields__.items() if name not in ("episode", "step")
}


class Exhibit:
    """A moment of a recording with all that is shown of it; what is slow is computed when it is asked for."""

    def __init__(self, recording: Recording, choices: Choices, checkpoint: str | None = None):
        """checkpoint: of the policy, where it was moved. Raises InputError where there is no such episode or step."""
        if not 0 <= choices.episode < len(recording):
            raise InputError(f"{recording.folder} has the episodes 0 to {len(recording) - 1}, no {choices.episode}")
        self.recording, self.choices, self.episode = recording, choices, recording.episode(choices.episode)
        last = num_steps_of(self.episode) - 1
        if not 0 <= choices.step <= last:
            raise InputError(f"episode {choices.episode} has the steps 0 to {last}, no {choices.step}")
        self._checkpoint = checkpoint
        self.sizes = recording.config["encoding"]["expert_hidden_sizes"]

    @property
    def name(self) -> str:
        """What the moment is called, in labels."""
        return f"{self.recording.folder.name}: episode {self.choices.episode}, step {self.choices.step}"

    @property
    def title(self) -> str:
        """The same for a figure."""
        task = task_name(self.recording.config["encoding"]["task_id"])
        parts = [task, f"episode {self.choices.episode}", f"step {self.choices.step} of {num_steps_of(self.episode)}"]
        return ", ".join(parts)

    @property
    def target_word(self) -> str:
        """The target as `generative.targets` reads it."""
        if self.choices.target != TAKEN:
            return self.choices.target
        return f"action:{Actions(int(self.episode['action'][self.choices.step])).name}"

    @functools.cached_property
    def laboratory(self) -> "Laboratory":
        """Policy and simulator."""
        return _laboratory(self.recording, self.choices.simulator, self._checkpoint)

    @functools.cached_property
    def target(self) -> "Target":
        """What is to be explained, and followed into the future."""
        from generative.targets import parse_target

        return parse_target(self.target_word, self.laboratory.policy)

    def moment(self, actions: str) -> "Moment":
        """The moment, with these actions before or after it."""
        return _moment(self.laboratory, self.choices.episode, self.choices.step, actions)

    @functools.cached_property
    def causes(self) -> list["Cause"]:
        """What each thing contributes to the target, up to `horizon` steps before."""
        return _causes(self.moment(self.choices.since), self.target_word, self.choices.horizon)

    @functools.cached_property
    def edits(self) -> dict[str, "Edit"]:
        """Every edit that can be made here, by its word."""
        from generative.moments import edit_words

        return edit_words(self.moment(self.choices.actions).edits)

    @property
    def edit_word(self) -> str:
        """The word of the chosen edit. Raises InputError where it cannot be made here."""
        if self.choices.edit and self.choices.edit not in self.edits:
            raise InputError(f"{self.choices.edit!r} cannot be edited at {self.name}; there are {_some(self.edits)}")
        return self.choices.edit or next(iter(self.edits))

    @property
    def edit(self) -> "Edit":
        """The chosen edit. Raises InputError as `edit_word`."""
        return self.edits[self.edit_word]

    def futures(self, is_edited: bool) -> tuple[views.Rows, views.Rows]:
        """What really comes, and what the simulator says."""
        edit = self.edit if is_edited else None
        return _futures(self.moment(self.choices.actions), edit, self.choices.num_sim_steps)

    @property
    def agreement(self) -> views.Agreement:
        """How the simulator agrees with what really comes."""
        return views.compare(*self.futures(False))


@functools.lru_cache(maxsize=4)
def _laboratory(recording: Recording, simulator: str, checkpoint: str | None) -> "Laboratory":
    import torch

    from generative.moments import Laboratory

    torch.set_num_threads(1)  # matrices are small: more threads wait for each other
    return Laboratory(recording, simulator, checkpoint)


@functools.lru_cache(maxsize=16)
def _moment(laboratory: "Laboratory", k: int, step: int, actions: str) -> "Moment":
    from generative.moments import Moment

    return Moment(laboratory, laboratory.recording.episode(k), step, actions == RECORDED)


@functools.lru_cache(maxsize=64)
def _causes(moment: "Moment", target: str, horizon: int) -> list["Cause"]:
    from generative.targets import parse_target

    return moment.causes(parse_target(target, moment.policy), horizon)


@functools.lru_cache(maxsize=64)
def _futures(moment: "Moment", edit: "Edit | None", num_steps: int) -> tuple[views.Rows, views.Rows]:
    (real,), (simulated,) = moment.real_futures([edit], num_steps), moment.simulated_futures([edit], num_steps)
    return real, simulated


@functools.lru_cache(maxsize=64)
def _predicted(moment: "Moment", edit: "Edit", target: str, num_steps: int) -> np.ndarray:
    from generative.targets import parse_target

    return moment.predicted(edit, parse_target(target, moment.policy), num_steps)


# --- menus ------------------------------------------------------------------------------------------------------------


def target_names(sizes: views.Sizes, asked: str = TAKEN) -> dict[str, str]:
    """What a target is called in a menu -> its word; asked: one that is in the menu in any case."""
    names = {"the action that was taken": TAKEN}
    names |= {f"action: {action.name}": f"action:{action.name}" for action in Actions}
    experts = expert_names({"expert_hidden_sizes": sizes}, [np.zeros(len(of_layer)) for of_layer in sizes])
    for layer, of_layer in enumerate(experts):
        for expert, name in enumerate(of_layer if len(of_layer) > 1 else []):
            names[f"layer {layer}: weight of {short_name(name)}"] = f"routing:{layer}.{expert}"
    names |= {"LPC": "lpc", "entropy of the routers": "entropy"}
    return names if asked in names.values() else names | {asked: asked}


def cell_names(exhibit: Exhibit) -> dict[str, str]:
    """What can be edited, nearest things first, then free floor -> "x,y"."""
    moment, names = exhibit.moment(exhibit.choices.actions), {}
    for word, edit in exhibit.edits.items():
        cell = word.split(":")[0]
        names.setdefault(cell, f"{moment.cell_name(edit)} ({cell})")
    return {name: cell for cell, name in names.items()}


def change_names(exhibit: Exhibit, cell: str) -> dict[str, str]:
    """What can be done with a cell, in words -> the second half of the word of the edit."""
    from generative.moments import describe_edit

    parts = {word: word.split(":") for word in exhibit.edits}
    return {describe_edit(exhibit.edits[word]): change for word, (place, change) in parts.items() if place == cell}


# --- figures ----------------------------------------------------------------------------------------------------------


def draw_now(exhibit: Exhibit) -> Figure:
    """`plot_now` of the moment."""
    episode, step = exhibit.episode, exhibit.choices.step
    outcome = "success" if episode.success else "failed"
    title = f"{exhibit.title} · {episode.behaviour}, {outcome} · {episode.mission}"
    return views.plot_now(episode, step, exhibit.sizes, title)


def draw_why(exhibit: Exhibit) -> Figure:
    """`plot_causes` of the target. Raises InputError where there is nothing to be a cause."""
    causes, num_lags = exhibit.causes, min(exhibit.choices.horizon, exhibit.choices.step) + 1
    if not causes:
        raise InputError("nothing but floor and walls was there: no cause to name")
    sums = {path: np.zeros(num_lags) for path in views.PATH_HUES}
    for cause in causes:
        for path, value in cause.by_path.items():
            sums[path][cause.lag] += value
    since = "actions as recorded" if exhibit.choices.since == RECORDED else "the policy acts"
    title = f"{exhibit.title}: what contributes to {exhibit.target_word} · {simulator_name(exhibit)}, {since}"
    rows = rows_of(causes, num_lags)[:_TOP]
    return views.plot_causes(exhibit.episode, exhibit.choices.step, sums, rows, exhibit.target_word, title)


def rows_of(causes: Sequence["Cause"], num_lags: int) -> list[views.Row]:
    """A row for each thing, that with the largest contribution at any step first."""
    from generative.causes import thing_name

    totals: dict[object, np.ndarray] = {}
    names: dict[object, str] = {}
    for cause in causes:
        totals.setdefault(cause.key, np.full(num_lags, np.nan))
        before = totals[cause.key][cause.lag]
        totals[cause.key][cause.lag] = cause.total + (0.0 if np.isnan(before) else before)
        names.setdefault(cause.key, " ".join(thing_name(cause.thing.code).split()[-2:]))
    order = sorted(totals, key=lambda key: -np.nanmax(np.abs(totals[key])))
    alike = {key: [other for other in order if names[other] == names[key]] for key in order}
    return [
        views.Row(names[key] + (f" {chr(97 + alike[key].index(key))}" if len(alike[key]) > 1 else ""), totals[key])
        for key in order
    ]


def draw_imagined(exhibit: Exhibit) -> Figure:
    """`plot_imagined` of the moment."""
    title = f"{exhibit.title}: {simulator_name(exhibit)} beside the truth, {_acting(exhibit)}"
    return views.plot_imagined(*exhibit.futures(False), exhibit.choices.step, exhibit.sizes, title)


def draw_edited(exhibit: Exhibit) -> Figure:
    """`plot_futures` of the moment and of its edit."""
    title = f"{exhibit.title}: {edit_name(exhibit)} · {simulator_name(exhibit)}, {_acting(exhibit)}"
    return views.plot_futures(
        all_futures(exhibit), exhibit.choices.step, exhibit.sizes, exhibit.choices.pictures, title
    )


def draw_effect(exhibit: Exhibit) -> Figure:
    """`plot_effect` of the edit."""
    moment = exhibit.moment(exhibit.choices.actions)
    values = {name: moment.values(rows, exhibit.target) for name, rows in all_futures(exhibit).items()}
    title = f"{exhibit.title}: {edit_name(exhibit)}"
    return views.plot_effect(values, changes_of(exhibit), exhibit.choices.step, exhibit.target_word, title)


def all_futures(exhibit: Exhibit) -> dict[str, views.Rows]:
    """The four of `views.FUTURES`."""
    real, simulated = exhibit.futures(False)
    real_edited, simulated_edited = exhibit.futures(True)
    return dict(zip(views.FUTURES, (real, real_edited, simulated, simulated_edited), strict=True))


def changes_of(exhibit: Exhibit) -> dict[str, np.ndarray]:
    """What the edit does to the target, step by step: of `views.EFFECTS`, (T,) each."""
    moment = exhibit.moment(exhibit.choices.actions)
    values = {name: moment.values(rows, exhibit.target) for name, rows in all_futures(exhibit).items()}
    return {
        views.MEASURED: _difference(values["real_edited"], values["real"]),
        views.SIMULATED: _difference(values["simulated_edited"], values["simulated"]),
        views.PREDICTED: _predicted(moment, exhibit.edit, exhibit.target_word, exhibit.choices.num_sim_steps),
    }


def _difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    num_steps = min(len(one), len(other))
    return one[:num_steps] - other[:num_steps]


def edit_name(exhibit: Exhibit) -> str:
    """The edit in words, with its place."""
    from generative.moments import describe_edit

    edit, moment = exhibit.edit, exhibit.moment(exhibit.choices.actions)
    return f"{describe_edit(edit)}, {moment.cell_name(edit).split(', ')[-1]}"


def simulator_name(exhibit: Exhibit) -> str:
    """What the simulator is called."""
    simulator = exhibit.choices.simulator
    return "exact simulator" if simulator == EXACT else f"simulator {Path(simulator).name}"


def _acting(exhibit: Exhibit) -> str:
    return "the policy acts" if exhibit.choices.actions == OWN else "actions as recorded"


FIGURES = {  # name -> what it shows, what draws it
    "now": (
        "The moment: world, view, probabilities of the actions, router weights, and LPC over the episode",
        draw_now,
    ),
    "why": (
        "What the things of earlier steps contribute to the target: minus the predicted effect of their absence, by "
        "path (integrated gradients; docs/generative.md), walls left out",
        draw_why,
    ),
    "imagined": (
        "What the simulator shows from this step on, below what really came; wrong cells are framed",
        draw_imagined,
    ),
    "edited": ("Real and simulated futures of this step, as it was and after the edit", draw_edited),
    "effect": (
        "The target over the steps after this one, with and without the edit, and the change it makes",
        draw_effect,
    ),
}


def drawings(exhibit: Exhibit) -> dict[str, Drawing]:
    """Every figure of the moment, by name."""
    return {name: Drawing(about, functools.partial(draw, exhibit)) for name, (about, draw) in FIGURES.items()}


def label_of(exhibit: Exhibit, name: str) -> str:
    """What a figure shows, for readers that cannot see it."""
    more = {"why": f" {exhibit.target_word}", "edited": " {0}", "effect": " {0} on " + exhibit.target_word}
    word = exhibit.edit_word if name in ("edited", "effect") else ""
    return f"{exhibit.name}: {name}{more.get(name, '').format(word)}"


# --- in words ---------------------------------------------------------------------------------------------------------


def facts(exhibit: Exhibit) -> list[tuple[str, str, str]]:
    """How the simulator agrees with the truth: value, name, remark."""
    found = exhibit.agreement
    if not found.num_steps:
        return [("0 steps", "to compare", "the episode ends here")]
    return [
        (f"{found.cells:.1%}", "cells right", f"if nothing changed: {found.copied_cells:.1%}"),
        (f"{found.views:.0%}", "views right", f"of {counted(found.num_steps, 'step')}"),
        (f"{found.actions:.0%}", "same action", "by the policy"),
        (f"{found.routing:.3f}", "router weights", "mean difference"),
        (f"{found.lpc:,.0f}", "LPC", "mean difference"),
    ]


def causes_table(exhibit: Exhibit, view: View) -> str:
    """The largest causes as a table in HTML; a thing that can be taken away links to the future without it."""
    causes = sorted(exhibit.causes, key=lambda cause: -abs(cause.total))[:_IN_TABLE]
    paths = [*views.PATH_WORDS.values()]
    head = "".join(
        f"<th>{html.escape(word)}</th>" for word in ["steps before", "what was there", "contributes", *paths, ""]
    )
    lines = []
    for cause in causes:
        numbers = "".join(
            f'<td style="text-align: right">{_signed(cause.by_path[path])}</td>' for path in views.PATH_WORDS
        )
        address = link_without(exhibit, view, cause)
        link = f'<a href="{html.escape(address)}">without it</a>' if address else ""
        lines.append(
            f'<tr><td style="text-align: right">{cause.lag or "now"}</td><td>{html.escape(str(cause.thing))}</td>'
            f'<td style="text-align: right"><b>{_signed(cause.total)}</b></td>{numbers}<td>{link}</td></tr>'
        )
    return f'<table class="causes"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def link_without(exhibit: Exhibit, view: View, cause: "Cause") -> str:
    """The address of the future in which a thing was not there, up to the moment that is shown; "" where it must be."""
    from generative.exact import PORTABLE

    thing, choices = cause.thing, exhibit.choices
    if thing.code[0] not in PORTABLE or choices.simulator != EXACT:
        return ""
    asked = {
        **{"recording": exhibit.recording.folder.name, "episode": choices.episode, "step": choices.step - cause.lag},
        **{"tab": "Edit", "cell": f"{thing.x},{thing.y}", "change": "remove", "target": exhibit.target_word},
        **{"steps": max(1, cause.lag), "actions": choices.since},
    }
    return "?" + urlencode({**view.words, **asked}, safe=",:/")


def link_to_moment(exhibit: Exhibit, view: View):
    """For `show_figure`: from a step to that step, from a thing in the world to its edit."""

    def address(values: Mapping) -> str:
        kept = {**view.words, "recording": exhibit.recording.folder.name, "episode": exhibit.choices.episode}
        if "lpc" in values and values["step"] < num_steps_of(exhibit.episode):
            return "?" + urlencode({**kept, "step": values["step"]}, safe=",:/")
        if {"x", "y"} <= values.keys() and values["can_be_edited"]:
            here = {"step": exhibit.choices.step, "tab": "Edit", "cell": f"{values['x']},{values['y']}"}
            kept.pop("change", None)
            return "?" + urlencode({**kept, **here}, safe=",:/")
        return ""

    return address


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _some(words: Mapping[str, object]) -> str:
    shown = [*words][:12]
    return ", ".join(shown) + (f" and {len(words) - len(shown)} more" if len(words) > len(shown) else "")


# --- flags and files --------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line of the app."""
    added = saving_parser(
        "Why a policy did what it did at a step of a recorded episode, what a simulator imagines from there, and what an "
        f"edit of the world changes. `marimo run {APP} -- --data_dir {RECORDINGS_DIR}/{SMALL['name']}` opens the app; as "
        "a script, it saves its figures to plots/generative/<recording>/ and prints their paths."
    )
    add = added.add_argument
    add("--data_dir", help=f"a recording, or a folder of some (default: {RECORDINGS_DIR})")
    add("--episode", help="begin with this episode (default: one by argmax)")
    add("--step", help="... at this step (default: where LPC is largest)")
    add(
        "--target",
        default=TAKEN,
        help="what is explained: action:forward, routing:2.1, lpc, entropy (default: %(default)s)",
    )
    add("--horizon", default=_DEFAULTS["horizon"], help="steps back at most (default: %(default)s)")
    add("--since", default=_DEFAULTS["since"], help="what is done between: own, recorded (default: %(default)s)")
    add("--simulator", default=EXACT, help="exact, or the folder of a learned one (default: %(default)s)")
    add("--num_sim_steps", default=_DEFAULTS["num_sim_steps"], help="steps ahead (default: %(default)s)")
    add("--actions", default=_DEFAULTS["actions"], help="what is done ahead: own, recorded (default: %(default)s)")
    add("--edit", default="", help="such as 3,4:remove, 3,4:blue, 3,4:ball, 3,4:open, 3,4:red_key (default: the first)")
    add("--pictures", default=views.WORLD, help="of futures: world, view (default: %(default)s)")
    add("--checkpoint", help="the policy of the recording, where it was moved")
    return added


def checked(parser: Parser) -> Namespace:
    """The flags of this process. Raises InputError naming a wrong one."""
    args = parse(parser)
    check_flags(
        args,
        episode=optional(integer(0)),
        step=optional(integer(0)),
        target=text,
        horizon=integer(0, MAX_HORIZON),
        since=choice(OWN, RECORDED),
        simulator=text,
        num_sim_steps=integer(1, MAX_STEPS),
        actions=choice(OWN, RECORDED),
        pictures=choice(views.WORLD, views.VIEW),
    )
    return args


def exhibit_of(args: Namespace) -> Exhibit:
    """What the flags ask for. Raises InputError where it is not there."""
    recording = open_recording(next(iter(find_recordings(args.data_dir).values())))
    k = args.episode if args.episode is not None else first_episode(recording, recording.episodes())
    asked = {name: getattr(args, name) for name in _DEFAULTS}
    exhibit = Exhibit(recording, Choices(k, 0, **asked), args.checkpoint)
    step = args.step if args.step is not None else first_step(exhibit.episode)
    return Exhibit(recording, replace(exhibit.choices, step=step), args.checkpoint)


def folder_of(args: Namespace, exhibit: Exhibit) -> Path:
    """Where the figures of a recording go."""
    return Path(args.plots_dir) / "generative" / exhibit.recording.folder.name


def file_of(exhibit: Exhibit, name: str) -> str:
    """What the files of a figure are called: other moments, targets and edits are other files."""
    parts = [name, f"episode_{exhibit.choices.episode}", f"step_{exhibit.choices.step}"]
    parts += [exhibit.target_word] if name in ("why", "effect") else []
    parts += [exhibit.edit_word] if name in ("edited", "effect") else []
    return "_".join(parts).replace(":", "_").replace(",", "_")


def caption_of(args: Namespace, exhibit: Exhibit, name: str, export: Export) -> str:
    """The caption of a figure, in lines; the last one is what makes it again."""
    recording, episode, choices = exhibit.recording, exhibit.episode, exhibit.choices
    words = ["python", APP, "--data_dir", recording.folder.as_posix(), *choices.flags, "--only", name, *export.flags]
    words += [] if args.plots_dir == PLOTS_DIR else ["--plots_dir", args.plots_dir]
    words += [] if args.checkpoint is None else ["--checkpoint", args.checkpoint]
    checkpoint = recording.config["checkpoint"]
    outcome = "success" if episode.success else "failed"
    lines = [
        f"{FIGURES[name][0]}.",
        f"Episode: {choices.episode} of {recording.folder.name}, world {episode.seed} ({episode.split}), "
        f"{episode.behaviour}, {counted(num_steps_of(episode), 'step')}, {outcome}; mission: {episode.mission}.",
        f"Policy: {checkpoint['path']}, its SHA-256 begins with {checkpoint['sha256'][:16]}.",
    ]
    if name != "now":
        lines.append(f"Simulator: {choices.simulator}; target: {exhibit.target_word}.")
    if name in ("edited", "effect"):
        lines.append(f"Edit: {edit_name(exhibit)} ({exhibit.edit_word}).")
    return "\n".join([*lines, f"Command: {shlex.join(words)}"])


def save(args: Namespace, exhibit: Exhibit, name: str, export: Export) -> Path:
    """Save a figure with numbers and caption; the path of its picture. Raises InputError, OSError."""
    caption = caption_of(args, exhibit, name, export)
    return save_figure(drawings(exhibit)[name](), folder_of(args, exhibit), file_of(exhibit, name), export, caption)


def save_as_script(parser: Parser) -> None:
    """The app as a script: save every figure of a moment, or those that --only names.

    Raises InputError if a flag is wrong, there is no such moment, or no figure can be drawn.
    """
    args = checked(parser)
    exhibit, export = exhibit_of(args), Export(args.format, args.width)
    wanted = chosen(drawings(exhibit), args.only)
    names = {file_of(exhibit, name): name for name in wanted}
    save_figures(
        {file: wanted[name] for file, name in names.items()},
        folder_of(args, exhibit),
        export,
        lambda file: caption_of(args, exhibit, names[file], export),
    )
