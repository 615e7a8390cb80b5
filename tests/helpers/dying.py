"""A process that is killed, as tests play it: a function that raises what nothing catches."""

from collections.abc import Callable, Collection
from pathlib import Path


class Died(Exception):
    """Stands for kill -9: nothing is saved when it comes."""


def dying(function: Callable, calls: Collection[int]) -> Callable:
    """The function, but that it dies in these of its calls, counted from 1."""
    count = 0

    def wrapped(*args, **kwargs):
        nonlocal count
        count += 1
        if count in calls:
            raise Died
        return function(*args, **kwargs)

    return wrapped


def run_until_it_lives(folder: Path, run: Callable):
    """What a run returns in the end, and how often it died before; each time a row was being written."""
    deaths = 0
    while True:
        try:
            return run(), deaths
        except Died:
            deaths += 1
            for path in folder.rglob("*.jsonl"):
                with path.open("ab") as file:
                    file.write(b'{"run": "half a li')
