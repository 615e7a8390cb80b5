"""What a map can show of the steps in a cell: one table, MEASURES, of numbers of a step and how they are coloured.

Axis letters: S steps, E experts of a layer, A actions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mop.analysis.actions import action_probabilities, compute_policy_entropy
from mop.analysis.routing import compute_layer_lpc
from mop.analysis.routing_data import checked_weights, known_sizes
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.plotting.heatmaps import LPC_CMAP, Scale
from mop.plotting.style import expert_names, short_name
from mop.statistics.information import entropy_nats

ENTROPY_CMAP = "YlOrRd"  # its ends are far from the colours of unvisited cells and walls
DOMINANT = "dominant expert"
_RARELY = 0.005  # an action of a smaller mean probability has no map


@dataclass(frozen=True, eq=False)
class Part:
    """A number of each step, whose mean in each cell is a map; parts with one label share a colour scale."""

    title: str  # of the map
    label: str  # of the colour scale
    values: np.ndarray | None  # (S,); None: the number of steps in the cell
    whole: Scale  # all values that are possible
    layer: int | None = None


@dataclass(frozen=True)
class Measure:
    """What a map shows."""

    file: str  # name of its figure
    about: str
    column: str  # of its numbers
    parts: Callable[[RoutingData, int], list[Part]] | None  # of the data and an expert; None: `DOMINANT`
    cmap: str = LPC_CMAP
    form: str = "{:.2f}"
    of_expert: bool = False  # whether it is of one expert
    of_routers: bool = False  # whether it needs routers
    is_signed: bool = False  # whether its scale has 0 in the middle
    is_log: bool = False


def experts_of(data: RoutingData) -> list[str]:
    """What to call the first, second, ... expert of the layers: by its sizes there, "skip" or "GRU 16 / GRU 32"."""
    layers = expert_names(data.header, data.steps.layer_routing or ())
    found = []
    for expert in range(max(map(len, layers), default=0)):
        names = dict.fromkeys(short_name(names[expert]) for names in layers if expert < len(names) > 1)
        found.append(" / ".join(names) or f"expert {expert}")
    return found


def _lpc(data: RoutingData, expert: int) -> list[Part]:
    sizes = known_sizes(data.header)
    of_layers = [*map(compute_layer_lpc, checked_weights(data.steps), sizes)]
    most = [float(max(of_layer) ** 2) for of_layer in sizes]
    total = Part("all layers", "mean LPC, all layers", np.asarray(data.column("lpc"), float), (0.0, sum(most)))
    label = "mean LPC of a layer"
    return [total, *(Part(f"layer {k}", label, values, (0.0, max(most)), k) for k, values in enumerate(of_layers))]


def _weight(data: RoutingData, expert: int, centred: bool = False) -> list[Part]:
    """The weight of an expert in each layer that has it beside others."""
    layers, names = checked_weights(data.steps), expert_names(data.header, data.steps.layer_routing or ())
    whole, label = ((-1.0, 1.0), "mean weight minus the layer's mean") if centred else ((0.0, 1.0), "mean weight")
    parts = []
    for layer, weights in enumerate(layers):
        if expert < weights.shape[1] > 1:
            values = weights[:, expert] - (weights[:, expert].mean(dtype=np.float64) if centred else 0)
            parts.append(Part(f"layer {layer}: {short_name(names[layer][expert])}", label, values, whole, layer))
    return parts


def _router_entropy(data: RoutingData, expert: int) -> list[Part]:
    layers = [(layer, weights) for layer, weights in enumerate(checked_weights(data.steps)) if weights.shape[1] > 1]
    most = math.log(max((weights.shape[1] for _, weights in layers), default=1))
    label = "entropy of the router (nats)"
    return [Part(f"layer {layer}", label, entropy_nats(weights), (0.0, most), layer) for layer, weights in layers]


def _visits(data: RoutingData, expert: int) -> list[Part]:
    return [Part("visits", "steps in the cell", None, (1.0, float(len(data.steps))))]


def _action_entropy(data: RoutingData, expert: int) -> list[Part]:
    logits = _logits(data)
    label = f"entropy of the action (nats, at most ln {logits.shape[1]})"
    return [Part("entropy of the action", label, compute_policy_entropy(logits), (0.0, math.log(logits.shape[1])))]


def _action_probability(data: RoutingData, expert: int) -> list[Part]:
    probabilities, label = action_probabilities(_logits(data)), "mean probability of the action"
    named = zip(ACTION_NAMES, probabilities.T, strict=True)
    return [Part(name, label, values, (0.0, 1.0)) for name, values in named if np.nanmean(values) >= _RARELY]


def _logits(data: RoutingData) -> np.ndarray:
    logits = np.asarray(data.column("action_logits"), np.float64)
    if not np.isfinite(logits).any():
        raise InputError("the action logits are not finite: the policy has diverged")
    return logits


MEASURES = {
    DOMINANT: Measure(
        "routing_heatmap", "The dominant expert of each layer, and the mean LPC, in each cell of the grid", "expert",
        None, of_routers=True,
    ),
    "LPC": Measure(
        "lpc_heatmap", "The mean LPC, in total and of each layer, in each cell of the grid", "lpc", _lpc, form="{:.0f}"
    ),
    "weight of an expert": Measure(
        "weight_heatmap", "The mean weight of one expert in each layer, in each cell of the grid", "weight", _weight,
        "YlGnBu", of_expert=True, of_routers=True,
    ),
    "difference from the mean": Measure(
        "weight_difference_heatmap", "The mean weight of one expert, minus its mean over all steps, in each cell",
        "weight_difference", lambda data, expert: _weight(data, expert, centred=True), "RdBu_r", "{:+.3f}",
        of_expert=True, of_routers=True, is_signed=True,
    ),
    "router entropy": Measure(
        "router_entropy_heatmap", "The mean entropy of each layer's router, in nats, in each cell of the grid",
        "entropy_nats", _router_entropy, ENTROPY_CMAP, of_routers=True,
    ),
    "visits": Measure(
        "visits_heatmap", "How many steps were taken in each cell of the grid", "visits", _visits, form="{:,.0f}",
        is_log=True,
    ),
    "action entropy": Measure(
        "action_entropy_heatmap", "The mean entropy of the policy's action, in nats, in each cell of the grid",
        "entropy_nats", _action_entropy, ENTROPY_CMAP, "{:.3g}",
    ),
    "action probabilities": Measure(
        "action_probability_heatmap", "The mean probability of each action, in each cell of the grid", "probability",
        _action_probability, "YlGnBu",
    ),
}  # fmt: skip
