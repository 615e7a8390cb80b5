"""Interventions on the weights of the routers.

The rest of a layer's weights is scaled so that their sum stays what it was; where nothing changes, the weights are the
same bit for bit. Axis letters: N samples, E experts of a layer, S hidden units of a policy, M steps of a pool.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError
from mop.common.intervention_grammar import FROZEN, GATE_ONLY, NONE, Intervention
from mop.common.seeding import stream_seed

_TINY = 1e-30  # where a router gives all but this to ablated experts, the rest shares it equally


def ablate(weights: np.ndarray, is_out: np.ndarray) -> np.ndarray:
    """Set the weights (N, E) of the experts of is_out (..., E) bool to 0; no row of it holds all."""
    rest = weights * ~is_out
    rest = rest + ~is_out * (rest.sum(-1, keepdims=True) < _TINY)
    return rest * (weights.sum(-1, keepdims=True) / rest.sum(-1, keepdims=True))


def clamp(weights: np.ndarray, is_set: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Set the weights (N, E) of the experts of is_set (E,) bool to `values` (E,) float64 of the sum; scale the rest.

    Values that leave no rest, or less than none, are scaled to the sum themselves; they are not all 0 then.
    """
    share, total = float(values.sum()), weights.sum(-1, keepdims=True)
    if is_set.all() or share > 1:
        return weights * 0 + (values / share).astype(weights.dtype) * total
    return ablate(weights, is_set) * (1 - share) + values.astype(weights.dtype) * total


class Gates:
    """One intervention on a policy's routers: the weights in the place of the routers' own."""

    def __init__(
        self,
        intervention: Intervention,
        expert_hidden_sizes: Sequence[Sequence[int]],
        pool: Sequence[np.ndarray] = (),
        seed: int = 0,
    ):
        """pool: the weights of all steps of the evaluation without it, L arrays (M, E_l), for `mean` and `shuffle`."""
        self._parts = intervention.singles
        for part in self._parts:
            _check(part, expert_hidden_sizes)
        self._set = [_set_in(layer, sizes, self._parts) for layer, sizes in enumerate(expert_hidden_sizes)]
        self.intervention, self.sizes, self.pool, self.seed = intervention, expert_hidden_sizes, pool, seed
        self._drawn = np.empty((0, 0), np.int32)  # episode, step -> the step of the pool, see `_draw`

    def at(self, episode: np.ndarray, t_step: np.ndarray, is_on: np.ndarray | None = None) -> Callable[[int, Any], Any]:
        """Make the `mixture_of_experts.Intervention` for one step of N samples; arrays become arrays, tensors tensors.

        episode, t_step (N,) int: of the samples, by which `shuffle` draws; is_on (N,) bool: where to intervene, None
        for everywhere.
        """

        def intervene(layer: int, weights: Any) -> Any:
            if isinstance(weights, Tensor):
                return torch.from_numpy(intervene(layer, weights.detach().cpu().numpy())).to(weights.device)
            changed = self._change(layer, weights, episode, t_step)
            return changed if is_on is None else np.where(is_on[:, None], changed, weights)

        return intervene

    def _change(self, layer: int, weights: np.ndarray, episode: np.ndarray, t_step: np.ndarray) -> np.ndarray:
        kinds = {part.kind: part for part in self._parts if part.layer in (None, layer)}
        if "uniform" in kinds:
            weights = weights * 0 + 1 / weights.shape[-1]
        if "mean" in kinds:
            weights = weights * 0 + self.pool[layer].mean(0, np.float64).astype(np.float32)
        if "shuffle" in kinds:
            weights = self.pool[layer][self._draw(episode, t_step)].astype(weights.dtype)
        is_set, values = self._set[layer]
        if is_set.any():
            weights = clamp(weights, is_set, values)
        if "threshold" in kinds:
            weights = ablate(weights, (weights < (kinds["threshold"].value or 0.0)) & ~_is_heaviest(weights))
        if "argmax" in kinds:
            weights = ablate(weights, ~_is_heaviest(weights))
        return weights

    def _draw(self, episode: np.ndarray, t_step: np.ndarray) -> np.ndarray:
        """Draw a step of the pool for each sample, (N,) int, which depends on its episode and step alone.

        Drawn in blocks with a random stream each, as the number of episodes and steps is not known before.
        """
        found, needed = self._drawn.shape, (int(episode.max()) + 1, int(t_step.max()) + 1)
        if needed[0] > found[0] or needed[1] > found[1]:
            rows, columns = (-(-max(pair) // _BLOCK) for pair in zip(found, needed, strict=True))
            self._drawn = np.block([[self._draw_block(i, j) for j in range(columns)] for i in range(rows)])
        return self._drawn[episode, t_step]

    def _draw_block(self, i: int, j: int) -> np.ndarray:
        rng = np.random.default_rng(stream_seed(self.seed, f"shuffle {i} {j}"))
        return rng.integers(len(self.pool[0]), size=(_BLOCK, _BLOCK), dtype=np.int32)


_BLOCK = 128  # episodes, and steps of each


def _set_in(layer: int, sizes: Sequence[int], parts: Sequence[Intervention]) -> tuple[np.ndarray, np.ndarray]:
    """Find the experts of a layer that are ablated or clamped (E,) bool, and their weights (E,) float64."""
    is_set, values = np.zeros(len(sizes), bool), np.zeros(len(sizes))
    for part in parts:
        is_it = np.zeros(len(sizes), bool)
        if part.kind == "lesion_size":
            is_it = np.asarray(sizes) == part.size
        elif part.kind in ("lesion", "clamp") and part.layer == layer:
            is_it = np.arange(len(sizes)) == part.expert
        if (is_set & is_it).any():
            raise InputError(f"{part}: another of these already gives a weight to such an expert of layer {layer}")
        is_set, values = is_set | is_it, values + (part.value or 0.0) * is_it
    if is_set.all() and not values.any():
        raise InputError(f"nothing would be left of layer {layer}: leave one expert its weight")
    return is_set, values


def _is_heaviest(weights: np.ndarray) -> np.ndarray:
    """Mark (N, E) bool the expert with the largest weight of each row, of equal ones the first."""
    return weights.argmax(-1, keepdims=True) == np.arange(weights.shape[-1])


def _check(intervention: Intervention, expert_hidden_sizes: Sequence[Sequence[int]]) -> None:
    layer, expert, size = intervention.layer, intervention.expert, intervention.size
    sizes = [list(of_layer) for of_layer in expert_hidden_sizes]
    if intervention.kind != NONE and all(len(of_layer) == 1 for of_layer in sizes):
        raise InputError(f"{intervention}: this policy has one expert in each layer, and no routing to intervene on")
    if layer is not None:
        if layer >= len(sizes):
            raise InputError(f"{intervention}: this policy has the layers 0 to {len(sizes) - 1}")
        if expert is not None and expert >= len(sizes[layer]):
            raise InputError(f"{intervention}: layer {layer} has the experts 0 to {len(sizes[layer]) - 1}")
        if expert is not None and len(sizes[layer]) == 1:
            raise InputError(f"{intervention}: layer {layer} has no other expert")
    if size is not None:
        if not any(size in of_layer for of_layer in sizes):
            known = ", ".join(map(str, sorted({size for of_layer in sizes for size in of_layer})))
            raise InputError(f"{intervention}: the sizes of this policy's experts are {known}")
        if any(set(of_layer) == {size} for of_layer in sizes):
            raise InputError(f"{intervention}: a layer has no expert of another size")


def experts_of_units(hidden_layout: Mapping[str, slice], expert_hidden_sizes: Sequence[Sequence[int]]) -> Tensor:
    """Map hidden units to experts, (S,) int64, counted through all layers; -1: a router's, or the baseline's.

    hidden_layout: of `mixture_of_experts.RecurrentPolicy`.
    """
    experts = torch.full((max(columns.stop for columns in hidden_layout.values()),), -1)
    firsts = np.cumsum([0, *map(len, expert_hidden_sizes)])
    for name, columns in hidden_layout.items():
        kind, *place = name.split("_")
        if kind == "expert":
            layer, expert = map(int, place)
            experts[columns] = int(firsts[layer]) + expert
    return experts


def apply_state_policy(
    variant: str, experts: Tensor, routing: Sequence[Tensor], before: Tensor, after: Tensor
) -> Tensor:
    """Keep, freeze or zero the hidden state (N, S) of experts of weight 0 after a step, by the variant.

    experts (S,): of `experts_of_units`; routing: the weights that were used, L x (N, E_l); before, after (N, S): the
    step. Nothing reads an expert's state in a step in which its weight is 0, so it can be set when the step is done.
    """
    if variant == GATE_ONLY:
        return after
    is_out = (torch.cat(list(routing), -1) == 0)[:, experts.clamp(min=0)] & (experts >= 0)
    return torch.where(is_out.to(after.device), before if variant == FROZEN else 0, after)
