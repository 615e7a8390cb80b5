"""Single episodes: what happens in one of them, pictures and captions.

Axis letters: T steps of the episode, L layers, E experts, A actions.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from mop.analysis.actions import action_probabilities
from mop.analysis.groups import group_routing_data
from mop.analysis.routing_data import whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES, SUBGOALS
from mop.common.errors import InputError
from mop.plotting.style import counted


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


def steps_of(data: RoutingData, episode: int, carrying: list[str] | None = None) -> EpisodeSteps:
    """What captions name of an episode; carrying: as there, where it is known better than by the data."""
    rows, steps, context = episode_rows(data, episode), data.steps, data.episodes[episode]
    if carrying is None and steps.carrying is not None:
        carrying = ["something" if held else "" for held in steps.carrying[rows]]
    outcome = {True: "success", False: "failure"}.get(context.get("success"), "")
    is_known = steps.action_logits is not None and np.isfinite(steps.action_logits[rows]).all()
    return EpisodeSteps(
        outcome=f"{outcome}: out of steps" if outcome == "failure" and context.get("truncated") else outcome,
        num_steps=len(rows),
        lpc=None if steps.lpc is None else np.asarray(steps.lpc)[rows],
        action=None if steps.action is None else np.asarray(steps.action)[rows],
        probabilities=action_probabilities(steps.action_logits[rows]) if is_known else None,
        subgoals=_subgoals(data, episode, rows),
        carrying=carrying,
    )


def episode_rows(data: RoutingData, episode: int) -> np.ndarray:
    """The rows (T,) of an episode's steps, in their order."""
    rows = np.flatnonzero(data.steps.episode == episode)
    return rows[np.argsort(data.column("t_step")[rows], kind="stable")]


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


def episode_frames(data: RoutingData, episode: int) -> tuple[list[np.ndarray], list[str]]:
    """The world in every state of an episode: pictures (height, width, 3) uint8, and what the agent holds."""
    from mop.envs.render import play_again

    _require_pictures(data)
    rows, seed = episode_rows(data, episode), data.episodes[episode]["seed"]
    states = play_again(data.header["task_id"], seed, data.column("action")[rows].tolist())
    pictures, places, held = zip(*states, strict=True)
    if not np.array_equal(places[:-1], data.column("position")[rows]):
        raise _other_world(data, seed)
    return list(pictures), list(held)


def _other_world(data: RoutingData, seed: int) -> InputError:
    made_with = data.header.get("minigrid_version")
    return InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")


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
