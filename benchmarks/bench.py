"""How long things take, as ratios of runs made in turn: machines are shared and drift, a ratio of neighbours does not.

    python benchmarks/bench.py                                    every case
    python benchmarks/bench.py training bot --rounds 9            two of them
    python benchmarks/bench.py training task_id=BabyAI-GoTo-v0    with another value of one of a case's arguments
    python benchmarks/bench.py --list                             their names and arguments

A case is a generator; each round it yields the cost of every run, in seconds. The first round is a warm-up. Printed are
medians over the rounds with their range, and how many times the first run's cost each of them is.
"""

import importlib
import inspect
import statistics
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from types import FunctionType

from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.tables import interval_text
from mop.training.devices import choose_device

FILES = ("fast_cases", "training_cases", "generative_cases")
Costs = Generator[dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A benchmark: `function(**arguments)` yields costs in seconds; `unit` is how they are shown."""

    function: Callable[..., Costs]
    unit: str
    rounds: int

    def measure(self, rounds: int | None, arguments: dict) -> dict[str, list[float]]:
        """The cost of every run in each round."""
        with closing(self.function(**arguments)) as measured:
            next(measured)
            rows = [next(measured) for _ in range(rounds or self.rounds)]
        return {name: [row[name] for row in rows] for name in rows[0]}


CASES: dict[str, Case] = {}
_SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6}


def case(unit: str = "ms", rounds: int = 5) -> Callable:
    """Decorator: a case of this name; its docstring says what is measured."""

    def add(function: FunctionType) -> FunctionType:
        CASES[function.__name__] = Case(function, unit, rounds)
        return function

    return add


def seconds(run: Callable[[], object], repeats: int = 1, of_processor: bool = True) -> float:
    """Seconds of one call of `run`: of the processor, which other work disturbs less, or of the clock."""
    clock = time.process_time if of_processor else time.perf_counter
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    return interval_text(statistics.median(values), min(values), max(values), f".{digits}f")


def show(name: str, case: Case, costs: dict[str, list[float]]) -> None:
    """Print the table of a case."""
    about, *_ = (inspect.getdoc(case.function) or name).splitlines()
    print(f"\n{name}: {about}")
    first = next(iter(costs.values()))
    for run, values in costs.items():
        scaled = [_SCALES[case.unit] * value for value in values]
        ratios = [value / base for value, base in zip(values, first, strict=True)]
        print(f"  {run:<32}{spread(scaled, 2):>28} {case.unit:<3}{spread(ratios, 2):>26} x", flush=True)


@dataclass(frozen=True)
class Settings:
    """The flags."""

    words: tuple[str, ...] = setting((), "cases, and arguments as NAME=VALUE", positional=True, nargs="*")
    rounds: int | None = setting(None, "after the warm-up (default: the case's)", low=1)
    list_cases: bool = setting(False, "print the names of the cases and their arguments", flag="list")


def main() -> int:
    """Run the cases that are named, or all."""
    settings = parse(Settings, __doc__)
    for file in FILES:
        importlib.import_module(f"benchmarks.{file}")
    if settings.list_cases:
        for name, one in CASES.items():
            print(f"{name:<18}{inspect.signature(one.function).replace(return_annotation=inspect.Signature.empty)}")
        return 0
    arguments = dict(word.split("=", 1) for word in settings.words if "=" in word)
    names = [word for word in settings.words if "=" not in word] or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        raise InputError(f"there is no case {unknown[0]}; there are {', '.join(CASES)}")
    choose_device("cpu")
    for name in names:
        known = inspect.signature(CASES[name].function).parameters
        given = {key: type(known[key].default)(value) for key, value in arguments.items() if key in known}
        show(name, CASES[name], CASES[name].measure(settings.rounds, given))
    return 0


if __name__ == "__main__":
    sys.modules["benchmarks.bench"] = sys.modules["__main__"]  # the cases register here
    run_script(main)
