"""Directions of a policy's hidden state: unit vectors, duals that read the coordinates; their file; random directions.

A direction has a unit vector u, along which the hidden state is moved, and a dual vector w with w . u = 1, which reads
the coordinate w . (h - mean). In an orthonormal set both are the same; in those of ICA and NMF they are not, and only
the duals of a set tell its directions apart. Neither contains a mean.

The direction of a probe (`<block>.probe.<property>`) leads from the mean hidden state of one class to the mean of the
other: u is what changes with the property, and w, the weights of logistic regression, reads it. Moving the hidden state
along the weights themselves would be wrong, as they also cancel noise of the reading (Haufe et al. 2014, NeuroImage
87). With w . u = 1, removing the coordinate makes the means of both classes equal, so that no linear reading is left
(Belrose et al. 2023, arXiv 2306.03819). Directions of several properties are no basis: removing the coordinate of one
changes those of others.
Axis letters: K directions, S hidden units.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mop.artifacts.records import array, read_record
from mop.common.errors import InputError

ALL = "all"  # the block of the whole hidden state
_RANDOM_VARIANCE = 0.95  # share of the variance in the space of random directions
_MIN_COMPONENTS = 8  # principal components of that space


@dataclass(frozen=True, eq=False)
class Directions:
    """K directions of the hidden state of one policy, with the mean and covariance of the hidden state."""

    units: np.ndarray = array("K S", "float")  # of length 1, zero outside the block
    duals: np.ndarray = array("K S", "float")  # zero outside the block; dual . unit = 1
    names: np.ndarray = array("K", "text")  # "router_0.pca.3"
    blocks: np.ndarray = array("K", "text")  # a key of the policy's `hidden_layout`, or ALL
    methods: np.ndarray = array("K", "text")
    mean: np.ndarray = array("S", "float")  # of the hidden state after a step
    covariance: np.ndarray = array("S S", "float")
    block_names: np.ndarray = array("B", "text")
    block_columns: np.ndarray = array("B 2", "int")  # first column and end of each
    checkpoint: np.ndarray = array("", "text")  # SHA-256 of the policy's file

    def __post_init__(self):
        starts, ends = self.block_columns.T
        if not set(self.blocks.tolist()) <= set(self.block_names.tolist()):
            raise ValueError("a direction is of a block that there is not")
        if not ((starts >= 0) & (starts < ends) & (ends <= len(self.mean))).all():
            raise ValueError("a block lies outside of the hidden state")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sd(self) -> np.ndarray:
        """(K,) float64: standard deviation of each coordinate over the steps that the directions were fitted on."""
        duals, covariance = self.duals.astype(np.float64), self.covariance.astype(np.float64)
        return np.sqrt(np.maximum(((duals @ covariance) * duals).sum(1), 0.0))

    def columns(self, block: str) -> slice:
        """The columns of a block in the hidden state."""
        start, end = self.block_columns[self.block_names.tolist().index(block)].tolist()
        return slice(start, end)

    def coordinates(self, hidden: np.ndarray) -> np.ndarray:
        """Coordinates (..., K) float32 of hidden states (..., S)."""
        return (hidden - self.mean) @ self.duals.T

    def number(self, text: str) -> int:
        """The index of a direction, given as that index, by its name, or by a unique end of its name.

        Ends begin after a point: "probe.saw ahead".
        """
        names = self.names.tolist()
        if text in names:
            return names.index(text)
        if text.isascii() and text.isdigit():
            if int(text) < len(names):
                return int(text)
        elif len(ending := [k for k, name in enumerate(names) if name.endswith(f".{text}")]) == 1:
            return ending[0]
        near = difflib.get_close_matches(text, names, n=3, cutoff=0.3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise InputError(f"there is no direction {text!r}: give a number below {len(names)}, or a name{hint}")


def load_directions(path: str | Path) -> Directions:
    """Load the directions of a file of `write_record`."""
    way_out = "make one with python -m generative.directions"
    return read_record(path, Directions, kind="file of directions", way_out=way_out)


def open_directions(path: str | None, sha256: str, policy: str | Path) -> Directions | None:
    """Load the directions of a file; None where none is named.

    sha256: of the checkpoint of their policy; policy: its name for a person.
    """
    if path is None:
        return None
    directions = load_directions(path)
    if str(directions.checkpoint) != sha256:
        raise InputError(f"--directions {path}: found in the hidden state of another policy than {policy}")
    return directions


def block_slices(hidden_layout: Mapping[str, slice]) -> dict[str, slice]:
    """The blocks of a hidden state, name -> columns: one for each GRU, and ALL if there are several."""
    whole = {ALL: slice(0, max(columns.stop for columns in hidden_layout.values()))}
    return {**hidden_layout, **(whole if len(hidden_layout) > 1 else {})}


# --- random ones ------------------------------------------------------------------------------------------------------


def random_unit(directions: Directions, block: str, rng: np.random.Generator) -> np.ndarray:
    """A random unit vector (S,) float64 in the leading principal components that hold 95 % of a block's variance.

    A direction elsewhere, where the hidden state never is, would be a weak control.
    """
    columns = directions.columns(block)
    values, vectors = np.linalg.eigh(directions.covariance[columns, columns].astype(np.float64))
    held = np.cumsum(values[::-1]) / max(values.sum(), 1e-300)
    num = min(max(int(np.searchsorted(held, _RANDOM_VARIANCE)) + 1, _MIN_COMPONENTS), len(values))
    drawn = rng.standard_normal(num)
    unit = np.zeros(len(directions.mean))
    unit[columns] = vectors[:, ::-1][:, :num] @ drawn / np.linalg.norm(drawn)
    return unit
