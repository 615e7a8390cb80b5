"""Whether a shard holds what was recorded.

Its sums tell (`mop.artifacts.sums`), which are written with it. A shard of an older recording has none. There, what can
be told without playing the episodes again is checked: that numbers are finite, actions possible, probabilities of sum
1, and that episodes end where they do.
Axis letters: M rows, A actions, E experts of all layers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mop.artifacts.sums import SUMS, check_sum, read_sums
from mop.common.errors import InputError
from mop.envs.geometry import IMAGE_SIZE, one_hot_edges

_SYMBOLS = IMAGE_SIZE + 5  # numbers of an observation of BabyAI: cells, direction, whether something is carried
_TOLERANCE = 1e-3  # of a sum of probabilities


def check_sums(shard: Path, way_out: str) -> None:
    """Refuse a shard of which a file is not as it was written."""
    sums = read_sums(shard, way_out)
    found = {path.name for path in shard.iterdir() if path.suffix in (".npy", ".json")} - {SUMS}
    if different := sorted(found ^ sums.keys()):
        raise InputError(f"{shard / different[0]} is missing, or was not recorded; {way_out}")
    for name in sums:
        check_sum(shard / name, sums, way_out)


def check_forms(arrays: Mapping[str, np.ndarray], fields: Sequence[tuple]) -> None:
    """Refuse arrays of another dtype or shape than those of some fields of a row, and such as are no numbers."""
    for name, dtype, *shape in fields:
        array = arrays[name]
        if array.dtype != dtype or array.shape[1:] != tuple(*shape):
            raise InputError(f"{name}.npy has another form than a recording's: {array.shape} {array.dtype}")
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise InputError(f"{name}.npy holds no numbers: {array.dtype}")


def check_values(
    arrays: Mapping[str, np.ndarray], num_rows: Sequence[int], expert_hidden_sizes: Sequence[Sequence[int]]
) -> None:
    """Refuse arrays (M, ...) that no policy and no world leave; num_rows: of each episode."""
    num_actions = arrays["log_probs"].shape[1]
    ends = np.cumsum(num_rows) - 1
    ends_of_layers = np.cumsum([len(sizes) for sizes in expert_hidden_sizes])[:-1]
    is_last, is_over = np.zeros((2, len(arrays["action"])), bool)
    is_last[ends] = is_over[ends - 1] = True
    known = {
        "action": lambda action: ((action < num_actions) & ((action >= 0) != is_last)).all(),
        "student": lambda action: ((action >= 0) & (action < num_actions)).all(),
        "bot": lambda action: ((action >= -1) & (action < num_actions)).all(),
        "log_probs": lambda values: _are_probabilities(np.exp(values.astype(np.float64))),
        "routing": lambda weights: all(map(_are_probabilities, np.split(weights, ends_of_layers, axis=1))),
        "truncated": lambda truncated: ((truncated | arrays["terminated"]) == is_over).all(),
        "obs": lambda obs: obs.shape[1:] != (_SYMBOLS,) or (obs[:, :IMAGE_SIZE] < np.diff(one_hot_edges())).all(),
    }
    for name, array in arrays.items():
        is_finite = array.dtype.kind != "f" or np.isfinite(array).all()
        if not is_finite or (name in known and not known[name](array)):
            raise InputError(f"{name}.npy holds what no recording does")


def _are_probabilities(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (np.abs(values.sum(1) - 1) < _TOLERANCE).all())
