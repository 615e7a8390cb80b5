"""Damage files of every kind that is read: each is read, or refused in one line that names it.

    python tests/hostile/mutants.py                                    1,440 cases: half an hour
    python tests/hostile/mutants.py --cases 200 --seed 7 --kinds state,checkpoint

Bits are flipped, stretches lost, doubled or zeroed; items of what the file holds changed, lost or exchanged; or another
thing is in its place: a foreign file, a folder, a pipe, a bomb that unpacks to gigabytes, lists in lists without end.
Where a file has sums, damaged bytes are noticed or change nothing. A case may take a minute of the processor and a
gigabyte. Exit code 1 where one failed.
"""

import os
import random
import tempfile
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a damaged name of an encoder is not looked for elsewhere
import torch
from cases import Case, limited, run_hostile
from damage import copy_folder, damage
from file_kinds import KINDS, PREPARE, Kind, fingerprint

from mop.common.errors import InputError, run_script

LIMIT_S = 60
LIMIT_BYTES = 2**30
FULL_COUNT = 1440
EXECUTED = Path("/executed")  # what a file makes where something of it is executed


@contextmanager
def mutants(names: Collection[str] | None = None) -> Iterator[dict[str, Case]]:
    """A case for each kind of file, or for those of some names."""
    torch.set_num_threads(1)
    kinds = {name: kind for name, kind in KINDS.items() if name in (names or KINDS)}
    with tempfile.TemporaryDirectory() as folder:
        for root in sorted({kind.root for kind in kinds.values()}):
            (Path(folder) / root).mkdir()
            with silence():
                PREPARE[root](Path(folder) / root)
        yield {
            name: Mutant(kind, Path(folder, kind.root), Path(folder, "copies", name)) for name, kind in kinds.items()
        }


@dataclass
class Mutant:
    """A case: a file of a kind is damaged in a copy of the folder that has it, and read."""

    kind: Kind
    source: Path
    copy: Path
    whole: str | None = None  # what is read where nothing is damaged; "" where there is nothing to compare

    def __call__(self, rng: random.Random) -> str:
        """Return "read" or "refused"."""
        if self.whole is None:
            self.whole = self.read(self.draw(rng))
        path = self.draw(rng)
        has_sums = damage(path, rng) and self.kind.has_sums
        try:
            found = self.read(path)
        except (InputError, OSError) as error:  # a command ends with one line after either
            line = str(error)
            assert "\n" not in line and len(line) < 2000, f"no short line: {line[:3000]}"
            assert str(self.copy) in line, f"it does not name the file: {line}"
            assert not _has_memory_error(error), f"it took more than {LIMIT_BYTES} bytes"
            return "refused"
        finally:
            assert not EXECUTED.exists(), "something was executed"
        assert not has_sums or found == self.whole, "damage that its sums tell was not noticed"
        return "read"

    def draw(self, rng: random.Random) -> Path:
        """Copy the folder anew, and choose a file."""
        copy_folder(self.source, self.copy)
        return rng.choice(sorted(self.copy.glob(self.kind.pattern)))

    def read(self, path: Path) -> str:
        """Read a file within the limits."""
        with limited(LIMIT_S, LIMIT_BYTES), silence():
            found = self.kind.reader(self.copy, path)
        return fingerprint(found) if self.kind.has_sums else ""


@contextmanager
def silence() -> Iterator[None]:
    """Keep what is printed or warned of from the screen."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _has_memory_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    run_script(partial(run_hostile, __doc__, KINDS, mutants, FULL_COUNT))
