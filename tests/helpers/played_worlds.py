"""Worlds played in Python with mixed actions, step by step as rows of integers; and the same rows by JavaScript.

Axis letters: T actions of an episode, F numbers of a row.
"""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from minigrid.core.actions import Actions
from minigrid.core.constants import OBJECT_TO_IDX

from mop.analysis.groups import GROUPINGS
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.envs.babyai import NUM_ACTIONS, World
from mop.envs.episodes import episode_context
from mop.envs.geometry import DOOR, EMPTY, code_kind
from mop.envs.teacher import TeacherFailure

KEY, BALL, BOX = (OBJECT_TO_IDX[name] for name in ("key", "ball", "box"))
WITHOUT_NUMBER = 2**20 - 1
SHARES = (0.0, 0.15, 0.5, 1.0)  # of the actions that are not the bot's
EVENTS = ("t_pick", "t_opened", "t_unlocked", "t_drop")

# plays `actions[k]` in world k of a file: the phases' grouping, and the rows (T + 1, F) of each episode, see `row`
PLAY = """
function play({ palette, worlds }, actions) {
  const phases = new Phases(worlds, palette);
  const events = ["tPick", "tOpened", "tUnlocked", "tDrop"];
  const plain = (code) => code & (2 ** 20 - 1);
  const seen = [];
  const row = (world) => {
    world.visible().forEach((isSeen, at) => (seen[at] ||= isSeen));
    const ends = [world.terminated, world.truncated, world.success].map(Number);
    const times = events.map((name) => world[name] ?? -1);
    return [...world.observe(), ...world.codes.map(plain), ...seen, world.x, world.y, world.direction,
      plain(world.carried), ...ends, ...times, phases.labels.indexOf(phases.of(world))];
  };
  const played = worlds.map((start, k) => {
    seen.length = 0;
    const world = new World(start, palette);
    const rows = [row(world)];
    for (const action of actions[k]) {
      world.step(action);
      rows.push(row(world));
    }
    const bytes = new Uint8Array(Int32Array.from(rows.flat()).buffer);
    let text = "";
    for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(text);
  });
  return { grouping: phases.grouping, labels: phases.labels, played };
}
"""


@dataclass
class Played:
    """An episode in Python: `rows` (T + 1, F) int64 but for the phase, its actions, and what the phases need."""

    context: dict
    actions: list[int] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)


def play(task_id: str, seed: int, max_steps: int | None, share: float, limit: int) -> Played:
    """Play one episode to its end, or `limit` actions; share: of the actions that are drawn at random."""
    world, rng = World(task_id, max_steps), np.random.default_rng([seed, int(100 * share)])
    world.reset(seed)
    played = Played(episode_context(world))
    played.rows.append(_row(world, False, False, False))
    bot, reward, terminated, truncated = world.label, 0.0, False, False
    while len(played.actions) < limit:
        try:
            action = bot()
        except TeacherFailure:
            action, bot = -1, _silent
        if action < 0 or rng.random() < share:
            action = _random_action(world, rng)
        front = code_kind(world.codes[world._front()[::-1]])
        reward, terminated, truncated = world.step(action)
        played.actions.append(action)
        played.rows.append(_row(world, terminated, truncated, reward > 0))
        played.counts["boxes opened"] += action == Actions.toggle and front == BOX
        if terminated or truncated:
            break
    played.counts.update(
        steps=len(played.actions), successes=reward > 0, truncated=truncated, failures=terminated and reward == 0
    )
    played.counts.update({name: getattr(world, name) is not None for name in EVENTS})
    return played


def _silent() -> int:
    return -1


def _random_action(world: World, rng: np.random.Generator) -> int:
    """Any action; half the time, what can be done with what is in front."""
    kind, is_full = code_kind(world.codes[world._front()[::-1]]), world.env.carrying is not None
    apt = {
        Actions.pickup: kind in (KEY, BALL, BOX) and not is_full,
        Actions.drop: kind == EMPTY and is_full,
        Actions.toggle: kind in (DOOR, BOX),
    }
    actions = [int(action) for action, is_apt in apt.items() if is_apt]
    return int(rng.choice(actions)) if actions and rng.random() < 0.5 else int(rng.integers(NUM_ACTIONS))


def _row(world: World, terminated: bool, truncated: bool, success: bool) -> np.ndarray:
    """All that is compared of a state, but the phase: view, grid, cells seen so far, agent, hand, end, events."""
    times = [-1 if getattr(world, name) is None else getattr(world, name) for name in EVENTS]
    codes, carried = world.codes & WITHOUT_NUMBER, world.carried & WITHOUT_NUMBER
    ends = [terminated, truncated, success]
    agent = [*world.position, world.direction, carried]
    return np.concatenate([world.obs, codes.reshape(-1), world.seen.T.reshape(-1), agent, ends, times]).astype(np.int64)


def phases_in_python(episodes: Sequence[Played], grouping: str) -> tuple[list[str], np.ndarray]:
    """The label of the phase of each step of all episodes, one after the other, and whether the grouping suits them."""
    rows = [row for played in episodes for row in played.rows[:-1]]
    counts = [len(played.actions) for played in episodes]
    tail = np.array([row[-11:] for row in rows])  # x, y, direction, carried, ends (3), events (4)
    steps = Steps(
        episode=np.repeat(np.arange(len(episodes)), counts),
        t_step=np.concatenate([np.arange(count) for count in counts]),
        position=tail[:, :2],
        direction=tail[:, 2],
        carrying=tail[:, 3] != EMPTY,
    )
    times = [dict(zip(EVENTS, (None if t < 0 else int(t) for t in p.rows[-1][-4:]), strict=True)) for p in episodes]
    data = RoutingData({}, [p.context | t for p, t in zip(episodes, times, strict=True)], steps)
    keys = GROUPINGS[grouping].keys(data)
    return [GROUPINGS[grouping].label((int(key),), data) for key in keys], keys


def rows_of(text: str, num_rows: int) -> np.ndarray:
    """Rows (num_rows, F) int64 from the page."""
    return np.frombuffer(base64.b64decode(text), np.int32).reshape(num_rows, -1).astype(np.int64)
