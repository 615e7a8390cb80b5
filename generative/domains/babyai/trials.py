"""Fidelity in BabyAI: trials in real worlds, baselines of simulators, and what is measured.

Axis letters: N trials, I frames that are shown, T frames that follow, A actions, X numbers of a soft observation, O of
an observation, S hidden units, G numbers of a mission, H and W height and width of a grid, K codes of a cell.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from generative.attribution.counterfactuals import world_at
from generative.attribution.loop_inputs import watch
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Answer, FidelityProtocol, Sums, explained, masked_sums, stack_answers
from generative.recordings.format import Recording
from generative.simulators.evaluation import COPY, Forecast, Moments, Trials, by_copy
from generative.simulators.exact import ExactSimulator, simulator_of
from generative.simulators.relaxation import NUM_CELLS, discretise, to_simplex
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS
from mop.envs.geometry import CATEGORIES, IMAGE_SIZE, VIEW_SIZE, cells_of_view

MARKOV = "markov"
DIRECTION = slice(IMAGE_SIZE, IMAGE_SIZE + 4)  # columns of an observation
ACTORS = ("trained", "untrained", "constant")
AHEAD = 2  # the action of the actor that always does the same
NUM_CODES = int(np.prod(CATEGORIES))  # of a cell: every type in every colour and state
NUM_DIRECTIONS = 4
MEASURES = {  # name -> what it is
    "cells": "cells that are right in type, colour and state",
    "seen_cells": "of these, cells in view whose place was shown to the simulator",
    "new_cells": "of these, cells in view whose place was not",
    "exact_view": "observations that are right as a whole",
    "action": "steps in which the policy's likeliest action is the same",
    "routing": "routers whose likeliest expert is the same",
    "action_kl": "KL of the policy's actions, the true from the simulated, in nats",
    "routing_kl": "KL of the router's weights, the sum over layers, in nats",
    "hidden_r2": "share of the variance of the policy's memory that is explained",
}


# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BabyAITrials(Trials):
    """Trials in BabyAI; frames are views."""

    is_seen: np.ndarray  # (T, N, 49) bool: the cell is visible, and its place was in a frame that was shown
    is_new: np.ndarray  # (T, N, 49) bool: it is visible, and its place was not
    start: dict[str, np.ndarray]  # at the last frame shown: grid (N, H, W), position (N, 2), direction, carried (N,)
    answer: Answer  # of the policy to the frames that follow: logits (T, N, A), routing L x (T, N, E_l), hidden


@torch.no_grad()
def run_trials(moments: Moments, actor: str, policy: FrozenPolicy, num_steps: int, seed: int) -> BabyAITrials:
    """Let one of ACTORS act on in real worlds for `num_steps` = T steps.

    policy: the watcher, which also acts unless the actor is constant; its hidden state follows the whole history. The
    trained actor takes the likeliest action, the untrained one draws from its probabilities.
    """
    recording, rng = moments.recording, np.random.default_rng(stream_seed(seed, f"actor {actor}"))
    encoding = recording.config["encoding"]
    pairs = [(recording.episode(k), row) for k, row in zip(moments.numbers, moments.rows.tolist(), strict=True)]
    worlds = [world_at(encoding["task_id"], encoding["max_steps"], e.seed, e["action"][:row]) for e, row in pairs]
    start = {"grid": np.stack([world.codes for world in worlds])}
    start |= {name: np.array([getattr(one, name) for one in worlds]) for name in ("position", "direction", "carried")}
    shown = {  # (I, N, ...)
        name: np.stack([episode[name][row - moments.num_shown + 1 : row + 1] for episode, row in pairs], 1)
        for name in ("obs", "position", "action")
    }
    places = _Places(encoding["grid_shape"], len(worlds))
    for obs, position in zip(shown["obs"], shown["position"], strict=True):
        places.show(obs, position, obs[:, DIRECTION].argmax(1))
    lang = torch.from_numpy(np.stack([episode.lang for episode, _ in pairs])).float()
    hidden = torch.cat([watch(policy, episode, row, to_simplex)[-1:] for episode, row in pairs])
    frames, actions = list(shown["obs"].astype(np.float32)), list(shown["action"][:-1])
    is_alive, mask, kinds, answers = np.ones(len(worlds), bool), [], [], []
    for _ in tqdm(range(num_steps), desc=f"actor: {actor}", leave=False, dynamic_ncols=True):
        answers.append(policy.step(to_simplex(frames[-1]), lang, hidden))
        hidden = answers[-1].hidden
        actions.append(_act(actor, answers[-1].logits, rng))
        mask.append(is_alive.copy())
        for n in np.flatnonzero(is_alive):
            _, terminated, truncated = worlds[n].step(int(actions[-1][n]))
            is_alive[n] = not (terminated or truncated)
        frames.append(np.stack([world.obs for world in worlds]))
        kinds.append(places.split(frames[-1], *zip(*((w.position, w.direction) for w in worlds), strict=True)))
    answers.append(policy.step(to_simplex(frames[-1]), lang, hidden))
    is_seen, is_new = (np.stack(of_kind) for of_kind in zip(*kinds, strict=True))
    return BabyAITrials(
        frames=to_simplex(np.stack(frames)),
        actions=torch.from_numpy(np.stack(actions).astype(np.int64)),
        mask=np.stack(mask),
        lang=lang,
        policy=policy,
        hidden=answers[0].hidden,
        is_seen=is_seen,
        is_new=is_new,
        start=start,
        answer=stack_answers(answers[1:]),
    )


def _act(actor: str, logits: Tensor, rng: np.random.Generator) -> np.ndarray:
    if actor == "constant":
        return np.full(len(logits), AHEAD)
    noise = rng.gumbel(size=logits.shape) if actor == "untrained" else 0.0  # the largest of the sum is a draw
    return (logits.numpy() + noise).argmax(-1)


class _Places:
    """Which places of N worlds were visible in the frames that were shown."""

    def __init__(self, grid_shape: tuple[int, int], num_worlds: int):
        height, width = grid_shape
        margins = 2 * VIEW_SIZE  # views reach beyond the grid
        self._was_shown = np.zeros((num_worlds, height + margins, width + margins), bool)

    def show(self, obs: np.ndarray, positions, directions) -> None:
        """Note what is visible in observations (N, O) at positions (N, 2) in directions (N,)."""
        self._was_shown[self._index(positions, directions)] |= obs[:, :NUM_CELLS] > 0

    def split(self, obs: np.ndarray, positions, directions) -> tuple[np.ndarray, np.ndarray]:
        """(N, 49) bool twice: the cells that are visible and were so in a frame shown, and those that were not."""
        was_shown, is_visible = self._was_shown[self._index(positions, directions)], obs[:, :NUM_CELLS] > 0
        return is_visible & was_shown, is_visible & ~was_shown

    def _index(self, positions, directions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the cells (N, 49) of views are in `_was_shown`."""
        x, y = cells_of_view(*np.asarray(positions).T, np.asarray(directions))
        return np.arange(len(x))[:, None], y + VIEW_SIZE, x + VIEW_SIZE


# --- forecasts --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_exact(simulator: ExactSimulator, trials: BabyAITrials) -> Forecast:
    """Minigrid's own rules, from the whole world as it was."""
    start = trials.start
    state = simulator.state_of(start["grid"], start["position"], start["direction"], start["carried"])
    views = []
    for action in trials.one_hot_actions[trials.num_shown - 1 :]:
        state = simulator.step(state, action)
        views.append(simulator.view(state))
    return Forecast(torch.stack(views))


@dataclass(frozen=True)
class Markov:
    """Every part of an observation by itself: what most often follows it, given the action, in training worlds.

    What was never seen stays as it is.
    """

    tables: list[np.ndarray]  # codes of 49 cells (49, K, A), of the direction (1, 4, A), of the flag (1, 2, A)

    @classmethod
    def of(cls, recording: Recording) -> "Markov":
        """Count what follows what in the training worlds of a recording."""
        counts = [np.zeros((*shape, shape[-2]), np.int32) for shape in _TABLES]
        for k in recording.episodes("train"):
            episode = recording.episode(k)
            parts, actions = _parts(np.asarray(episode["obs"])), np.asarray(episode["action"][:-1], np.int64)
            for table, part in zip(counts, parts, strict=True):
                np.add.at(table, (np.arange(part.shape[1]), part[:-1], actions[:, None], part[1:]), 1)
        return cls(list(map(_most_frequent, counts)))

    def __call__(self, trials: Trials) -> Forecast:
        """The forecast: each frame from the one before it."""
        parts = _parts(discretise(trials.frames[trials.num_shown - 1]).numpy().astype(np.uint8))
        frames = []
        for action in trials.actions[trials.num_shown - 1 :].numpy()[..., None]:
            parts = [table[np.arange(len(table)), part, action] for table, part in zip(self.tables, parts, strict=True)]
            frames.append(_joined(*parts))
        return Forecast(to_simplex(np.stack(frames)))


_TABLES = ((NUM_CELLS, NUM_CODES, NUM_ACTIONS), (1, NUM_DIRECTIONS, NUM_ACTIONS), (1, 2, NUM_ACTIONS))


def _most_frequent(counts: np.ndarray) -> np.ndarray:
    """The code that most often follows, (P, K, A), of counts (P, K, A, K)."""
    unmoved = np.arange(counts.shape[1])[None, :, None]
    return np.where(counts.any(-1), counts.argmax(-1), unmoved)


def _parts(obs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (M, O) as codes of cells (M, 49), directions (M, 1) and carrying flags (M, 1), int64."""
    planes = obs[:, :IMAGE_SIZE].reshape(len(obs), len(CATEGORIES), NUM_CELLS).astype(np.int64)
    cells = np.ravel_multi_index(tuple(planes.transpose(1, 0, 2)), CATEGORIES)
    direction = obs[:, DIRECTION].argmax(-1)[:, None]
    return cells, direction, (obs[:, -1:] > 0).astype(np.int64)


def _joined(cells: np.ndarray, directions: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """The inverse of `_parts`."""
    planes = np.stack(np.unravel_index(cells, CATEGORIES), 1).reshape(len(cells), -1)
    return np.concatenate([planes, np.eye(NUM_DIRECTIONS, dtype=np.int64)[directions[:, 0]], flags], 1)


# --- measures ---------------------------------------------------------------------------------------------------------


def sums_of(trials: BabyAITrials, forecast: Forecast) -> Sums:
    """Of each measure what each trial brings, and of how many: two arrays (T, N) float64, 0 after an episode's end.

    The measure of a horizon is the ratio of the sums over trials.
    """
    policy, truth, mask = trials.policy, trials.answer, trials.mask
    answer = policy.run(forecast.views, trials.lang, trials.hidden)
    true, predicted = discretise(trials.frames[trials.num_shown :]).numpy(), discretise(forecast.views).numpy()
    same = true == predicted
    cells = same[..., :IMAGE_SIZE].reshape(*mask.shape, -1, NUM_CELLS).all(-2)
    of_hidden = explained(truth.hidden, answer.hidden, torch.from_numpy(mask))
    routing, one = list(zip(truth.routing, answer.routing, strict=True)), np.ones(mask.shape)
    sums = {
        "cells": (cells.sum(-1), NUM_CELLS * one),
        "seen_cells": ((cells & trials.is_seen).sum(-1), trials.is_seen.sum(-1)),
        "new_cells": ((cells & trials.is_new).sum(-1), trials.is_new.sum(-1)),
        "exact_view": (same.all(-1), one),
        "action": (_agree(truth.logits, answer.logits), one),
        "routing": (sum(_agree(p, q) for p, q in routing), len(routing) * one),
        "action_kl": (_kl(truth.logits.softmax(-1), answer.logits.softmax(-1)), one),
        "routing_kl": (sum(_kl(p, q) for p, q in routing), one),
        "hidden_r2": tuple(part.numpy() for part in of_hidden),
    }
    return masked_sums(sums, mask)


def _agree(true: Tensor, other: Tensor) -> np.ndarray:
    """Whether the largest of numbers (..., K) is the same one, (...) float64."""
    return (true.argmax(-1) == other.argmax(-1)).double().numpy()


def _kl(true: Tensor, other: Tensor) -> np.ndarray:
    """KL (...) float64 in nats of probabilities (..., K), the other from the true."""
    true, other = true.double().clamp(min=1e-12), other.double().clamp(min=1e-12)
    return (true * (true / other).log()).sum(-1).clamp(min=0).numpy()


PROTOCOL = FidelityProtocol(
    measures=MEASURES,
    actors=ACTORS,
    run_trials=run_trials,
    baselines=lambda recording: {COPY: by_copy, MARKOV: Markov.of(recording)},
    exact=lambda recording: functools.partial(by_exact, simulator_of(recording.config["encoding"])),
    sums_of=sums_of,
)
