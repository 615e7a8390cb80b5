"""Worlds played in Python with mixed actions, step by step as rows of integers; and the same rows from JavaScript.

Axis letters: T actions of an episode, F numbers of a row.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from javascript import floats_of
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX

from mop.analysis.groups import GROUPINGS
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.envs.babyai import NUM_ACTIONS, World
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import episode_context
from mop.envs.geometry import DOOR, EMPTY, code_kind
from mop.envs.teacher import TeacherFailure
from mop.microscope.pack_worlds import WITHOUT_NUMBER, pack_worlds

MODULES = ("geometry", "instructions", "world", "phases")
KEY, BALL, BOX = (OBJECT_TO_IDX[name] for name in ("key", "ball", "box"))
SHARES = (0.0, 0.15, 0.5, 1.0)  # of the actions that are not the bot's
EVENTS = ("t_pick", "t_opened", "t_unlocked", "t_drop")
TAIL = 11  # numbers at the end of a row: x, y, direction, carried, three of the end, four events

# Plays `actions[k]` in world k of a file: the phases' labels, and the rows (T + 1, F + 1) of each episode, those of
# `state_row` with the index of the phase behind. A list in place of an action is an edit: a method and its arguments;
# "begin" begins the episode anew.
PLAY = """
function play({ palette, worlds }, actions, isByKey) {
  const phases = new Phases(isByKey);
  const plain = (code) => code & (2 ** 20 - 1);
  const row = (world, seen) => {
    world.visible().forEach((isSeen, at) => (seen[at] ||= isSeen));
    const ends = [world.terminated, world.truncated, world.success].map(Number);
    const times = [world.tPick, world.tOpened, world.tUnlocked, world.tDrop].map((time) => time ?? -1);
    return [...world.observe(), ...world.codes.map(plain), ...seen, world.x, world.y, world.direction,
      plain(world.carried), ...ends, ...times, phases.labels.indexOf(phases.of(world))];
  };
  const playOne = (start, k) => {
    const world = new World(start, palette);
    let seen = [];
    let rows = [row(world, seen)];
    for (const action of actions[k]) {
      if (Array.isArray(action)) {
        world[action[0]](...action.slice(1));
        if (action[0] === "begin") rows = [row(world, (seen = []))];
      } else {
        world.step(action);
        rows.push(row(world, seen));
      }
    }
    return textOfFloats(rows);
  };
  return { labels: phases.labels, rows: worlds.map(playOne) };
}
"""


def pack(task_id: str, seeds: Sequence[int], max_steps: int | None = None) -> dict:
    """Pack worlds without the bot's episodes, which take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BotPaths, "ask", lambda bot_paths, seed: "not asked")
        return pack_worlds(BotPaths(task_id, max_steps, None), seeds)


@dataclass
class Played:
    """An episode in Python: its world at the beginning, actions, rows (T + 1, F) int64, and what happened in it."""

    context: dict
    commands: list[Any] = field(default_factory=list)  # actions, and edits before the last beginning
    rows: list[np.ndarray] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)


def play(task_id: str, seed: int, max_steps: int | None, share: float, limit: int) -> Played:
    """Play one episode to its end, or `limit` actions; share: of the actions that are drawn at random."""
    world, rng = World(task_id, max_steps), np.random.default_rng([seed, int(100 * share)])
    world.reset(seed)
    played = Played(episode_context(world))
    go_on(world, played, rng, share, limit)
    return played


def go_on(world: World, played: Played, rng: np.random.Generator, share: float, limit: int) -> None:
    """Play a world in which no action was taken yet to its end, or `limit` actions."""
    bot, reward, terminated, truncated = world.label, 0.0, False, False
    played.rows = [state_row(world, terminated, truncated, False)]
    while world.num_steps < limit and not (terminated or truncated):
        try:
            action = bot()
        except TeacherFailure:
            action, bot = -1, lambda: -1
        if action < 0 or rng.random() < share:
            action = random_action(world, rng)
        played.counts["boxes opened"] += int(action == Actions.toggle and _kind_in_front(world) == BOX)
        reward, terminated, truncated = world.step(action)
        played.commands.append(action)
        played.rows.append(state_row(world, terminated, truncated, reward > 0))
    ends = {"successes": reward > 0, "failures": terminated and reward == 0, "truncated": truncated}
    events = {name: getattr(world, name) is not None for name in EVENTS}
    played.counts.update({"episodes": 1, "actions": world.num_steps} | ends | events)


def random_action(world: World, rng: np.random.Generator) -> int:
    """Any action; half the time, what can be done with what is in front."""
    kind, is_full = _kind_in_front(world), world.env.carrying is not None
    apt = {
        Actions.pickup: kind in (KEY, BALL, BOX) and not is_full,
        Actions.drop: kind == EMPTY and is_full,
        Actions.toggle: kind in (DOOR, BOX),
    }
    actions = [int(action) for action, is_apt in apt.items() if is_apt]
    return int(rng.choice(actions)) if actions and rng.random() < 0.5 else int(rng.integers(NUM_ACTIONS))


def _kind_in_front(world: World) -> int:
    x, y = world._front()
    return code_kind(world.codes[y, x])


def state_row(world: World, terminated: bool, truncated: bool, success: bool) -> np.ndarray:
    """All that is compared of a state, but the phase: view, grid, cells seen so far, agent, hand, end, events."""
    times = [-1 if getattr(world, name) is None else getattr(world, name) for name in EVENTS]
    codes, carried = world.codes & WITHOUT_NUMBER, world.carried & WITHOUT_NUMBER
    agent, ends = [*world.position, world.direction, carried], [terminated, truncated, success]
    return np.concatenate([world.obs, codes.reshape(-1), world.seen.T.reshape(-1), agent, ends, times]).astype(np.int64)


def rows_of(text: str, num_rows: int) -> np.ndarray:
    """The rows (num_rows, F + 1) int64 of an episode in JavaScript."""
    return floats_of(text).reshape(num_rows, -1).astype(np.int64)


def routing_data_of(episodes: Sequence[Played]) -> RoutingData:
    """The steps of episodes, one after the other, with what groups of them need."""
    counts = [len(played.rows) - 1 for played in episodes]
    tails = np.array([row[-TAIL:] for played in episodes for row in played.rows[:-1]])
    steps = Steps(
        episode=np.repeat(np.arange(len(episodes)), counts),
        t_step=np.concatenate([np.arange(count) for count in counts]),
        position=tails[:, :2],
        direction=tails[:, 2],
        carrying=tails[:, 3] != EMPTY,
    )
    times = [[None if time < 0 else int(time) for time in played.rows[-1][-4:]] for played in episodes]
    contexts = [p.context | dict(zip(EVENTS, t, strict=True)) for p, t in zip(episodes, times, strict=True)]
    return RoutingData({}, contexts, steps)


def phases_in_python(routing_data: RoutingData, grouping: str) -> list[str]:
    """The label of the phase of each step."""
    keys = GROUPINGS[grouping].keys(routing_data).tolist()
    return [GROUPINGS[grouping].label((key,), routing_data) for key in keys]
