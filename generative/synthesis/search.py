"""Activation maximisation over levels: search by gradients through policy and world.

For each level, values = the quantity at steps 0 ... T - 1 of the closed loop that begins in it. The objective is

    J = read(values) / sd + prior log p(level) - mission missing - diversity similarity

read: their mean, or the last one; sd: the standard deviation over random levels of the task; log p: `LevelPrior`, in
nats; missing: things that the mission speaks of and are not there; similarity to the other levels. Levels are drawn
by straight-through Gumbel-softmax at a falling temperature, so the policy sees legal worlds only; the best draw with
nothing missing is kept. Adam moves the logits.
Axis letters: N levels, T steps, I iterations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from generative.attribution.closed_loop import roll_out
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Target
from generative.simulators.base import Simulator, State
from generative.simulators.exact import ExactSimulator
from generative.simulators.world_model import WorldModel
from generative.synthesis.levels import Draw, Level, SoftLevels
from mop.common.cli import setting
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS

# the beginning of a level in the exact simulator -> the simulator's own, and what the policy sees first (N, X), None
# for what the simulator shows
Begin = Callable[[State], tuple[State, Tensor | None]]
READINGS: dict[str, Callable[[Tensor], Tensor]] = {  # values (T, N) -> (N,)
    "mean": lambda values: values.mean(0),
    "last": lambda values: values[-1],
}


TEMPERATURES = (2.0, 0.3)  # first and last


@dataclass(frozen=True, kw_only=True)
class Search:
    """Settings of the search."""

    num_steps: int = setting(4, "steps over which the quantity is read", low=1, high=100)  # T
    read: str = setting("mean", "how it is read from these steps", choices=READINGS)
    iterations: int = setting(300, "iterations of the search", low=1, high=10**6)
    lr: float = setting(0.1, "learning rate of Adam on the logits", low=0)
    prior: float = setting(0.005, "weight of a nat of a level's log prior, in sd of the quantity", low=0)
    mission: float = setting(1.0, "weight of a thing of the mission that is missing", low=0)
    diversity: float = setting(0.5, "weight of the levels' similarity", low=0)
    sureness: float = setting(0.95, "initial probability of the contents of a level's base", low=0.05, high=0.999)
    seed: int = setting(0, "seed of worlds, search and controls", low=0)


class SearchResult(NamedTuple):
    """N optimised levels."""

    levels: list[Level]
    predicted: np.ndarray  # (N,) the quantity in the simulator
    curve: np.ndarray  # (I, N) the quantity of the draws


def search_levels(
    policy: FrozenPolicy,
    simulator: Simulator,
    begin: Begin,
    levels: SoftLevels,
    lang: Tensor,
    target: Target,
    search: Search,
    sd: float,
) -> SearchResult:
    """Optimise the levels, which are changed; lang (N, G), sd: of the quantity over random levels."""
    generator = torch.Generator().manual_seed(stream_seed(search.seed, "search of levels"))
    optimizer = torch.optim.Adam(levels.parameters, search.lr)
    hidden = policy.initial_hidden(len(lang))
    best = _Best(levels, len(lang))

    def objective(draw: Draw) -> tuple[Tensor, Tensor]:
        """The quantity (N,), and the objective with the log-prior (N,)."""
        state, first_view = begin(levels.state(draw))
        trace = roll_out(policy, simulator, state, lang, hidden, search.num_steps, first_view=first_view)
        values = torch.stack([target(trace.answer(t)) for t in range(search.num_steps)])
        value = READINGS[search.read](values)
        return value, value / sd + search.prior * levels.log_prior(draw)

    curve = []
    hot, cold = TEMPERATURES
    is_climbing = search.lr > 0
    name = "optimising" if is_climbing else "searching without gradients"
    for i in tqdm(range(search.iterations), name, leave=False, dynamic_ncols=True):
        with torch.set_grad_enabled(is_climbing):
            draw = levels.draw(hot * (cold / hot) ** (i / max(1, search.iterations - 1)), generator)
            (value, score), missing = objective(draw), levels.missing(draw)
            loss = search.mission * missing + search.diversity * levels.similarity() - score
        if is_climbing:
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        best.note(draw, value, score, missing)
        curve.append(value.detach().numpy())
    with torch.no_grad():
        draw = levels.draw(1.0, None)
        best.note(draw, *objective(draw), levels.missing(draw))
    return SearchResult(levels.decode(best.draw), best.value.numpy(), np.stack(curve))


def begin_learned(model: WorldModel, exact: ExactSimulator, lang: Tensor) -> Begin:
    """How levels begin in a learned simulator: it is shown the agent's first view, and no more."""

    def begin(state):
        views = exact.view(state)
        return model.observe(views[:, None], views.new_zeros(len(views), 0, NUM_ACTIONS), lang), views

    return begin


class _Best:
    """The best draw of each level; draws with nothing missing come first."""

    def __init__(self, levels: SoftLevels, count: int):
        self.draw = levels.draw(1.0, None)
        self.value = torch.full((count,), float("nan"))
        self._score = torch.full((count,), -np.inf)

    def note(self, draw: Draw, value: Tensor, score: Tensor, missing: Tensor) -> None:
        score = score.detach() - 1e6 * missing.detach()
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        self.value = torch.where(better, value.detach(), self.value)
        self.draw = Draw(
            *(
                torch.where(better.view(-1, *[1] * (new.dim() - 1)), new.detach(), old.detach())
                for new, old in zip(draw, self.draw, strict=True)
            )
        )
