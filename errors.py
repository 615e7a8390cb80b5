"""The one exception for bad input, and the way a script reports it."""

import sys
import warnings
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave (a flag, a key, a file) cannot be used; the message names it and the way out."""


def run_script(main: Callable[[], int | None]) -> None:
    """Run `main` as a script: an `InputError` becomes one line on stderr and exit code 2; a traceback is for bugs.

    So does an `OSError` (a folder that cannot be written, a full disk); a warning is one line without a place in the
    code; Ctrl-C ends with exit code 130.
    """
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
    try:
        sys.exit(main())
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
