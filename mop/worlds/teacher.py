"""The BabyAI bot as teacher: its planning is compiled and bounded, and each of its failures has a kind."""

import numpy as np
from minigrid.core.world_object import WorldObj
from minigrid.envs.babyai.core.verifier import ObjDesc
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from mop.kernels.bot import (
    BOT,
    DESCRIPTION,
    DONE,
    DROP,
    GO_NEXT_TO,
    ITEM,
    MAX_PASSES,
    MAX_PUSHES,
    NO_ACTION,
    NO_REASON,
    NO_ROOM,
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
from mop.kernels.grid import EMPTY

# loop: planning never ends; disappeared_box: the student opened a box; assertion: no path or no free cell is left;
# error: another exception inside the bot; unsolved: the bot gives up, fails the mission or runs out of steps
FAILURE_KINDS = ("loop", "disappeared_box", "assertion", "error", "unsolved")

_KINDS = {"OpenSubgoal": OPEN, "DropSubgoal": DROP, "PickupSubgoal": PICKUP, "GoNextToSubgoal": GO_NEXT_TO}
_REASONS = {None: NO_REASON, "PutNext": TO_PUT_NEXT, "Open": TO_OPEN}


class TeacherFailure(Exception):
    """The bot has no answer in this state; `kind` is one of FAILURE_KINDS."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class Teacher:
    """Minigrid's bot in one world: its first plan is made by Minigrid, `replan` goes on with it.

    It is made anew for each episode, on a freshly reset environment. codes (height, width) int32 and seen (width,
    height) bool are those of `mop.kernels.grid.observe`; the caller keeps them up to date after every step.
    """

    def __init__(self, env, codes: np.ndarray, seen: np.ndarray):
        self.codes, self.seen = codes, seen
        self._descriptions: list[tuple[ObjDesc, int]] = []  # of the mission, with the row of the first item
        plan, items = BabyAIBot(env).stack, []
        self._stack = np.zeros(len(plan) + MAX_PUSHES, SUBGOAL)
        for row, subgoal in zip(self._stack, plan, strict=False):
            row["kind"], row["reason"] = _KINDS[type(subgoal).__name__], _REASONS[subgoal.reason]
            if subgoal.datum is not None:
                row["datum"], row["a"] = DESCRIPTION, len(items)
                row["b"] = len(subgoal.datum.obj_set)
                self._descriptions.append((subgoal.datum, len(items)))
                items += [_number(item) for item in subgoal.datum.obj_set]
        num_keys = sum(cell is not None and cell.type == "key" for cell in env.grid.grid)
        self._item_room = MAX_PASSES * (num_keys + 1)  # one key may be in a hand or in a box
        self._items = np.zeros(len(items) + self._item_room, ITEM)
        self._items["number"][: len(items)] = items
        self.update_positions()
        self._bot = np.zeros(1, BOT)[0]
        self._bot["depth"], self._bot["num_items"] = len(plan), len(items)
        self._bot["old_front"] = self._bot["old_carried"] = EMPTY

    def update_positions(self) -> None:
        """Read again where the objects of the mission are; call it whenever Minigrid has looked for them."""
        for description, first in self._descriptions:
            rows = self._items[first : first + len(description.obj_set)]
            rows["x"] = -1
            for row, (x, y) in zip(rows, description.obj_poss, strict=False):
                row["x"], row["y"] = x, y

    def label(self, last_action: int | None, x: int, y: int, dx: int, dy: int, carried: int) -> int:
        """The bot's next action; call it once per step, with the action that was executed (None at first).

        The agent is at (x, y), faces (dx, dy) and carries an object of code `carried`. Raises TeacherFailure; after
        that the bot cannot be asked again in the episode.
        """
        action = NO_ACTION if last_action is None else last_action
        try:
            answer = self._replan(action, x, y, dx, dy, carried)
            while answer == NO_ROOM:
                self._stack = np.resize(self._stack, 2 * len(self._stack))
                self._items = np.resize(self._items, 2 * len(self._items))
                answer = self._replan(action, x, y, dx, dy, carried)
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

    def _replan(self, *now: int) -> int:
        return replan(self._bot, self._stack, self._items, self._item_room, self.codes, self.seen, *now)


def _number(item: WorldObj) -> int:
    """The number of an object in an ITEM; 0 for one that was never on the grid, as `code_number` has it too."""
    return WALL_ITEM if item.type == "wall" else getattr(item, "number", 0)
