"""Pieces of work, done here or in several processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stdout

from tqdm import tqdm

from mop.common.errors import InputError
from mop.common.workers import end_with_parent
from mop.training.devices import choose_device


class Workers:
    """Does pieces of work here, or in several processes, which begin with the first piece and end with the block."""

    def __init__(self, jobs: int):
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            os.environ.pop("TQDM_DISABLE", None)

    def do(self, function: Callable, pieces: Sequence, label: str) -> None:
        """Call a function of each piece."""
        for _ in self.in_order(function, pieces, label):
            pass

    def in_order(self, function: Callable, pieces: Sequence, label: str) -> Iterator:
        """The results of a function of pieces, in their order."""
        if self._jobs == 1 or len(pieces) < 2:
            shows_bar = getattr(function, "__name__", "") != "train"  # a training has a bar of its own
            yield from tqdm(map(function, pieces), label, len(pieces), disable=not shows_bar, dynamic_ncols=True)
            return
        if self._pool is None:
            os.environ["TQDM_DISABLE"] = "1"  # of the processes: several bars would overwrite each other
            context = multiprocessing.get_context("spawn")  # fork and torch's threads do not go together
            self._pool = ProcessPoolExecutor(self._jobs, mp_context=context, initializer=_begin_worker)
        try:
            futures = [self._pool.submit(_quietly, function, piece) for piece in pieces]
            for future in tqdm(futures, label, dynamic_ncols=True):
                yield future.result()
        except BrokenProcessPool:
            raise InputError(f"a process died while {label} (out of memory?); go on with --resume") from None


def _begin_worker() -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the first process; a training saves itself
    choose_device("cpu")  # one thread of torch


def _quietly(function: Callable, piece):
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        return function(piece)
