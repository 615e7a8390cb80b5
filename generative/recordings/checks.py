"""Whether a shard holds what was recorded: its sums tell (`mop.artifacts.sums`), which are written with it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mop.artifacts.sums import SUMS, check_sum, read_sums
from mop.common.errors import InputError


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
