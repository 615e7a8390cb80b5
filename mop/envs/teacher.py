"""The BabyAI bot as teacher: its planning is compiled and bounded, and each of its failures has a kind."""

import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import (
    ActionInstr,
    AfterInstr,
    GoToInstr,
    Instr,
    ObjDesc,
    OpenInstr,
    PickupInstr,
    PutNextInstr,
    SeqInstr,
)
from minigrid.utils.baby_ai_bot import DisappearedBoxError

from mop.common.subgoals import SUBGOALS
from mop.fast.bot import (
    BOT,
    CLOSE,
    DESCRIPTION,
    DONE,
    DROP,
    EXPLORE,
    GO_NEXT_TO,
    ITEM,
    MAX_PASSES,
    MAX_PUSHES,
    NO_ACTION,
    NO_REASON,
    NO_ROOM,
    NOTHING,
    OPEN,
    PICKUP,
    SUBGOAL,
    TO_OPEN,
    TO_PUT_NEXT,
    WALL_ITEM,
    EndlessPlanning,
    NowhereToGo,
    replan,
)
from mop.fast.grid import EMPTY

# loop: planning never ends; disappeared_box: the student opened a box; assertion: no path or no free cell is left;
# error: another exception inside the bot; unsolved: the bot gives up, fails the mission or runs out of steps
FAILURE_KINDS = ("loop", "disappeared_box", "assertion", "error", "unsolved")

_PLANS = {  # what the bot plans for a clause: kind and reason of each subgoal, and the clause's description; last first
    GoToInstr: [(GO_NEXT_TO, NO_REASON, "desc")],
    OpenInstr: [(OPEN, NO_REASON, None), (GO_NEXT_TO, TO_OPEN, "desc")],
    PickupInstr: [(DROP, NO_REASON, None), (PICKUP, NO_REASON, None), (GO_NEXT_TO, NO_REASON, "desc")],
    PutNextInstr: [
        (DROP, NO_REASON, None),
        (GO_NEXT_TO, TO_PUT_NEXT, "desc_fixed"),
        (PICKUP, NO_REASON, None),
        (GO_NEXT_TO, NO_REASON, "desc_move"),
    ],
}
_KEY = OBJECT_TO_IDX["key"]
_AIM, _INSTRUCTION = BOT.names.index("aim"), BOT.names.index("instruction")
_NAMES = {GO_NEXT_TO: "go_next_to", OPEN: "open", CLOSE: "open", PICKUP: "pick_up", DROP: "drop", EXPLORE: "explore"}
_AIMS = {kind: SUBGOALS.index(name) for kind, name in _NAMES.items()}  # a door is closed only to be as it was, or open


def clauses(instruction: Instr) -> list[ActionInstr]:
    """The parts of a mission in the order in which the bot does them: "A after you B" is B, then A."""
    if not isinstance(instruction, SeqInstr):
        return [instruction]
    parts = [clauses(instruction.instr_a), clauses(instruction.instr_b)]
    first, second = reversed(parts) if isinstance(instruction, AfterInstr) else parts
    return first + second


class TeacherFailure(Exception):
    """The bot has no answer in this state; `kind` is one of FAILURE_KINDS."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class Teacher:
    """Minigrid's bot in one world: here its first plan is made, `replan` goes on with it.

    It is made anew for each episode, on a freshly reset environment. codes (height, width) int32 and seen (width,
    height) bool are those of `mop.fast.grid.observe`; the caller keeps them up to date after every step.
    """

    def __init__(self, env, codes: np.ndarray, seen: np.ndarray):
        self.codes, self.seen = codes, seen
        self._descriptions: list[tuple[ObjDesc, int]] = []  # of the mission, with the row of the first item
        plan, items = [], []
        for instruction, clause in reversed([*enumerate(clauses(env.instrs))]):  # the first is on top
            for kind, reason, name in _PLANS[type(clause)]:
                datum = (NOTHING, 0, 0)
                if name is not None:
                    description = getattr(clause, name)
                    datum = (DESCRIPTION, len(items), len(description.obj_set))
                    self._descriptions.append((description, len(items)))
                    items += [_number(item) for item in description.obj_set]
                plan.append((kind, reason, *datum, instruction))
        self._stack = np.zeros(len(plan) + MAX_PUSHES, SUBGOAL)
        self._stack[: len(plan)] = plan
        num_keys = np.count_nonzero(codes & 255 == _KEY)
        self._item_room = MAX_PASSES * (num_keys + 1)  # one key may be in a hand or in a box
        self._items = np.zeros(len(items) + self._item_room, ITEM)
        self._items["number"][: len(items)] = items
        self.update_positions()
        begin = {"depth": len(plan), "num_items": len(items), "old_front": EMPTY, "old_carried": EMPTY}
        self._bot = np.array([tuple(begin.get(name, 0) for name in BOT.names)], BOT)
        self._bot_numbers = self._bot.view(np.int32)

    def update_positions(self) -> None:
        """Read again where the objects of the mission are; call it whenever Minigrid has looked for them."""
        cells = self._items.view(np.int32).reshape(-1, len(ITEM))[:, 1:]  # x, y of each; quicker than by their names
        for description, first in self._descriptions:
            places = description.obj_poss[: len(description.obj_set)]
            cells[first : first + len(description.obj_set)] = -1
            if places:
                cells[first : first + len(places)] = places

    def label(self, last_action: int | None, x: int, y: int, dx: int, dy: int, carried: int) -> int:
        """The bot's next action; call it once per step, with the action that was executed (None at first).

        The agent is at (x, y), faces (dx, dy) and carries an object of code `carried`. Raises TeacherFailure; after
        that the bot cannot be asked again in the episode.
        """
        action = NO_ACTION if last_action is None else last_action
        answer = NO_ROOM
        try:
            while True:
                answer = replan(
                    self._bot, self._stack, self._items, self._item_room, self.codes, self.seen,
                    action, x, y, dx, dy, carried,
                )  # fmt: skip
                if answer != NO_ROOM:
                    break
                self._stack = np.resize(self._stack, 2 * len(self._stack))
                self._items = np.resize(self._items, 2 * len(self._items))
        except EndlessPlanning:
            raise TeacherFailure("loop") from None
        except DisappearedBoxError:
            raise TeacherFailure("disappeared_box") from None
        except AssertionError:
            raise TeacherFailure("assertion") from None
        except NowhereToGo:
            raise TeacherFailure("error") from None
        if answer == DONE:
            raise TeacherFailure("unsolved")
        return answer

    @property
    def phase(self) -> tuple[int, int]:
        """What the last label serves: the top subgoal, an index into SUBGOALS, and the instruction, counted from 0.

        Instructions are counted in the order in which the bot does them: "A after you B" is B, then A.
        """
        return _AIMS[self._bot_numbers.item(_AIM)], self._bot_numbers.item(_INSTRUCTION)


def _number(item: WorldObj) -> int:
    """The number of an object in an ITEM; 0 for one that was never on the grid, as `code_number` has it too."""
    return WALL_ITEM if item.type == "wall" else getattr(item, "number", 0)
