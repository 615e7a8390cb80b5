"""Minigrid's environments with fast methods; those that `gymnasium.make` makes stay as they are.

World generation and the check of the mission look at every cell through `Grid.get`, several times a world; here the
same is done with a tenth of the work. Rules, random draws and their order stay Minigrid's:
tests/mop/envs/test_babyai.py compares the two, step by step, on every task.
"""

import copy
import functools

import gymnasium
import minigrid  # noqa: F401, registers the environments
import numpy as np
from gymnasium.envs.registration import load_env_creator
from minigrid.core.grid import Grid
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc

from mop.envs.geometry import DIRECTIONS
from mop.fast.grid import flood


class FastLevel:
    """Fast methods that `make_env` mixes into the classes of its environments, which have these attributes."""

    agent_pos: tuple[int, int]
    agent_dir: int
    grid: Grid

    @property
    def front_pos(self) -> tuple[int, int]:
        """The cell before the agent, without a NumPy array for two numbers."""
        (x, y), (dx, dy) = self.agent_pos, DIRECTIONS[self.agent_dir]
        return x + dx, y + dy

    def check_objs_reachable(self, raise_exc: bool = True) -> bool:
        """Whether the agent can walk up to every object, through doors that count as open, as Minigrid's method."""
        cells, width = self.grid.grid, self.grid.width
        is_free = np.array([cell is None or cell.type == "door" for cell in cells])
        x, y = self.agent_pos
        reached = flood(is_free, width, int(y) * width + int(x))
        for at in np.flatnonzero(~reached):
            if cells[at] is not None and cells[at].type != "wall":
                if raise_exc:
                    raise RejectSampling(f"unreachable object at {(at % width, at // width)}")
                return False
        return True


def make_env(task_id: str, **kwargs):
    """The unwrapped environment of a registered id with the fast methods; it behaves as Minigrid's own."""
    spec = copy.deepcopy(gymnasium.spec(task_id))
    level = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    assert isinstance(level, type)
    spec.entry_point = type(level.__name__, (FastLevel, level), {})
    return gymnasium.make(spec, disable_env_checker=True, **kwargs).unwrapped


def _only_for_fast_levels(owner: type, name: str):
    """Decorator: replaces the method `name` of a class where its environment is a FastLevel, and nowhere else."""
    original = getattr(owner, name)

    def decorate(fast):
        @functools.wraps(original)
        def dispatch(self, first, *args, **kwargs):
            env = getattr(self, "env", first)  # an instruction knows its environment, a description is given it
            return (fast if isinstance(env, FastLevel) else original)(self, first, *args, **kwargs)

        setattr(owner, name, dispatch)

    return decorate


@_only_for_fast_levels(GoToInstr, "verify_action")
def _verify_go_to(self, action) -> str:
    return "success" if self.env.front_pos in self.desc.obj_poss else "continue"


@_only_for_fast_levels(ObjDesc, "find_matching_objs")
def _find_matching_objs(self, env, use_location: bool = True):
    """The objects that fit a description, column by column; without `use_location` those of `obj_set`, moved or not."""
    width, height = env.grid.width, env.grid.height
    known = {id(item) for item in self.obj_set}
    found = [
        (at % width, at // width, cell)
        for at, cell in enumerate(env.grid.grid)
        if cell is not None
        and (self.type is None or cell.type == self.type)
        and (self.color is None or cell.color == self.color)
        and (use_location or id(cell) in known)
    ]
    if use_location and self.loc in ("left", "right", "front", "behind"):
        room = env.room_from_pos(*env.agent_pos)
        found = [item for item in found if room.pos_inside(*item[:2]) and _is_at(self.loc, env, *item[:2])]
    found.sort(key=lambda item: item[0] * height + item[1])
    if use_location:
        self.obj_set = [cell for _, _, cell in found]
    self.obj_poss = [(x, y) for x, y, _ in found]
    return self.obj_set, self.obj_poss


def _is_at(location: str, env, x: int, y: int) -> bool:
    """Whether a cell is to the "left" or "right" of the agent, in "front" of it or "behind" it."""
    (dx, dy), to_x, to_y = DIRECTIONS[env.agent_dir], x - env.agent_pos[0], y - env.agent_pos[1]
    ahead, aside = to_x * dx + to_y * dy, to_y * dx - to_x * dy  # aside: to the right
    return {"left": aside < 0, "right": aside > 0, "front": ahead > 0, "behind": ahead < 0}[location]
