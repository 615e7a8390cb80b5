"""Levels of a task: the prior over its worlds, levels as distributions that can be optimised, and levels as worlds.

A level is a world of the task at its beginning with other things in it: walls, places of doors, mission and step limit
are those of that world, its base. Free cells hold what free cells of the task's worlds hold, and doors are doors that
they have. Axis letters: N levels, H and W height and width of the grid, P = H W places, C contents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.roomgrid_level import RejectSampling
from torch import Tensor
from torch.nn import functional as F

from generative.domains.babyai.causes import code_of
from generative.domains.babyai.cells import DOOR, WALL, cell_columns, make_code
from generative.simulators.base import State
from generative.simulators.relaxation import straight_through
from mop.common.errors import InputError
from mop.envs.babyai import World, solve_with_bot
from mop.envs.geometry import EMPTY, code_color, code_kind, code_state
from mop.envs.teacher import TeacherFailure

PSEUDO_WORLDS = 1.0  # worlds of average contents added to those counted: no legal level has probability 0
NUM_DIRECTIONS = 4
_THINGS = [OBJECT_TO_IDX[name] for name in ("door", "key", "ball", "box")]  # what a mission can speak of
_NEVER = -1e4  # logit of what cannot be in a place


class Level(NamedTuple):
    """A world at its beginning."""

    seed: int  # of its base
    codes: np.ndarray  # (H, W) int32, without the numbers of objects
    position: tuple[int, int]  # x, y
    direction: int

    @property
    def place(self) -> int:
        """The number of the agent's cell, row by row."""
        return self.position[1] * self.codes.shape[1] + self.position[0]


class Clause(NamedTuple):
    """Things of a mission, of a type and a colour: one ("the") or several ("a")."""

    kind: int | None  # Minigrid's number; None: any
    color: int | None
    is_unique: bool


def level_of(world: World) -> Level:
    """The level of a world that has just begun; a level has no room for things in boxes or in the agent's hand."""
    env = world.env
    if env.carrying is not None or any(getattr(cell, "contains", None) is not None for cell in env.grid.grid):
        raise InputError("worlds of this task begin with things in boxes or in the hand; choose another task")
    codes = make_code(code_kind(world.codes), code_color(world.codes), code_state(world.codes))
    return Level(world.seed, codes, world.position, world.direction)


def clauses_of(world: World) -> list[Clause]:
    """The things in the mission of a world, without their places relative to the agent."""
    instructions, clauses = [world.env.instrs], []
    for instruction in instructions:
        instructions += [getattr(instruction, name) for name in ("instr_a", "instr_b") if hasattr(instruction, name)]
        for name in ("desc", "desc_move", "desc_fixed"):
            if (desc := getattr(instruction, name, None)) is not None:
                kind, color = OBJECT_TO_IDX.get(desc.type), COLOR_TO_IDX.get(desc.color)
                clauses.append(Clause(kind, color, len(desc.obj_set) == 1))
    return clauses


# --- what stands where ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LevelPrior:
    """Log probabilities of the contents of cells in the worlds of a task, given the places of walls and doors.

    Places are taken as independent; every direction is as likely as another.
    """

    contents: np.ndarray  # (C,) int32, sorted codes of the contents of cells in all worlds, without walls
    free: np.ndarray  # (P, C) float64, of a free cell; -inf for doors
    doors: np.ndarray  # (P, C) float64, of a door's cell; -inf for other contents
    places: np.ndarray  # (P,) float64, of the agent's

    def table(self, codes: np.ndarray) -> np.ndarray:
        """Log probabilities (P, C) in the layout of codes (H, W); in the place of a wall -inf of everything."""
        kind = code_kind(codes.ravel()[:, None])
        return np.where(kind == WALL, -np.inf, np.where(kind == DOOR, self.doors, self.free))

    def log_probability(self, level: Level) -> float:
        """Of a level, in nats. The agent's cell counts as an empty one."""
        inside = code_kind(level.codes.ravel()) != WALL
        of_cells = self.table(level.codes)[inside, self.numbers(level.codes)[inside]]
        return float(of_cells.sum() + self.places[level.place] - np.log(NUM_DIRECTIONS))

    def numbers(self, codes: np.ndarray) -> np.ndarray:
        """Which content (P,) is in each cell of codes (H, W); of walls any."""
        return np.searchsorted(self.contents, codes.ravel()).clip(max=len(self.contents) - 1)

    def matching(self, clause: Clause) -> np.ndarray:
        """Which contents (C,) bool are such as a clause speaks of."""
        matches = np.isin(code_kind(self.contents), _THINGS if clause.kind is None else [clause.kind])
        return matches if clause.color is None else matches & (code_color(self.contents) == clause.color)


def estimate_prior(levels: Sequence[Level]) -> LevelPrior:
    """The prior of a task whose worlds these are, at their beginning, all of one size."""
    codes = np.stack([level.codes.ravel() for level in levels])
    contents = np.unique(codes[code_kind(codes) != WALL])
    counts = np.stack([(codes == content).sum(0) for content in contents], -1)  # (P, C)
    is_door = code_kind(contents) == DOOR
    agents = np.bincount([level.place for level in levels], minlength=codes.shape[1])
    free, doors = (_log_shares(counts * wanted, (counts * wanted).sum(0)) for wanted in (~is_door, is_door))
    return LevelPrior(contents, free, doors, _log_shares(agents, np.ones(len(agents))))


def _log_shares(counts: np.ndarray, average: np.ndarray) -> np.ndarray:
    """Log of the shares of counts (..., C), PSEUDO_WORLDS in the proportions of `average` (C,) added; -inf of 0."""
    more = PSEUDO_WORLDS * average / max(average.sum(), 1)
    with np.errstate(divide="ignore"):
        return np.log((counts + more) / (counts.sum(-1, keepdims=True) + PSEUDO_WORLDS))


# --- levels as distributions ------------------------------------------------------------------------------------------


class Draw(NamedTuple):
    """N levels drawn: ones and zeros, with the gradient of their probabilities behind them."""

    cells: Tensor  # (N, P, C); of walls, anything
    place: Tensor  # (N, P)
    direction: Tensor  # (N, 4)


class SoftLevels:
    """N levels as independent distributions over the legal contents of each cell, over places and directions.

    `parameters` are their logits, which begin near the bases.
    """

    def __init__(self, prior: LevelPrior, worlds: Sequence[World], sureness: float):
        """worlds: the bases, at their beginning; sureness: the initial probability of their contents."""
        self.prior, self.bases = prior, [level_of(world) for world in worlds]
        self.codes = torch.from_numpy(np.stack([base.codes for base in self.bases]))
        self.is_wall = code_kind(self.codes.flatten(1)) == WALL
        tables = np.stack([prior.table(base.codes) for base in self.bases])
        self._log_cells = torch.from_numpy(tables).float().clamp(min=_NEVER)  # (N, P, C)
        self._log_places = torch.from_numpy(prior.places).float()
        self._columns, self._empty = cell_columns(prior.contents), int(prior.contents.searchsorted(EMPTY))
        self._clauses = [
            [(torch.from_numpy(prior.matching(clause)), clause.is_unique) for clause in clauses_of(world)]
            for world in worlds
        ]
        is_free = ~self.is_wall & (code_kind(self.codes.flatten(1)) != DOOR)
        any_direction = torch.ones(len(worlds), NUM_DIRECTIONS, dtype=torch.bool)
        numbers = torch.from_numpy(np.stack([prior.numbers(base.codes) for base in self.bases]))
        self.parameters = [
            _begin(numbers, self._log_cells > _NEVER, sureness),
            _begin(torch.tensor([base.place for base in self.bases]), is_free, sureness),
            _begin(torch.tensor([base.direction for base in self.bases]), any_direction, sureness),
        ]

    def draw(self, temperature: float, generator: torch.Generator | None) -> Draw:
        """Draw every level once, by straight-through Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144).

        generator None: the likeliest of each distribution. The agent's cell is empty, whatever it would hold.
        """
        cells, place, direction = (_draw(logits, temperature, generator) for logits in self.parameters)
        nothing = F.one_hot(torch.tensor(self._empty), cells.shape[-1]).float()
        here = place[..., None]
        return Draw(cells * (1 - here) + here * nothing, place, direction)

    def state(self, draw: Draw) -> State:
        """The beginning of the drawn levels, as a state of `generative.simulators.exact`."""
        walls = cell_columns(self.codes).flatten(1, 2)
        grid = torch.where(self.is_wall[..., None], walls, draw.cells @ self._columns)
        shape = self.codes.shape[1:]
        return {
            "grid": grid.unflatten(1, shape),
            "position": draw.place.unflatten(1, shape),
            "direction": draw.direction,
            "carried": cell_columns([EMPTY] * len(self.bases)),
        }

    def log_prior(self, draw: Draw) -> Tensor:
        """Log probabilities (N,) of the drawn levels, as `LevelPrior.log_probability`."""
        of_cells = (draw.cells * self._log_cells).sum(-1).masked_fill(self.is_wall, 0.0).sum(-1)
        return of_cells + (draw.place * self._log_places).sum(-1) - np.log(NUM_DIRECTIONS)

    def missing(self, draw: Draw) -> Tensor:
        """How many things (N,) are missing, or too many, for the missions to read as they do."""
        counts = draw.cells.masked_fill(self.is_wall[..., None], 0.0).sum(1)
        missing = []
        for of_level, clauses in zip(counts, self._clauses, strict=True):
            sums = [(of_level[matches].sum(), is_unique) for matches, is_unique in clauses]
            missing.append(sum((count - 1).abs() if is_unique else (2 - count).relu() for count, is_unique in sums))
        return torch.stack(missing)

    def similarity(self) -> Tensor:
        """The similarity of each level to the others, (N,): mean cosine of their probabilities of things and places."""
        cells, place, direction = (logits.softmax(-1) for logits in self.parameters)
        is_thing = torch.arange(cells.shape[-1]) != self._empty
        things = (cells * is_thing).masked_fill(self.is_wall[..., None], 0.0).flatten(1)
        rows = F.normalize(torch.cat([things, place, direction], -1), dim=-1)
        cosines = (rows @ rows.T).masked_fill(torch.eye(len(rows), dtype=torch.bool), 0.0)
        return cosines.sum(-1) / max(1, len(rows) - 1)

    def decode(self, draw: Draw) -> list[Level]:
        """The drawn levels."""
        contents = torch.from_numpy(self.prior.contents)[draw.cells.argmax(-1)]
        codes = torch.where(self.is_wall, self.codes.flatten(1), contents).view(self.codes.shape).int().numpy()
        width, places, directions = self.codes.shape[2], draw.place.argmax(-1).tolist(), draw.direction.argmax(-1)
        return [
            Level(base.seed, of_one, (place % width, place // width), direction)
            for base, of_one, place, direction in zip(self.bases, codes, places, directions.tolist(), strict=True)
        ]


def _begin(chosen: Tensor, is_legal: Tensor, sureness: float) -> Tensor:
    """Logits (..., C): `chosen` (...) has the probability `sureness`, the other legal ones share the rest."""
    others = (is_legal.sum(-1, keepdim=True) - 1).clamp(min=1)
    logits = torch.where(F.one_hot(chosen, is_legal.shape[-1]).bool(), sureness, (1 - sureness) / others).log()
    return torch.where(is_legal, logits, _NEVER).requires_grad_()


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """One draw of each distribution (..., C), ones and zeros; backwards, a softmax at this temperature."""
    noise = torch.zeros(())
    if generator is not None:
        noise = -torch.log(-torch.log(torch.rand(logits.shape, generator=generator).clamp(1e-20, 1 - 1e-7)))
    return straight_through(((logits + noise) / temperature).softmax(-1))


# --- levels as worlds -------------------------------------------------------------------------------------------------


def build(world: World, level: Level) -> str:
    """Turn a world into a level, at its beginning; returns why it is no legal level of the task, "" if it is one.

    The mission is the one of the base: with the new contents it must read the same.
    """
    world.reset(level.seed)
    env, before = world.env, level_of(world).codes
    kinds, kinds_before = code_kind(level.codes), code_kind(before)
    if any(((kinds == kind) != (kinds_before == kind)).any() for kind in (WALL, DOOR)):
        return "its walls and doors are not where those of its base are"
    x, y = level.position
    if level.codes[y, x] != EMPTY:
        return "the agent's cell is not free"
    for y, x in np.argwhere(level.codes != before).tolist():
        code = int(level.codes[y, x])
        env.grid.set(x, y, None)
        if code != EMPTY:
            env.put_obj(WorldObj.decode(*code_of(code)), x, y)
    for room in (room for row in env.room_grid for room in row):
        for side, door in enumerate(room.doors):  # an opening without a door is True there
            if door is not None and door is not True:
                room.doors[side] = env.grid.get(*room.door_pos[side])
    env.agent_pos, env.agent_dir = level.position, level.direction
    world.begin_here()
    return _why_not(env, world.mission)


def _why_not(env, mission: str) -> str:
    """Why the task could not generate this world with this mission; "" where it could."""
    try:
        if env.instrs.surface(env) != mission:
            return "its mission would read otherwise"
        env.validate_instrs(env.instrs)
    except AssertionError:
        return "what its mission speaks of is missing"
    except RejectSampling as refusal:
        return str(refusal)
    return ""


def ask_bot(world: World) -> int | str:
    """The number of steps that the bot needs from the beginning of a world, or how it fails."""
    try:
        return solve_with_bot(world)
    except TeacherFailure as failure:
        return failure.kind
