"""All that was measured on lines, as one long table, and the files that hold it. NumPy alone.

A row of the table is a `Series`: one measure at all places of one line. In the files, a line of JSON holds all measures
of one policy in one episode; whatever key it has besides those that say where it belongs is a measure. Lines are only
ever added.
Axis letters: E episodes or trajectories, A alphas, L layers, n lines, m lines that were played, W worlds.
"""

import gzip
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from mop.artifacts.json_lines import JsonLines
from mop.artifacts.records import check_arrays
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.reading import read_npz, reading

ROWS_NAME = "episodes.jsonl"
TRAJECTORIES_NAME = "trajectories.jsonl"
ARCHIVE_NAME = "lines.npz"
KINDS = ("fork", "self", "independent", "other", "random")
STEP_NATS = 1e-4  # to which an archived cross-entropy is rounded
NEEDED = {  # file -> numbers without which a line of it is no row
    ROWS_NAME: ("return",),
    TRAJECTORIES_NAME: ("cross_entropy", "accuracy", "lpc", "length"),
}
_IDENTITY = {"run", "kind", "fork", "children", "part", "aligned", "alpha", "episode", "seed"}
_ARCHIVED_MEANS = ("accuracy", "lpc")


class LineKey(NamedTuple):
    """A line between two policies on which a part of the weights moves; kind random: the policy that acts at random."""

    kind: str  # of KINDS
    fork: int | None = None
    pair: tuple[int, int] | None = None  # the children of that fork, from 1 on
    part: str = "all"
    is_aligned: bool = False  # whether the second end is the aligned one

    @classmethod
    def of(cls, kind: Any, fork: Any, pair: Any, part: Any = "all", is_aligned: Any = False) -> "LineKey":
        """The line that a file tells of. Raises ValueError for what is none."""
        pair = () if pair is None else pair
        if kind not in KINDS or not isinstance(part, str) or not isinstance(is_aligned, bool):
            raise ValueError("it is of no kind of line")
        if not (fork is None or _is_count(fork)) or (kind == "fork" and fork is None):
            raise ValueError("it is of no fork")
        if not isinstance(pair, list | tuple) or len(pair) not in (0, 2) or not all(_is_count(k, 1) for k in pair):
            raise ValueError("it is of no two children")
        return cls(kind, fork, tuple(pair) or None, part, is_aligned)

    @property
    def of_pair(self) -> dict[str, Any]:
        """How files name the two policies."""
        return {"kind": self.kind, "fork": self.fork, "children": list(self.pair) if self.pair else None}

    @property
    def identity(self) -> dict[str, Any]:
        """How files name the line."""
        return self.of_pair | {"part": self.part, "aligned": self.is_aligned}

    @property
    def name_of_pair(self) -> str:
        """What files about the two policies are called."""
        return "_".join(map(str, [self.kind, *([] if self.fork is None else [self.fork]), *(self.pair or ())]))


def _is_count(value: Any, low: int = 0) -> bool:
    return type(value) is int and value >= low


class Series(NamedTuple):
    """A row of the long table."""

    line: LineKey
    measure: str
    alphas: np.ndarray  # (A,); NaN of the random policy
    values: np.ndarray  # (E, A), of each layer (E, A, L); E = 1 where only the mean is known


Table = list[Series]


def read_table(folder: str | Path, num_alphas: int) -> Table:
    """The table of an experiment, of a comparison, or of the archive of one.

    A line that was not evaluated at all alphas yet is left out, and so are episodes that lack some of them.
    """
    folder = Path(folder)
    seen, rows = folder / TRAJECTORIES_NAME, folder / ROWS_NAME
    if not seen.exists() and (folder / ARCHIVE_NAME).exists():
        return read_archive(folder / ARCHIVE_NAME)
    if not seen.exists():
        return _series(rows, num_alphas, NEEDED[ROWS_NAME])
    table = _over_steps(_series(seen, num_alphas, NEEDED[TRAJECTORIES_NAME]))
    if rows.exists():
        table += _successes(_series(rows, num_alphas, ("return", "length", "bot_length")))
    return table


def _over_steps(table: Table) -> Table:
    """Measures of trajectories times their share of all steps, so that a mean over trajectories is one over steps."""
    lengths = {series.line: series.values for series in table if series.measure == "length"}
    weighted = []
    for series in table:
        length = lengths[series.line]
        share = (length / length.mean(axis=0)).reshape(length.shape + (1,) * (series.values.ndim - 2))
        if series.measure != "length":
            weighted.append(series._replace(values=share * series.values))
    return weighted


def _successes(table: Table) -> Table:
    """Success of each episode in worlds, and the mean ratio of its steps to the bot's over the successes."""
    by_line: dict[LineKey, dict[str, Series]] = {}
    for series in table:
        by_line.setdefault(series.line, {})[series.measure] = series
    found = []
    for line, own in by_line.items():
        success, steps, bot_steps = (own[name].values for name in ("return", "length", "bot_length"))
        num = success.sum(axis=0)
        ratio = np.where(num > 0, (success * steps / bot_steps).sum(axis=0) / np.maximum(num, 1), np.nan)
        alphas = own["return"].alphas
        found += [Series(line, "success", alphas, success), Series(line, "path_ratio", alphas, ratio[None])]
    return found


def _series(path: Path, num_alphas: int, needed: Sequence[str]) -> Table:
    """The table of a file of rows as they are."""
    lines: dict[LineKey, dict[float | None, dict[int, dict]]] = {}
    for row in read_rows(path, needed):
        lines.setdefault(_line_of(row), {}).setdefault(row["alpha"], {})[row["episode"]] = row
    table = []
    for key, by_alpha in lines.items():
        is_random = key.kind == "random"
        if len(by_alpha) != (1 if is_random else num_alphas):
            continue
        alphas = list(by_alpha) if is_random else sorted(alpha for alpha in by_alpha if alpha is not None)
        episodes = sorted(set.intersection(*map(set, by_alpha.values())))
        cells = [[by_alpha[alpha][episode] for alpha in alphas] for episode in episodes]
        known = set.intersection(*(set(cell) for row in cells for cell in row)) if cells else set()
        for name in (name for name in next(iter(by_alpha[alphas[0]].values())) if name in known - _IDENTITY):
            try:
                values = np.array([[cell[name] for cell in row] for row in cells], float)
            except (TypeError, ValueError):
                raise InputError(f"{path}: {name} is no number everywhere") from None
            table.append(Series(key, name, np.array([math.nan if is_random else a for a in alphas]), values))
    return table


# --- rows -------------------------------------------------------------------------------------------------------------


def rows_file(path: str | Path, needed: Sequence[str] = ()) -> JsonLines:
    """Open a file of rows; needed: numbers without which a line is no row."""

    def check(row: dict) -> None:
        alpha = row["alpha"]
        is_place = alpha is None if _line_of(row).kind == "random" else type(alpha) in (int, float) and 0 <= alpha <= 1
        if not is_place or not _is_count(row["episode"]):
            raise ValueError("it is of no place on a line, or of no episode")
        if not all(math.isfinite(row[name]) for name in needed):
            raise ValueError("a number is not finite")

    return JsonLines(path, check, "row of an episode", "the experiment has not measured it, or take it from a copy")


def _line_of(row: Mapping[str, Any]) -> LineKey:
    return LineKey.of(row["kind"], row["fork"], row["children"], row.get("part", "all"), row.get("aligned", False))


def read_rows(path: str | Path, needed: Sequence[str] = ("return",)) -> list[dict]:
    """Read the rows of a file, or of its compressed form, but for a last one that is still being written."""
    return rows_file(path, needed).read()


def has_rows(folder: Path) -> bool:
    """Whether anything was measured, by an experiment or in the archive of one."""
    return any((folder / name).exists() for name in (ROWS_NAME, f"{ROWS_NAME}.gz", TRAJECTORIES_NAME, ARCHIVE_NAME))


class Kept(NamedTuple):
    """What a file holds of the rows of some pieces of work."""

    lines: list[bytes]  # of the pieces that are there as a whole, in order
    lacking: list[int]  # numbers of the other pieces


def rows_of_pieces(path: Path, pieces: Sequence[Sequence[Mapping[str, Any]]]) -> Kept:
    """Find the rows of pieces of work by what they say of themselves.

    pieces: of each row of each piece, what it says of where it belongs. Whatever else is in the file counts for
    nothing, and of two rows of one place the first one counts.
    """
    names = list(pieces[0][0]) if pieces else []
    found: dict[bytes, bytes] = {}
    for line, row in rows_file(path, NEEDED[path.name]).good_lines():
        found.setdefault(orjson.dumps([row.get(name) for name in names]), line)
    kept = Kept([], [])
    for number, piece in enumerate(pieces):
        lines = [found.get(orjson.dumps(list(place.values()))) for place in piece]
        if None in lines:
            kept.lacking.append(number)
        else:
            kept.lines.extend(line for line in lines if line is not None)
    return kept


# --- the archive ------------------------------------------------------------------------------------------------------


def archive_measurements(results: Path, folder: Path, num_alphas: int) -> None:
    """Write what figures and tables need of the table, in some 100 kB; the same bytes for the same table.

    Returns are compressed as they are. Of imitation runs the cross-entropies are rounded, and what has no interval is
    kept as a mean; the lines have the same alphas, and those that were played the same worlds.
    """
    if (results / TRAJECTORIES_NAME).exists():
        write_archive(folder / ARCHIVE_NAME, read_table(results, num_alphas))
        return
    content = gzip.compress((results / ROWS_NAME).read_bytes(), mtime=0)
    write_atomic(folder / f"{ROWS_NAME}.gz", lambda file: file.write(content))


def write_archive(path: Path, table: Table) -> None:
    """The compact form of a table of imitation runs."""
    lines: dict[LineKey, dict[str, np.ndarray]] = {}
    for series in table:
        lines.setdefault(series.line, {})[series.measure] = series.values
    chance = lines.pop(LineKey("random"), {}).get("success", np.array(math.nan)).mean()
    lines = {key: own for key, own in lines.items() if "cross_entropy" in own}
    played = [own for own in lines.values() if "success" in own]

    def stack(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack(list(arrays), dtype=np.float32, casting="same_kind")

    arrays = {
        "keys": np.array(orjson.dumps([list(key) for key in lines]).decode()),
        "places": next(series.alphas for series in table if series.measure == "cross_entropy"),
        "cross_entropy": np.rint(np.stack([own["cross_entropy"] for own in lines.values()]) / STEP_NATS).astype(
            np.int32
        ),
        **{name: stack(own[name].mean(0) for own in lines.values()) for name in _ARCHIVED_MEANS},
        "kl": stack(np.stack([own[f"kl_to_{end}"].mean(0) for end in ("first", "second")]) for own in lines.values()),
        "is_played": np.array(["success" in own for own in lines.values()]),
        "chance": np.array(chance),
    }
    if played:
        success = np.stack([own["success"] for own in played])
        arrays |= {"worlds": np.array(success.shape), "success": np.packbits(success.astype(bool))}
        arrays["path_ratio"] = stack(own["path_ratio"][0] for own in played)
    write_atomic(path, lambda file: np.savez_compressed(file, **dict[str, Any](arrays)))


def read_archive(path: Path) -> Table:
    """The table that `write_archive` wrote, float64."""
    way_out = "take it from the repository again"
    arrays = read_npz(path, way_out=way_out)
    with reading(path, "archive of an experiment", way_out):
        check_arrays(arrays, _ARCHIVED | (_PLAYED if "success" in arrays else {}))
        return list(_archived(arrays))


_ARCHIVED = {  # n lines, A alphas
    **{"keys": ("", "text"), "places": ("A", "float"), "is_played": ("n", "bool"), "chance": ("", "float or nan")},
    **{"cross_entropy": ("n E A", "int"), "kl": ("n 2 A ...", "float or nan")},
    **{name: ("n A", "float") for name in _ARCHIVED_MEANS},
}
_PLAYED = {"worlds": ("3", "int"), "success": ("bytes", "int"), "path_ratio": ("m A", "float or nan")}


def _archived(arrays: Mapping[str, np.ndarray]) -> Iterator[Series]:
    alphas, played = arrays["places"], iter(range(len(arrays["is_played"])))
    if "success" in arrays:
        shape = tuple(arrays["worlds"].tolist())  # (m, W, A)
        if shape[0] != len(arrays["path_ratio"]) or shape[2] != len(alphas) or min(shape) < 1:
            raise ValueError("its episodes are not those of its lines")
        success = np.unpackbits(arrays["success"], count=math.prod(shape)).reshape(shape).astype(float)
    if not math.isnan(float(arrays["chance"])):
        yield Series(LineKey("random"), "success", np.array([math.nan]), arrays["chance"].reshape(1, 1))
    for n, (kind, fork, pair, part, is_aligned) in enumerate(orjson.loads(str(arrays["keys"]))):
        line = LineKey.of(kind, fork, pair, part, is_aligned)
        yield Series(line, "cross_entropy", alphas, arrays["cross_entropy"][n] * STEP_NATS)
        for name in _ARCHIVED_MEANS:
            yield Series(line, name, alphas, arrays[name][n][None].astype(float))
        for end, values in zip(("first", "second"), arrays["kl"][n], strict=True):
            yield Series(line, f"kl_to_{end}", alphas, values[None].astype(float))
        if arrays["is_played"][n]:
            m = next(played)
            yield Series(line, "success", alphas, success[m])
            yield Series(line, "path_ratio", alphas, arrays["path_ratio"][m][None].astype(float))
