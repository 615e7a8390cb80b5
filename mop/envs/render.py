"""Pictures of worlds, from their seed and the actions taken: one, or all of an episode as tiles.

They are made by Minigrid's own environments, which make the same world of a seed as `World`, without compiled code: a
page that shows a picture opens half a second sooner.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import gymnasium
import minigrid  # noqa: F401, registers the environments
import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Box, Door, WorldObj
from minigrid.minigrid_env import MiniGridEnv

from mop.common.errors import InputError


@dataclass(frozen=True, eq=False)
class Replay:
    """An episode of T actions, played again: the world before each action and after the last one.

    Pictures are stored as tiles, of which an episode has few: axis letters K distinct tiles, P pixels of a side, H and
    W height and width of the grid.
    """

    tiles: np.ndarray  # (K, P, P, 3) uint8
    frames: np.ndarray  # (T + 1, H, W) int32, the tile in each cell
    position: np.ndarray  # (T + 1, 2) int64, x and y of the agent
    carrying: list[str]  # T + 1: what the agent holds, such as "red key"; "" for nothing
    events: list[tuple[int, str]]  # actions taken when it was first true, and what happened: (12, "picked up ...")

    def picture(self, t_step: int) -> np.ndarray:
        """The world (H P, W P, 3) uint8 after `t_step` actions, as Minigrid draws it."""
        pixels = self.tiles[self.frames[t_step]]  # (H, W, P, P, 3)
        height, width, side = pixels.shape[:3]
        return pixels.swapaxes(1, 2).reshape(height * side, width * side, 3)


def replay_episode(task_id: str, seed: int, actions: Sequence[int], tile_size: int = 32) -> Replay:
    """Play `actions` in world `seed`, with a picture of every state; the time grows with the number of actions."""
    env, numbers = replay_world(task_id, seed, []), {}
    frames, position, carrying, events = [], [], [_named(env.carrying)], []
    for taken, action in enumerate([*actions, None]):
        frames.append([numbers.setdefault(tile, len(numbers)) for tile in _tiles(env)])
        position.append([int(place) for place in env.agent_pos])
        if action is None:
            break
        x, y = env.front_pos
        before = env.grid.get(x, y)
        state = (getattr(before, "is_locked", False), getattr(before, "is_open", False))
        env.step(action)
        carrying.append(_named(env.carrying))
        if carrying[-1] != carrying[-2]:
            events.append(
                (taken + 1, f"picked up the {carrying[-1]}" if carrying[-1] else f"dropped the {carrying[-2]}")
            )
        elif (verb := _opening(before, state, env.grid.get(x, y))) is not None:
            events.append((taken + 1, f"{verb} the {_named(before)}"))
    tiles = np.stack([_draw_tile(tile, tile_size) for tile in numbers]).astype(np.uint8)  # rounded down, as in Minigrid
    shape = (len(frames), env.grid.height, env.grid.width)
    return Replay(tiles, np.array(frames, np.int32).reshape(shape), np.array(position), carrying, events)


def replay_world(task_id: str, seed: int, actions: Sequence[int]) -> MiniGridEnv:
    """Minigrid's world `seed` after `actions`."""
    if task_id not in gymnasium.registry:
        raise InputError(f"there is no task {task_id!r} in this Minigrid: no picture of its worlds")
    if type(seed) is not int or seed < 0:
        raise InputError(f"{seed!r} is not the seed of a world: no picture of it")
    env = gymnasium.make(task_id, disable_env_checker=True).unwrapped
    assert isinstance(env, MiniGridEnv)
    with contextlib.redirect_stdout(io.StringIO()):  # the world generator prints the worlds it rejects
        env.reset(seed=seed)
    for action in actions:
        env.step(action)
    return env


def render_world(task_id: str, seed: int, actions: Sequence[int] = (), tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of world `seed` after `actions`; the agent's view is highlighted."""
    return replay_world(task_id, seed, actions).get_frame(tile_size=tile_size)


def draw_cells(
    cells: np.ndarray, agent: tuple[int, int, int] | None, seen: np.ndarray | None = None, tile_size: int = 32
) -> np.ndarray:
    """A picture (H P, W P, 3) uint8 of cells (H, W, 3) int, Minigrid's type, colour and state of each.

    agent: its x, y and direction; seen: (H, W) bool, the cells that are drawn brighter.
    """
    rows = []
    for y, row in enumerate(cells.tolist()):
        tiles = []
        for x, code in enumerate(row):
            direction = agent[2] if agent is not None and agent[:2] == (x, y) else None
            tiles.append(_draw_tile((tuple(code), direction, seen is not None and bool(seen[y, x])), tile_size))
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows).astype(np.uint8)


def draw_view(image: np.ndarray, tile_size: int = 32) -> np.ndarray:
    """A picture (7 P, 7 P, 3) uint8 of what an agent sees, ahead upwards; image: its first 147 numbers, of any shape.

    What it cannot see is darker.
    """
    side = math.isqrt(image.size // 3)
    cells = np.asarray(image, np.int64).reshape(3, side, side).transpose(2, 1, 0)  # row j towards the agent, column i
    ahead = 3  # upwards
    return draw_cells(cells, (side // 2, side - 1, ahead), cells[..., 0] != OBJECT_TO_IDX["unseen"], tile_size)


_Tile = tuple[tuple[int, int, int] | None, int | None, bool]  # object (type, colour, state), agent's direction, seen


def _tiles(env: MiniGridEnv) -> list[_Tile]:
    """What each cell shows, row by row: all that Minigrid's picture of a cell depends on (`Grid.render_tile`)."""
    seen = _seen_cells(env)
    cells = [None if cell is None else cell.encode() for cell in env.grid.grid]
    x, y = env.agent_pos
    agent = y * env.grid.width + x
    return [
        (code, int(env.agent_dir) if number == agent else None, is_seen)
        for number, (code, is_seen) in enumerate(zip(cells, seen, strict=True))
    ]


def _seen_cells(env: MiniGridEnv) -> list[bool]:
    """Which cells the agent sees, row by row: `MiniGridEnv.get_full_render` draws them brighter."""
    _, visible = env.gen_obs_grid()
    ahead, right = env.dir_vec, env.right_vec
    corner = env.agent_pos + ahead * (env.agent_view_size - 1) - right * (env.agent_view_size // 2)
    column, row = np.nonzero(visible)
    x, y = (corner[:, None] - np.outer(ahead, row) + np.outer(right, column)).astype(int)
    inside = (x >= 0) & (x < env.grid.width) & (y >= 0) & (y < env.grid.height)
    seen = np.zeros(env.grid.width * env.grid.height, bool)
    seen[y[inside] * env.grid.width + x[inside]] = True
    return seen.tolist()


def _draw_tile(tile: _Tile, tile_size: int) -> np.ndarray:
    code, direction, is_seen = tile
    cell = None if code is None else WorldObj.decode(*code)
    return Grid.render_tile(cell, direction, is_seen, tile_size)


def _opening(before: WorldObj | None, state: tuple[bool, bool], after: WorldObj | None) -> str | None:
    """What an action has done to a door or box in front of the agent; state: whether it was locked, and open."""
    if isinstance(before, Box):
        return "opened" if after is not before else None
    if not isinstance(before, Door):
        return None
    if before.is_locked != state[0]:
        return "unlocked"
    return None if before.is_open == state[1] else "opened" if before.is_open else "closed"


def _named(thing: WorldObj | None) -> str:
    return "" if thing is None else f"{thing.color} {thing.type}"
