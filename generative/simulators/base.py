"""What every simulator of a world offers to the policy inside it: a state, and a differentiable step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

EXACT = "exact"  # the name of the simulator of Minigrid's own rules; a learned one is named by its folder
State = Mapping[str, "Tensor"]  # of N worlds, by name; the first axis of each is N


class Simulator(Protocol):
    """Steps N worlds at once. Functional: what is given is not changed, and gradients pass from end to end.

    Axis letters: N worlds, A actions, X numbers of a soft observation (`generative.simulators.relaxation`).
    """

    def view(self, state: State) -> "Tensor":
        """What the agent sees: soft observations (N, X); exact ones are ones and zeros, with gradients behind them."""

    def step(self, state: State, action: "Tensor") -> State:
        """The state after an action (N, A): ones and zeros, through which gradients pass."""
