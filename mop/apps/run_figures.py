"""The figures of one run: which there are, and the page of them."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.groups import GROUPINGS, get_available_analyses, group_routing_data
from mop.analysis.routing_data import checked_weights
from mop.apps.example_worlds import example_images
from mop.apps.flags import ABSOLUTE, ALL_STEPS, RELATIVE, RunSettings
from mop.apps.runs import Run, choose_run, evaluate_now, find_runs, load_routing, other_checkpoint
from mop.apps.template import Page, PageFigure
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.cli import as_flags, changes_of
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.plotting import bars
from mop.plotting.curves import plot_episode_routing, plot_routing_over_progress
from mop.plotting.maps import plot_map
from mop.plotting.measures import DOMINANT, MEASURES, Measure, experts_of
from mop.plotting.style import counted, expert_names, short_name
from mop.statistics.information import entropy_nats

_SAVED = (DOMINANT, "LPC")  # maps that a script saves by every analysis; others only where --only names them
ACTION_MAPS = ("action entropy", "action probabilities")
_CELL = "cell"
AND = " & "  # of several selections together
_ROUNDED = 1e-4  # by which the ends of an interval may be off
# those of a menu; a click on a group selects by any of GROUPINGS
_SELECTIONS = ("by_action", "by_carrying", "by_key_phase", "by_subgoal", "by_instruction", "by_outcome")
_TITLES = {grouping.title: name for name, grouping in GROUPINGS.items() if name != "overall"}
MAPS, ACTIONS = "Spatial", "Actions"  # tabs
CHARTS = {  # tab -> name of the file, figure, what it shows
    "Near objects": (
        "routing_near_objects",
        bars.plot_routing_near_objects,
        "Router weights against the walking distance to the nearest door, key and target at the start.",
    ),
    "Temporal": (
        "routing_over_progress",
        plot_routing_over_progress,
        "Mean router weights from the first to the last step of an episode, with 95 % bands over episodes.",
    ),
    "Distributions": (
        "routing_distributions",
        bars.plot_routing_distributions,
        "How the weights of each expert and the entropy of each router are distributed over the steps. "
        "Click a bin to see its steps alone: of a weight, those of the expert with most of them.",
    ),
    "Specialisation": (
        "specialisation",
        bars.plot_specialisation,
        "Which expert carries which action, phase and outcome: mean weights, with the number of steps. "
        "Click a row to see its steps alone, in every figure.",
    ),
    "Pathways": (
        "pathways",
        bars.plot_pathways,
        "The combinations of dominant experts over the layers, and which follows which in the next step.",
    ),
    "Variance": (
        "variance_explained",
        bars.plot_variance_explained,
        "How much of the variance of LPC place, action, phase and time explain, alone and together.",
    ),
}
NO_ROUTERS = "this is the GRU baseline: it has one expert and no router, so nothing is routed"


def tabs_about(data: RoutingData) -> dict[str, str]:
    """The tabs of figures -> what each shows."""
    charts = {name: about for name, (*_, about) in CHARTS.items()} if has_routing(data) else {}
    return {
        MAPS: "A number of the steps in each cell of the grid, over worlds in which things lie elsewhere. "
        "Click a cell to see its steps alone, in every figure.",
        ACTIONS: "How often each action was chosen. Click an action to see its steps alone, in every figure.",
        **charts,
    }


def figure_name(tab: str, chosen: Mapping[str, Any]) -> str:
    """The name of the figure of a tab; chosen: of `run_controls.FigureControls`."""
    if tab == MAPS:
        return map_name(chosen["map"], chosen["analysis"], int(chosen["expert"]))
    return grouped_name("action_frequency", chosen["analysis"]) if tab == ACTIONS else CHARTS[tab][0]


def grouped_name(name: str, group_by: str) -> str:
    """The name of the figure of all steps ("overall") or of groups of them."""
    return name if group_by == "overall" else f"{name}_{group_by}"


def map_name(measure: str, group_by: str = "overall", expert: int = 0) -> str:
    """The name of the figure of a map."""
    asked = MEASURES[measure]
    return grouped_name(asked.file + (f"_expert_{expert}" if asked.of_expert else ""), group_by)


def maps_of(data: RoutingData) -> list[str]:
    """The maps of a policy: those of routers only where it has some."""
    return [name for name, measure in MEASURES.items() if has_routing(data) or not measure.of_routers]


def map_figures(data: RoutingData, look: dict, measures: Sequence[str]) -> list[PageFigure]:
    """Maps by every analysis; look: keywords of `plot_map`."""
    figures = []
    for measure in measures:
        asked = MEASURES[measure]
        for expert, name in enumerate(experts_of(data) if asked.of_expert else [""]):
            for title, group_by in analyses(data).items():
                words = [asked.about, name, "" if group_by == "overall" else title]
                draw = partial(draw_map, data, measure, group_by, expert, look)
                is_extra = measure not in _SAVED and group_by != "overall"
                file = map_name(measure, group_by, expert)
                figures.append(PageFigure(file, ", ".join(filter(None, words)), draw, is_extra=is_extra))
    return figures


def routing_figures(data: RoutingData, look: dict | None = None) -> list[PageFigure]:
    """The figures of routing_viz: every map by every analysis, every chart, actions, every episode.

    Of a policy without routers there are fewer. look: keywords of maps, such as min_steps.
    """
    figures = map_figures(data, look or {}, maps_of(data))
    if has_routing(data):
        figures += [PageFigure(name, about, partial(plot, data)) for name, plot, about in CHARTS.values()]
    figures += [replace(figure, is_extra=True) for figure in frequency_figures(data)]
    for number, episode in enumerate(np.unique(data.steps.episode).tolist()):
        about = f"The router weights of each layer over episode {episode}"
        draw = partial(plot_episode_routing, data, episode)
        figures.append(PageFigure(f"episode_{episode}", about, draw, is_extra=number > 0))
    return figures


def action_figures(data: RoutingData, look: dict | None = None) -> list[PageFigure]:
    """The figures of logit_viz: how often each action was chosen, by every analysis, and maps of the actions."""
    return frequency_figures(data) + map_figures(data, look or {}, ACTION_MAPS)


def frequency_figures(data: RoutingData) -> list[PageFigure]:
    """How often each action was chosen, by every analysis."""
    figures = []
    for title, group_by in analyses(data).items():
        about = "How often each action was chosen" + ("" if group_by == "overall" else f", {title}")
        draw = partial(bars.plot_action_frequency, data, group_by)
        figures.append(PageFigure(grouped_name("action_frequency", group_by), about, draw))
    return figures


def draw_map(data: RoutingData, measure: str, group_by: str, expert: int, look: dict) -> Figure:
    """`plot_map` with pictures of first worlds."""
    return plot_map(data, measure, group_by, example_images(data, group_by), expert, **look)


def analyses(data: RoutingData) -> dict[str, str]:
    """The analyses that the data supports: label on a page -> its name in GROUPINGS.

    Those by the bot's phases are there for older caches too: their figures say what is missing and how to get it.
    """
    data = data if data.whole is None else data.whole  # a page of one action has the same menu
    names = get_available_analyses(data)
    names += [f"by_{phase}" for phase in ("subgoal", "instruction") if getattr(data.steps, phase) is None]
    return {"overall" if name == "overall" else f"by {GROUPINGS[name].title}": name for name in names}


def has_routing(data: RoutingData) -> bool:
    """Whether there is anything to route: not in the GRU baseline, whose only expert has all the weight."""
    layers = data.steps.layer_routing
    return layers is None or any(weights.shape[1] > 1 for weights in layers)


def selections(data: RoutingData) -> dict[str, int]:
    """The parts of the steps that a page can show alone, "action: forward", ... -> how many steps each has."""
    counts = {ALL_STEPS: len(data.steps)}
    for name in _SELECTIONS:
        try:
            groups = group_routing_data(data, name)
        except InputError:  # what it needs is not there
            continue
        if len(groups) > 1:
            labels = (f"{groups.grouping.title}: {label}" for label in groups.labels)
            counts |= dict(zip(labels, groups.counts.tolist(), strict=True))
    return counts


def words_of(values: Mapping) -> str:
    """The words of the steps behind a text of a figure, as `part_of` takes them; values: its numbers. "" for none."""
    for measure in ("weight", "entropy"):
        if f"{measure} from" in values:
            layer, low, high, *names = values
            what = max(names, key=values.__getitem__)  # the expert with most steps in this bin
            name = what if measure == "weight" else measure
            words = f"layer {values[layer]}, {name}: {values[low]:.5g} to {values[high]:.5g}"
            return words if values[what] else ""
    words = [f"{values['grouping']}: {values['group']}"] if values.get("grouping") in _TITLES else []
    words += [f"{_CELL}: {values['x']}, {values['y']}"] if "x" in values else []
    words += [f"action: {values['action']}"] if "action" in values else []
    return AND.join(words) if values.get("share", 1) else ""


def part_of(data: RoutingData, selection: str | None) -> RoutingData:
    """The data, or a part of its steps: those of a group ("action: forward"), those in a cell ("cell: 3, 4"), those in
    which the weight of an expert or the entropy of a router is in an interval ("layer 0, GRU 16: 0.2 to 0.24"); AND
    joins several.
    """
    for words in [] if selection in (None, ALL_STEPS) else selection.split(AND):
        title, _, label = words.partition(": ")
        try:
            mask = _mask_of(data, title, label)
        except (KeyError, ValueError):
            known = ", ".join(repr(word) for word in selections(data))
            raise InputError(f"--steps {words!r}: there are {known}, and such as {_CELL}: 3, 4") from None
        data = data.where(mask, words)
    return data


def _mask_of(data: RoutingData, title: str, label: str) -> np.ndarray:
    """The steps (S,) bool of `part_of`. Raises KeyError or ValueError for words that name none."""
    if title == _CELL:
        x, y = map(int, label.split(", "))
        return (data.column("position") == (x, y)).all(-1)
    if found := re.fullmatch(r"layer (\d+), (.+)", title):
        low, high = map(float, label.split(" to "))
        values = _measured(data, int(found[1]))[found[2]]
        is_last = high > values.max() - _ROUNDED  # the last bin has its upper end
        return (values >= low) & ((values < high) | is_last)
    groups = group_routing_data(data, _TITLES[title])
    return groups.mask(groups.labels.index(label))


def _measured(data: RoutingData, layer: int) -> dict[str, np.ndarray]:
    """What *Distributions* shows of a layer (S,): the weight of each expert, and the entropy."""
    layers = checked_weights(data.steps)
    if layer >= len(layers):
        raise KeyError(layer)
    names = map(short_name, expert_names(data.header, layers)[layer])
    return dict(zip(names, layers[layer].T, strict=True)) | {"entropy": entropy_nats(layers[layer])}


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """The data that a page or a script shows: a run, and a part of its steps."""

    run: Run
    num_fresh: int | None = None  # episodes of a fresh evaluation; None: its routing cache
    steps: str = ALL_STEPS  # of `selections`
    min_steps: int = 1  # of a cell
    scale: str = RELATIVE  # of SCALES

    @classmethod
    def of(cls, run: Run, num_fresh: int | None, chosen: Mapping[str, Any], measure: Measure | None) -> "Shown":
        """What `run_controls.figure_controls` ask for; measure: of a map, None of a chart, which has no cells."""
        least = int(chosen["min_steps"] or 1) if measure else 1
        scale = chosen["scale"] if measure and measure.parts else RELATIVE
        return cls(run, num_fresh, chosen["steps"], least, scale)

    @property
    def part(self) -> str:
        """Suffix of file names: figures of other parts of the data are other files."""
        steps = "" if self.steps == ALL_STEPS else re.sub(r"[^\w.]+", "_", self.steps)
        words = [steps, "" if self.min_steps == 1 else f"min_{self.min_steps}_steps"]
        words += ["" if self.scale == RELATIVE else self.scale]
        return "".join(f"_{word}" for word in words if word)

    @property
    def look(self) -> dict:
        """Keywords of the maps."""
        return {"min_steps": self.min_steps, "is_absolute": self.scale == ABSOLUTE}

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that show the same."""
        words = [*self.run.flags, *self.run.places, *([] if self.num_fresh is None else ["--fresh"])]
        return words + as_flags({"num_episodes": self.num_fresh} | changes_of(self, ("run", "num_fresh")))


def page_of(
    app: str,
    shown: Shown,
    data: RoutingData,
    figures_of: Callable[[RoutingData, dict], list[PageFigure]],
    plots_dir: str = PLOTS_DIR,
) -> Page:
    """The page of a run. app: its file; data: the steps that are shown; figures_of: `routing_figures`, ..."""
    folder = shown.run.key.artefacts(plots_dir)
    figures = figures_of(data, shown.look)
    return Page(app, shown.flags, folder, figures, lambda name: _describe(shown, data), plots_dir, shown.part)


def save_as_script(app: str, args: RunSettings, figures_of: Callable[..., list[PageFigure]]) -> None:
    """Save the figures of the run of the flags; arguments as `page_of`."""
    run, data = run_of_script(args)
    if not has_routing(data) and figures_of is routing_figures:
        print(f"note: {NO_ROUTERS}", file=sys.stderr)
    shown = Shown(run, args.num_episodes if args.fresh else None, args.steps, args.min_steps, args.scale)
    page_of(app, shown, part_of(data, args.steps), figures_of, args.plots_dir).save_as_script(args)


def run_of_script(args: RunSettings) -> tuple[Run, RoutingData]:
    """The run that the flags ask for, and its routing data."""
    run = choose_run(find_runs(args.checkpoint_dir, args.cache_dir), args)
    if args.fresh:
        return run, evaluate_now(run, args.num_episodes, args.num_envs, lambda num_done: None)
    data = load_routing(run)
    if (note := other_checkpoint(run)) is not None:
        print(f"note: {note}", file=sys.stderr)
    return run, data


def _describe(shown: Shown, data: RoutingData) -> list[str]:
    """The lines of a caption that say which run, evaluation and steps are shown."""
    header, whole = data.header, data if data.whole is None else data.whole
    about = [run_name({**header, "is_final": True})]
    about += [f"update {header['update']}"] if header.get("update") is not None else []
    about += [f"checkpoint {header['checkpoint_path']}"] if header.get("checkpoint_path") else []
    if shown.num_fresh is None or shown.run.checkpoint is None:
        digest, kind = shown.run.result.get("checkpoint_sha256"), "evaluated"
    else:
        digest, kind = file_digest(shown.run.checkpoint), "evaluated for this figure, not kept,"
    about += [] if digest is None else [f"its SHA-256 begins with {digest}"]

    num_worlds = whole.header.get("num_episodes", len(whole.episodes))
    made = [f"{counted(len(whole.steps), 'step')} in {counted(num_worlds, 'world')}"]
    for key, word in (("eval_seed", "eval_seed"), ("minigrid_version", "Minigrid"), ("evaluated_at", kind)):
        made += [f"{word} {whole.header[key]}"] if whole.header.get(key) is not None else []

    steps = shown.steps if shown.steps == ALL_STEPS else f"the {counted(len(data.steps), 'step')} of {shown.steps}"
    steps += "" if shown.min_steps == 1 else f"; in maps, cells with {shown.min_steps} steps or more"
    return [f"Run: {', '.join(about)}.", f"Data: {', '.join(made)}.", f"Shown: {steps}."]
