"""A process that is killed, as the tests of lmc_rl play it: a function that raises what nothing catches."""

from collections.abc import Callable, Collection


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
