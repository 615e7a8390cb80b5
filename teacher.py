"""The BabyAI bot as teacher: bounded, faster, and honest about its failures."""

import traceback
from collections.abc import Callable

import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot, DisappearedBoxError

from grid_kernels import NOT_VISITED, search

# A legitimate call needs at most 4 passes of the planning loop (3,290 episodes); a call that passes this bound would
# never return. A bound on passes needs no thread and no clock, so it finds the same failures on every machine.
MAX_PASSES = 64

# loop: planning never ends; disappeared_box: the student opened a box; assertion: no path or no free cell is left;
# error: another exception inside the bot; unsolved: the bot gives up, fails the mission or runs out of steps
FAILURE_KINDS = ("loop", "disappeared_box", "assertion", "error", "unsolved")


class TeacherFailure(Exception):
    """The bot has no answer in this state; `kind` is one of FAILURE_KINDS."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.kind = kind


class Teacher(BabyAIBot):
    """Minigrid's bot with its planning loop bounded, its view shared with the student and its searches compiled.

    Made anew for each episode, on a freshly reset environment. codes (height, width) int32 and seen (width, height)
    bool are those of `grid_kernels.observe`, kept up to date by the caller after every step.
    """

    def __init__(self, env, codes: np.ndarray, seen: np.ndarray):
        super().__init__(env)
        self.codes, self.vis_mask = codes, seen

    def label(self, last_action: int | None) -> int:
        """The bot's next action; call it once per step with the action that was executed (None first).

        Raises TeacherFailure; the bot cannot be asked again in that episode.
        """
        try:
            action = self.replan(last_action)
        except TeacherFailure:
            raise
        except DisappearedBoxError:
            raise TeacherFailure("disappeared_box") from None
        except AssertionError:
            raise TeacherFailure("assertion") from None
        except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
            if traceback.extract_tb(error.__traceback__)[-1].filename == __file__:
                raise  # a bug of ours, not a failure of the planner
            raise TeacherFailure("error") from error
        if action == self.mission.actions.done:
            raise TeacherFailure("unsolved")
        return int(action)

    def replan(self, action_taken=None):
        """As in Minigrid, with at most MAX_PASSES passes of the planning loop."""
        self._check_erroneous_box_opening(action_taken)
        if self.stack:
            self.stack[-1].update_agent_attributes()  # the same for all: looked up once
            names = ("pos", "dir_vec", "right_vec", "fwd_pos", "fwd_cell", "carrying")
            attributes = {name: getattr(self.stack[-1], name) for name in names}
            for subgoal in self.stack[:-1]:
                subgoal.__dict__.update(attributes)
            self.stack[-1].replan_after_action(action_taken)
        while self.stack and self.stack[-1].is_exploratory():
            self.stack.pop()
        action = None
        for _ in range(MAX_PASSES):
            action = self.stack[-1].replan_before_action() if self.stack else self.mission.actions.done
            if action is not None:
                break
        else:
            raise TeacherFailure("loop")
        self._remember_current_state()
        return action

    def _shortest_path(self, accept_fn: Callable, try_with_blockers: bool = False):
        """As in Minigrid: path to the first accepted cell (without the start), that cell, whether blockers are on it.

        The visiting order does not depend on what is accepted, so one compiled search yields the whole order and
        `accept_fn` is asked along it.
        """
        x, y = (int(v) for v in self.mission.agent_pos)
        dx, dy = (int(v) for v in self.mission.dir_vec)
        order, previous = search(self.codes, self.vis_mask, np.array([[x, y]], np.int32), dx, dy, False)
        found = self._first_accepted(order, previous, accept_fn)
        if found is not None:
            return self._path(found, previous)[::-1][1:], found, False
        if not try_with_blockers:
            return None, None, False
        beyond, previous_beyond = search(self.codes, self.vis_mask, order, 1, 0, True)
        found = self._first_accepted(beyond, previous_beyond, accept_fn)
        if found is None:
            return None, None, True
        path = self._path(found, previous_beyond)
        path += self._path(path[-1], previous)[1:]
        return path[::-1][1:], found, True

    def _first_accepted(self, order: np.ndarray, previous: np.ndarray, accept_fn: Callable) -> tuple[int, int] | None:
        grid = self.mission.grid
        # The bot's `lambda pos, cell: pos == target_pos` needs no walk: other predicates close over other names.
        if accept_fn.__code__.co_freevars in (("obj_pos",), ("target_pos",)):
            x, y = (int(v) for v in accept_fn.__closure__[0].cell_contents)
            is_inside = 0 <= x < grid.width and 0 <= y < grid.height
            return (x, y) if is_inside and previous[x * grid.height + y] != NOT_VISITED else None
        for x, y in order.tolist():
            if accept_fn((x, y), grid.grid[y * grid.width + x]):
                return x, y
        return None

    def _path(self, cell: tuple[int, int], previous: np.ndarray) -> list[tuple[int, int]]:
        """From `cell` back to the start of its search."""
        height = self.mission.grid.height
        path, at = [], cell[0] * height + cell[1]
        while at >= 0:
            path.append(divmod(at, height))
            at = int(previous[at])
        return path
