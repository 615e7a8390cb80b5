"""The rollout: which hidden state follows which action, and which step is an episode's last."""

from itertools import islice

import numpy as np
import torch

from mop.evaluation.rollout import Answer, rollout


class Counters:
    """N environments that show the number of their step; an episode is as long as the next one of `lengths` says."""

    def __init__(self, lengths: list[list[int]], asks_at_the_end: bool = False):
        self._lengths, self._asks_at_the_end = [list(of_slot) for of_slot in lengths], asks_at_the_end
        self.shown, self.active = np.zeros(len(lengths), int), np.ones(len(lengths), bool)
        self.taken = [[] for _ in lengths]

    def step(self, actions: np.ndarray) -> np.ndarray:
        begun = np.zeros(len(self.active), bool)
        for slot in np.flatnonzero(self.active).tolist():
            length = self._lengths[slot][0]
            if self._asks_at_the_end and self.shown[slot] == length:
                self.active[slot] = False
                continue
            self.taken[slot].append(int(actions[slot]))
            self.shown[slot] += 1
            if self.shown[slot] == length and not self._asks_at_the_end:
                begun[slot] = True
                del self._lengths[slot][0]
                self.active[slot], self.shown[slot] = bool(self._lengths[slot]), 0
        return begun


def remember(envs: Counters, hidden: torch.Tensor) -> Answer:
    """Remembers the sum of what was shown + 1, and chooses the action that was shown."""
    after = hidden + torch.from_numpy(envs.shown)[:, None] + 1
    return Answer(torch.eye(9)[envs.shown], [], after)


def test_the_hidden_state_follows_the_action_and_is_empty_when_an_episode_begins():
    envs = Counters([[3, 2], [5]])
    steps = list(rollout(remember, envs, torch.zeros(2, 1)))
    assert [step.hidden[:, 0].tolist() for step in steps] == [[0, 0], [1, 1], [3, 3], [0, 6], [1, 10]]
    assert [step.action.tolist() for step in steps] == [[0, 0], [1, 1], [2, 2], [0, 3], [1, 4]]
    assert envs.taken == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]


def test_every_episode_begins_with_the_hidden_state_that_is_given():
    """As an agent's that has learned how to begin."""
    steps = rollout(remember, Counters([[2, 1], [3]]), torch.tensor([[5], [7]]))
    assert [step.hidden[:, 0].tolist() for step in steps] == [[5, 7], [6, 8], [5, 10]]


def test_an_environment_that_stays_active_is_asked_about_its_last_observation():
    envs = Counters([[2], [3]], asks_at_the_end=True)
    steps = list(rollout(remember, envs, torch.zeros(2, 1)))
    assert len(steps) == 4 and envs.taken == [[0, 1], [0, 1, 2]]
    assert [step.hidden[1, 0].item() for step in steps] == [0, 1, 3, 6]


def test_what_is_not_asked_for_is_not_executed():
    envs = Counters([[9]])
    assert len(list(islice(rollout(remember, envs, torch.zeros(1, 1)), 3))) == 3
    assert envs.taken == [[0, 1]]


def test_the_hidden_state_can_be_modified_and_actions_chosen():
    envs = Counters([[3]])
    steps = list(rollout(remember, envs, torch.zeros(1, 1), modify=lambda envs, before, answer: answer.hidden * 10))
    assert [step.hidden.item() for step in steps] == [0, 10, 120]
    envs = Counters([[2], [1, 1]])
    list(rollout(remember, envs, torch.zeros(2, 1), choose=lambda envs, answer: envs.shown + 5))
    assert envs.taken == [[5, 6], [5, 5]]
