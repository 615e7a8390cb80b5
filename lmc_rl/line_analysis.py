"""From the rows of lines between imitation runs to what they say, of one parent or of several.

Loss is the cross-entropy with the bot's actions, in nats; return is success. Axis letters: P pairs of children, E
trajectories or episodes, A places on the line, L layers.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.analysis import PathResult, Pooled, by_group, pool
from lmc_rl.imitation_settings import fork_updates, load_settings
from lmc_rl.instability import Estimate, largest_drop, over_parents, verdict
from lmc_rl.line_records import LineRecord, read_records
from lmc_rl.settings import MIN_EPISODES
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.common.files import read_json, write_json

CHANCE_NATS = math.log(len(ACTION_NAMES))  # cross-entropy of a policy that draws each action evenly
NO_VERDICT = "–"
_KINDS = ("fork", "independent", "self", "other")
_DO_NOT_MATTER = {"trial", "seed"}  # settings of a run in which parents differ


@dataclass(frozen=True)
class LineResult:
    """What was measured on the lines of a fork, or of a control, on which one part of the weights moves."""

    kind: str  # fork, self, independent, other
    fork: int | None
    fraction: float | None  # of the updates after which it was forked
    part: str
    is_aligned: bool
    loss: PathResult  # returns are -cross-entropy in nats, of a trajectory
    success: PathResult | None  # returns are 1 or 0
    accuracy: np.ndarray  # (P, A)
    lpc: np.ndarray  # (P, A), mean over the steps
    kl: np.ndarray  # (P, 2, A, L): nats from the first end, from the second
    path_ratio: np.ndarray | None  # (P, A) over the successes, NaN where there is none

    @property
    def key(self) -> tuple:
        """What lines of several parents have in common."""
        return self.kind, self.fraction, self.part, self.is_aligned

    @property
    def name(self) -> str:
        """The part that moves, and whether the second end is aligned."""
        return "all, aligned" if self.is_aligned else self.part

    @property
    def word(self) -> str:
        """The same as a word of an address or a file."""
        return "aligned" if self.is_aligned else self.part

    @property
    def has_verdict(self) -> bool:
        """Whether its ends are two trained policies: the second end of a part alone is a hybrid that nobody trained."""
        return self.part == "all"

    def verdict_of(self, path: PathResult) -> str:
        """The verdict of its loss or of its success, if it has one."""
        return path.verdict if self.has_verdict else NO_VERDICT

    @property
    def end_loss(self) -> float:
        """Mean cross-entropy of the ends, nats."""
        return -self.loss.end_return

    @cached_property
    def rise(self) -> Estimate:
        """How far the loss rises above that of the first end, nats: what moving a part does to a trained policy."""
        return largest_drop(self.loss.returns[..., :1] - self.loss.returns)

    @property
    def bulge(self) -> float:
        """LPC above its chord, negative below, at the place where it is farthest; mean over the pairs."""
        places = self.loss.places
        chord = (1 - places) * self.lpc[:, :1] + places * self.lpc[:, -1:]
        off = self.lpc - chord
        return float(np.take_along_axis(off, np.abs(off).argmax(1)[:, None], 1).mean())

    def summary(self) -> dict:
        """All of it as plain values."""
        along = {"cross_entropy": -self.loss.returns.mean(1), "accuracy": self.accuracy, "lpc": self.lpc, "kl": self.kl}
        found = {
            "kind": self.kind, "fork_id": self.fork, "fork_point": self.fraction, "part": self.part,
            "aligned": self.is_aligned, "places": self.loss.places, "pairs": self.loss.pairs, "lpc_bulge": self.bulge,
            "cross_entropy_rise": self.rise.summary(),
        }  # fmt: skip
        for name, result in (("cross_entropy", self.loss), ("success", self.success)):
            if result is not None:
                found[f"{name}_barrier"] = result.barrier.summary()
                found[f"{name}_instability"] = result.instability.summary()
                found |= {f"{name}_scale": result.scale, f"{name}_verdict": self.verdict_of(result)}
        if self.success is not None:
            along |= {"success": self.success.returns.mean(1), "path_ratio": self.path_ratio}
        return found | {"along": {name: np.ascontiguousarray(values) for name, values in along.items()}}


@dataclass(frozen=True)
class LineExperiment:
    """One experiment on imitation runs with all that was measured of it so far."""

    results: Path
    settings: dict
    lines: tuple[LineResult, ...]
    alignments: dict[str, dict]  # of each walk: distances, and what the alignment found

    @property
    def label(self) -> str:
        """The run, in words."""
        return label_of(self.settings)

    @property
    def seed(self) -> int:
        """Of the parent."""
        return self.settings["run"]["seed"]

    @property
    def group(self) -> tuple:
        """What experiments have in common whose parents differ in their seeds alone."""
        run = {name: value for name, value in self.settings["run"].items() if name not in _DO_NOT_MATTER}
        own = {name: value for name, value in self.settings.items() if name not in ("run", "experiment_name")}
        return tuple((name, str(value)) for name, value in sorted((own | run).items()))

    def write(self) -> None:
        """The summaries: forks/instability_<i>.json, all_forks_results.json and controls.json."""
        by_fork: dict[int, list] = {}
        for line in self.lines:
            if line.kind == "fork":
                by_fork.setdefault(line.fork, []).append(line.summary())
        for fork, summaries in by_fork.items():
            path = self.results / "forks" / f"instability_{fork}.json"
            write_json(path, {"fork_id": fork, "lines": summaries}, orjson.OPT_INDENT_2)
        forks = [{"fork_id": fork, "lines": summaries} for fork, summaries in by_fork.items()]
        write_json(self.results / "all_forks_results.json", {"forks": forks}, orjson.OPT_INDENT_2)
        controls = [line.summary() for line in self.lines if line.kind != "fork"]
        write_json(self.results / "controls.json", {"lines": controls}, orjson.OPT_INDENT_2)


def label_of(settings: Mapping) -> str:
    """The run of an experiment, in words."""
    return f"{settings['run']['task_id']}, lpc_alpha {settings['run']['lpc_alpha']:g}"


def load_line_experiment(results: str | Path) -> LineExperiment:
    """Read an experiment of run_mop. Raises InputError where the folder is of something else, or holds no line yet."""
    results = Path(results)
    settings = load_settings(results)
    if settings is None:
        raise InputError(f"{results} holds no experiment of lmc_rl.run_mop")
    fractions = [update / settings["run"]["num_updates"] for update in fork_updates(settings)]
    lines = load_lines(results, fractions, settings["alpha_points"], settings["tolerance"])
    if not lines:
        raise InputError(f"{results} has measured no line yet; finish the experiment with --resume")
    found = {path.stem: read_json(path) for path in sorted((results / "paths").glob("*.json"))}
    return LineExperiment(results, settings, lines, found)


def load_lines(folder: Path, fractions: Sequence[float], num_places: int, tolerance: float) -> tuple[LineResult, ...]:
    """The lines of a folder that are measured at all places; fractions: of the updates, for each fork.

    Those with fewer than `MIN_EPISODES` trajectories are left out.
    """
    records, together = read_records(folder, num_places), {}
    for key in (key for key, line in records.lines.items() if len(line.cross_entropy) >= MIN_EPISODES):
        together.setdefault((key.kind, key.fork, key.part, key.is_aligned), []).append(key)
    results = []
    for (kind, fork, part, is_aligned), keys in together.items():
        lines, pairs = [records.lines[key] for key in keys], tuple(key.children for key in keys)
        fraction = fractions[fork] if fork is not None else None
        results.append(_result(lines, pairs, (kind, fork, fraction), part, is_aligned, records.chance, tolerance))
    return tuple(results)


def _result(
    lines: Sequence[LineRecord], pairs: tuple, where: tuple, part: str, is_aligned: bool, chance: float,
    tolerance: float,
) -> LineResult:  # fmt: skip
    """The lines of all pairs of children together; where: kind, fork, fraction; chance: of success."""

    def path(returns: Sequence[np.ndarray], random_return: float) -> PathResult:
        measures = (None,) * len(lines)
        return PathResult(*where, pairs, lines[0].places, np.stack(returns), random_return, tolerance, measures)

    success = ratio = None
    if all(line.success is not None and len(line.success) >= MIN_EPISODES for line in lines):
        success = path([line.success for line in lines], chance)
        ratio = np.stack([line.path_ratio for line in lines])
    means = (np.stack([getattr(line, name) for line in lines]) for name in ("accuracy", "lpc", "kl"))
    return LineResult(
        *where, part, is_aligned, path([-line.cross_entropy for line in lines], -CHANCE_NATS), success, *means, ratio
    )


# --- several parents ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PooledLine:
    """A fork point, or a control, and a part, of experiments that differ in their seeds alone."""

    results: tuple[LineResult, ...]  # one for each parent
    barrier: Estimate  # B of the cross-entropy, nats
    instability: Estimate  # I of the same
    rise: Estimate  # above the first end, of the same
    verdict: str  # of B as a share of (chance - ends); `NO_VERDICT` of a part alone
    success_barrier: Estimate | None  # B of success, as a share of the episodes
    success_verdict: str | None

    @property
    def first(self) -> LineResult:
        """That of one parent, for what all have in common."""
        return self.results[0]


def pool_lines(results: Sequence[LineResult]) -> PooledLine:
    """Several parents together: the unit of the intervals is the parent, or the trajectory where there is one."""
    barrier, instability, says = _pool([result.loss for result in results])
    success = [result.success for result in results if result.success is not None]
    of_success = _pool(success) if len(success) == len(results) else (None, None, None)
    rise = over_parents([result.rise for result in results])
    if not results[0].has_verdict:
        says, of_success = NO_VERDICT, (*of_success[:2], NO_VERDICT)
    return PooledLine(tuple(results), barrier, instability, rise, says, of_success[0], of_success[2])


def _pool(paths: Sequence[PathResult]) -> tuple[Estimate, Estimate, str]:
    normalised = over_parents([path.barrier.over(path.scale) for path in paths])
    absolute = [over_parents([getattr(path, name) for path in paths]) for name in ("barrier", "instability")]
    return *absolute, verdict(normalised, paths[0].tolerance)


def pooled_lines(
    experiments: Iterable[LineExperiment], words: Sequence[str] | None = None
) -> dict[str, list[PooledLine]]:
    """Label of the group -> its lines, of experiments with the same settings but the seed.

    words: of the parts, see `LineResult.word`; None: all of them. Raises as `by_group`.
    """
    together, groups = by_group(experiments), {}
    labels = labels_of_groups([members[0] for members in together])
    for label, members in zip(labels, together, strict=True):
        by_key: dict[tuple, list[LineResult]] = {}
        for line in (line for member in members for line in member.lines if words is None or line.word in words):
            by_key.setdefault(line.key, []).append(line)
        in_order = sorted(by_key, key=lambda key: (_KINDS.index(key[0]), key[1] or 0.0))  # parts stay as they come
        groups[label] = [pool_lines(by_key[key]) for key in in_order]
    return groups


def labels_of_groups(experiments: Sequence[LineExperiment]) -> list[str]:
    """A name for each of several experiments: task, lpc_alpha, and what else differs from others of the same name."""
    labels = []
    for own in experiments:
        alike = [dict(other.group) for other in experiments if other.label == own.label]
        differing = [name for name in alike[0] if len({other.get(name) for other in alike}) > 1]
        labels.append(", ".join([own.label, *(f"{name} {dict(own.group).get(name)}" for name in differing)]))
    return labels


NATS, SHARE, SUCCESS = "nats", "share", "success"  # what a barrier can be told of


def as_points(lines: Iterable[PooledLine], measure: str) -> list[Pooled]:
    """Lines as points of the figures of returns.

    measure: NATS, the cross-entropy in nats; SHARE, the same as a share of (chance - ends); SUCCESS, as a share of the
    episodes, only of lines that were played.
    """
    points = []
    for line in lines:
        loss = replace(pool([result.loss for result in line.results]), verdict=line.verdict)
        if measure == SHARE:
            points.append(loss)
        elif measure == NATS:
            points.append(replace(loss, barrier=line.barrier, instability=line.instability))
        elif line.success_barrier is not None:
            paths = tuple(result.success for result in line.results)
            instability = over_parents([path.instability for path in paths])
            points.append(
                replace(loss, results=paths, barrier=line.success_barrier, instability=instability,
                        verdict=line.success_verdict)
            )  # fmt: skip
    return points


# --- tables ---------------------------------------------------------------------------------------------------------

HEAD = (
    *("run", "fork", "part", "parents", "cross-entropy of ends", "B, nats", "I, nats", "rise, nats", "verdict"),
    *("success of ends, %", "B, points", "verdict", "LPC bulge"),
)


def table_of(groups: Mapping[str, Sequence[PooledLine]]) -> list[tuple[str, ...]]:
    """A row of texts for each line, under `HEAD`."""
    rows = []
    for label, lines in groups.items():
        for line in lines:
            first, results = line.first, line.results
            where = f"{first.fraction:.1%}" if first.kind == "fork" else first.kind
            loss = f"{np.mean([result.end_loss for result in results]):.3f}"
            played = ("–", "–", "–")
            if line.success_barrier is not None:
                ends = f"{100 * np.mean([result.success.end_return for result in results]):.1f}"
                played = (ends, as_text_of(line.success_barrier, 100, 1), line.success_verdict)
            bulge = f"{round(np.mean([result.bulge for result in results])):+d}"
            told = [as_text_of(estimate) for estimate in (line.barrier, line.instability, line.rise)]
            told += [line.verdict, *played, bulge]
            rows.append((label, where, first.name, str(len(results)), loss, *told))
    return rows


def as_text_of(estimate: Estimate, factor: float = 1, digits: int = 3) -> str:
    """An estimate with its interval, "0.123 (0.040 to 0.201)"."""
    low, high = factor * estimate.low, factor * estimate.high
    return f"{factor * estimate.value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


ALIGNMENT_HEAD = ("run", "line", "distance", "aligned", "units moved", "experts moved", "turn of the stream")


def alignments_of(experiments: Sequence[LineExperiment]) -> list[tuple[str, ...]]:
    """A row of texts for each alignment, under `ALIGNMENT_HEAD`."""
    rows = []
    for experiment in experiments:
        for name, found in experiment.alignments.items():
            if (a := found.get("alignment")) is not None:
                numbers = (f"{a['distance_before']:.3f}", f"{a['distance_after']:.3f}", f"{a['moved_units']:.1%}")
                label = f"{experiment.label}, seed {experiment.seed}"
                rows.append((label, name, *numbers, str(a["moved_experts"]), f"{a['stream_turn']:.3f}"))
    return rows
