"""Files that are replaced as a whole, and locks that keep two processes from the same work."""

import fcntl
import fnmatch
import hashlib
import io
import os
import re
import secrets
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson

from mop.common.errors import InputError
from mop.common.reading import check_regular, read_bytes, read_json, reading

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure


def write_atomic(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then move it over `path`; missing folders are made.

    Whatever happens in between, `path` holds all of the old content or all of the new.
    Raises OSError, which names `path`, if the disk refuses, and whatever `write` raises; the temporary file is gone in
    both cases.
    """
    write_together([(path, write)])


def write_together(files: Sequence[tuple[str | Path, Callable[[BinaryIO], Any]]]) -> None:
    """Write several files, path and `write` of each: first all of them beside their places, then each is moved there.

    Until all are whole on the disk, nothing of the old ones is touched. The last one vouches for the others: its old
    version goes before the first of them is moved, its new one comes after them. So a kill at any moment leaves it
    beside the files that it was written with, or leaves none. Raises as `write_atomic`.
    """
    with ExitStack() as stack:
        ready = [(stack.enter_context(_written(Path(path), write)), path) for path, write in files]
        if len(files) > 1:
            Path(files[-1][0]).unlink(missing_ok=True)
        for temporary, path in ready:
            os.replace(temporary, path)


@contextmanager
def _written(path: Path, write: Callable[[BinaryIO], Any]) -> Generator[Path]:
    """A temporary file beside `path`, whole on the disk; what is not moved away is removed when the block ends.

    It is locked meanwhile, so that `remove_leftovers` sees that somebody writes it.
    """
    # Not tempfile: its files are readable by their owner only, and would keep that mode. The name is unique because
    # several processes may write one table, and starts with a dot and ends in .tmp so that no search finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    file = None
    try:
        try:
            file = _open_locked(temporary)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error  # on a full disk it names no file
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        if file is not None:
            with suppress(OSError):  # on a full disk it tries to write the rest once more
                file.close()


def _open_locked(temporary: Path) -> BinaryIO:
    """Make a new file, locked where the file system can lock, and its folder if it is missing."""
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        while (descriptor := _lock(temporary, os.O_RDWR | os.O_CREAT)) is None:
            pass  # `remove_leftovers` looks at it, for a moment
        return os.fdopen(descriptor, "wb")
    return temporary.open("wb")  # no locks here, or no file: then this says so


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove those of `paths` that are temporary files or locks of a process that was killed, not those in use.

    Where the file system has no locks, they are all left.
    """
    for path in paths:
        if re.fullmatch(r"\..+\.([0-9a-f]{12}\.tmp|lock)", path.name):
            with suppress(OSError):
                descriptor = _lock(path, os.O_RDWR)
                if descriptor is not None:
                    path.unlink()
                    os.close(descriptor)


def find_files(root: str | Path, pattern: str) -> list[Path]:
    """The files below `root` whose names fit the pattern, sorted; also those below links, but each folder once.

    A linked folder that was searched already, by its own path or through another link, is skipped with a warning.
    """
    found, seen, waiting = [], set(), [Path(root)]
    for start in waiting:  # real folders first: a link is not to be taken in place of what it shows
        for folder, names, files in os.walk(start):
            if not names and not fnmatch.filter(files, pattern):
                continue  # nothing here to be found twice
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                warnings.warn(f"{start} is skipped: it is a link to a folder that is searched already", stacklevel=3)
                names.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            waiting += [path for path in (Path(folder, name) for name in sorted(names)) if path.is_symlink()]
            found += [Path(folder, name) for name in fnmatch.filter(files, pattern)]
    return sorted(found)


def check_writable(folder: str | Path, flag: str) -> None:
    """Refuse a folder, named by `flag`, to which no file can be written; it is made if it is missing."""
    folder = Path(folder)
    try:
        with _written(folder / "writable", lambda file: None):
            pass
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError(f"{flag}: {folder} cannot be written to ({reason}); name another folder") from None


def write_json(path: Path, content: Any, option: int = 0) -> None:
    """Write `json_bytes(content, option)` as a whole. Raises OSError."""
    data = json_bytes(content, option)
    write_atomic(path, lambda file: file.write(data))


def json_bytes(content: Any, option: int = 0) -> bytes:
    """Strict JSON, NaN and infinities as null; `option` is added to orjson's options."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | option)


def write_csv(path: str | Path, table: "pd.DataFrame", float_format: str | None = None) -> None:
    """Write the columns of a table as a whole; float_format: such as "%.6g". Raises OSError."""
    data = table.to_csv(index=False, lineterminator="\n", float_format=float_format).encode()
    write_atomic(path, lambda file: file.write(data))


def save_array(file: BinaryIO, array: "np.ndarray") -> None:
    """Write an array as the content of a .npy file. Raises OSError."""
    import numpy as np

    # through `write`: to a file itself numpy writes past Python, and loses the reason, such as a full disk
    np.save(SimpleNamespace(write=file.write), array, allow_pickle=False)  # ty: ignore[invalid-argument-type]


def write_figure(path: str | Path, figure: "Figure") -> Path:
    """Write a figure in the format of the path's ending (.png, .svg, .pdf); returns `path`. Raises OSError."""
    path = Path(path)
    data = figure_bytes(figure, path.suffix[1:])
    write_atomic(path, lambda file: file.write(data))
    return path


def figure_bytes(figure: "Figure", file_format: str, dpi: int = 100) -> bytes:
    """A figure as a file of a format: png of `dpi` dots per inch, svg or pdf.

    The text of the latter two is text, which can be searched and edited, not outlines. The same figure gives the same
    bytes: no file holds the time.
    """
    import matplotlib

    settings: Any = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "figure"}
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(file_format)
    with matplotlib.rc_context(settings):
        figure.savefig(file := io.BytesIO(), format=file_format, dpi=dpi, metadata=metadata)
    return file.getvalue()


def whole_digest(path: str | Path) -> str:
    """Compute the 64 hexadecimal digits of a file's SHA-256."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def file_digest(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256. Raises OSError."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def checksum(path: str | Path) -> str:
    """Compute the CRC-32 of a file of any size, 8 hexadecimal digits."""
    crc = 0
    with reading(path):
        check_regular(path)
        with open(path, "rb") as file:
            while chunk := file.read(2**20):
                crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


# --- one process at a time --------------------------------------------------------------------------------------------


@contextmanager
def open_output_dir(
    folder: str | Path, settings: dict | None = None, name: str = "config.json", flag: str = "--out",
    other: str | None = None,
) -> Generator[Path]:  # fmt: skip
    """Hold a writable folder for this process alone; new ones that are empty at the end are removed.

    settings: written to `name`, or compared with what is there, so that results of other settings are not mixed;
    flag: names the folder; other: what the user may choose instead, by default another `flag`.
    """
    folder, other = Path(folder), other or f"another {flag}"
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        with only_process(folder, other):
            check_writable(folder, flag)
            remove_leftovers(folder.glob(".*.tmp"))
            if settings is not None:
                _match(folder / name, settings, other)
            yield folder
    finally:
        for place in missing:
            with suppress(OSError):  # it is not empty, or not there
                place.rmdir()


def _match(path: Path, settings: dict, other: str) -> None:
    """Write settings to an empty folder, or refuse a folder of other settings."""
    if path.exists():
        if read_json(path) != orjson.loads(orjson.dumps(settings)):
            raise InputError(f"{path.parent} was made with other settings; choose {other}, or remove it")
    elif any(path.parent.iterdir()):
        raise InputError(f"{path.parent} holds something else; choose {other}")
    else:
        write_json(path, settings, orjson.OPT_INDENT_2)


@contextmanager
def only_process(folder: str | Path, other: str) -> Generator[None]:
    """Hold the lock of a folder, or refuse to work in it; other: what the user may choose instead, "another --out"."""
    with folder_lock(folder) as acquired:
        if not acquired:
            raise InputError(f"another process works in {folder}; choose {other}")
        yield


@contextmanager
def folder_lock(folder: str | Path, wait_s: float = 0.1) -> Generator[bool]:
    """Hold an exclusive lock on a folder or a file, whether it exists or not; yields whether it was acquired.

    wait_s: how long to wait for the process that has it; `remove_leftovers` has it for a moment. The lock is a file
    beside the folder, `.<name>.lock`, locked between the processes of one machine: it ends with its process, however
    that ends.
    """
    folder = Path(folder).resolve()
    path = folder.with_name(f".{folder.name}.lock")
    name, end = str(path), time.monotonic() + wait_s
    descriptor = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while (descriptor := _lock(path, os.O_RDWR | os.O_CREAT)) is None and time.monotonic() < end:
                time.sleep(0.02)
        except OSError:  # not writable, or no locks here: go on without one, though work may be done twice
            yield True
            return
        except KeyboardInterrupt:  # the file may have been made already: it goes, unless another process holds it
            with suppress(OSError):
                descriptor = _lock(path, os.O_RDWR)
            raise
        yield descriptor is not None
    finally:
        if descriptor is not None:
            # before the lock ends: a process that waits for it then sees that it is another file
            try:  # noqa: SIM105  a call before that of unlink is a place for Ctrl-C to leave the file
                os.unlink(name)
            except OSError:
                pass
            os.close(descriptor)


def _lock(path: Path, flags: int) -> int | None:
    """The descriptor of a file or folder, which is locked until it is closed; None if another process has it.

    flags: of `os.open`. Raises OSError.
    """
    while True:
        descriptor = os.open(path, flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it after we opened it and before we locked it: nobody would see it
