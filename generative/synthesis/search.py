"""The search for levels that excite a quantity of the policy, by gradients through policy and world.

Of each level, values = the quantity at steps 0 ... T - 1 of the closed loop that begins in it, and what is maximised is

    J = read(values) / sd + prior log p(level) - mission missing - diversity likeness

read: their mean, or the last one; sd: the standard deviation over random levels of the task; log p: `LevelPrior`, in
nats; missing: things that the mission speaks of and are not there; likeness to the other levels. Levels are drawn
by straight-through Gumbel-softmax at a temperature that falls, so the policy sees legal worlds only, and of all that
were drawn the best with nothing missing is kept. Adam moves the logits.
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
from generative.synthesis.levels import Draw, Level, SoftLevels
from mop.common.seeding import stream_seed

# the beginning of a level in the exact simulator -> the simulator's own, and what the policy sees first (N, X), None
# for what the simulator shows
Begin = Callable[[State], tuple[State, Tensor | None]]
READINGS: dict[str, Callable[[Tensor], Tensor]] = {  # values (T, N) -> (N,)
    "mean": lambda values: values.mean(0),
    "last": lambda values: values[-1],
}


@dataclass(frozen=True)
class Search:
    """How levels are optimised."""

    num_steps: int = 4  # T
    read: str = "mean"  # of READINGS
    iterations: int = 300
    lr: float = 0.1
    prior: float = 0.005  # standard deviations of the quantity for a nat
    mission: float = 1.0  # ... for a thing that is missing
    diversity: float = 0.5  # ... for levels that are all the same
    sureness: float = 0.95  # the probability, at first, of each thing of a level's base
    temperatures: tuple[float, float] = (2.0, 0.3)
    seed: int = 0


class Found(NamedTuple):
    """What a search has found of N levels."""

    levels: list[Level]
    predicted: np.ndarray  # (N,) the quantity in the simulator
    curve: np.ndarray  # (I, N) the quantity of what was drawn


def search_levels(
    policy: FrozenPolicy,
    simulator: Simulator,
    begin: Begin,
    levels: SoftLevels,
    lang: Tensor,
    target: Target,
    search: Search,
    sd: float,
) -> Found:
    """Optimise the levels, which are changed; lang (N, G), sd: of the quantity over random levels."""
    generator = torch.Generator().manual_seed(stream_seed(search.seed, "search of levels"))
    optimizer = torch.optim.Adam(levels.parameters, search.lr)
    hidden, best = policy.initial_hidden(len(lang)), _Best(levels, len(lang))

    def excite(draw: Draw) -> tuple[Tensor, Tensor]:
        """The quantity (N,), and what it is worth with its prior (N,)."""
        state, first_view = begin(levels.state(draw))
        trace = roll_out(policy, simulator, state, lang, hidden, search.num_steps, first_view=first_view)
        values = torch.stack([target(trace.answer(t)) for t in range(search.num_steps)])
        value = READINGS[search.read](values)
        return value, value / sd + search.prior * levels.log_prior(draw)

    curve, (hot, cold), is_climbing = [], search.temperatures, search.lr > 0
    name = "optimising" if is_climbing else "searching without gradients"
    for i in tqdm(range(search.iterations), name, leave=False, dynamic_ncols=True):
        with torch.set_grad_enabled(is_climbing):
            draw = levels.draw(hot * (cold / hot) ** (i / max(1, search.iterations - 1)), generator)
            (value, worth), missing = excite(draw), levels.missing(draw)
            loss = search.mission * missing + search.diversity * levels.likeness() - worth
        if is_climbing:
            optimizer.zero_grad()
            loss.sum().backward()
            optimizer.step()
        best.note(draw, value, worth, missing)
        curve.append(value.detach().numpy())
    with torch.no_grad():
        draw = levels.draw(1.0, None)
        best.note(draw, *excite(draw), levels.missing(draw))
    return Found(levels.decode(best.draw), best.value.numpy(), np.stack(curve))


class _Best:
    """The best that was drawn of each level; what has nothing missing is better than what has."""

    def __init__(self, levels: SoftLevels, count: int):
        self.draw, self.value = levels.draw(1.0, None), torch.full((count,), float("nan"))
        self._worth = torch.full((count,), -np.inf)

    def note(self, draw: Draw, value: Tensor, worth: Tensor, missing: Tensor) -> None:
        worth = worth.detach() - 1e6 * missing.detach()
        better = worth > self._worth
        self._worth = torch.where(better, worth, self._worth)
        self.value = torch.where(better, value.detach(), self.value)
        self.draw = Draw(
            *(
                torch.where(better.view(-1, *[1] * (new.dim() - 1)), new.detach(), old.detach())
                for new, old in zip(draw, self.draw, strict=True)
            )
        )
