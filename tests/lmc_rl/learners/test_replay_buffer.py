"""The replay buffer: a fork shares what is written, and nothing that one writes is seen by another."""

import numpy as np
import pytest

from lmc_rl.learners import replay_buffer
from lmc_rl.learners.mujoco import Transition
from lmc_rl.learners.replay_buffer import ReplayBuffer


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 8 rows, so that a few transitions fill several."""
    monkeypatch.setattr(replay_buffer, "BLOCK_ROWS", 8)


def rows(start: int, count: int) -> np.ndarray:
    """Rows of O 2, D 1 that tell their numbers."""
    return np.arange(start, start + count, dtype=np.float32)[:, None] + np.zeros(7, np.float32)


def filled(count: int, capacity: int = 1000) -> ReplayBuffer:
    made = ReplayBuffer(2, 1, capacity)
    made.append(rows(0, count))
    return made


def content(of: ReplayBuffer) -> np.ndarray:
    return of.rows(np.arange(of.first, of.end))


def test_a_transition_is_a_row():
    made = ReplayBuffer(2, 1, 10)
    made.add(Transition(np.array([1, 2], "f4"), np.array([0.5], "f4"), -3.0, np.array([4, 5], "f4"), True))
    assert content(made).tolist() == [[1, 2, 4, 5, 0.5, -3, 1]] and content(made).dtype == np.float32


def test_the_oldest_are_forgotten():
    made = filled(30, capacity=10)
    assert len(made) == 10 and made.first == 20 and np.array_equal(content(made), rows(20, 10))
    assert made._blocks[:2] == [None, None]  # their memory is free again


def test_a_fork_equals_a_deep_copy_and_shares_its_blocks():
    parent = filled(20)
    one, two = parent.fork(), parent.fork()
    assert all(a is b is c for a, b, c in zip(parent._blocks, one._blocks, two._blocks, strict=True))
    for start, made in ((100, one), (200, parent), (300, two)):
        made.append(rows(start, 10))
    for start, made in ((100, one), (200, parent), (300, two)):
        assert np.array_equal(content(made), np.concatenate([rows(0, 20), rows(start, 10)]))
    assert one._blocks[1] is parent._blocks[1] and one._blocks[2] is not parent._blocks[2]
    assert one.inherited == 20 and parent.inherited == 0


def test_parts_are_disjoint_and_cover():
    parent = filled(21, capacity=15)
    parts = [parent.part(k, 3, np.random.default_rng(1)) for k in range(3)]
    found = [content(part)[:, 0].tolist() for part in parts]
    assert sorted(number for numbers in found for number in numbers) == list(range(6, 21)) and [
        len(part) for part in parts
    ] == [5, 5, 5]
    assert found == [sorted(numbers) for numbers in found] and found != [list(range(6, 11)), list(range(11, 16))]


@pytest.mark.parametrize(("inherited", "own", "capacity"), [(0, 30, 1000), (13, 30, 1000), (13, 30, 20), (13, 60, 20)])
def test_the_state_holds_what_is_not_inherited(inherited, own, capacity):
    parent = filled(inherited, capacity)
    made = parent.fork()
    made.append(rows(inherited, own))
    state = made.state()
    assert len(state["rows"]) == min(own, capacity)
    again = parent.fork()
    again.load_state(state)
    assert (again.first, again.end) == (made.first, made.end) and np.array_equal(content(again), content(made))
    for one in (again, made):
        one.append(rows(900, 20))
    assert np.array_equal(content(again), content(made))
    with pytest.raises(ValueError, match="transitions"):
        again.load_state(state)
    for other in (state | {"rows": state["rows"][1:]}, state | {"end": 2**60}):  # refused before memory is taken
        with pytest.raises((ValueError, MemoryError)):
            parent.fork().load_state(other)
