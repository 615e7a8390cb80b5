"""Trials of simulators: real worlds in which somebody acts on from a recorded moment, and what the policy makes of it.

A trial begins with some frames of a recorded history of an unseen world: what a simulator is shown. From there an actor
acts in the real world, and simulators are to show the same frames, given the same actions.
Axis letters: N trials, I frames that are shown, T frames that follow, A actions, X numbers of a soft observation, O of
an observation, S hidden units, G numbers of a mission, H and W height and width of a grid.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from generative.attribution.counterfactuals import world_at
from generative.domains.babyai.policy import Answer, FrozenPolicy
from generative.recordings.format import Episode, Recording
from generative.simulators.relaxation import NUM_CELLS, soften
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS, World
from mop.fast.grid import IMAGE_SIZE, VIEW_SIZE
from mop.fast.minigrid_patches import DIRECTIONS

ACTORS = ("trained", "untrained", "constant")
AHEAD = 2  # the action of the actor that always does the same


@dataclass(frozen=True)
class Trials:
    """N trials with one actor."""

    frames: Tensor  # (I + T, N, X) soft observations
    actions: Tensor  # (I + T - 1, N) int64; of no meaning after the end of the episode
    mask: np.ndarray  # (T, N) bool, False after the end of the episode
    is_seen: np.ndarray  # (T, N, 49) bool: the cell is visible, and its place was in a frame that was shown
    is_new: np.ndarray  # (T, N, 49) bool: it is visible, and its place was not
    start: dict[
        str, np.ndarray
    ]  # at the last frame shown: grid (N, H, W), position (N, 2), direction (N,), carried (N,)
    lang: Tensor  # (N, G)
    policy: FrozenPolicy  # who watches: the actor, or the trained policy where the actor is none
    hidden: Tensor  # (N, S), its memory before the first frame that follows
    answer: Answer  # of it to the frames that follow: logits (T, N, A), routing L x (T, N, E_l), hidden (T, N, S)

    @property
    def num_shown(self) -> int:
        """I."""
        return len(self.frames) - len(self.mask)

    @property
    def one_hot_actions(self) -> Tensor:
        """(I + T - 1, N, A) float32."""
        return F.one_hot(self.actions, NUM_ACTIONS).float()


@dataclass(frozen=True)
class Moments:
    """Where trials begin: for each the episode, and the row that is the last one shown."""

    recording: Recording
    numbers: np.ndarray  # (N,) int64 of the episodes
    rows: np.ndarray  # (N,) int64
    num_shown: int  # I


def choose_moments(recording: Recording, split: str, num_trials: int, num_shown: int, seed: int) -> Moments:
    """A random moment in each of so many random episodes of a split, or of all that are long enough.

    Raises InputError where there is none.
    """
    rng = np.random.default_rng(stream_seed(seed, "moments"))
    numbers = recording.episodes(split)
    numbers = numbers[recording.index["num_rows"][numbers] > num_shown]  # an action is left after what is shown
    if not len(numbers):
        raise InputError(f"{recording.folder} has no {split} episode of more than {num_shown} rows; record more steps")
    numbers = np.sort(rng.permutation(numbers)[:num_trials])
    rows = rng.integers(num_shown - 1, recording.index["num_rows"][numbers] - 1)
    return Moments(recording, numbers, rows, num_shown)


@torch.no_grad()
def run_trials(moments: Moments, actor: str, policy: FrozenPolicy, num_steps: int, seed: int) -> Trials:
    """Let one of ACTORS act on in real worlds for `num_steps` = T steps.

    policy: who watches, and acts where the actor is no constant; its memory is that of the whole history. The trained
    actor takes the likeliest action, the untrained one draws from its probabilities.
    """
    recording, rng = moments.recording, np.random.default_rng(stream_seed(seed, f"actor {actor}"))
    encoding = recording.config["encoding"]
    pairs = [(recording.episode(k), row) for k, row in zip(moments.numbers, moments.rows.tolist(), strict=True)]
    shown = [_Shown(episode, slice(row - moments.num_shown + 1, row + 1)) for episode, row in pairs]
    worlds = [world_at(encoding["task_id"], encoding["max_steps"], e.seed, e["action"][:row]) for e, row in pairs]
    places = _Places(encoding["grid_shape"], len(worlds))
    for i in range(moments.num_shown):
        places.show(np.stack([one.obs[i] for one in shown]), *zip(*(one.pose(i) for one in shown), strict=True))
    start = _start_of(worlds)
    lang = torch.from_numpy(np.stack([episode.lang for episode, _ in pairs])).float()
    memory = torch.stack([_memory(policy, episode, row) for episode, row in pairs])
    frames, actions = [np.stack([one.obs[i] for one in shown]) for i in range(moments.num_shown)], []
    is_alive, mask, kinds, answers = np.ones(len(worlds), bool), [], [], []
    for _ in tqdm(range(num_steps), desc=f"actor: {actor}", leave=False, dynamic_ncols=True):
        answers.append(policy.step(soften(frames[-1]), lang, memory))
        memory = answers[-1].hidden
        actions.append(_act(actor, answers[-1].logits, rng))
        mask.append(is_alive.copy())
        for n in np.flatnonzero(is_alive):
            _, terminated, truncated = worlds[n].step(int(actions[-1][n]))
            is_alive[n] = not (terminated or truncated)
        frames.append(np.stack([world.obs for world in worlds]))
        kinds.append(places.split(frames[-1], *zip(*((w.position, w.direction) for w in worlds), strict=True)))
    answers.append(policy.step(soften(frames[-1]), lang, memory))
    before = [np.stack([one.actions[i] for one in shown]) for i in range(moments.num_shown - 1)]
    return Trials(
        soften(np.stack(frames)),
        torch.from_numpy(np.stack([*before, *actions]).astype(np.int64)),
        np.stack(mask),
        *(np.stack(of_kind) for of_kind in zip(*kinds, strict=True)),
        start,
        lang,
        policy,
        answers[0].hidden,
        _stacked(answers[1:]),
    )


def _act(actor: str, logits: Tensor, rng: np.random.Generator) -> np.ndarray:
    """The actions (N,) of an actor, int."""
    if actor == "constant":
        return np.full(len(logits), AHEAD)
    noise = rng.gumbel(size=logits.shape) if actor == "untrained" else 0.0  # the largest of the sum is a draw
    return (logits.numpy() + noise).argmax(-1)


def _memory(policy: FrozenPolicy, episode: Episode, row: int) -> Tensor:
    """The memory (S,) of a policy before a row of an episode, of which it has seen all before."""
    hidden = policy.initial_hidden(1)
    if row == 0:
        return hidden[0]
    seen = soften(np.array(episode["obs"][:row]))[:, None]
    return policy.run(seen, torch.from_numpy(np.array(episode.lang))[None].float(), hidden).hidden[-1, 0]


def _start_of(worlds: list[World]) -> dict[str, np.ndarray]:
    """What the exact simulator needs of real worlds."""
    return {
        "grid": np.stack([world.codes for world in worlds]),
        "position": np.array([world.position for world in worlds]),
        "direction": np.array([world.direction for world in worlds]),
        "carried": np.array([world.carried for world in worlds]),
    }


def _stacked(answers: list[Answer]) -> Answer:
    """Answers of T steps as one with the axis T first."""
    routing = [torch.stack(weights) for weights in zip(*(answer.routing for answer in answers), strict=True)]
    logits, hidden = (torch.stack([getattr(answer, name) for answer in answers]) for name in ("logits", "hidden"))
    return Answer(logits, routing, hidden)


class _Shown:
    """The rows of an episode that are shown."""

    def __init__(self, episode: Episode, rows: slice):
        self.obs, self.actions = np.array(episode["obs"][rows], np.float32), np.array(episode["action"][rows])
        self._position = np.array(episode["position"][rows])

    def pose(self, i: int) -> tuple[np.ndarray, int]:
        """Position (2,) and direction in frame i."""
        return self._position[i], int(self.obs[i, IMAGE_SIZE : IMAGE_SIZE + 4].argmax())


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
        """Where the cells (N, 49) of views are in `_was_shown`; as `mop.fast.grid.observe` has them."""
        x, y = np.asarray(positions).T[:, :, None] + VIEW_SIZE
        dx, dy = np.array(DIRECTIONS)[np.asarray(directions)].T[:, :, None]
        right, back = np.divmod(np.arange(NUM_CELLS), VIEW_SIZE)
        right, ahead = right - VIEW_SIZE // 2, VIEW_SIZE - 1 - back
        return np.arange(len(x))[:, None], y + dy * ahead + dx * right, x + dx * ahead - dy * right
