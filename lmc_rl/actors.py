"""Many policies of one shape at once: their weights are stacked, and a matrix product serves all of them.

Axis letters: A policies, E episodes, O numbers of an observation, D of an action.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError


class StackedMLP:
    """Multilayer perceptrons of one shape, ReLU between the layers: inputs (A, E, I) -> outputs (A, E, K)."""

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]]):
        """layers: weights (A, K, I) and biases (A, K) of each."""
        self._layers = [(weight.transpose(1, 2).contiguous(), bias.unsqueeze(1)) for weight, bias in layers]

    def __call__(self, inputs: Tensor) -> Tensor:
        for index, (weight, bias) in enumerate(self._layers):
            inputs = torch.baddbmm(bias, inputs.relu() if index else inputs, weight)
        return inputs


def stacked_mlp(weights: Mapping[str, Tensor], *prefixes: str) -> StackedMLP:
    """The perceptron of the layers below these prefixes of names, in their order; weights: name -> (A, ...)."""
    names = [f"{prefix}.{index}" for prefix in prefixes for index in ("", *range(0, 64, 2))]
    names = [name.removesuffix(".") for name in names]
    found = [name for name in names if f"{name}.weight" in weights]
    return StackedMLP([(weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in found])


def is_sac(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the networks of SAC, by their names, and not those of DDPG."""
    return "actor.log_std.weight" in weights


class StackedActor:
    """The actors of A policies; called with observations, it answers with their actions without noise."""

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device | str = "cpu"):
        """weights: name -> (A, ...), of `paths.interpolate` or of `of_policies`."""
        self._device = torch.device(device)
        weights = {name: value.to(self._device) for name, value in weights.items() if name.startswith("actor.")}
        if is_sac(weights):
            self.mean = stacked_mlp(weights, "actor.latent_pi", "actor.mu")
            self.log_std = stacked_mlp(weights, "actor.latent_pi", "actor.log_std")
        else:
            self.mean, self.log_std = stacked_mlp(weights, "actor.mu"), None

    @classmethod
    def of_policies(cls, policies: Sequence[Mapping[str, Tensor]], device: torch.device | str = "cpu"):
        """Of policies with weights of their own, name -> tensor. Raises InputError where their shapes differ."""
        return cls(stack(policies), device)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """Actions (A, E, D) float32 from -1 to 1, for observations (A, E, O) float32."""
        with torch.no_grad():
            return self.mean(torch.from_numpy(obs).to(self._device)).tanh().cpu().numpy()


def stack(policies: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights of several policies, name -> (A, ...). Raises InputError where names or shapes differ."""
    shapes = [{name: tuple(value.shape) for name, value in policy.items()} for policy in policies]
    if any(shape != shapes[0] for shape in shapes):
        raise InputError("the policies do not have the same weights: there is no line between them")
    return {name: torch.stack([policy[name] for policy in policies]) for name in policies[0]}
