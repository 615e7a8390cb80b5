"""The straight line between two sets of weights, and many policies of it evaluated at once.

Axis letters: A points of the line, E episodes, O numbers of an observation, D of an action, I inputs, K outputs.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError

Weights = Mapping[str, Tensor]  # by name


def alphas_of(num_points: int) -> np.ndarray:
    """Evenly spaced points (A,) of a line, 0 and 1 included."""
    return np.linspace(0.0, 1.0, num_points)


def interpolate(
    first: Weights, second: Weights, alphas: np.ndarray, moves: Callable[[str], bool] = lambda name: True
) -> dict[str, Tensor]:
    """The weights (1 - a) first + a second at alphas a (A,), name -> (A, ...).

    moves: which weights are interpolated, by their names; the others stay as the first has them. At 0 and 1 they equal
    the ends to the last bit, and everywhere if the ends are equal.
    """
    check_same_shapes(first, second)
    return {
        name: torch.stack([torch.lerp(value, second[name] if moves(name) else value, float(a)) for a in alphas])
        for name, value in first.items()
    }


def distance(first: Weights, second: Weights, counts: Callable[[str], bool] = lambda name: True) -> float:
    """The Euclidean distance between two sets of weights. counts: which of them, by their names."""
    check_same_shapes(first, second)
    squares = [(second[name].double() - first[name].double()).square().sum() for name in first if counts(name)]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def check_same_shapes(first: Weights, second: Weights) -> None:
    """Refuse two sets of weights without a line between them, naming the first difference."""
    for name in sorted(first.keys() | second.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else "missing" for weights in (first, second)]
        if shapes[0] != shapes[1]:
            raise InputError(f"there is no line between the policies: {name} is {shapes[0]} and {shapes[1]}")


# --- stacked policies -------------------------------------------------------------------------------------------------


class StackedMLP:
    """Multilayer perceptrons of one shape, ReLU between the layers: inputs (A, E, I) -> outputs (A, E, K)."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]):
        """layers: weights (A, K, I) and biases (A, K) of each."""
        self._layers = [(weight.transpose(1, 2).contiguous(), bias.unsqueeze(1)) for weight, bias in layers]

    def __call__(self, inputs: Tensor) -> Tensor:
        for index, (weight, bias) in enumerate(self._layers):
            inputs = torch.baddbmm(bias, inputs.relu() if index else inputs, weight)
        return inputs


def stacked_mlp(weights: Weights, *prefixes: str) -> StackedMLP:
    """The perceptron of the layers below these prefixes of names, in their order; weights: name -> (A, ...)."""
    names = [name for prefix in prefixes for name in (prefix, *(f"{prefix}.{index}" for index in range(0, 64, 2)))]
    found = [name for name in names if f"{name}.weight" in weights]
    return StackedMLP([(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in found])


def is_sac(weights: Weights) -> bool:
    """Whether these are the networks of SAC, by their names, and not those of DDPG."""
    return "actor.log_std.weight" in weights


class StackedActor:
    """The actors of A policies of SAC or DDPG: from observations to actions without noise."""

    def __init__(self, weights: Weights, device: torch.device | str = "cpu"):
        """weights: name -> (A, ...), of `interpolate` or `stack`."""
        self._device = torch.device(device)
        weights = {name: value.to(self._device) for name, value in weights.items() if name.startswith("actor.")}
        if is_sac(weights):
            self.mean = stacked_mlp(weights, "actor.latent_pi", "actor.mu")
            self.log_std = stacked_mlp(weights, "actor.latent_pi", "actor.log_std")
        else:
            self.mean, self.log_std = stacked_mlp(weights, "actor.mu"), None

    @classmethod
    def of_policies(cls, policies: Sequence[Weights], device: torch.device | str = "cpu"):
        """The actors of policies with weights of their own, name -> tensor."""
        return cls(stack(policies), device)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions (A, E, D) float32 from -1 to 1, for observations (A, E, O) float32."""
        with torch.no_grad():
            return self.mean(torch.from_numpy(obs).to(self._device)).tanh().cpu().numpy()


def stack(policies: Sequence[Weights]) -> dict[str, Tensor]:
    """The weights of several policies, name -> (A, ...)."""
    for other in policies[1:]:
        check_same_shapes(policies[0], other)
    return {name: torch.stack([policy[name] for policy in policies]) for name in policies[0]}
