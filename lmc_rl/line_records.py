"""What was measured on lines between imitation runs, read from rows or from the file that is kept of them. NumPy alone.

Axis letters: n lines, m lines that were played, E trajectories, W worlds, A places on the line, L layers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import orjson

from lmc_rl.records import ROWS_NAME, read_rows
from mop.common.errors import InputError
from mop.common.files import write_atomic

TRAJECTORIES_NAME = "trajectories.jsonl"
PACKED_NAME = "lines.npz"
STEP_NATS = 1e-4  # to which a packed cross-entropy is rounded


class LineKey(NamedTuple):
    """A line between two policies on which a part of the weights moves."""

    kind: str  # fork, self, independent, other
    fork: int | None
    children: tuple[int, int] | None
    part: str
    is_aligned: bool


@dataclass(frozen=True)
class LineRecord:
    """What was measured on one line; a mean is one over the steps of all trajectories."""

    places: np.ndarray  # (A,)
    cross_entropy: np.ndarray  # (E, A) nats; times its share of the steps, so that the mean over E is one over steps
    accuracy: np.ndarray  # (A,)
    lpc: np.ndarray  # (A,)
    kl: np.ndarray  # (2, A, L): nats from the first end, from the second
    success: np.ndarray | None  # (W, A), 1 or 0; None where it was not played
    path_ratio: np.ndarray | None  # (A,) over the successes, NaN where there is none


class LineRecords(NamedTuple):
    """All lines of an experiment that were measured at all of their places."""

    lines: dict[LineKey, LineRecord]
    chance: float  # success of the policy that acts at random, NaN where nothing was played


def read_records(folder: Path, num_places: int) -> LineRecords:
    """The lines of a folder, from its rows or from what is kept of them.

    Raises InputError where there is neither, or one is damaged.
    """
    if not (folder / TRAJECTORIES_NAME).exists() and (folder / PACKED_NAME).exists():
        return read_packed(folder / PACKED_NAME)
    seen = _by_line(read_rows(folder / TRAJECTORIES_NAME, ("cross_entropy", "accuracy", "lpc", "length")))
    played, chance = {}, math.nan
    if (folder / ROWS_NAME).exists():
        played = _by_line(read_rows(folder / ROWS_NAME, ("return", "length", "bot_length")))
        at_random = [own for key, own in played.items() if key.kind == "random"]
        chance = float(np.mean([row["return"] for row in at_random[0][None]])) if at_random else math.nan
    whole = {key: own for key, own in seen.items() if _is_whole(own, num_places)}
    return LineRecords({key: _record(own, played.get(key, {})) for key, own in whole.items()}, chance)


def _by_line(rows: Iterable[Mapping]) -> dict[LineKey, dict]:
    """The rows of each line by place, in the order of the file. The random policy has no line, but a place."""
    found: dict[LineKey, dict] = {}
    for row in rows:
        children = tuple(row["children"]) if row["children"] else None
        key = LineKey(row["kind"], row["fork"], children, row.get("part", "all"), row.get("aligned", False))
        found.setdefault(key, {}).setdefault(row["alpha"], []).append(row)
    return found


def _is_whole(by_place: Mapping[float, Sequence], num_places: int) -> bool:
    return len(by_place) == num_places and len({len(rows) for rows in by_place.values()}) == 1


def _record(seen: Mapping[float, list], played: Mapping[float, list]) -> LineRecord:
    places = sorted(seen)
    length = _numbers(seen, "length")
    share = length / length.mean(axis=0)
    ends = [(share[..., None] * _numbers(seen, name)).mean(0) for name in ("kl_to_first", "kl_to_second")]
    success = ratio = None
    if _is_whole(played, len(places)):
        success = _numbers(played, "return")
        ratio = _path_ratio(success, _numbers(played, "length"), _numbers(played, "bot_length"))
    means = [(share * _numbers(seen, name)).mean(0) for name in ("accuracy", "lpc")]
    return LineRecord(np.array(places), share * _numbers(seen, "cross_entropy"), *means, np.stack(ends), success, ratio)


def _numbers(by_place: Mapping[float, list], name: str) -> np.ndarray:
    """One of the numbers of rows, (E, A, ...)."""
    return np.array([[row[name] for row in by_place[place]] for place in sorted(by_place)]).swapaxes(0, 1)


def _path_ratio(success: np.ndarray, steps: np.ndarray, bot_steps: np.ndarray) -> np.ndarray:
    """Mean (A,) of steps / the bot's over the successes."""
    num = success.sum(axis=0)
    return np.where(num > 0, (success * steps / bot_steps).sum(axis=0) / np.maximum(num, 1), np.nan)


# --- what is kept ---------------------------------------------------------------------------------------------------


def write_packed(path: Path, records: LineRecords) -> None:
    """All that figures and tables need of some lines, in a file of some 100 kB; the same bytes for the same lines.

    The lines have the same places, and those that were played the same worlds. Cross-entropies are rounded.
    """
    lines = [*records.lines.values()]
    played = [line for line in lines if line.success is not None]
    arrays = {
        "keys": np.array(orjson.dumps([list(key) for key in records.lines]).decode()),
        "places": lines[0].places,
        "cross_entropy": np.rint(np.stack([line.cross_entropy for line in lines]) / STEP_NATS).astype(np.int32),
        **{name: np.stack([getattr(line, name) for line in lines], dtype=np.float32, casting="same_kind")
           for name in ("accuracy", "lpc", "kl")},
        "is_played": np.array([line.success is not None for line in lines]),
        "chance": np.array(records.chance),
    }  # fmt: skip
    if played:
        success = np.stack([line.success for line in played])
        arrays |= {"worlds": np.array(success.shape), "success": np.packbits(success.astype(bool))}
        arrays["path_ratio"] = np.stack([line.path_ratio for line in played], dtype=np.float32, casting="same_kind")
    write_atomic(path, lambda file: np.savez_compressed(file, **arrays))


def read_packed(path: Path) -> LineRecords:
    """What `write_packed` wrote, float64. Raises InputError where the file is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        keys = [LineKey(kind, fork, tuple(children) if children else None, *of_part)
                for kind, fork, children, *of_part in orjson.loads(str(arrays["keys"]))]  # fmt: skip
        values = [arrays[name].astype(float) for name in ("accuracy", "lpc", "kl")]
        seen = zip(arrays["cross_entropy"] * STEP_NATS, *values, strict=True)
        worlds, ratios = iter(_unpacked(arrays)), iter(arrays.get("path_ratio", np.zeros((0, 0))).astype(float))
        lines = {}
        for key, measures, is_played in zip(keys, seen, arrays["is_played"], strict=True):
            of_worlds = (next(worlds), next(ratios)) if is_played else (None, None)
            lines[key] = LineRecord(arrays["places"], *measures, *of_worlds)
        return LineRecords(lines, float(arrays["chance"]))
    except (OSError, ValueError, KeyError, TypeError, StopIteration, EOFError, BadZipFile):
        raise InputError(f"{path} is damaged; take it from the repository again") from None


def _unpacked(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Successes (m, W, A)."""
    if "success" not in arrays:
        return np.zeros((0, 0, 0))
    shape = tuple(arrays["worlds"].tolist())
    return np.unpackbits(arrays["success"], count=math.prod(shape)).reshape(shape).astype(float)
