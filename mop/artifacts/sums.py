"""The sums of files, which tell whether these are as they were written: in `sums.json`, or in the file itself."""

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from mop.common.errors import InputError
from mop.common.files import checksum, json_bytes, write_json
from mop.common.reading import REMAKE, read_json, reading

SUMS = "sums.json"


def write_sums(folder: Path, files: Iterable[Path]) -> None:
    """Write the CRC-32 of each file, by its name. Raises OSError."""
    write_json(folder / SUMS, {path.name: checksum(path) for path in files})


def has_sums(folder: Path) -> bool:
    """Whether there are any; what an earlier version wrote has none."""
    return (folder / SUMS).exists()


def read_sums(folder: Path, way_out: str = REMAKE) -> dict[str, str]:
    """The sums of files by their names."""
    sums = read_json(folder / SUMS, "list of sums", way_out)
    if not isinstance(sums, dict) or not sums:
        raise InputError(f"{folder / SUMS} is no list of sums; {way_out}")
    return sums


def check_sum(path: Path, sums: Mapping[str, str], way_out: str) -> None:
    """Refuse a file that is not as it was written."""
    if checksum(path) != sums.get(path.name):
        raise InputError(f"{path} differs from what was written; {way_out}")


def write_summed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with the CRC-32 of its values, as `sum`. Raises OSError."""
    write_json(path, dict(content) | {"sum": _sum_of(content)}, orjson.OPT_INDENT_2)


def read_summed(path: Path, kind: str, way_out: str = REMAKE) -> dict[str, Any]:
    """Read what `write_summed` wrote, without its sum; what an earlier version wrote has none."""
    with reading(path, kind, way_out):
        content = dict(read_json(path))
        if content.pop("sum", None) not in (None, _sum_of(content)):
            raise InputError(f"it differs from what was written; {way_out}")
        return content


def _sum_of(content: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json_bytes(content)):08x}"
