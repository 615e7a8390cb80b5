"""Single episodes: what happens in one of them, pictures and captions.

Axis letters: T steps of the episode, L layers, E experts, A actions.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mop.analysis.actions import find_loop
from mop.analysis.groups import group_routing_data
from mop.analysis.routing import select_episode
from mop.analysis.routing_data import whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES, SUBGOALS
from mop.common.errors import InputError
from mop.plotting.style import counted, expert_hues

if TYPE_CHECKING:  # it draws worlds, and is only loaded where there are pictures
    from mop.envs.render import Replay


def _outcome(episode: Mapping) -> str:
    return {True: "success", False: "failure"}.get(episode.get("success"), "")


# --- one episode ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class EpisodeSteps:
    """The states 0 to T of an episode of T actions, as far as captions name them; None: unknown."""

    num_steps: int
    outcome: str  # "success", "failure", or "" if it is unknown
    lpc: np.ndarray | None  # (T,) float
    action: np.ndarray | None  # (T,) int
    probabilities: np.ndarray | None  # (T, A) float64 of the actions
    carrying: list[str] | None  # T + 1, or T where the world is not known: what the agent holds, "" for nothing
    subgoals: list[str] | None = None  # T: the bot's, "open" or "open, instruction 2 of 3"

    def caption(self, t_step: int) -> str:
        """State `t_step` in words: 0 is the start, T the state after the last action."""
        if t_step == self.num_steps:
            return " · ".join(filter(None, [f"after the last action ({counted(t_step, 'step')})", self.outcome]))
        parts = [f"step {t_step} of {self.num_steps}"]
        if self.action is not None:
            chosen = self.action[t_step]
            share = "" if self.probabilities is None else f" (p = {self.probabilities[t_step, chosen]:.2f})"
            parts.append(f"next action: {ACTION_NAMES[chosen]}{share}")
        if self.subgoals is not None:
            parts.append(f"sub-goal: {self.subgoals[t_step]}")
        if self.carrying is not None:
            held = self.carrying[t_step]
            parts.append(
                "hands empty" if not held else f"carrying {held}" if held == "something" else f"carrying the {held}"
            )
        if self.lpc is not None and math.isfinite(self.lpc[t_step]):
            parts.append(f"LPC {self.lpc[t_step]:,.0f}")
        return " · ".join(parts)


@dataclass(frozen=True, eq=False, kw_only=True)
class EpisodeRecord(EpisodeSteps):
    """One episode with all that is known of it: states 0 to T, steps 0 to T - 1.

    The world is None where the data do not tell it, or this machine's Minigrid makes another one; `no_world` says why.
    """

    hues: list[list[str]]  # of the experts of each layer that has several
    layer_numbers: list[int]  # of these layers
    weights: list[np.ndarray]  # their router weights, (T, E_l)
    events: list[tuple[int, str]]  # number of actions after which it was first true, and what happened
    world: "Replay | None"
    no_world: str


def episode_record(data: RoutingData, episode: int, tile_size: int = 32) -> EpisodeRecord:
    """Everything that the data tell of one episode, with its world where that can be made again."""
    data = whole_of(data)
    chosen, context, steps = select_episode(data, episode), data.episodes[episode], data.steps
    num_steps = len(chosen.t_step)
    if not np.array_equal(chosen.t_step, np.arange(num_steps)):
        raise InputError(
            f"the steps of episode {episode} are not those of one whole episode: it cannot be shown step by step"
        )
    rows = episode_rows(data, episode)
    world, no_world = None, ""
    try:
        world = _replay(data, episode, rows, tile_size)
    except InputError as error:
        no_world = str(error)
    events = [(time, what) for what, time in chosen.events.items()] if world is None else list(world.events)
    events += _loop_event(data, rows)
    carrying = None if world is None else world.carrying
    if carrying is None and steps.carrying is not None:
        carrying = ["something" if held else "" for held in steps.carrying[rows]]
    layers = [layer for layer, weights in enumerate(chosen.routing) if weights.shape[1] > 1]
    hues, outcome = expert_hues(data.header, chosen.routing), _outcome(context)
    return EpisodeRecord(
        outcome=f"{outcome}: out of steps" if outcome == "failure" and context.get("truncated") else outcome,
        num_steps=num_steps,
        hues=[hues[layer] for layer in layers],
        layer_numbers=layers,
        weights=[chosen.routing[layer] for layer in layers],
        lpc=None if steps.lpc is None else np.asarray(steps.lpc)[rows],
        action=None if steps.action is None else np.asarray(steps.action)[rows],
        probabilities=_probabilities(steps.action_logits, rows),
        subgoals=_subgoals(data, episode, rows),
        carrying=carrying,
        events=sorted(events, key=lambda event: event[0]),
        world=world,
        no_world=no_world,
    )


def episode_rows(data: RoutingData, episode: int) -> np.ndarray:
    """The rows (T,) of an episode's steps, in their order."""
    rows = np.flatnonzero(data.steps.episode == episode)
    return rows[np.argsort(data.column("t_step")[rows], kind="stable")]


def _replay(data: RoutingData, episode: int, rows: np.ndarray, tile_size: int):
    """The episode played again."""
    from mop.envs.render import replay_episode

    _require_pictures(data)
    seed = data.episodes[episode]["seed"]
    world = replay_episode(data.header["task_id"], seed, data.column("action")[rows].tolist(), tile_size)
    if not np.array_equal(world.position[:-1], data.column("position")[rows]):
        raise _other_world(data, seed)
    return world


def _other_world(data: RoutingData, seed: int) -> InputError:
    made_with = data.header.get("minigrid_version")
    return InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")


def _probabilities(logits: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """Softmax (T, A) float64 of the logits; None where there are none, or they are not finite."""
    if logits is None or not np.isfinite(logits[rows]).all():
        return None
    exponents = np.exp(logits[rows].astype(np.float64) - logits[rows].max(1, keepdims=True))
    return exponents / exponents.sum(1, keepdims=True)


def _subgoals(data: RoutingData, episode: int, rows: np.ndarray) -> list[str] | None:
    """The bot's sub-goal at each step in words, with its instruction where the mission has several; None in old caches.

    Where the bot is silent it is "unknown".
    """
    steps, count = data.steps, len(data.episodes[episode].get("instructions") or ())
    if steps.subgoal is None:
        return None
    words = ["unknown" if goal < 0 else SUBGOALS[goal].replace("_", " ") for goal in steps.subgoal[rows].tolist()]
    if steps.instruction is None or count < 2:
        return words
    numbers = steps.instruction[rows].tolist()
    return [
        word if number < 0 else f"{word}, instruction {number + 1} of {count}"
        for word, number in zip(words, numbers, strict=True)
    ]


def _loop_event(data: RoutingData, rows: np.ndarray) -> list[tuple[int, str]]:
    """The loop in which an episode ends, as an event, where there is one and the data tell it."""
    steps = data.steps
    if steps.position is None or steps.direction is None or steps.action is None:
        return []
    loop = find_loop(steps.position[rows], steps.direction[rows], steps.action[rows])
    return [] if loop is None else [(loop.start, f"repeats {counted(loop.period, 'action')} from here on")]


# --- pictures of single steps -----------------------------------------------------------------------------------------


def episode_frame(data: RoutingData, episode: int, t_step: int, tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of the world of an episode before action `t_step`, made from its seed."""
    from mop.envs.render import replay_world

    _require_pictures(data)
    data = whole_of(data)
    rows, seed = episode_rows(data, episode), data.episodes[episode]["seed"]
    world = replay_world(data.header["task_id"], seed, data.column("action")[rows[:t_step]].tolist())
    if t_step < len(rows) and list(map(int, world.agent_pos)) != data.column("position")[rows[t_step]].tolist():
        raise _other_world(data, seed)
    return world.get_frame(tile_size=tile_size)


@functools.lru_cache(maxsize=4)  # of the runs and analyses that were shown last
def example_images(data: RoutingData, group_by: str, max_groups: int = 16) -> dict[str, np.ndarray]:
    """A picture of the first step of each group, of the largest if there are more: label -> (height, width, 3) uint8.

    Empty if the cache lacks what is needed, as figures can do without.
    """
    try:
        groups = group_routing_data(data, group_by)
        _require_pictures(data)
        first = {groups.labels[group]: groups.first_steps[group] for group in groups.largest(max_groups)}
        return {
            label: episode_frame(data, data.steps.episode[step], data.column("t_step")[step], tile_size=16)
            for label, step in first.items()
        }
    except InputError:
        return {}


def _require_pictures(data: RoutingData) -> None:
    """Refuse data that lacks what a picture of a world at some step is made from."""
    for field in ("seed", "action", "t_step", "position"):
        data.require(field)
