"""What a change in the real world truly does: a cloned world, one object changed, the policy asked again later.

A world is cloned k steps before step t, one cell is edited, and both worlds go on to step t: once with the policy
acting on what it now sees ("acting"), once with the actions that were taken ("forced"). The effect on a target is its
value in the edited world minus its value in the unedited one that went on in the same way.
Which objects a mission means is settled when its episode begins, as in Minigrid: an object of another colour or type is
another object, which the mission does not mean, whatever it is now.
Axis letters: N worlds, S hidden units, G numbers of a mission, X numbers of a soft observation, E edits, Q targets.
"""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from minigrid.core.constants import COLOR_TO_IDX
from minigrid.core.world_object import WorldObj
from torch import Tensor

from generative.domains.babyai.causes import code_of
from generative.domains.babyai.cells import DOOR, PORTABLE, cell_codes, cell_columns, make_code, plain_code
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.base import Answer, Target
from generative.simulators.base import State
from generative.simulators.relaxation import to_simplex
from mop.envs.babyai import World, observe
from mop.envs.geometry import EMPTY, IMAGE_SIZE, cell_code, code_color, code_kind, code_number, code_state
from mop.evaluation.rollout import rollout

KINDS = ("remove", "color", "type", "state", "put")
COLORS = range(len(COLOR_TO_IDX))
_STATES = range(3)  # of a door: open, closed, locked


class Edit(NamedTuple):
    """Another thing in a cell: codes of `mop.envs.geometry` before and after, without numbers of objects.

    The agent's own cell stands for its hand, as in its view. before = after: nothing is changed.
    """

    x: int
    y: int
    before: int
    after: int

    @property
    def kind(self) -> str:
        """One of KINDS, or "none"."""
        if self.before == self.after:
            return "none"
        if EMPTY in (self.before, self.after):
            return "put" if self.before == EMPTY else "remove"
        if code_kind(self.before) != code_kind(self.after):
            return "type"
        return "color" if code_color(self.before) != code_color(self.after) else "state"


class Case(NamedTuple):
    """A moment k steps before step t, what the policy remembers there, and edits to be made there, each alone."""

    world: World  # it is left as it is
    hidden: Tensor  # (S,) before the step
    lang: Tensor  # (G,)
    actions: Sequence[int]  # the k that were taken from here
    edits: Sequence[Edit]


class Effects(NamedTuple):
    """What the edits of a case do to the targets at step t; NaN where one of the two episodes had ended by then."""

    acting: np.ndarray  # (E, Q) float64, the policy acting
    forced: np.ndarray  # (E, Q), with the actions of the case
    acting_values: np.ndarray  # (Q,) the targets without an edit
    forced_values: np.ndarray  # (Q,)


def world_at(task_id: str, max_steps: int | None, seed: int, actions: Sequence[int] | np.ndarray) -> World:
    """World `seed` after these actions. Raises ValueError beyond the episode's end."""
    world = World(task_id, max_steps)
    world.reset(seed)
    for at, action in enumerate(actions):
        _, terminated, truncated = world.step(int(action))
        if (terminated or truncated) and at + 1 < len(actions):
            raise ValueError(f"world {seed} of {task_id} ends after {at + 1} of {len(actions)} actions")
    return world


def clone(world: World) -> World:
    """A copy that goes on by itself; what never changes is shared."""
    env = world.env
    shared = [cell for cell in env.grid.grid if cell is not None and cell.type == "wall"]
    shared += [env.spec, env.action_space, env.observation_space]
    return copy.deepcopy(world, {id(item): item for item in shared})


def legal_edits(world: World, kinds: Sequence[str] = KINDS) -> list[Edit]:
    """Every edit of these kinds that can be made now, row by row.

    Keys, balls and boxes: removed, of another colour, of another of the three types; doors: of another colour, open,
    closed or locked. And any key, ball or box put into a free cell that the agent sees. Its own cell is its hand.
    """
    edits, sees = [], _visible(world)
    for y, x in itertools.product(*map(range, world.codes.shape)):
        code = world.carried if (x, y) == world.position else world.codes[y, x]
        before = plain_code(code)
        edits += [Edit(x, y, before, after) for after in _others(before, bool(sees[x, y]))]
    return [edit for edit in edits if edit.kind in kinds]


def _others(code: int, is_visible: bool) -> list[int]:
    kind, color, state = code_of(code)
    things = [make_code(other, dye) for other in PORTABLE for dye in COLORS]
    if code == EMPTY:
        return things if is_visible else []
    if kind in PORTABLE:
        return [EMPTY, *(other for other in things if (code_kind(other) == kind) != (code_color(other) == color))]
    if kind == DOOR:
        dyed = [make_code(kind, other, state) for other in COLORS if other != color]
        return dyed + [make_code(kind, color, other) for other in _STATES if other != state]
    return []


def _visible(world: World) -> np.ndarray:
    """Which cells (width, height) bool the agent sees now."""
    seen = np.zeros_like(world.seen)
    observe(world.codes, *world.position, world.direction, EMPTY, np.zeros(IMAGE_SIZE, np.float32), seen)
    return seen


def edit_world(world: World, edit: Edit) -> World:
    """Make an edit in a world, and return it; its observation shows it. Raises ValueError where the edit does not fit.

    A door keeps its identity when it is opened, closed or locked; a box keeps what it holds when it is dyed. The bot of
    the world must not be asked any more.
    """
    env, place = world.env, (edit.x, edit.y)
    in_hand = place == world.position
    old: Any = env.carrying if in_hand else env.grid.get(*place)
    _check_fits(edit, cell_code(old))
    if edit.kind == "none":
        return world
    new: Any = old if edit.kind == "state" else WorldObj.decode(*code_of(edit.after))
    if edit.kind == "state":
        state = code_state(edit.after)
        new.is_open = state == 0
        new.is_locked = state == 2
    if old is not None and new is not old:
        old.cur_pos = (-1, -1)  # as of what is carried
    if new is not None:
        taken = int(max(code_number(world.codes).max(), code_number(world.carried)))
        new.number = getattr(old, "number", 0) or 1 + taken
        new.cur_pos = (-1, -1) if in_hand else place
        if edit.kind == "color":
            new.contains = old.contains
    if in_hand:
        env.carrying = new
    else:
        env.grid.set(*place, new)
        world.codes[edit.y, edit.x] = cell_code(new)
    env.update_objs_poss()
    env.gen_obs()
    return world


def _check_fits(edit: Edit, code: int) -> None:
    if plain_code(code) != edit.before:
        raise ValueError(f"{edit} does not fit: the cell's code is {plain_code(code)}")


def edit_state(state: State, edits: Sequence[Edit]) -> State:
    """The state of the exact simulator with one edit in each of its N worlds, as `edit_world` makes it.

    Raises ValueError where an edit does not fit.
    """
    grid, carried = state["grid"].clone(), state["carried"].clone()
    for n, edit in enumerate(edits):
        in_hand = state["position"][n, edit.y, edit.x] > 0.5
        cell = carried[n] if in_hand else grid[n, edit.y, edit.x]
        _check_fits(edit, int(cell_codes(cell)))
        cell[:] = cell_columns(edit.after)
    return {**state, "grid": grid, "carried": carried}


@torch.no_grad()
def effects(
    policy: FrozenPolicy,
    case: Case,
    targets: Sequence[Target],
    make_worlds: "Callable[..., RealWorlds] | None" = None,
) -> Effects:
    """The effects of every edit of a case: the policy is asked for all worlds at once.

    E edits are 2 (E + 1) worlds. make_worlds: of `RealWorlds` (its arguments), if the worlds are others.
    Raises ValueError where an edit does not fit.
    """
    unchanged = Edit(*case.world.position, *[plain_code(case.world.carried)] * 2)
    worlds = (make_worlds or RealWorlds)(case.world, [unchanged, *case.edits], case.actions)
    lang, hidden = (part.expand(len(worlds.active), -1) for part in (case.lang, case.hidden))

    def ask(worlds: RealWorlds, hidden: Tensor) -> Answer:
        return _ask(policy, worlds.observe(), lang, hidden)

    steps = rollout(ask, worlds, hidden, choose=RealWorlds.choose)
    *_, last = itertools.islice(steps, len(case.actions) + 1)
    values = torch.stack([target(last.answer) for target in targets], -1).double().numpy()
    values[worlds.has_ended] = np.nan
    acting, forced = np.split(values, 2)  # (1 + E, Q), first without an edit
    return Effects(acting[1:] - acting[0], forced[1:] - forced[0], acting[0], forced[0])


class RealWorlds:
    """Edited copies of a world side by side, as environments for `rollout`.

    In the first half, one for each edit, the policy chooses its actions; in the second half they are given.
    """

    def __init__(self, world: World, edits: Sequence[Edit], actions: Sequence[int]):
        self._actions = actions
        self._worlds = [edit_world(clone(world), edit) for edit in (*edits, *edits)]
        self.active, self.has_ended = np.ones(len(self._worlds), bool), np.zeros(len(self._worlds), bool)
        self.t_step = 0

    def choose(self, answer: Answer) -> np.ndarray:
        """Take the likeliest action where none is given."""
        actions = answer.logits.numpy().argmax(-1)
        if self.t_step < len(self._actions):
            actions[len(actions) // 2 :] = self._actions[self.t_step]
        return actions

    def step(self, actions: np.ndarray) -> np.ndarray:
        self.act(actions)
        self.t_step += 1
        return np.zeros(len(actions), bool)

    def observe(self) -> Tensor:
        """Soft observations (N, X)."""
        return to_simplex(np.stack([world.obs for world in self._worlds]))

    def act(self, actions: np.ndarray) -> None:
        """Execute actions (N,) in those worlds that have not ended."""
        for n in np.flatnonzero(~self.has_ended):
            _, terminated, truncated = self._worlds[n].step(int(actions[n]))
            self.has_ended[n] = terminated or truncated


def _ask(policy: FrozenPolicy, soft: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
    """The policy's answer to N worlds, asked once for all that are the same: so these get the same, to the last bit."""
    inputs = torch.cat([soft, lang, hidden], -1).numpy() + 0.0  # a zero has one sign
    places: dict[bytes, int] = {}
    answer_of = torch.tensor([places.setdefault(row.tobytes(), len(places)) for row in inputs])
    first = torch.from_numpy(np.unique(answer_of.numpy(), return_index=True)[1])
    answer = policy.step(soft[first], lang[first], hidden[first])
    routing = [weights[answer_of] for weights in answer.routing]
    return Answer(answer.logits[answer_of], routing, answer.hidden[answer_of])
