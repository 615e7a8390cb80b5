"""What a world model remembers of places: a map around the agent, as views of a grid have them, or nothing.

Axis letters: N worlds, C numbers of a cell of the map, F features; [i, j] are the axes of a view, see `soft.cells`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.domains.babyai.decoder import NUM_DIRECTIONS
from generative.simulators.relaxation import NUM_CELLS
from mop.fast.grid import VIEW_SIZE

SIDE = VIEW_SIZE // 2  # cells of a view to each side of the agent
OWN = SIDE * VIEW_SIZE + VIEW_SIZE - 1  # the agent's own cell among those of a view
FIRST_SHARE = -2.0  # log-odds that a cell changes in a step, at first
REACH = VIEW_SIZE - 1  # cells that the map reaches from the agent to each side: those that a view can reach
MAP_SIZE = 2 * REACH + 1


class Places(nn.Module):
    """The map: cells [i, j] of a square with the agent at its centre, i to the right, j towards its back, as a view's.

    channels: C; 0 is a model without a map.
    """

    def __init__(self, channels: int, num_inputs: int, num_features: int):
        """num_inputs: of what tells the motion; num_features: of what tells the changes in view."""
        super().__init__()
        self.channels, self.num_headings = channels, NUM_DIRECTIONS
        self.motion = nn.Sequential(nn.Linear(num_inputs + channels, 64), nn.ELU(), nn.Linear(64, 4))
        self.change = nn.Linear(num_features, NUM_CELLS * (channels + 1))
        with torch.no_grad():
            self.change.bias[:: channels + 1] = FIRST_SHARE
        self.register_buffer("is_own", (torch.arange(NUM_CELLS) == OWN).float().view(1, VIEW_SIZE, VIEW_SIZE, 1), False)

    def empty(self, num_worlds: int) -> Tensor:
        """A map (N, 13, 13, C) of which nothing is known."""
        return self.change.weight.new_zeros(num_worlds, MAP_SIZE, MAP_SIZE, self.channels)

    def ahead(self, places: Tensor) -> Tensor:
        """The cell before the agent, (N, C)."""
        return places[:, REACH, REACH - 1]

    def view(self, places: Tensor, hand: Tensor) -> Tensor:
        """The cells in view, (N, 7, 7, C), the hand (N, C) in the agent's own."""
        cells = places[:, REACH - SIDE : REACH + SIDE + 1, :VIEW_SIZE]
        return cells + self.is_own * (hand[:, None, None] - cells)

    def motions(self, places: Tensor, inputs: Tensor) -> Tensor:
        """How much of each motion there is, (N, 4): stay, left, right, ahead; inputs (N, I) and the cell ahead tell."""
        return self.motion(torch.cat([inputs, self.ahead(places)], -1)).softmax(-1)

    def turned(self, heading: Tensor, weights: Tensor) -> Tensor:
        """The direction (N, 4) that is faced after motions (N, 4)."""
        stay, left, right, ahead = weights[..., None].unbind(1)
        return (stay + ahead) * heading + left * heading.roll(-1, -1) + right * heading.roll(1, -1)

    def moved(self, places: Tensor, weights: Tensor) -> Tensor:
        """The map as it is around the agent after motions (N, 4)."""
        if not self.channels:
            return places
        stay, left, right, ahead = weights[..., None, None, None].unbind(1)
        turned = places.transpose(1, 2)
        beyond = F.pad(places[:, :, :-1], (0, 0, 1, 0))  # at the far edge nothing is known
        return stay * places + left * turned.flip(1) + right * turned.flip(2) + ahead * beyond

    def changed(self, places: Tensor, hand: Tensor, in_view: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map and hand with the changes in view that features (N, F) tell; in_view: of `view`."""
        found = self.change(features).unflatten(-1, (VIEW_SIZE, VIEW_SIZE, self.channels + 1))
        return self.written(places, hand, in_view, found[..., 1:], found[..., :1].sigmoid())

    def written(
        self, places: Tensor, hand: Tensor, in_view: Tensor, seen: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Map and hand with what is seen, (N, 7, 7, C), in the cells in view, each to its share (N, 7, 7, 1)."""
        if not self.channels:
            return places, hand
        changes = shares * (seen - in_view)
        around = F.pad(changes * (1 - self.is_own), (0, 0, 0, MAP_SIZE - VIEW_SIZE, REACH - SIDE, REACH - SIDE))
        return places + around, hand + changes[:, SIDE, VIEW_SIZE - 1]


class Nowhere(nn.Module):
    """In place of a map where observations have no cells: all that `Places` remembers is empty."""

    channels = num_headings = 0

    def __init__(self):
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1, 0), persistent=False)

    def empty(self, num_worlds: int) -> Tensor:
        """(N, 0)."""
        return self.nothing.expand(num_worlds, 0)

    def ahead(self, places: Tensor) -> Tensor:
        """(N, 0)."""
        return places

    def view(self, places: Tensor, hand: Tensor) -> Tensor:
        """(N, 1, 1, 0)."""
        return places[:, None, None]

    def motions(self, places: Tensor, inputs: Tensor) -> Tensor:
        """(N, 0)."""
        return places

    def turned(self, heading: Tensor, weights: Tensor) -> Tensor:
        """(N, 0)."""
        return heading

    def moved(self, places: Tensor, weights: Tensor) -> Tensor:
        """(N, 0)."""
        return places

    def changed(self, places: Tensor, hand: Tensor, in_view: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 0) and (N, 0)."""
        return places, hand

    def written(
        self, places: Tensor, hand: Tensor, in_view: Tensor, seen: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, 0) and (N, 0)."""
        return places, hand
