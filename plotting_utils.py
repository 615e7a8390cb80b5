"""The names of figures and of the numbers behind them, in one place; mop.measures and mop.plotting do the work."""

from mop.measures.cells import aggregate_routing_by_position, compute_confidence, compute_grid_bounds
from mop.measures.groups import GROUPINGS, get_available_analyses, group_routing_data, room_labels_for_groups
from mop.measures.phases import PHASES, key_phases
from mop.plotting.actions import plot_action_frequency
from mop.plotting.comparison import plot_difference
from mop.plotting.curves import plot_curves_by, plot_training_curve
from mop.plotting.heatmaps import LPC_CMAP, render_lpc_heatmap, render_routing_heatmap
from mop.plotting.maps import (
    plot_action_entropy,
    plot_grouped_lpc,
    plot_grouped_routing,
    plot_lpc_by_phase,
    plot_overall_lpc,
    plot_overall_routing,
    plot_routing_side_by_side,
)
from mop.plotting.pathways import plot_pathways
from mop.plotting.progress import plot_episode_routing, plot_routing_over_progress
from mop.plotting.router_weights import (
    BEHAVIOURS,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_specialisation,
)
from mop.plotting.style import EXPERT_CMAPS, UNVISITED_COLOR
from mop.plotting.tasks import plot_by_task, plot_success_against_lpc

__all__ = [
    "BEHAVIOURS",
    "EXPERT_CMAPS",
    "GROUPINGS",
    "LPC_CMAP",
    "PHASES",
    "UNVISITED_COLOR",
    "aggregate_routing_by_position",
    "compute_confidence",
    "compute_grid_bounds",
    "get_available_analyses",
    "group_routing_data",
    "key_phases",
    "plot_action_entropy",
    "plot_action_frequency",
    "plot_by_task",
    "plot_curves_by",
    "plot_difference",
    "plot_episode_routing",
    "plot_grouped_lpc",
    "plot_grouped_routing",
    "plot_lpc_by_phase",
    "plot_overall_lpc",
    "plot_overall_routing",
    "plot_pathways",
    "plot_routing_distributions",
    "plot_routing_near_objects",
    "plot_routing_over_progress",
    "plot_routing_side_by_side",
    "plot_specialisation",
    "plot_success_against_lpc",
    "plot_training_curve",
    "render_lpc_heatmap",
    "render_routing_heatmap",
    "room_labels_for_groups",
]
