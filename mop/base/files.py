"""Files that are replaced as a whole, and claims that keep two processes from the same work."""

import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import orjson

from mop.base.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_atomic(path: str | Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call `write(file)` on a temporary file beside `path`, then move it over `path`; missing folders are made.

    Whatever happens in between, `path` holds all of the old content or all of the new.
    Raises OSError if the disk refuses, and whatever `write` raises; the temporary file is gone in both cases.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile: its files are readable by their owner only, and would keep that mode. The name is unique because
    # several processes may write one table, and starts with a dot and ends in .tmp so that no search finds it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: dict, option: int = 0) -> None:
    """Write `json_bytes(content, option)` as a whole. Raises OSError."""
    data = json_bytes(content, option)
    write_atomic(path, lambda file: file.write(data))


def json_bytes(content: dict, option: int = 0) -> bytes:
    """Strict JSON, NaN and infinities as null; `option` is added to orjson's options."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE | option)


def write_figure(path: str | Path, figure: "Figure") -> Path:
    """Write a figure as a PNG of 100 dots per inch, however it is shown; returns `path`. Raises OSError."""
    path = Path(path)
    write_atomic(path, lambda file: figure.savefig(file, format="png", dpi=100))
    return path


def read_bytes(path: str | Path) -> bytes:
    """What a file holds. Raises InputError, naming the file, if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def file_digest(path: str | Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256. Raises OSError."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


@contextmanager
def claimed(path: str | Path) -> Iterator[bool]:
    """Whether only this process may work on `path` (a file or folder, existing or not) until the block ends.

    A process that ends, however it ends, gives its claim back. The claim is a locked file in the system's temporary
    folder, so nothing is left in the tree; it holds between the processes of one machine, not between machines.
    """
    name = hashlib.sha256(str(Path(path).resolve()).encode()).hexdigest()[:24]
    lock = Path(tempfile.gettempdir()) / f"rl-mop-{name}.lock"
    try:
        file, is_ours = _lock(lock)
    except OSError:  # another user's lock, or no such folder: go on without a claim, though work may be done twice
        yield True
        return
    with file:
        try:
            yield is_ours
        finally:
            if is_ours:
                lock.unlink(missing_ok=True)


def _lock(path: Path) -> tuple[TextIO, bool]:
    """The open lock file, and whether it is ours until it is closed."""
    while True:
        file = path.open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file, True
        except BlockingIOError:
            return file, False
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            raise
        file.close()  # its owner removed it after we opened it and before we locked it: nobody would see our lock
