"""The one exception for bad input, and the way a script reports it."""

import sys
import warnings
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave (a flag, a key, a file) cannot be used; the message names it and the way out."""


def exit_code(main: Callable[[], int | None]) -> int:
    """What `main` returns, 0 for None; an `InputError` becomes one line on stderr and 2; a traceback is for bugs.

    So does an `OSError` (a folder that cannot be written, a full disk); a warning is one line without a place in the
    code.
    """
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        return main() or 0
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_script(main: Callable[[], int | None]) -> None:
    """Run `main` as a script that ends with its `exit_code`; Ctrl-C ends it with 130."""
    try:
        sys.exit(exit_code(main))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
