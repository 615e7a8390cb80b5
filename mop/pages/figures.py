"""The figures of one run: which there are, and how a script saves them."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mop.base.configuration import Parser
from mop.base.errors import InputError
from mop.base.files import write_figure
from mop.pages.episodes import example_images
from mop.pages.flags import parse
from mop.pages.routing import evaluate_now, load_routing, other_checkpoint
from mop.pages.runs import choose_run, find_runs
from mop.store.routing_cache import RoutingCache
from plotting_utils import (
    GROUPINGS,
    get_available_analyses,
    plot_action_entropy,
    plot_action_frequency,
    plot_episode_routing,
    plot_grouped_lpc,
    plot_grouped_routing,
    plot_overall_lpc,
    plot_overall_routing,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_routing_over_progress,
    plot_specialisation,
    plot_variance_explained,
)

Figures = Mapping[str, Callable[[], Figure]]  # name of the file without its ending -> what draws it

MAPS = {  # measure -> name of the file, the figure of all steps, that of groups of them
    "dominant expert": ("routing_heatmap", plot_overall_routing, plot_grouped_routing),
    "LPC": ("lpc_heatmap", plot_overall_lpc, plot_grouped_lpc),
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


def grouped_name(name: str, group_by: str) -> str:
    """The name of the figure of all steps ("overall") or of groups of them."""
    return name if group_by == "overall" else f"{name}_{group_by}"


def plot_map(data: RoutingCache, measure: str, group_by: str, images: Mapping[str, np.ndarray]) -> Figure:
    """One of MAPS; images: of `example_images`. Raises InputError as the functions of MAPS."""
    _, plot_overall, plot_grouped = MAPS[measure]
    if group_by != "overall":
        return plot_grouped(data, group_by, images)
    return plot_overall(data, *_first_world(data, images))


def analyses(data: RoutingCache) -> dict[str, str]:
    """The analyses that the data supports: what each is called on a page -> its name in GROUPINGS."""
    names = get_available_analyses(data)
    return {"overall" if name == "overall" else f"by {GROUPINGS[name].title}": name for name in names}


def routing_figures(data: RoutingCache) -> Figures:
    """What routing_viz saves as a script: the dominant expert by every analysis, LPC, every chart, an episode."""

    def map_of(measure: str, group_by: str) -> Callable[[], Figure]:
        return lambda: plot_map(data, measure, group_by, example_images(data, group_by))

    names = analyses(data).values()
    figures = {grouped_name("routing_heatmap", name): map_of("dominant expert", name) for name in names}
    figures["lpc_heatmap"] = map_of("LPC", "overall")
    figures |= {name: lambda plot=plot: plot(data) for name, plot, _ in CHARTS.values()}
    return figures | {"episode_0": lambda: plot_episode_routing(data, 0)}


def plot_entropy(data: RoutingCache) -> Figure:
    """The entropy of the action in each cell, beside the first world."""
    return plot_action_entropy(data, *_first_world(data, example_images(data, "overall")))


def _first_world(data: RoutingCache, images: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, str]:
    """The picture of the first world, if there is one, and its mission."""
    return next(iter(images.values()), None), data.episodes[0].get("mission", "")


def action_figures(data: RoutingCache) -> Figures:
    """What logit_viz saves as a script."""
    return {
        "action_frequency": lambda: plot_action_frequency(data),
        "action_frequency_by_carrying": lambda: plot_action_frequency(data, "by_carrying"),
        "action_entropy_heatmap": lambda: plot_entropy(data),
    }


def save_figures(figures: Figures, folder: str | Path) -> None:
    """Write each figure as a PNG and print its path; on stderr, say why a figure cannot be drawn.

    Raises InputError if none can be drawn.
    """
    reasons = []
    for name, draw in figures.items():
        try:
            print(write_figure(Path(folder) / f"{name}.png", draw()))
        except InputError as error:
            reasons.append(f"no {name}.png: {error}")
    if len(reasons) == len(figures):
        raise InputError(reasons[0])
    print(*reasons, sep="\n", end="\n" if reasons else "", file=sys.stderr)


def save_figures_of_run(parser: Parser, figures_of: Callable[[RoutingCache], Figures]) -> None:
    """An app of one run as a script: save the figures of the run that the flags ask for.

    Raises InputError if a flag is wrong, there is no such run, or none of its figures can be drawn.
    """
    args = parse(parser)
    found = find_runs(args.checkpoint_dir, args.cache_dir)
    run = found[choose_run(found, args)]
    if args.fresh:
        data = evaluate_now(run, args.num_episodes, args.num_envs, lambda num_done: None)
    else:
        data = load_routing(run)
        if (note := other_checkpoint(run)) is not None:
            print(f"note: {note}", file=sys.stderr)
    save_figures(figures_of(data), run.key.artefacts(args.plots_dir))
