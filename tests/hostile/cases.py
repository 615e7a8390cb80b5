"""What the hostile scripts share: their flags, the limits of a case, and the loop that counts what went wrong.

A case is a function of a random generator. It returns a word for what happened, such as "refused", which is counted;
whatever it raises is a failure, printed with the kind, the seed and the number of the case, which make it again.
"""

import contextlib
import faulthandler
import random
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))  # a script has only its own folder there

from mop.common.cli import parse, setting
from mop.common.errors import InputError

Case = Callable[[random.Random], str]


@dataclass(frozen=True)
class Settings:
    """The flags of a hostile script."""

    cases: int | None = setting(None, "how many, over all kinds (default: the full count)", low=1)
    seed: int = setting(0, "of all that is random", low=0)
    kinds: tuple[str, ...] | None = setting(None, "only these, with commas", commas=True)
    number: int | None = setting(None, "only the case of this number of each kind", low=0)


def parse_flags(doc: str | None, kinds: Collection[str]) -> Settings:
    """The flags of a script with these kinds of cases."""
    settings = parse(Settings, doc)
    if foreign := [kind for kind in settings.kinds or () if kind not in kinds]:
        raise InputError(f"--kinds: there is no {foreign[0]}; there are {', '.join(kinds)}")
    return settings


def run_cases(kinds: Mapping[str, Case], settings: Settings, full: int) -> int:
    """Run the cases of the kinds in turn, and print the counts; 1 where a case failed."""
    names = [name for name in kinds if name in (settings.kinds or kinds)]
    count = settings.cases or full
    outcomes: dict[str, Counter[str]] = {}
    for k, name in enumerate(names):
        of_kind = range(count // len(names) + (k < count % len(names)))
        numbers = of_kind if settings.number is None else [settings.number]
        outcomes[name] = Counter(run_case(name, kinds[name], settings.seed, number) for number in numbers)
        print(f"{name}: {_words(outcomes[name])}", flush=True)
    total = sum(outcomes.values(), Counter())
    print(f"seed {settings.seed}, {total.total()} cases of {len(names)} kinds: {_words(total)}")
    return min(total["failed"], 1)


def run_hostile(doc: str | None, kinds: Collection[str], make: Callable, full: int) -> int:
    """Run a hostile script. make: (names, or None for all) -> a context of the cases of these kinds."""
    settings = parse_flags(doc, kinds)
    with make(settings.kinds) as cases:
        return run_cases(cases, settings, full)


def run_case(name: str, case: Case, seed: int, number: int) -> str:
    """Run one case; its word, "failed" for whatever it raises, which is printed."""
    try:
        return case(random.Random(f"{name} {seed} {number}"))
    except Exception:
        error = traceback.format_exc(limit=-6)
        print(f"--- failed: --kinds {name} --seed {seed} --number {number}\n{error}", flush=True)
        return "failed"


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))


@contextlib.contextmanager
def limited(seconds: int, num_bytes: int) -> Iterator[None]:
    """Raise MemoryError where this process takes so many bytes more than before, TimeoutError where it takes too long.

    seconds: of the processor, and five times as many by the clock, as others may work here. A call in C that never
    returns cannot be interrupted: half a minute later the process ends, and says where it was.
    """

    def too_long(*_):
        raise TimeoutError

    previous = {number: signal.signal(number, too_long) for number in (signal.SIGALRM, signal.SIGPROF)}
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (used + num_bytes, limits[1]))
        signal.alarm(5 * seconds)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        faulthandler.dump_traceback_later(5 * seconds + 30, exit=True, file=sys.__stderr__)
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        for number, handler in previous.items():
            signal.signal(number, handler)
