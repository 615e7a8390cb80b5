"""The names of figures and of the numbers behind them, in one place; mop.analysis and mop.plotting do the work.

What takes routing data takes a cache of `load_cache`, the content of a routing_data.json, or its list of steps:

    content = json.load(open("evaluation_cache/BabyAI-GoToObj-v0/trial_0/routing_data.json"))
    plot_overall_routing(content, filter_fn=lambda step: step["lpc"] > 1000).savefig("costly.png")

A `filter_fn` gets one step of JSON at a time, of a cache all steps at once (`mop.artifacts.routing_cache.Steps`).
"""

# ruff: noqa: F401  this file is the names that it imports

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from mop.analysis.actions import compute_loops, hold_action, index_states
from mop.analysis.cells import aggregate_routing_by_position, compute_confidence, compute_grid_bounds
from mop.analysis.explained import compute_layer_costs, explain_beyond, explain_variance, gate_values
from mop.analysis.groups import (
    GROUPINGS,
    PHASES,
    get_available_analyses,
    group_routing_data,
    key_phases,
    room_labels_for_groups,
)
from mop.analysis.many_runs import measure_run
from mop.analysis.routing_data import index_episodes
from mop.artifacts.routing_cache import RoutingData, Steps, as_routing_data, load_cache
from mop.plotting.alphas import (
    plot_correlations_by_phase,
    plot_explained_over_seeds,
    plot_gates_explained,
    plot_lpc_with_action_held,
    plot_measures_against_alpha,
    plot_measures_by_phase,
    plot_phase_maps,
)
from mop.plotting.bars import (
    BEHAVIOURS,
    plot_action_frequency,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_specialisation,
    plot_variance_explained,
)
from mop.plotting.compared_runs import plot_difference
from mop.plotting.curves import plot_curves_by, plot_episode_routing, plot_routing_over_progress, plot_training_curve
from mop.plotting.heatmaps import LPC_CMAP, LogScale, render_lpc_heatmap, render_routing_heatmap
from mop.plotting.maps import (
    lpc_scale,
    plot_grouped_routing,
    plot_map,
    plot_overall_routing,
    plot_routing_side_by_side,
)
from mop.plotting.resize import fit_to_width
from mop.plotting.style import SIZE_HUES, UNVISITED_COLOR, WALL_COLOR, expert_cmap, expert_hues, size_hue
from mop.plotting.task_bars import plot_by_task, plot_success_against_lpc
from mop.statistics.bootstrap import bootstrap_means, mean_over_seeds
from mop.statistics.information import mutual_information as compute_complexity

EXPERT_CMAPS = [expert_cmap(hue) for hue in SIZE_HUES.values()]  # of experts whose sizes are not known


def _of_any_form(function: Callable) -> Callable:
    """The function with its first argument made from whatever form the routing data has."""
    signature = inspect.signature(function)
    first = next(iter(signature.parameters.values()))

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        data = bound.arguments[first.name]
        if isinstance(data, dict | list):  # JSON
            steps = data["routing_data"] if isinstance(data, dict) and "routing_data" in data else data
            data = as_routing_data(data)
            if callable(keep := bound.arguments.get("filter_fn")):
                bound.arguments["filter_fn"] = np.array([bool(keep(step)) for step in steps])
        if first.annotation is Steps and isinstance(data, RoutingData):
            data = data.steps
        bound.arguments[first.name] = data
        return function(*bound.args, **bound.kwargs)

    return call


for _name, _function in list(globals().items()):
    _parameters = inspect.signature(_function).parameters if inspect.isfunction(_function) else {}
    if next((parameter.annotation for parameter in _parameters.values()), None) in (RoutingData, Steps):
        globals()[_name] = _of_any_form(_function)
