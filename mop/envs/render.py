"""Pictures of worlds, from their seed and the actions taken.

They are made by Minigrid's own environments, which make the same world of a seed as `World`, without compiled code: a
page that shows a picture opens half a second sooner.
"""

import contextlib
import io
import math
from collections.abc import Sequence

import gymnasium
import minigrid  # noqa: F401, registers the environments
import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import WorldObj
from minigrid.minigrid_env import MiniGridEnv

from mop.common.errors import InputError


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
            is_seen = seen is not None and bool(seen[y, x])
            tiles.append(Grid.render_tile(WorldObj.decode(*code), direction, is_seen, tile_size))
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
