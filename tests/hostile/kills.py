"""Kill long commands at random moments in every way, give them again, and compare with what nobody killed.

    python tests/hostile/kills.py                                    86 cases of 14 kinds: an hour
    python tests/hostile/kills.py --cases 12 --seed 7 --kinds run_env,record

A command is killed (SIGKILL), ended (SIGTERM) or interrupted (SIGINT, once or twice); the signal goes to its first
process, to all of them, or to one worker. It must end within a minute, with one line where it was interrupted, and
leave no process; when it is given again it must leave what an uninterrupted one leaves, bit by bit but for times,
and no file of work in progress. Exit code 1 where a case failed.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from cases import Case, run_hostile
from long_commands import COMMANDS, copy, differences, ended, leftovers, outcome, prepare, run, started
from processes import processes_of

from mop.common.errors import run_script

FULL_COUNT = 86
PATIENCE_S = 60.0  # for the update in progress, on a busy machine
ORPHAN_S = 15.0  # until the last worker has noticed that its parent is gone
MAX_KILLS = 3  # of one case
ENDED = "ended before"


@contextmanager
def killed_commands(names: Collection[str] | None = None) -> Iterator[dict[str, Case]]:
    """A case for each command, or for those of some names."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        prepare(base)

        shortest: dict[str, float] = {}  # whole run of each, in seconds: the first one may compile

        @cache
        def undisturbed(name: str) -> dict:
            root = copy(base, Path(folder) / f"whole_{name}")
            shortest[name] = run(COMMANDS[name], root).seconds
            return outcome(root)

        def case(name: str, rng: random.Random) -> str:
            whole = undisturbed(name)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                root, words = copy(base, Path(own) / "root"), []
                for _ in range(rng.randint(1, MAX_KILLS)):
                    since = time.monotonic()
                    words.append(kill(name, root, rng, rng.uniform(0.05, 1.0) * shortest[name]))
                    if words == [ENDED]:
                        shortest[name] = min(shortest[name], time.monotonic() - since)
                    if words[-1] == ENDED:
                        break
                run(COMMANDS[name], root)
                assert leftovers(root) == [], leftovers(root)
                wrong = differences(outcome(root), whole)
                assert not wrong, f"after {words}: {wrong}"
                return words[0]

        yield {name: partial(case, name) for name in names or COMMANDS}


def kill(name: str, root: Path, rng: random.Random, after_s: float) -> str:
    """Start a command, disturb it after some seconds, and check how it ends; a word for what was done."""
    word, disturb = rng.choice(list(WAYS.items()))
    since = time.monotonic()
    with started(COMMANDS[name], root) as process:
        while process.poll() is None and time.monotonic() < since + after_s:
            time.sleep(0.01)
        if process.poll() is not None:
            disturb = None
        else:
            disturb(process.pid, rng)
        end = time.monotonic() + (PATIENCE_S if word in STOPS else 300.0)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert process.poll() is not None, f"{word} after {after_s:.1f} s: it still runs"
        orphans = processes_of(process.pid)
        while orphans and time.monotonic() < end + ORPHAN_S:
            time.sleep(0.1)
            orphans = processes_of(process.pid)
        assert not orphans, f"{word} after {after_s:.1f} s: {len(orphans)} processes outlive it"
        done = ended(process, since)
    about = f"{word} after {after_s:.1f} s: exit code {done.code}\n{done.out[-800:]}\n{done.err[-1500:]}"
    assert "Traceback" not in done.out + done.err, about
    if disturb is None:
        assert done.code == 0, about
        return ENDED
    if word.startswith("INT"):
        assert done.code in (0, 130, -signal.SIGINT) and done.err.count("interrupted") <= 1, about
        assert done.code != -signal.SIGINT or after_s < EARLY_S, about
    return word


def _to_first(number: int, pid: int, rng: random.Random) -> None:
    os.kill(pid, number)


def _to_all(number: int, pid: int, rng: random.Random) -> None:
    os.killpg(pid, number)


def _twice(pid: int, rng: random.Random) -> None:
    os.killpg(pid, signal.SIGINT)
    time.sleep(rng.uniform(0.0, 1.0))
    if processes_of(pid):
        os.killpg(pid, signal.SIGINT)


def _to_one_worker(pid: int, rng: random.Random) -> None:
    workers = [other for other in processes_of(pid) if other != pid and not _is_tracker(other)]
    os.kill(rng.choice(workers or [pid]), signal.SIGKILL)


def _is_tracker(pid: int) -> bool:
    """Whether it is a helper of Python's multiprocessing, which another one takes the place of, with tracebacks."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # ended meanwhile
        return True


EARLY_S = 0.5  # until the first of our modules is there to answer
WAYS: dict[str, Callable[[int, random.Random], None]] = {
    "KILL": partial(_to_first, signal.SIGKILL),
    "KILL to all": partial(_to_all, signal.SIGKILL),
    "KILL to one worker": _to_one_worker,
    "TERM": partial(_to_first, signal.SIGTERM),
    "TERM to all": partial(_to_all, signal.SIGTERM),
    "INT": partial(_to_first, signal.SIGINT),
    "INT to all": partial(_to_all, signal.SIGINT),
    "INT twice": _twice,
}
STOPS = set(WAYS) - {"KILL to one worker"}


if __name__ == "__main__":
    run_script(partial(run_hostile, __doc__, COMMANDS, killed_commands, FULL_COUNT))
