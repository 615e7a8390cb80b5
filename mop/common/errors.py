"""The one exception for bad input, and the way a script reports it."""

import sys
import warnings
from collections.abc import Callable
from functools import partial

_MAX_LINE = 800  # of what an error says: a name that a user gives may be much longer


class InputError(Exception):
    """Something that the user gave (a flag, a key, a file) cannot be used; the message names it and the way out."""


def one_line(error: BaseException) -> str:
    """Describe an exception in a line of at most 300 characters."""
    words = " ".join(str(error).split())
    if isinstance(error, KeyError):  # whose message is the key alone
        words = f"it has no {words}"
    return (words or type(error).__name__)[:300]


def exit_code(main: Callable[[], int | None]) -> int:
    """What `main` returns, 0 for None; 2 after an `InputError`, `OSError` or `MemoryError`, one line on stderr.

    An `OSError` is a folder that cannot be written or a full disk. Other exceptions are bugs and keep their traceback.
    Warnings are printed as one line each, without the place in the code.
    """
    show_warnings(partial(print, file=sys.stderr))
    try:
        return main() or 0
    except (InputError, OSError) as error:
        line = " ".join(["error:", *str(error).splitlines()])
        print(line if len(line) <= _MAX_LINE else f"{line[:500]} ... {line[-200:]}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: there is not enough memory {error}".rstrip(), file=sys.stderr)
        return 2


def show_warnings(write: Callable[[str], object]) -> None:
    """Write each warning as one line, without the place in the code."""
    # the module's documentation offers this function for replacement
    warnings.showwarning = lambda message, *_, **__: write(f"warning: {message}")  # ty: ignore[invalid-assignment]


def run_script(main: Callable[[], int | None]) -> None:
    """Run `main` as a script that ends with its `exit_code`; Ctrl-C ends it as `mop.common.interruption` says."""
    sys.exit(exit_code(main))
