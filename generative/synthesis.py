"""Worlds that excite a quantity of the policy, found by gradients through policy and world; and what they do really.

Of each level, values = the quantity at steps 0 ... T - 1 of the closed loop that begins in it, and what is maximised is

    J = read(values) / sd + prior log p(level) - mission missing - diversity likeness

read: their mean, or the last one; sd: the standard deviation over random levels of the task; log p: `LevelPrior`, in
nats; missing: things that the mission speaks of and are not there; likeness to the other levels. Levels are drawn
by straight-through Gumbel-softmax at a temperature that falls, so the policy sees legal worlds only, and of all that
were drawn the best with nothing missing is kept. Adam moves the logits.
Axis letters: N levels, T steps, I iterations.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from generative.closed_loop import roll_out
from generative.levels import Draw, Level, SoftLevels
from generative.playing import play
from generative.policies import FrozenPolicy
from generative.simulators import Simulator, State
from generative.targets import Target
from mop.base.streams import stream_seed
from mop.worlds.world import World

READINGS: dict[str, Callable[[Tensor], Tensor]] = {  # values (T, N) -> (N,)
    "mean": lambda values: values.mean(0),
    "last": lambda values: values[-1],
}
_AT_ONCE = 256  # worlds that are played together


@dataclass(frozen=True)
class Search:
    """How levels are optimised."""

    num_steps: int = 8  # T
    read: str = "mean"  # of READINGS
    iterations: int = 300
    lr: float = 0.1
    prior: float = 0.02  # standard deviations of the quantity for a nat
    mission: float = 1.0  # ... for a thing that is missing
    diversity: float = 0.5  # ... for levels that are all the same
    sureness: float = 0.9  # the probability, at first, of each thing of a level's base
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
    begin: Callable[[State], State],
    levels: SoftLevels,
    lang: Tensor,
    target: Target,
    search: Search,
    sd: float,
) -> Found:
    """Optimise the levels, which are changed. begin: an exact state -> where the simulator begins; lang (N, G)."""
    generator = torch.Generator().manual_seed(stream_seed(search.seed, "search of levels"))
    optimizer = torch.optim.Adam(levels.parameters, search.lr)
    hidden, best = policy.initial_hidden(len(lang)), _Best(levels, len(lang))

    def excite(draw: Draw) -> tuple[Tensor, Tensor]:
        """The quantity (N,), and what it is worth with its prior (N,)."""
        trace = roll_out(policy, simulator, begin(levels.state(draw)), lang, hidden, search.num_steps)
        values = torch.stack([target.of(trace.answer(t)) for t in range(search.num_steps)])
        value = READINGS[search.read](values)
        return value, value / sd + search.prior * levels.log_prior(draw)

    curve, (hot, cold) = [], search.temperatures
    for i in tqdm(range(search.iterations), "optimising", leave=False, dynamic_ncols=True):
        draw = levels.draw(hot * (cold / hot) ** (i / max(1, search.iterations - 1)), generator)
        (value, worth), missing = excite(draw), levels.missing(draw)
        loss = search.mission * missing + search.diversity * levels.likeness() - worth
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


# --- the real worlds --------------------------------------------------------------------------------------------------


def read_real(rows: dict[str, np.ndarray], num_steps: int, read: str) -> float:
    """The quantity of an episode that was played for T - 1 actions; rows: of `play`, with `value`.

    Where the episode ended before, its mean is over the steps that it had, and it has no last value: NaN.
    """
    has_ended = bool((rows["terminated"] | rows["truncated"]).any())
    values = rows["value"][: len(rows["value"]) - has_ended]  # nobody acts on the state after the end
    if read == "last" and len(values) < num_steps:
        return float("nan")
    return float(READINGS[read](torch.from_numpy(values).double()))


class RandomLevels(NamedTuple):
    """Worlds of a task as they come."""

    levels: list[Level]
    values: list[np.ndarray]  # of each policy, (M,) the quantity


def random_levels(
    world_of: Callable[[], World],
    seeds: Sequence[int],
    level_of: Callable[[World], Level],
    policies: Sequence[tuple[FrozenPolicy, Target]],
    search: Search,
) -> RandomLevels:
    """Play the worlds of these seeds with each policy, and read its quantity."""
    worlds, levels, values = [world_of() for _ in range(min(_AT_ONCE, len(seeds)))], [], [[] for _ in policies]
    with tqdm(total=len(seeds), desc="random levels", unit="level", leave=False, dynamic_ncols=True) as bar:
        for some in _chunks(seeds, _AT_ONCE):
            for number, (policy, target) in enumerate(policies):
                for world, seed in zip(worlds, some, strict=False):
                    world.reset(seed)
                here = worlds[: len(some)]
                if number == 0:
                    levels += [level_of(world) for world in here]
                played = play(policy, here, search.num_steps - 1, measure=target.of)
                values[number] += [read_real(rows, search.num_steps, search.read) for rows in played]
            bar.update(len(some))
    return RandomLevels(levels, [np.array(of_policy) for of_policy in values])


def _chunks(items: Sequence, size: int) -> Iterator[Sequence]:
    for first in range(0, len(items), size):
        yield items[first : first + size]


def percentile_of(value: float, values: np.ndarray) -> float:
    """The share in percent of values (M,), NaN left out, that are below a value; NaN where that is NaN."""
    known = values[np.isfinite(values)]
    return float("nan") if np.isnan(value) or not len(known) else 100.0 * float((known < value).mean())
