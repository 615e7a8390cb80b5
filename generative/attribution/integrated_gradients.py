"""How much of a target at step t is due to what was there k steps earlier, through the closed loop, split by path.

What was there at step s = t - k is a point x of a product of simplices: each cell of the view, or of the world's grid,
is ones and zeros over its categories (type, colour, state). With F(x) the target at t of the closed loop that begins at
s with x (`generative.attribution.closed_loop`), the attribution of a change from x to x' is its integrated gradient
(Sundararajan et al. 2017, arXiv 1703.01365, equation 1), of every number i of x,

    IG_i(x -> x') = (x'_i - x_i) * integral over a from 0 to 1 of dF/dx_i (x + a (x' - x)) da
    sum_i IG_i    = F(x') - F(x)                                       completeness, where F is smooth

by the midpoint rule over `num_points` values of a; "gradient" is the same with a = 0 alone, the first-order effect. The
line goes from what is to what could be, so that the sum predicts the effect of that change. The attribution of what a
cell holds is minus the prediction for emptying it: the baseline x' is the same view, or world, with empty floor in that
cell (type empty, colour and state 0), one line for each cell, walls and doors included. Floor and cells that were not
seen have the attribution 0. The agent's own cell of a view shows what is carried; emptying it also clears the carrying
flag.

The argmax of the policy's actions, and the exact simulator between ones and zeros (what is opaque, where the agent is),
are no smooth functions: their gradients are not the slopes of what is computed, and completeness fails by what
`Effects.gap` says.

Paths. From step to step causes travel through the policy's memory or through the world. With D(m, w) the attribution
where only the paths that are switched on pass gradients (memory m, world w; the numbers stay the same),

    direct = D(0, 0)                      within step t: all of it at k = 0, nothing at k >= 1
    memory = D(1, 0) - direct             seen at s, and remembered from then on
    world  = D(0, 1) - direct             carried to t by the world alone, by what happens or by what the policy does
    mixed  = D(1, 1) - D(1, 0) - D(0, 1) + direct     by both: still there later, seen then, and remembered
    total  = D(1, 1) = direct + memory + world + mixed

Axis letters: C changes, M beginnings, X numbers of a soft observation, H and W height and width of a grid, K categories
of a cell (20), S hidden units, G of a mission.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from generative.attribution.closed_loop import EVERY_PATH, Paths, roll_out
from generative.attribution.explanations import PATHS
from generative.domains.base import Policy, Target
from generative.simulators.base import Simulator, State

METHODS = ("integrated", "gradient")
MEMORY_ONLY, WORLD_ONLY, NO_PATH = Paths(world=False), Paths(memory=False), Paths(False, False)
NUM_POINTS = 16
MAX_BEGINNINGS = 1024  # at once, of worlds of cells


@dataclass(frozen=True)
class ClosedLoopRollout:
    """The closed loop from step t - k to step t of one world, as a function of its inputs: what was there at t - k."""

    policy: Policy
    simulator: Simulator
    begin: Callable[[State], tuple[State, Tensor | None]]  # inputs of M worlds -> states, first views (M, X)
    lang: Tensor  # (1, G)
    hidden: Tensor  # (1, S), before the first step
    lag: int  # k
    actions: Tensor | None = None  # (1, k + 1) int64 of a recording; None: the policy's own
    max_beginnings: int = MAX_BEGINNINGS  # at once

    def values(self, inputs: State, targets: Sequence[Target], paths: Paths = EVERY_PATH) -> list[Tensor]:
        """The targets, each (M,), at step t after each of M beginnings."""
        state, first_view = self.begin(inputs)
        num_worlds = len(next(iter(inputs.values())))
        lang, hidden = (part.expand(num_worlds, -1) for part in (self.lang, self.hidden))
        actions = None if self.actions is None else self.actions.expand(num_worlds, -1)
        steps = self.lag + 1
        trace = roll_out(self.policy, self.simulator, state, lang, hidden, steps, actions, paths, first_view)
        answer = trace.answer(self.lag)
        return [target(answer) for target in targets]


class Effects(NamedTuple):
    """Attributed effects of C changes, of each number that changes, by path."""

    by_path: dict[str, State]  # of PATHS: like what was there, (C, ...)
    before: float  # the target as things were
    after: Tensor  # (C,), the target of each change in the simulator

    def total(self, path: str | None = None) -> Tensor:
        """The predicted effect (C,) of each change, along one path or all."""
        return reduce(torch.add, [total_of(self.by_path[name]) for name in (PATHS if path is None else (path,))])

    @property
    def gap(self) -> Tensor:
        """How far completeness is from holding, (C,): the simulated effect minus the predicted one."""
        return self.after - self.before - self.total()


def predict_effects(
    rollout: ClosedLoopRollout,
    inputs: State,
    counterfactuals: State,
    target: Target,
    method: str = "integrated",
    num_points: int = NUM_POINTS,
) -> Effects:
    """The attributed effects on a target of C changes of what was there, by path (see the module).

    inputs: (1, ...), counterfactuals: (C, ...) float32, of the same names; method: of METHODS. Differences of several
    numbers in one change add up.
    """
    splits = (EVERY_PATH,) if rollout.lag == 0 else (EVERY_PATH, MEMORY_ONLY, WORLD_ONLY)
    sums = [attribute(rollout, inputs, counterfactuals, [target], paths, method, num_points)[0] for paths in splits]
    with torch.no_grad():
        both = {name: torch.cat([part, counterfactuals[name]]) for name, part in inputs.items()}
        values = torch.cat([rollout.values(part, [target])[0] for part in _split(both, rollout.max_beginnings)])
    return Effects(_by_path(*sums), float(values[0]), values[1:])


def attribute(
    rollout: ClosedLoopRollout,
    inputs: State,
    counterfactuals: State,
    targets: Sequence[Target],
    paths: Paths = EVERY_PATH,
    method: str = "integrated",
    num_points: int = NUM_POINTS,
) -> list[State]:
    """(end - start) x the mean gradient along `paths` on the way, of each number of what was there, (C, ...).

    One for each target; the arguments are those of `predict_effects`.
    """
    shares = (torch.arange(num_points) + 0.5) / num_points if method == "integrated" else torch.zeros(1)
    pieces = _split(counterfactuals, max(1, rollout.max_beginnings // len(shares)))
    of_pieces = [_attribute(rollout, inputs, ends, targets, shares, paths) for ends in pieces]
    return [
        {name: torch.cat([part[name] for part in parts]) for name in inputs} for parts in zip(*of_pieces, strict=True)
    ]


def _attribute(
    rollout: ClosedLoopRollout, inputs: State, ends: State, targets: Sequence[Target], shares: Tensor, paths: Paths
) -> list[State]:
    differences = {name: end - inputs[name] for name, end in ends.items()}
    points = {}
    for name, part in inputs.items():
        by_share = shares.view(-1, *[1] * part.dim()) * differences[name]  # (points, C, ...)
        points[name] = (part + by_share).flatten(0, 1).requires_grad_()
    found = []
    for value in rollout.values(points, targets, paths):
        if value.requires_grad:
            slopes = torch.autograd.grad(
                value.sum(), list(points.values()), retain_graph=True, allow_unused=True, materialize_grads=True
            )
        else:  # no cause travels along these paths: recorded actions, and a world that does not depend on what is seen
            slopes = [torch.zeros_like(part) for part in points.values()]
        means = [slope.unflatten(0, (len(shares), -1)).mean(0) for slope in slopes]
        found.append({name: differences[name] * mean for name, mean in zip(points, means, strict=True)})
    return found


def total_of(numbers: State) -> Tensor:
    """Sums (C,) of numbers (C, ...) over all parts of what was there."""
    return reduce(torch.add, [part.flatten(1).sum(1) for part in numbers.values()])


def _by_path(total: State, memory: State | None = None, world: State | None = None) -> dict[str, State]:
    """The parts of PATHS, from the sums along all paths and, where k >= 1, along each alone."""
    nothing = {name: torch.zeros_like(part) for name, part in total.items()}
    if memory is None or world is None:
        return {"direct": total, "memory": nothing, "world": nothing, "mixed": nothing}
    mixed = {name: total[name] - memory[name] - world[name] for name in total}
    return {"direct": nothing, "memory": memory, "world": world, "mixed": mixed}


def _split(inputs: State, size: int) -> list[State]:
    parts = {name: part.split(size) for name, part in inputs.items()}
    return [dict(zip(parts, pieces, strict=True)) for pieces in zip(*parts.values(), strict=True)]
