"""The folder which a command writes: one process at a time, one command's settings."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from mop.common.errors import InputError
from mop.common.files import check_writable, only_process, remove_leftovers, write_json
from mop.common.reading import read_json


@contextmanager
def open_output_dir(
    folder: str | Path, flag: str = "--out", other: str | None = None, config: dict | None = None,
    name: str = "config.json",
) -> Iterator[Path]:  # fmt: skip
    """Hold a writable folder for this process alone; new ones that are empty at the end are removed.

    flag: names the folder; other: what the user may choose instead, by default another `flag`; config: written to
    `name`, or compared with what is there, so that results of other settings are not mixed.
    """
    folder, other = Path(folder), other or f"another {flag}"
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with only_process(folder, other):
            check_writable(folder, flag)
            remove_leftovers(folder.glob(".*.tmp"))
            if config is not None:
                _match(folder, name, config, other)
            yield folder
    finally:
        for place in missing:
            with suppress(OSError):  # it is not empty, or not there
                place.rmdir()


def _match(folder: Path, name: str, config: dict[str, Any], other: str) -> None:
    """Write a config to an empty folder, or refuse a folder of another config."""
    path = folder / name
    if path.exists():
        if read_json(path) != orjson.loads(orjson.dumps(config)):
            raise InputError(f"{folder} was made with other settings; choose {other}, or remove it")
    elif any(folder.iterdir()):
        raise InputError(f"{folder} holds something else; choose {other}")
    else:
        write_json(path, config, orjson.OPT_INDENT_2)
