"""Episodes that end in a loop, by hand."""

import numpy as np
import pytest
from routing_data import make_data, make_steps

from mop.analysis.actions import Loop, compute_loops, find_loop
from mop.common.errors import InputError

LEFT, RIGHT, FORWARD = 0, 1, 2


def loop_of(actions, directions, cells=None):
    cells = [[1, 1]] * len(actions) if cells is None else cells
    return find_loop(np.array(cells), np.array(directions), np.array(actions))


def test_loops_by_hand():
    turning = [RIGHT, LEFT] * 3
    assert loop_of([FORWARD, *turning], [0, *[0, 1] * 3]) == Loop(1, 2)
    assert loop_of([FORWARD, *turning[:-1]], [0, *[0, 1] * 2, 0]) is None, "three rounds are not full"
    assert loop_of([*turning, FORWARD], [*[0, 1] * 3, 0]) is None, "the episode leaves the loop"
    assert loop_of([RIGHT] * 8, [0, 1, 2, 3] * 2) is None, "two rounds"
    assert loop_of([RIGHT] * 12, [0, 1, 2, 3] * 3) == Loop(0, 4)
    assert loop_of([FORWARD] * 4, [0] * 4, [[x, 1] for x in range(4)]) is None, "it goes on"
    assert loop_of([FORWARD] * 4, [0] * 4) == Loop(0, 1), "against a wall"
    assert loop_of([], []) is None


def test_each_episode_has_its_own():
    steps = make_steps(
        np.ones((7, 2)),
        np.eye(2)[[0] * 7],
        episode=[0, 0, 0, 2, 2, 2, 2],
        t_step=[0, 1, 2, 0, 1, 2, 3],
        direction=[0, 0, 0, 1, 2, 2, 2],
        action=[FORWARD] * 7,
    )
    data = make_data(steps, [{}, {}, {}])
    assert compute_loops(data) == [Loop(0, 1), None, Loop(1, 1)]
    steps.t_step[5] = 1
    with pytest.raises(InputError, match="episodes"):
        compute_loops(data)
    steps.direction = None
    with pytest.raises(InputError, match="direction"):
        compute_loops(data)
