"""Ctrl-C, the same in every command: work is finished or cut off, then one line tells what is kept; exit code 130.

A KeyboardInterrupt carries that line's text, where there is something to tell, up to the hook of this module, which
the packages install before all other imports. Processes that a command starts do not hear Ctrl-C: it reaches them all
at once, and it is for the first one to say what becomes of them. A command that another one has started ends with it,
however that one ends.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
LIFELINE = "MOP_LIFELINE"  # environment variable: descriptor of a pipe whose other end the starting command holds
_TO_SAVE_S = 10.0  # what a command has, once that one is gone
_PATIENCE_S = 1.0  # whoever waits longer for an answer to Ctrl-C believes that there is none


def install() -> None:
    """Make an uncaught KeyboardInterrupt of a command of this repository one line and exit code 130.

    When all is done, a late one changes nothing: the interpreter, which leaves, would die of it.
    """
    _end_with_starter()
    if _is_command() and sys.excepthook is sys.__excepthook__:
        sys.excepthook = _report
        repeat_swallowed()
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def _end_with_starter() -> None:
    """Send this process SIGTERM as soon as the command that started it is gone: a training saves its state."""
    number = os.environ.pop(LIFELINE, None)  # it is not for what this one starts
    if number is None:
        return

    def watch(descriptor: int) -> None:
        os.read(descriptor, 1)  # nothing is written: it returns when the other end is closed, also by a kill
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_TO_SAVE_S)
        os._exit(1)

    threading.Thread(target=watch, args=(int(number),), daemon=True).start()


def repeat_swallowed(number: int = signal.SIGINT) -> None:
    """Send this process a signal again whose KeyboardInterrupt C code has dropped.

    It does so where the signal comes while that code calls Python.
    """

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            return sys.__unraisablehook__(dropped)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()  # when that code has returned

    sys.unraisablehook = hook


def _is_command() -> bool:
    """Whether the main program is a script of this repository, and not somebody's own or a session of Python."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    return sys.argv[:1] == ["-m"] if path is None else _ROOT in Path(path).resolve().parents


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = error
    while isinstance(cause, ImportError) and cause.__cause__ is not None:  # some modules make one of whatever they meet
        cause = cause.__cause__
    if not isinstance(cause, KeyboardInterrupt):
        return sys.__excepthook__(kind, error, trace)
    print("interrupted", *cause.args, sep=": ", file=sys.stderr)
    sys.exit(130)


@contextlib.contextmanager
def without_signal() -> Generator[None]:
    """Start processes of `multiprocessing` in the block: they never hear Ctrl-C, from their first moment on."""
    from multiprocessing import resource_tracker  # here: this module comes first in every command, and is quick

    resource_tracker.ensure_running()  # where the block begins it, it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Interruption:
    """Ctrl-C or SIGTERM: the step in progress is finished, then all is saved; a second one stops at once."""

    def __init__(self):
        self.signal: int | None = None
        self._answer = threading.Timer(_PATIENCE_S, _tell_waiting)
        self._answer.daemon = True

    def __enter__(self) -> "Interruption":
        self._previous = {}
        with contextlib.suppress(ValueError):  # not in the main thread (a notebook): signals are somebody else's
            self._previous = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        self._answer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._answer.start()


def _tell_waiting() -> None:
    print("\nstopping after this step; Ctrl-C again stops at once, and --resume repeats the step", file=sys.stderr)
