"""Minigrid's bot in one world, compiled: its first plan is made here, `mop.fast.bot.replan` goes on with it."""

import numpy as np
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import GoToInstr, ObjDesc, OpenInstr, PickupInstr, PutNextInstr

from mop.common.conventions import SUBGOALS
from mop.envs import teacher
from mop.envs.geometry import DIRECTIONS, EMPTY, code_kind
from mop.envs.teacher import clauses
from mop.fast import bot
from mop.fast.bot import (
    BOT,
    BOT_FIELDS,
    DESCRIPTION,
    DROP,
    GO_NEXT_TO,
    ITEM,
    NO_REASON,
    NO_ROOM,
    NOTHING,
    OPEN,
    PICKUP,
    SUBGOAL,
    TO_OPEN,
    TO_PUT_NEXT,
)

# what the bot plans for a clause: kind and reason of each subgoal, and the clause's description; last first
_PLANS: dict[type, list[tuple[int, int, str | None]]] = {
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
_AIM, _INSTRUCTION = BOT_FIELDS.index("aim"), BOT_FIELDS.index("instruction")
_NAMES = {
    **{GO_NEXT_TO: "go_next_to", OPEN: "open", PICKUP: "pick_up", DROP: "drop", bot.EXPLORE: "explore"},
    bot.CLOSE: "open",  # a door is closed only to be as it was, or open
}
_AIMS = {kind: SUBGOALS.index(name) for kind, name in _NAMES.items()}


class Teacher(teacher.Teacher):
    """`mop.envs.teacher.Teacher`, compiled; it reads `codes`, `seen` and `carried` of its world."""

    errors = (bot.NowhereToGo,)  # any other is a bug of ours

    def __init__(self, world):
        self.codes, self.seen = world.codes, world.seen
        self._descriptions: list[tuple[ObjDesc, int]] = []  # of the mission, with the row of the first item
        plan, items = [], []
        for instruction, clause in reversed([*enumerate(clauses(world.env.instrs))]):  # the first is on top
            for kind, reason, name in _PLANS[type(clause)]:
                datum = (NOTHING, 0, 0)
                if name is not None:
                    description = getattr(clause, name)
                    datum = (DESCRIPTION, len(items), len(description.obj_set))
                    self._descriptions.append((description, len(items)))
                    items += [_number(item) for item in description.obj_set]
                plan.append((kind, reason, *datum, instruction))
        self._stack = np.zeros(len(plan) + bot.MAX_PUSHES, SUBGOAL)
        self._stack[: len(plan)] = plan
        num_keys = np.count_nonzero(code_kind(self.codes) == _KEY)
        self._item_room = bot.MAX_PASSES * (num_keys + 1)  # one key may be in a hand or in a box
        self._items: np.ndarray = np.zeros(len(items) + self._item_room, ITEM)
        self._items["number"][: len(items)] = items
        self._update_positions()
        begin = {"depth": len(plan), "num_items": len(items), "old_front": EMPTY, "old_carried": EMPTY}
        self._bot = np.array([tuple(begin.get(name, 0) for name in BOT_FIELDS)], BOT)
        self._bot_numbers = self._bot.view(np.int32)

    def _update_positions(self) -> None:
        """Read where the objects of the mission are, whenever Minigrid has looked for them."""
        numbers = self._items.view(np.int32).reshape(len(self._items), -1)  # quicker than by their names
        cells = numbers[:, 1:]  # x, y of each
        for description, first in self._descriptions:
            places = description.obj_poss[: len(description.obj_set)]
            cells[first : first + len(description.obj_set)] = -1
            if places:
                cells[first : first + len(places)] = places

    def _answer(self, world) -> int:
        action = world.actions[-1] if world.actions else bot.NO_ACTION
        if action == teacher.DROP_ACTION:  # after each drop Minigrid looks for the objects of the mission
            self._update_positions()
        while True:
            answer = bot.replan(
                self._bot, self._stack, self._items, self._item_room, self.codes, self.seen,
                action, *world.position, *DIRECTIONS[world.direction], world.carried,
            )  # fmt: skip
            if answer != NO_ROOM:
                return answer
            self._stack = np.resize(self._stack, 2 * len(self._stack))
            self._items = np.resize(self._items, 2 * len(self._items))

    @property
    def phase(self) -> tuple[int, int]:
        return _AIMS[self._bot_numbers.item(_AIM)], self._bot_numbers.item(_INSTRUCTION)


def _number(item: WorldObj) -> int:
    """The number of an object in an ITEM; 0 for one that was never on the grid, as `code_number` has it too."""
    return bot.WALL_ITEM if item.type == "wall" else getattr(item, "number", 0)
