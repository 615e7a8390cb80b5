"""Run long commands on a disk with little room, then with enough, and compare with what a large disk holds.

    python tests/hostile/full_disks.py                                    45 cases of 14 kinds: an hour
    python tests/hostile/full_disks.py --cases 12 --seed 7 --kinds run_env,record

The disk is a tmpfs, which it needs the right to mount. Where the room does not do, a command must end with one line and
exit code 2, or 1 where other results stand, and what was there before must be as it was; with more room the same
command must leave what it leaves on a large disk, and no file of work in progress. Exit code 1 where a case failed.
"""

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import orjson
from cases import Case, run_hostile
from long_commands import COMMANDS, copy, differences, ended, leftovers, outcome, prepare, run, started

from mop.common.errors import InputError, run_script

FULL_COUNT = 45
AMPLE = 2**28  # bytes
GROWS = "teacher.json"  # the paths of the bot that were found, to which commands add


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """A disk of its own in a folder, large for now."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={AMPLE}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode != 0:
        raise InputError(f"no tmpfs can be mounted here: {mounted.stderr.strip()}; run it as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def resize(folder: Path, num_bytes: int) -> None:
    """Give a disk another size."""
    subprocess.run(["mount", "-o", f"remount,size={num_bytes}", str(folder)], check=True)


@contextmanager
def full_disks(names: Collection[str] | None = None) -> Iterator[dict[str, Case]]:
    """A case for each command, or for those of some names."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        prepare(base)

        @cache
        def on_a_large_disk(name: str) -> tuple[dict, int]:
            with disk(Path(folder) / f"whole_{name}") as place:
                root = copy(base, place / "root")
                before = _used(place)
                run(COMMANDS[name], root)
                return outcome(root), _used(place) - before

        def case(name: str, rng: random.Random) -> str:
            whole, growth = on_a_large_disk(name)
            with disk(Path(folder) / "small") as place:
                root = copy(base, place / "root")
                before = outcome(root)
                room = int(rng.uniform(0.0, 1.1) ** 2 * growth) // 4096 * 4096
                resize(place, _used(place) + max(room, 4096))
                word = try_it(name, root, before, room)
                resize(place, AMPLE)
                run(COMMANDS[name], root)
                wrong = differences(outcome(root), whole) + leftovers(root)
                assert not wrong, f"with {room:,} of {growth:,} bytes, {word}, then with more: {wrong}"
                return word

        yield {name: partial(case, name) for name in names or COMMANDS}


def try_it(name: str, root: Path, before: dict[str, Any], room: int) -> str:
    """Run a command where there may not be enough room, and check what it says and leaves; a word for that."""
    since = time.monotonic()
    with started(COMMANDS[name], root) as process:
        done = ended(process, since)
    about = f"with {room:,} bytes: exit code {done.code}\n{done.out[-800:]}\n{done.err[-1500:]}"
    assert done.code in (0, 1, 2) and "Traceback" not in done.out + done.err, about
    after = outcome(root)
    changed = lost_or_changed(before, after)
    assert not changed, f"{about}\nlost or changed: {changed}"
    if done.code == 0:
        return "had room"
    lines = [line for line in (done.out + done.err).splitlines() if "No space left" in line]
    assert 1 <= len(lines) <= (1 if done.code == 2 else 3), about
    return "refused"


def lost_or_changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The files of one outcome of which another lacks something; of all but GROWS, the files that are not as before."""
    return [path for path, content in before.items() if _of_before(path, content, after) != content]


def _of_before(path: str, content: list[str], after: dict[str, Any]) -> Any:
    """What there is of a file now; of GROWS, without what was added."""
    if Path(path).name != GROWS or path not in after:
        return after.get(path)
    old, new = (orjson.loads(text) for (text,) in (content, after[path]))
    kept = {seed: result for seed, result in new["results"].items() if seed in old["results"]}
    return [orjson.dumps(new | {"results": kept}).decode()]


def _used(place: Path) -> int:
    room = os.statvfs(place)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


if __name__ == "__main__":
    run_script(partial(run_hostile, __doc__, COMMANDS, full_disks, FULL_COUNT))
