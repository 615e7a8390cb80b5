"""What stands around the stages of an experiment of either kind: its folder, its config.json, its processes.

What a stage does is in `experiment` (reinforcement learning) and `imitation` (pathways policies).
"""

import multiprocessing
import os
import platform
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import orjson
from tqdm import tqdm

from lmc_rl.records import CONFIG_NAME, Places
from mop.common.errors import InputError
from mop.common.files import claimed, write_json
from mop.common.workers import end_with_parent
from mop.training.devices import choose_device


def latest(root: Path, pattern: str, is_same: Callable[[Path], bool]) -> str | None:
    """The name of the latest experiment below a folder that is the same; None, and a line about it, where none is.

    One that cannot be read is passed over, with a line about it.
    """
    for folder in sorted(root.glob(pattern), key=lambda folder: folder.name.split("_")[2:], reverse=True):
        try:
            if is_same(folder):
                return folder.name
        except InputError as error:
            print(f"passed over: {error}")
    print(f"nothing to resume in {root}: beginning a new experiment")
    return None


def new_name(root: Path, seed: int) -> str:
    """What the folder of an experiment that begins now is called. Raises InputError where there is one."""
    name = f"seed_{seed}_{datetime.now():%Y%m%d_%H%M%S}"
    if (root / name).exists():
        raise InputError(f"{root / name} was begun in this second; try again")
    return name


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """What an experiment is made with, for its config.json."""
    return {name: version(name) for name in packages} | {"python": platform.python_version()}


@contextmanager
def at_work(places: Places, jobs: int, config: Callable[[], dict]) -> Iterator["Workers"]:
    """The workers of an experiment, whose folder is claimed; config: what its config.json is to hold.

    Raises InputError where another process works on it; KeyboardInterrupt goes on, when it is told how to resume.
    """
    with claimed(places.results) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {places.results}; wait for it, or take another --seed")
        if not (places.results / CONFIG_NAME).exists():
            write_json(places.results / CONFIG_NAME, config(), orjson.OPT_INDENT_2)
        print(f"experiment {places.results}")
        try:
            with Workers(jobs) as workers:
                yield workers
        except KeyboardInterrupt:
            print("interrupted: all is saved; the same command with --resume goes on")
            raise


class Workers:
    """Does pieces of work here, or in several processes, which begin with the first piece and end with the block."""

    def __init__(self, jobs: int):
        self._jobs, self._pool = jobs, None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            os.environ.pop("TQDM_DISABLE", None)

    def in_order(self, function: Callable, pieces: Sequence, label: str) -> Iterator:
        """The results of a function of pieces, in their order. Raises InputError where a process died."""
        if self._jobs == 1 or len(pieces) < 2:
            shows_bar = function.__name__ != "train"  # a training has a bar of its own
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
