"""Counterfactuals in the worlds of the exact simulator, in place of the real ones."""

import functools

import torch
from torch.nn import functional as F

from generative.attribution.counterfactuals import RealWorlds, edit_state
from generative.simulators.exact import ExactSimulator
from mop.envs.babyai import NUM_ACTIONS


class SimulatedWorlds(RealWorlds):
    """Worlds of a simulator, which knows no end of an episode."""

    def __init__(self, world, edits, actions, simulator: ExactSimulator):
        super().__init__(world, edits, actions)
        both = [*edits, *edits]
        state = simulator.state_of_worlds([world] * len(both))
        self._simulator, self._state = simulator, edit_state(state, both)

    def observe(self):
        return self._simulator.view(self._state)

    def act(self, actions):
        self._state = self._simulator.step(self._state, F.one_hot(torch.from_numpy(actions), NUM_ACTIONS).float())


def simulated(simulator: ExactSimulator):
    """What makes the worlds of `counterfactuals.effects`."""
    return functools.partial(SimulatedWorlds, simulator=simulator)
