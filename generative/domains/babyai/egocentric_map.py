"""The memory of a world model of BabyAI: a map around the agent, with its heading and what is in its hand.

Axis letters: N worlds, C numbers of a cell of the map, F features; [i, j] are the axes of a view, see
`relaxation.cells`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.babyai.decoder import NUM_DIRECTIONS
from generative.simulators.base import State
from generative.simulators.relaxation import NUM_CELLS
from mop.envs.geometry import VIEW_SIZE

SIDE = VIEW_SIZE // 2  # cells of a view to each side of the agent
OWN = SIDE * VIEW_SIZE + VIEW_SIZE - 1  # the agent's own cell among those of a view
FIRST_SHARE = -2.0  # log-odds that a cell changes in a step, at first
REACH = VIEW_SIZE - 1  # cells that the map reaches from the agent to each side: those that a view can reach
MAP_SIZE = 2 * REACH + 1


class EgocentricMap(nn.Module):
    """Cells [i, j] of a square with the agent at its centre, i to the right, j towards its back, as those of a view."""

    is_own: Tensor  # (1, 7, 7, 1)

    def __init__(self, channels: int, num_inputs: int, num_features: int):
        """channels: C; num_inputs: what the motion is predicted from; num_features: and the changes in view."""
        super().__init__()
        self.channels = channels
        self.motion = nn.Sequential(nn.Linear(num_inputs + channels, 64), nn.ELU(), nn.Linear(64, 4))
        self.change = nn.Linear(num_features, NUM_CELLS * (channels + 1))
        with torch.no_grad():
            self.change.bias[:: channels + 1] = FIRST_SHARE
        self.register_buffer("is_own", (torch.arange(NUM_CELLS) == OWN).float().view(1, VIEW_SIZE, VIEW_SIZE, 1), False)

    def blank(self, num_worlds: int) -> State:
        """A state of which nothing is known: map (N, 13, 13, C), heading (N, 4), hand (N, C)."""
        return {
            "places": self.change.weight.new_zeros(num_worlds, MAP_SIZE, MAP_SIZE, self.channels),
            "heading": self.change.weight.new_zeros(num_worlds, NUM_DIRECTIONS),
            "hand": self.change.weight.new_zeros(num_worlds, self.channels),
        }

    def ahead(self, state: State) -> Tensor:
        """The cell before the agent, (N, C)."""
        return state["places"][:, REACH, REACH - 1]

    def view(self, state: State) -> Tensor:
        """The cells in view, (N, 7, 7, C), the hand in the agent's own."""
        cells = state["places"][:, REACH - SIDE : REACH + SIDE + 1, :VIEW_SIZE]
        return cells + self.is_own * (state["hand"][:, None, None] - cells)

    def moved(self, state: State, inputs: Tensor) -> State:
        """The state around the agent after its motion; inputs (N, I) and the cell ahead tell which motion."""
        weights = self.motion(torch.cat([inputs, self.ahead(state)], -1)).softmax(-1)  # (N, 4), how much of each motion
        stay, left, right, ahead = weights[..., None].unbind(1)
        heading = state["heading"]
        heading = (stay + ahead) * heading + left * heading.roll(-1, -1) + right * heading.roll(1, -1)
        stay, left, right, ahead = weights[..., None, None, None].unbind(1)
        places, transposed = state["places"], state["places"].transpose(1, 2)
        beyond = F.pad(places[:, :, :-1], (0, 0, 1, 0))  # at the far edge nothing is known
        places = stay * places + left * transposed.flip(1) + right * transposed.flip(2) + ahead * beyond
        return {**state, "places": places, "heading": heading}

    def changed(self, state: State, in_view: Tensor, features: Tensor) -> State:
        """The state with the changes in view that features (N, F) predict; in_view: of `view`."""
        predicted = self.change(features).unflatten(-1, (VIEW_SIZE, VIEW_SIZE, self.channels + 1))
        return self.written(state, in_view, predicted[..., 1:], predicted[..., :1].sigmoid())

    def written(self, state: State, in_view: Tensor, seen: Tensor, shares: Tensor) -> State:
        """The state with what is seen, (N, 7, 7, C), in the cells in view, each to its share (N, 7, 7, 1)."""
        changes = shares * (seen - in_view)
        around = F.pad(changes * (1 - self.is_own), (0, 0, 0, MAP_SIZE - VIEW_SIZE, REACH - SIDE, REACH - SIDE))
        hand = state["hand"] + changes[:, SIDE, VIEW_SIZE - 1]
        return {**state, "places": state["places"] + around, "hand": hand}
