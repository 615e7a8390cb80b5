"""Pictures of worlds, from their seed and the actions taken.

They are made by Minigrid's own environments, which make the same world of a seed as `World`, without the compiled
kernels: a page that shows a picture opens half a second sooner.
"""

import contextlib
import io
import os
from collections.abc import Sequence

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which greets on stdout

import gymnasium
import minigrid  # noqa: F401, registers the environments
import numpy as np
from minigrid.minigrid_env import MiniGridEnv

from mop.base.errors import InputError


def replay_world(task_id: str, seed: int, actions: Sequence[int]) -> MiniGridEnv:
    """Minigrid's world `seed` after `actions`. Raises InputError if there is no such task."""
    if task_id not in gymnasium.registry:
        raise InputError(f"there is no task {task_id!r} in this Minigrid: no picture of its worlds")
    env = gymnasium.make(task_id, disable_env_checker=True).unwrapped
    with contextlib.redirect_stdout(io.StringIO()):  # the world generator prints the worlds it rejects
        env.reset(seed=seed)
    for action in actions:
        env.step(action)
    return env


def render_world(task_id: str, seed: int, actions: Sequence[int] = (), tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of world `seed` after `actions`; the agent's view is highlighted."""
    return replay_world(task_id, seed, actions).get_frame(tile_size=tile_size)
