"""The files of an experiment, as they are found and read: places, settings, rows of episodes. NumPy alone."""

import gzip
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.settings import FIELDS, RUNTIME_KEYS, check_values
from mop.common.errors import InputError
from mop.common.files import write_atomic

CONFIG_NAME = "config.json"
ROWS_NAME = "episodes.jsonl"


@dataclass(frozen=True)
class Walk:
    """A line between the policies of two files, or the random policy, where there are no files."""

    kind: str  # fork, self, independent, random, other
    fork: int | None = None  # number of the fork
    children: tuple[int, int] | None = None  # the children of that fork, from 1 on
    first: Path | None = None
    second: Path | None = None

    @property
    def name(self) -> str:
        """What its files are called."""
        parts = [self.kind, *([self.fork] if self.fork is not None else []), *(self.children or ())]
        return "_".join(map(str, parts))

    @property
    def identity(self) -> dict:
        """What its rows say of it."""
        return {"kind": self.kind, "fork": self.fork, "children": list(self.children) if self.children else None}


@dataclass(frozen=True)
class Places:
    """Where the files of an experiment are: two folders of the same name, for results and for weights."""

    results: Path
    weights: Path

    @classmethod
    def of(cls, output_dir: str | Path, name: Path) -> "Places":
        """name: <experiment>/<env>/<algo>/seed_<seed>_<time>."""
        return cls(Path(output_dir) / "results" / name, Path(output_dir) / "model_weights" / name)

    @classmethod
    def of_results(cls, results: Path) -> "Places":
        """Those of a folder of results, whose weights are where they were written."""
        results = Path(results).resolve()
        return cls.of(results.parents[4], results.relative_to(results.parents[3]))

    def snapshot(self, fork: int) -> Path:
        """The whole state of the run at a fork."""
        return self.results / "forks" / f"snapshot_{fork}.pt"

    def child(self, fork: int, child: int) -> Path:
        """The final weights of a child, from 1 on."""
        return self.weights / f"fork{child}_{fork}.pt"

    def probe(self, walk: Walk) -> Path:
        """Measures of a path besides its return."""
        return probe_path(self.results, walk)


def probe_path(results: Path, walk: Walk) -> Path:
    """Measures of a path besides its return, in the folder of an experiment or of what is kept of it."""
    return results / "paths" / f"{walk.name}.json"


def load_settings(results: Path) -> dict:
    """The settings of an experiment. Raises InputError where the folder is of something else."""
    path = Path(results) / CONFIG_NAME
    try:
        settings = orjson.loads(path.read_bytes())["settings"]
        if not FIELDS.keys() - set(RUNTIME_KEYS) >= settings.keys() >= {"env", "algo", "seed", "fork_points"}:
            raise KeyError
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(f"{results} holds no experiment of lmc_rl (no {CONFIG_NAME} of one)") from None
    return check_values(settings, str(path))


# --- rows -----------------------------------------------------------------------------------------------------------


def read_rows(path: Path, numbers: Sequence[str] = ("return",)) -> list[dict]:
    """The rows of a file, or of its compressed form, but for a last one that is still being written.

    Raises InputError, naming file and line, where one is none, or lacks one of the numbers.
    """
    rows = []
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            row = orjson.loads(line)
            row["kind"], row["fork"], row["children"], row["alpha"], row["episode"]
            if not all(math.isfinite(row[name]) for name in numbers):
                raise ValueError
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}: line {number} is no row of an episode") from None
        rows.append(row)
    return rows


def _whole_lines(path: Path) -> list[bytes]:
    packed = path.with_name(f"{path.name}.gz")
    try:
        is_packed = packed.exists() and not path.exists()
        content = gzip.decompress(packed.read_bytes()) if is_packed else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise InputError(f"{packed} is damaged; take it from the repository again") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the experiment has walked along no path yet") from None
    return content[: content.rfind(b"\n") + 1].splitlines()


def pack_rows(path: Path, packed: Path) -> None:
    """Write the compressed form of a file of rows; the same bytes for the same rows."""
    content = gzip.compress(path.read_bytes(), mtime=0)
    write_atomic(packed, lambda file: file.write(content))


def walks_of(rows: Iterable[Mapping], num_places: int) -> dict[tuple, tuple[np.ndarray, np.ndarray]]:
    """The places (A,) and returns (E, A) of each walk, by (kind, fork, children), of the episodes that are whole.

    A walk that has not come to all of its places yet is left out. The random policy has one place, NaN.
    """
    found: dict[tuple, dict] = {}
    for row in rows:
        key = (row["kind"], row["fork"], tuple(row["children"]) if row["children"] else None)
        found.setdefault(key, {}).setdefault(row["alpha"], {})[row["episode"]] = row["return"]
    walks = {}
    for key, by_place in found.items():
        places = list(by_place) if key[0] == "random" else sorted(by_place)
        episodes = sorted(set.intersection(*(set(by_place[place]) for place in places)))
        if len(places) == (1 if key[0] == "random" else num_places):
            returns = np.array([[by_place[place][e] for place in places] for e in episodes])
            walks[key] = np.array([np.nan if place is None else place for place in places]), returns
    return walks
