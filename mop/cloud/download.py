"""The files of a cloud volume -> the same files here. Nothing here is removed, and no newer file is replaced."""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, Protocol

from mop.common.files import write_atomic


class Entry(Protocol):
    """A file or folder of a volume; mtime: seconds since 1970; size in bytes."""

    path: str
    type: Enum
    mtime: int
    size: int


class Volume(Protocol):
    """What is used of a `modal.Volume`."""

    def listdir(self, path: str, *, recursive: bool) -> Iterable[Entry]: ...

    def read_file_into_fileobj(self, path: str, fileobj: BinaryIO) -> int: ...


@dataclass(frozen=True)
class Downloaded:
    """num_files: of the volume that are wanted; new: those that were copied; kept: other ones here that are newer."""

    num_files: int
    new: tuple[Path, ...]
    kept: tuple[Path, ...]


def download(volume: Volume, folder: Path, left_out: Collection[str] = (), last: str = "") -> Downloaded:
    """Copy every file of a volume that is missing below `folder` or older there, with its time.

    left_out: names, or patterns of names, of files that are not wanted, besides hidden ones; last: the name of files
    that say that the others of their folder are there.
    """
    wanted = [entry for entry in volume.listdir("/", recursive=True) if entry.type.name == "FILE"]
    wanted = [entry for entry in wanted if not is_left_out(Path(entry.path).name, left_out)]
    new, kept = [], []
    for entry in sorted(wanted, key=lambda entry: (Path(entry.path).name == last, entry.path)):
        path = folder / entry.path.lstrip("/")
        if path.exists():
            here = path.stat()
            mtime, is_other = int(here.st_mtime), here.st_size != entry.size
            if mtime > entry.mtime or (mtime == entry.mtime and not is_other):
                kept += [path] if is_other else []
                continue
        write_atomic(path, lambda file, entry=entry: volume.read_file_into_fileobj(entry.path, file))
        os.utime(path, (entry.mtime, entry.mtime))
        print(path, flush=True)
        new.append(path)
    return Downloaded(len(wanted), tuple(new), tuple(kept))


def is_left_out(name: str, left_out: Collection[str]) -> bool:
    """Whether a file is not to be copied: it is named so, or it is a writer's unfinished one."""
    return any(fnmatch(name, pattern) for pattern in left_out) or name.startswith(".")
