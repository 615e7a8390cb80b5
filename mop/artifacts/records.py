"""Dataclasses of arrays, and their files (.npz): each field says the axes and the kind of its array.

    @dataclass(frozen=True, eq=False)
    class Directions:
        units: np.ndarray = array("K S", "float")      # axes of the same letter are equally long
        names: np.ndarray = array("K", "text")
        columns: np.ndarray = array("K 2", "int")

What a file holds is held against this where it is read. A field without `array` may hold anything.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.reading import REMAKE, read_npz, reading

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

KINDS = {"float": "f", "float or nan": "f", "int": "iu", "bool": "b", "text": "U"}  # -> kinds of NumPy


def array(axes: str, kind: str) -> Any:
    """Declare a field: letters or lengths of its axes, the last of which may be `...`; a kind of KINDS.

    Numbers of "float" are finite.
    """
    return dataclasses.field(metadata={"form": (axes, kind)})


def check_arrays(arrays: Mapping[str, Any], forms: Mapping[str, tuple[str, str]]) -> None:
    """Refuse arrays of other axes or kinds than their forms, (axes, kind) by name, as in `array`."""
    sizes: dict[str, int] = {}
    for name, (axes, kind) in forms.items():
        if name not in arrays:
            raise InputError(f"it has no '{name}'")
        found, wanted = arrays[name], axes.split()
        if wanted[-1:] == ["..."]:
            wanted = wanted[:-1] + list(map(str, found.shape[len(wanted) - 1 :]))
        fits = found.dtype.kind in KINDS[kind] and found.ndim == len(wanted)
        fits = fits and all(
            size == (int(axis) if axis.isdigit() else sizes.setdefault(axis, size))
            for axis, size in zip(wanted, found.shape, strict=True)
        )
        if not fits or (kind == "float" and not np.isfinite(found).all()):
            raise InputError(f"its '{name}' {found.shape} {found.dtype} is not ({axes}) {kind}")


def write_record(path: str | Path, record: "DataclassInstance") -> None:
    """Write a record for `read_record`. Raises OSError."""
    arrays = {field.name: np.asarray(getattr(record, field.name)) for field in dataclasses.fields(record)}
    write_atomic(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_record(path: str | Path, record: type[Record], kind: str, way_out: str = REMAKE) -> Record:
    """Read a record that `write_record` wrote."""
    arrays = read_npz(path, kind, way_out)
    with reading(path, kind, way_out):
        fields = dataclasses.fields(record)
        check_arrays(arrays, {field.name: field.metadata["form"] for field in fields if "form" in field.metadata})
        return record(**{field.name: arrays[field.name] for field in fields})
