"""The BabyAI bot as teacher: its planning is bounded, and each of its failures has a kind.

`Teacher` is Minigrid's own bot; `mop.fast.compiled_teacher` has the compiled one, and `mop.envs.babyai` chooses.
"""

from typing import Any

from minigrid.core.actions import Actions
from minigrid.envs.babyai.core.verifier import ActionInstr, AfterInstr, Instr, SeqInstr
from minigrid.utils.baby_ai_bot import (
    BabyAIBot,
    CloseSubgoal,
    DisappearedBoxError,
    DropSubgoal,
    GoNextToSubgoal,
    OpenSubgoal,
    PickupSubgoal,
    Subgoal,
)

from mop.common.conventions import SUBGOALS

# loop: planning never ends; disappeared_box: the student opened a box; assertion: no path or no free cell is left;
# error: another exception inside the bot; unsolved: the bot gives up, fails the mission or runs out of steps
FAILURE_KINDS = ("loop", "disappeared_box", "assertion", "error", "unsolved")
DROP_ACTION = int(Actions.drop)

# A legitimate call needs at most 4 passes of the planning loop (3,290 episodes); a call that passes this bound would
# never return. A bound on passes needs no thread and no clock, so it finds the same failures on every machine.
MAX_PASSES = 64

_NAMES: dict[type[Subgoal], str] = {
    **{GoNextToSubgoal: "go_next_to", OpenSubgoal: "open", PickupSubgoal: "pick_up", DropSubgoal: "drop"},
    CloseSubgoal: "open",  # a door is closed only to be as it was, or open
}


def clauses(instruction: Instr) -> list[ActionInstr]:
    """The parts of a mission in the order in which the bot does them: "A after you B" is B, then A."""
    if isinstance(instruction, ActionInstr):
        return [instruction]
    assert isinstance(instruction, SeqInstr)
    parts = [clauses(instruction.instr_a), clauses(instruction.instr_b)]
    first, second = reversed(parts) if isinstance(instruction, AfterInstr) else parts
    return first + second


class TeacherFailure(Exception):
    """The bot has no answer in this state; `kind` is one of FAILURE_KINDS."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class EndlessPlanning(Exception):
    """The planning loop passed its bound."""


class Teacher:
    """Minigrid's bot in one world (`mop.envs.babyai.World`); made anew for each episode, before its first label."""

    errors: tuple[type[Exception], ...] = (Exception,)  # that are its failures: Minigrid's bot runs into anything

    def __init__(self, world):
        self._bot = BabyAIBot(world.env)
        self._plan = self._bot.stack = _Plan(self._bot.stack)

    def label(self, world) -> int:
        """The bot's action in the present state; call it once after each reset and step.

        Raises TeacherFailure; after that the bot cannot be asked again in the episode.
        """
        try:
            action = self._answer(world)
        except EndlessPlanning:
            raise TeacherFailure("loop") from None
        except DisappearedBoxError:
            raise TeacherFailure("disappeared_box") from None
        except AssertionError:
            raise TeacherFailure("assertion") from None
        except self.errors:
            raise TeacherFailure("error") from None
        if action == Actions.done:
            raise TeacherFailure("unsolved")
        return action

    def _answer(self, world) -> int:
        """The bot's action, `done` where it gives up."""
        self._plan.num_looks = 0
        return int(self._bot.replan(world.actions[-1] if world.actions else None))

    @property
    def phase(self) -> tuple[int, int]:
        """What the last label serves: the top subgoal, an index into SUBGOALS, and the instruction, counted from 0.

        Instructions are counted in the order in which the bot does them: "A after you B" is B, then A.
        """
        top = self._plan.top
        name = "explore" if top.is_exploratory() else _NAMES[type(top)]
        return SUBGOALS.index(name), self._plan.instructions[top]


class _Plan(list):
    """The stack of the bot's subgoals, which bounds its planning and knows the instruction of each subgoal."""

    def __init__(self, subgoals: list[Subgoal]):
        """subgoals: the bot's first plan, each instruction of which begins by going somewhere."""
        super().__init__(subgoals)
        self.instructions: dict[Subgoal, int] = {}
        instruction = -1
        for subgoal in reversed(subgoals):
            instruction += isinstance(subgoal, GoNextToSubgoal) and subgoal.reason != "PutNext"
            self.instructions[subgoal] = instruction
        self.num_looks = 0  # at the top, in one call: one for each pass, and a few before it
        self.top = subgoals[-1]

    def __getitem__(self, index: Any) -> Any:
        self.num_looks += 1
        if self.num_looks > MAX_PASSES:
            raise EndlessPlanning
        self.top = super().__getitem__(index)
        return self.top

    def append(self, subgoal: Subgoal) -> None:
        """Add a subgoal, which serves what the present top serves."""
        self.instructions[subgoal] = self.instructions[self.top]
        super().append(subgoal)
