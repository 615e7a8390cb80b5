"""Folder of the compiled kernels: one for each state of their sources.

numba itself checks only whether the file of a function has changed, not the files of the functions that it calls: a
change of one kernel file would leave old code in the kernels of another. Every compiled function is made by `kernel`,
so that none can be compiled before numba knows that folder.
"""

import contextlib
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core import event

HERE = Path(__file__).resolve().parent
# whose constants and functions are compiled into the kernels
PLAIN = [HERE.parent / "envs" / name for name in ("geometry.py", "teacher.py")]


def kernel_files() -> list[Path]:
    """The files whose text decides what is compiled."""
    own = (path for path in sorted(HERE.glob("*.py")) if "compile_cache import kernel" in path.read_text())
    return [*own, *PLAIN]


def _folder() -> Path:
    """Beside the sources (or under NUMBA_CACHE_DIR), in the user's cache where these may not be written to."""
    sources = b"".join(path.read_bytes() for path in kernel_files())
    home = Path(os.environ.get("NUMBA_CACHE_DIR") or HERE / "__pycache__")
    if not os.access(home if home.exists() else home.parent, os.W_OK):
        home = Path.home() / ".cache" / "rl-mop"
    return home / f"kernels-{hashlib.sha256(sources).hexdigest()[:16]}"


CACHE_DIR = vars(numba.config)["CACHE_DIR"] = _folder().as_posix()


def kernel(function: Callable | None = None, /, **options: Any) -> Callable:
    """Decorator: a function compiled by numba without Python objects, and kept on disk; options of `numba.njit`."""
    if function is None:
        return functools.partial(kernel, **options)
    return numba.njit(cache=True, **options)(function)


class _Announcement(event.Listener):
    """Says once, on stderr, that the first run of an installation compiles."""

    def on_start(self, event: event.Event) -> None:
        with contextlib.suppress(OSError):  # it is there: it was said, here or in another process
            (Path(CACHE_DIR) / "announced").mkdir(parents=True)
            print("compiling for this machine: about a minute, once for this installation", file=sys.stderr)

    def on_end(self, event: event.Event) -> None:
        pass


event.register("numba:compile", _Announcement())
