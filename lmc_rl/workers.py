"""Pieces of work, done here or in several processes."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial

from tqdm import tqdm

from mop.common.errors import InputError
from mop.common.workers import Died, JobPool
from mop.training.devices import choose_device


class Workers:
    """Does pieces of work here, or in several processes, which begin with the first piece and end with the block."""

    def __init__(self, jobs: int):
        self._jobs = jobs
        self._pool = JobPool(jobs, partial(choose_device, "cpu"))  # one thread of torch

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exception) -> None:
        self._pool.__exit__(*exception)

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
        early, next_number = {}, 0
        with tqdm(total=len(pieces), desc=label, dynamic_ncols=True) as bar:
            for number, result in self._pool.run(partial(_quietly, function), pieces):
                if isinstance(result, Died):
                    raise InputError(f"a process died while {label} (out of memory?); go on with --resume")
                bar.update()
                early[number] = result
                while next_number in early:
                    yield early.pop(next_number)
                    next_number += 1


def _quietly(function: Callable, piece):
    """The result of a function of a piece; several processes that print, or show bars, overwrite each other."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return function(piece)
