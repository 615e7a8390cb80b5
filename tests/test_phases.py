"""The phases of tasks with a key, by hand."""

import numpy as np
import pytest
from routing_data import make_steps

from mop.base.errors import InputError
from mop.measures.phases import PHASES, key_phases


def phases_of(carrying, t_unlocked):
    steps = make_steps(np.ones((len(carrying), 2)), t_step=range(len(carrying)), carrying=np.array(carrying, bool))
    return key_phases(steps, [{"t_unlocked": t_unlocked}]).tolist()


def test_phases_by_hand():
    assert len(PHASES) == 4
    assert phases_of([0, 1, 1, 0, 1], 2) == [0, 1, 2, 3, 3]  # the box at the end is not the key
    assert phases_of([0, 1, 0, 1, 1, 0], 4) == [0, 0, 0, 1, 2, 3]  # a ball was moved out of the way before
    assert phases_of([0, 0, 1, 1], None) == [0, 0, 1, 1]
    assert phases_of([0, 1, 1, 1], 2) == [0, 1, 2, 2]  # never dropped
    assert phases_of([1, 1, 0], 1) == [1, 2, 3]  # in the hands from the start


def test_phases_need_carrying_and_unlocking():
    steps = make_steps(np.ones((3, 2)), episode=[0, 1, 2], t_step=[0, 0, 0], carrying=[False, True, False])
    with pytest.raises(InputError, match="t_unlocked"):
        key_phases(steps, [{}] * 3)
    steps.carrying = None
    with pytest.raises(InputError, match="'carrying'"):
        key_phases(steps, [{"t_unlocked": None}] * 3)
