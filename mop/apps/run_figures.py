"""The figures of one run: which there are, and how a script saves them."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.actions import hold_action
from mop.analysis.groups import GROUPINGS, get_available_analyses
from mop.apps.episode_records import example_images
from mop.apps.export import Export, Shown, caption_of, save_figure
from mop.apps.flags import RunSettings
from mop.apps.runs import Run, choose_run, evaluate_now, find_runs, load_routing, other_checkpoint
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
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

TEXT_SHARE = 0.6  # maps for a narrow column are drawn for a page this much wider, which brings 10 points to 6
SCREEN_IN = 12.0  # the widest such page


class Drawing(NamedTuple):
    """A figure that can be drawn: what it shows, for a caption, and what draws it."""

    about: str
    draw: Callable[[], Figure]

    def __call__(self) -> Figure:
        """Draw it."""
        return self.draw()


Figures = Mapping[str, Callable[[], Figure]]  # name of the file without its ending -> what draws it

MAPS = {  # measure -> name of the file, the figure of all steps, that of groups of them, what it shows
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


def plot_map(
    data: RoutingData,
    measure: str,
    group_by: str,
    images: Mapping[str, np.ndarray],
    min_steps: int = 1,
    width_in: float | None = None,
) -> Figure:
    """One of MAPS; images: of `example_images`; cells with fewer than min_steps steps are left out.

    width_in: the width that the figure will be brought to, None: that of a screen.
    """
    _, plot_overall, plot_grouped, _ = MAPS[measure]
    options = _map_options(min_steps, width_in)
    if group_by != "overall":
        return plot_grouped(data, group_by, images, **options)
    return plot_overall(data, *_first_world(data, images), **options)


def _map_options(min_steps: int, width_in: float | None) -> dict[str, float]:
    """What the functions of maps are told of the cells to leave out and of their width."""
    options = {} if min_steps == 1 else {"min_steps": min_steps}
    return options if width_in is None else options | {"width_in": min(SCREEN_IN, width_in / TEXT_SHARE)}


def analyses(data: RoutingData) -> dict[str, str]:
    """The analyses that the data supports: what each is called on a page -> its name in GROUPINGS.

    Those by the bot's phases are there for older caches too: their figures say what is missing and how to get it.
    """
    names = get_available_analyses(data)
    names += [f"by_{phase}" for phase in ("subgoal", "instruction") if getattr(data.steps, phase) is None]
    return {"overall" if name == "overall" else f"by {GROUPINGS[name].title}": name for name in names}


def has_routing(data: RoutingData) -> bool:
    """Whether there is anything to route: not in the GRU baseline, whose only expert has all the weight."""
    layers = data.steps.layer_routing
    return layers is None or any(weights.shape[1] > 1 for weights in layers)


def routing_figures(data: RoutingData, min_steps: int = 1, width_in: float | None = None) -> dict[str, Drawing]:
    """What routing_viz can save: every map by every analysis, every chart, every episode; min_steps: of `plot_map`.

    Of a policy without routers it is the episodes alone.
    """
    drawings = {}
    if has_routing(data):
        for measure, (name, _, _, about) in MAPS.items():
            for title, group_by in analyses(data).items():
                drawings[grouped_name(name, group_by)] = Drawing(
                    about if group_by == "overall" else f"{about}, {title}",
                    lambda measure=measure, group_by=group_by: plot_map(
                        data, measure, group_by, example_images(data, group_by), min_steps, width_in
                    ),
                )
        for name, plot, about in CHARTS.values():
            drawings[name] = Drawing(about, lambda plot=plot: plot(data))
    for episode in np.unique(data.steps.episode).tolist():
        about = f"The router weights of each layer over episode {episode}"
        drawings[f"episode_{episode}"] = Drawing(about, lambda episode=episode: plot_episode_routing(data, episode))
    return drawings


def action_figures(data: RoutingData, min_steps: int = 1, width_in: float | None = None) -> dict[str, Drawing]:
    """What logit_viz can save: how often each action was chosen, by every analysis, and the entropy of the policy."""
    named = {"overall": "overall", "by carrying phase": "by_carrying"} | analyses(data)
    drawings = {}
    for title, group_by in named.items():
        about = "How often each action was chosen" + ("" if group_by == "overall" else f", {title}")
        drawings[grouped_name("action_frequency", group_by)] = Drawing(
            about, lambda group_by=group_by: plot_action_frequency(data, group_by)
        )
    about = "The mean entropy of the policy's action, in nats, in each cell of the grid"
    return drawings | {"action_entropy_heatmap": Drawing(about, lambda: plot_entropy(data, min_steps, width_in))}


def plot_entropy(data: RoutingData, min_steps: int = 1, width_in: float | None = None) -> Figure:
    """The entropy of the action in each cell, beside the first world; arguments as `plot_map`."""
    images = example_images(data, "overall")
    return plot_action_entropy(data, *_first_world(data, images), **_map_options(min_steps, width_in))


def _first_world(data: RoutingData, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, str]:
    """The picture of the first world, if there is one, and its mission."""
    return next(iter(images.values()), None), data.episodes[0].get("mission", "")


def hold(data: RoutingData, action: str | None) -> RoutingData:
    """The data, or its steps of one action alone."""
    return data if action is None else hold_action(data, action)


def chosen(figures: Figures, only: Sequence[str] | None) -> Figures:
    """The figures that a script saves: those that --only names, else all, but of the episodes only the first."""
    others = [name for name in figures if not name.startswith("episode_")]
    first = [name for name in figures if name.startswith("episode_")][:1]
    for name in only or ():
        if name not in figures:
            more = "" if len(figures) == len(others) + len(first) else " or another episode of the data"
            raise InputError(f"--only: there is no figure {name!r} here; there are {', '.join(others + first)}{more}")
    return {name: figures[name] for name in only or others + first}


def save_figures(
    figures: Figures,
    folder: str | Path,
    export: Export = Export(),  # noqa: B008 - it is frozen
    caption: Callable[[str], str] = str,
) -> None:
    """Save each figure as `export.save_figure`, and print the path of its picture; on stderr, say why one cannot be.

    caption: name of a figure -> its caption.
    """
    reasons = []
    for name, draw in figures.items():
        try:
            print(save_figure(draw(), folder, name, export, caption(name)))
        except InputError as error:
            reasons.append(f"no {export.stem(name)}.{export.format}: {error}")
    if len(reasons) == len(figures):
        raise InputError(reasons[0])
    print(*reasons, sep="\n", end="\n" if reasons else "", file=sys.stderr)


def save_figures_of_run(app: str, args: RunSettings, figures_of: Callable[..., dict[str, Drawing]]) -> None:
    """Save the figures of the run that the flags ask for, as an app of one run does as a script.

    app: the file of the app; figures_of: `routing_figures` or `action_figures`.
    """
    run, data = run_of_script(args)
    if not has_routing(data) and figures_of is routing_figures:
        print(f"note: {NO_ROUTERS}", file=sys.stderr)
    shown = Shown(run, args.num_episodes if args.fresh else None, args.action, args.min_steps)
    export, held = Export(args.format, args.width, shown.part), hold(data, args.action)
    drawings = figures_of(held, args.min_steps, args.width)
    save_figures(
        chosen(drawings, args.only),
        run.key.artefacts(args.plots_dir),
        export,
        lambda name: caption_of(app, shown, held, name, drawings[name].about, export, args.plots_dir),
    )


def run_of_script(args: RunSettings) -> tuple[Run, RoutingData]:
    """The run that the flags ask for, and its routing data."""
    run = choose_run(find_runs(args.checkpoint_dir, args.cache_dir), args)
    if args.fresh:
        return run, evaluate_now(run, args.num_episodes, args.num_envs, lambda num_done: None)
    data = load_routing(run)
    if (note := other_checkpoint(run)) is not None:
        print(f"note: {note}", file=sys.stderr)
    return run, data
