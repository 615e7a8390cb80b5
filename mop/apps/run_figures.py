"""The figures of one run: which there are, and the page of them."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.actions import hold_action
from mop.analysis.groups import GROUPINGS, get_available_analyses
from mop.apps.episode_records import example_images
from mop.apps.flags import RunSettings
from mop.apps.runs import Run, choose_run, evaluate_now, find_runs, load_routing, other_checkpoint
from mop.apps.template import Page, PageFigure
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.cli import as_flags, changes_of
from mop.common.files import file_digest
from mop.plotting.bars import (
    plot_action_frequency,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_specialisation,
    plot_variance_explained,
)
from mop.plotting.curves import plot_episode_routing, plot_routing_over_progress
from mop.plotting.maps import (
    plot_action_entropy,
    plot_grouped_lpc,
    plot_grouped_routing,
    plot_overall_lpc,
    plot_overall_routing,
)
from mop.plotting.style import counted

TEXT_SHARE = 0.6  # maps for a narrow column are drawn for a page this much wider, which brings 10 points to 6
SCREEN_IN = 12.0  # the widest such page

MAPS = {  # measure -> name of the file, the figure of all steps, the one of groups of them, what it shows
    "dominant expert": (
        "routing_heatmap",
        plot_overall_routing,
        plot_grouped_routing,
        "The dominant expert of each layer, and the mean LPC, in each cell of the grid",
    ),
    "LPC": (
        "lpc_heatmap",
        plot_overall_lpc,
        plot_grouped_lpc,
        "The mean LPC, in total and of each layer, in each cell of the grid",
    ),
}
CHARTS = {  # tab -> name of the file, figure, what it shows
    "Near objects": (
        "routing_near_objects",
        plot_routing_near_objects,
        "Router weights against the walking distance to the nearest door, key and target at the start.",
    ),
    "Temporal": (
        "routing_over_progress",
        plot_routing_over_progress,
        "Mean router weights from the first to the last step of an episode, with 95 % bands over episodes.",
    ),
    "Distributions": (
        "routing_distributions",
        plot_routing_distributions,
        "How the weights of each expert and the entropy of each router are distributed over the steps.",
    ),
    "Specialisation": (
        "specialisation",
        plot_specialisation,
        "Which expert carries which action, phase and outcome: mean weights, with the number of steps.",
    ),
    "Pathways": (
        "pathways",
        plot_pathways,
        "The combinations of dominant experts over the layers, and which follows which in the next step.",
    ),
    "Variance": (
        "variance_explained",
        plot_variance_explained,
        "How much of the variance of LPC place, action, phase and time explain, alone and together.",
    ),
}
NO_ROUTERS = (
    "this is the GRU baseline: it has one expert and no router, so nothing is routed; `logit_viz.py` shows what it does"
)


def grouped_name(name: str, group_by: str) -> str:
    """The name of the figure of all steps ("overall") or of groups of them."""
    return name if group_by == "overall" else f"{name}_{group_by}"


def routing_figures(data: RoutingData, min_steps: int = 1) -> list[PageFigure]:
    """The figures of routing_viz: every map by every analysis, every chart, every episode.

    Of a policy without routers there are the episodes alone. min_steps: cells of maps with fewer steps are left out.
    """
    figures = []
    if has_routing(data):
        for measure, (name, _, _, about) in MAPS.items():
            for title, group_by in analyses(data).items():
                words = about if group_by == "overall" else f"{about}, {title}"
                draw = partial(plot_map, data, measure, group_by, min_steps)
                figures.append(PageFigure(grouped_name(name, group_by), words, draw, fits_width=True))
        figures += [PageFigure(name, about, partial(plot, data)) for name, plot, about in CHARTS.values()]
    for episode in np.unique(data.steps.episode).tolist():
        about = f"The router weights of each layer over episode {episode}"
        draw = partial(plot_episode_routing, data, episode)
        figures.append(PageFigure(f"episode_{episode}", about, draw, is_episode=True))
    return figures


def action_figures(data: RoutingData, min_steps: int = 1) -> list[PageFigure]:
    """The figures of logit_viz: how often each action was chosen, by every analysis, and the policy's entropy."""
    figures = []
    for title, group_by in ({"overall": "overall", "by carrying phase": "by_carrying"} | analyses(data)).items():
        about = "How often each action was chosen" + ("" if group_by == "overall" else f", {title}")
        draw = partial(plot_action_frequency, data, group_by)
        figures.append(PageFigure(grouped_name("action_frequency", group_by), about, draw))
    about = "The mean entropy of the policy's action, in nats, in each cell of the grid"
    draw = partial(plot_entropy, data, min_steps)
    return [*figures, PageFigure("action_entropy_heatmap", about, draw, fits_width=True)]


def plot_map(
    data: RoutingData, measure: str, group_by: str, min_steps: int = 1, width_in: float | None = None
) -> Figure:
    """One of MAPS, with pictures of first worlds."""
    _, plot_overall, plot_grouped, _ = MAPS[measure]
    if group_by != "overall":
        return plot_grouped(data, group_by, example_images(data, group_by), **_look(min_steps, width_in))
    return plot_overall(data, *_first_world(data), **_look(min_steps, width_in))


def plot_entropy(data: RoutingData, min_steps: int = 1, width_in: float | None = None) -> Figure:
    """The entropy of the action in each cell, beside the first world."""
    return plot_action_entropy(data, *_first_world(data), **_look(min_steps, width_in))


def _look(min_steps: int, width_in: float | None) -> dict:
    width_in = None if width_in is None else min(SCREEN_IN, width_in / TEXT_SHARE)
    return {"min_steps": min_steps, "width_in": width_in}


def _first_world(data: RoutingData) -> tuple[np.ndarray | None, str]:
    """The picture of the first world, if there is one, and its mission."""
    return next(iter(example_images(data, "overall").values()), None), data.episodes[0].get("mission", "")


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


def hold(data: RoutingData, action: str | None) -> RoutingData:
    """The data, or its steps of one action alone."""
    return data if action is None else hold_action(data, action)


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """The data that a page or a script shows: a run, and a part of its steps."""

    run: Run
    num_fresh: int | None = None  # episodes of a fresh evaluation; None: its routing cache
    action: str | None = None  # the action of all steps; None: any
    min_steps: int = 1  # of a cell

    @property
    def part(self) -> str:
        """Suffix of file names: figures of other parts of the data are other files."""
        part = "" if self.action is None else f"_{self.action.replace(' ', '_')}"
        return part if self.min_steps == 1 else f"{part}_min_{self.min_steps}_steps"

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that show the same."""
        words = [*self.run.flags, *self.run.places, *([] if self.num_fresh is None else ["--fresh"])]
        return words + as_flags({"num_episodes": self.num_fresh} | changes_of(self, ("run", "num_fresh")))


def page_of(
    app: str,
    shown: Shown,
    data: RoutingData,
    figures_of: Callable[[RoutingData, int], list[PageFigure]],
    plots_dir: str = PLOTS_DIR,
) -> Page:
    """The page of a run. app: its file; data: the steps that are shown; figures_of: `routing_figures`, ..."""
    folder = shown.run.key.artefacts(plots_dir)
    figures = figures_of(data, shown.min_steps)
    return Page(app, shown.flags, folder, figures, lambda name: _describe(shown, data), plots_dir, shown.part)


def save_as_script(app: str, args: RunSettings, figures_of: Callable[..., list[PageFigure]]) -> None:
    """Save the figures of the run of the flags; arguments as `page_of`."""
    run, data = run_of_script(args)
    if not has_routing(data) and figures_of is routing_figures:
        print(f"note: {NO_ROUTERS}", file=sys.stderr)
    shown = Shown(run, args.num_episodes if args.fresh else None, args.action, args.min_steps)
    page_of(app, shown, hold(data, args.action), figures_of, args.plots_dir).save_as_script(args)


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

    steps = "all steps"
    if shown.action is not None:
        steps = f"the {counted(len(data.steps), 'step')} with action: {shown.action}"
    steps += "" if shown.min_steps == 1 else f"; in maps, cells with {shown.min_steps} steps or more"
    return [f"Run: {', '.join(about)}.", f"Data: {', '.join(made)}.", f"Shown: {steps}."]
