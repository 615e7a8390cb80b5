"""The straight line between two sets of weights, of whatever they are: names and tensors of equal shapes.

Axis letter: A points of the line.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from mop.common.errors import InputError

Weights = Mapping[str, Tensor]


def alphas(num_points: int) -> np.ndarray:
    """Evenly spaced places (A,) on a line, 0 and 1 included."""
    return np.linspace(0.0, 1.0, num_points)


def interpolate(
    first: Weights, second: Weights, places: np.ndarray, moves: Callable[[str], bool] = lambda name: True
) -> dict[str, Tensor]:
    """The weights (1 - a) first + a second at places a (A,), name -> (A, ...).

    moves: which weights are interpolated, by their names; the others stay as the first has them. At 0 and 1 they are
    those of the ends to the last bit, and everywhere if the ends are equal.
    Raises InputError where names or shapes differ.
    """
    check_same_shapes(first, second)
    return {
        name: torch.stack([torch.lerp(value, second[name] if moves(name) else value, float(a)) for a in places])
        for name, value in first.items()
    }


def distance(first: Weights, second: Weights, counts: Callable[[str], bool] = lambda name: True) -> float:
    """The Euclidean distance between two sets of weights. counts: which of them, by their names."""
    check_same_shapes(first, second)
    squares = [(second[name].double() - first[name].double()).square().sum() for name in first if counts(name)]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def check_same_shapes(first: Weights, second: Weights) -> None:
    """Raises InputError, naming the first difference, where there is no line between two sets of weights."""
    for name in sorted(first.keys() | second.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else "missing" for weights in (first, second)]
        if shapes[0] != shapes[1]:
            raise InputError(f"there is no line between the policies: {name} is {shapes[0]} and {shapes[1]}")
