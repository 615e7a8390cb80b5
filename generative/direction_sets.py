"""Directions of a policy's memory as a file: unit vectors, what reads the coordinate along each, and random ones.

A direction has a unit vector u, along which the memory is moved, and a dual vector w with w . u = 1, which reads the
coordinate w . (h - mean). Of an orthonormal set both are the same; of ICA and NMF they are not, and only the duals of a
set tell one of its directions from the others. Neither has a mean in it.
Axis letters: K directions, S hidden units, D units of a block, R random directions.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from mop.base.errors import InputError
from mop.base.files import write_atomic
from mop.base.streams import stream_seed

ALL = "all"  # the block of the whole memory
_SPACE_SHARE, _LEAST_SPACE = 0.95, 8  # of the variance, and of principal components, where random directions lie
_RIDGE = 1e-9  # of the mean variance: units that never move have no direction of their own


@dataclass(frozen=True, eq=False)
class Directions:
    """K directions of the memory of one policy, with the first two moments of that memory."""

    units: np.ndarray  # (K, S) float32, of length 1, zero outside the block
    duals: np.ndarray  # (K, S) float32, zero outside the block; dual . unit = 1
    names: np.ndarray  # (K,) texts, "router_0.pca.3"
    blocks: np.ndarray  # (K,) texts, a key of the policy's `hidden_layout`, or ALL
    methods: np.ndarray  # (K,) texts
    mean: np.ndarray  # (S,) float32, of the memory after a step
    covariance: np.ndarray  # (S, S) float32, of the memory after a step
    change_moment: np.ndarray  # (S, S) float32, mean of delta delta^T; delta: how much a step changes the memory
    block_names: np.ndarray  # (blocks,) texts
    block_columns: np.ndarray  # (blocks, 2) int64, first column and end of each
    checkpoint: np.ndarray  # () text: SHA-256 of the policy's file

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sd(self) -> np.ndarray:
        """(K,) float64: standard deviation of each coordinate over the steps that the directions were fitted on."""
        return spread(self.duals, self.covariance)

    def columns(self, block: str) -> slice:
        """The columns of the memory that a block has."""
        start, end = self.block_columns[self.block_names.tolist().index(block)].tolist()
        return slice(start, end)

    def coordinates(self, hidden: np.ndarray) -> np.ndarray:
        """Coordinates (..., K) float32 of memories (..., S)."""
        return (hidden - self.mean) @ self.duals.T

    def number(self, text: str) -> int:
        """The index of a direction, given as that index or by its name. Raises InputError where there is none."""
        names = self.names.tolist()
        if text in names:
            return names.index(text)
        if text.isascii() and text.isdigit() and int(text) < len(names):
            return int(text)
        near = difflib.get_close_matches(text, names, n=3, cutoff=0.3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"there is no direction {text!r}: give a number below {len(names)}, or a name{hint}")


def write_directions(path: str | Path, directions: Directions) -> None:
    """Write a file that `load_directions` reads. Raises OSError."""
    arrays = {field.name: getattr(directions, field.name) for field in fields(Directions)}
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))


def load_directions(path: str | Path) -> Directions:
    """The directions of a file. Raises InputError where it is none."""
    try:
        with np.load(path, allow_pickle=False) as file:
            directions = Directions(**{field.name: file[field.name] for field in fields(Directions)})
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; make one with python -m generative.directions") from None
    except Exception:  # a damaged zip raises nearly anything
        raise InputError(f"{path} is no file of directions; make one with python -m generative.directions") from None
    _check(path, directions)
    return directions


def _check(path: str | Path, directions: Directions) -> None:
    """Raises InputError where the arrays do not fit together."""
    num, size, blocks = len(directions.names), len(directions.mean), len(directions.block_names)
    shapes = {"units": (num, size), "duals": (num, size), "covariance": (size, size), "change_moment": (size, size)}
    shapes |= {"blocks": (num,), "methods": (num,), "block_columns": (blocks, 2), "checkpoint": ()}
    for name, shape in shapes.items():
        if getattr(directions, name).shape != shape:
            raise InputError(f"{path}: {name!r} has the shape {getattr(directions, name).shape}, not {shape}")
    if not all(np.isfinite(getattr(directions, name)).all() for name in ("units", "duals", "mean", "covariance")):
        raise InputError(f"{path}: some directions are not finite; make it anew with python -m generative.directions")


def block_slices(hidden_layout: Mapping[str, slice]) -> dict[str, slice]:
    """The blocks of a memory, name -> columns: each GRU's, and all of them where there are several."""
    whole = {ALL: slice(0, max(columns.stop for columns in hidden_layout.values()))}
    return {**hidden_layout, **(whole if len(hidden_layout) > 1 else {})}


def spread(vectors: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Root of v^T moment v for vectors (K, S): of a covariance, the standard deviations of what they read; float64."""
    vectors = np.asarray(vectors, np.float64)
    return np.sqrt(np.maximum(np.einsum("ks,st,kt->k", vectors, np.asarray(moment, np.float64), vectors), 0.0))


# --- random ones ------------------------------------------------------------------------------------------------------


class RandomSpace:
    """Random directions of a block, drawn where the memory lives: among its leading principal components.

    These hold 95 % of the variance. A direction elsewhere would be a weak control, as the policy hardly uses it.
    """

    def __init__(self, moment: np.ndarray, columns: slice, num_units: int):
        """moment: (S, S), a covariance or `Directions.change_moment`; columns: of the block; num_units: S.

        Raises InputError for a block of one unit, in which there is no other direction.
        """
        within = np.asarray(moment, np.float64)[columns, columns]
        if len(within) < 2:
            raise InputError("a block of one unit has no random directions; choose one of a larger block, or of all")
        values, vectors = np.linalg.eigh(within)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        held = np.cumsum(values) / max(values.sum(), 1e-300)
        num = min(max(int(np.searchsorted(held, _SPACE_SHARE)) + 1, _LEAST_SPACE), len(values))
        self._values = values[:num] + _RIDGE * values.mean()
        self._basis = np.zeros((num, num_units))
        self._basis[:, columns] = vectors[:, :num].T

    def draw(self, sd: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A unit vector (S,) and a dual (S,) float64 whose coordinate varies by `sd`, so that it moves as much.

        Duals of u are w + v, where w reads the coordinate with the least variance and v, orthogonal to u, is any: here
        a random one, as long as the variance needs. A coordinate that always varies more is made smaller as a whole.
        """
        along, other = rng.standard_normal((2, len(self._values)))
        along /= np.linalg.norm(along)
        other -= (other @ along) * along
        least = along / self._values / (along**2 / self._values).sum()
        least_variance = 1.0 / (along**2 / self._values).sum()
        missing = max(sd**2 - least_variance, 0.0)
        dual = least * min(1.0, sd / least_variance**0.5) + other * (missing / (self._values @ other**2)) ** 0.5
        return along @ self._basis, dual @ self._basis

    def draw_unit(self, rng: np.random.Generator, other: np.ndarray, cosine: float) -> np.ndarray:
        """A unit vector (S,) float64 with this cosine to the unit vector `other` (S,)."""
        free = rng.standard_normal(len(self._values)) @ self._basis
        free -= (free @ other) * other
        free /= np.linalg.norm(free)
        return cosine * other + np.sqrt(max(1.0 - cosine**2, 0.0)) * free


def random_stream(seed: int, number: int) -> np.random.Generator:
    """The named random stream of the random direction `number`."""
    return np.random.default_rng(stream_seed(seed, f"random direction {number}"))
