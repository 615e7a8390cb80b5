"""From the rows of experiments to what they say: a result for each fork, of one parent or of several.

Axis letters: P pairs of children, E episodes, A places on the line.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson

from lmc_rl.instability import (
    CONNECTED,
    Estimate,
    drops_below_chord,
    drops_below_ends,
    largest_drop,
    over_parents,
    verdict,
)
from lmc_rl.records import ROWS_NAME, Walk, load_settings, probe_path, read_rows, walks_of
from lmc_rl.settings import MIN_EPISODES, fork_steps
from mop.common.errors import InputError
from mop.common.files import read_json, write_json

# settings that change nothing in a path
_DO_NOT_MATTER = {"seed", "controls", "eval_freq", "eval_episodes", "experiment_name"}
Grouped = TypeVar("Grouped")  # an experiment of either kind: it has results, seed and group


@dataclass(frozen=True)
class PathResult:
    """What was measured between the children of one fork, or between the policies of a control."""

    kind: str  # fork, self, independent, other
    fork: int | None
    fraction: float | None  # of the training after which it was forked
    pairs: tuple[tuple[int, int] | None, ...]
    places: np.ndarray  # (A,)
    returns: np.ndarray  # (P, E, A)
    random_return: float  # mean of the policy that acts at random
    tolerance: float
    measures: tuple[dict | None, ...] = ()  # of `probes.measure`, for each pair

    @property
    def end_return(self) -> float:
        """Mean return of the ends."""
        return float(self.returns[..., [0, -1]].mean())

    @property
    def scale(self) -> float:
        """How much better the ends are than a policy that acts at random, in units of return."""
        return self.end_return - self.random_return

    @cached_property
    def barrier(self) -> Estimate:
        """B, in units of return."""
        return largest_drop(drops_below_chord(self.returns, self.places))

    @cached_property
    def instability(self) -> Estimate:
        """I, in units of return."""
        return largest_drop(drops_below_ends(self.returns))

    @property
    def verdict(self) -> str:
        """Of the normalised barrier; undecided too where the ends are no better than chance."""
        return verdict(self.barrier.over(self.scale), self.tolerance)

    def summary(self) -> dict:
        """All of it as plain values."""
        paths = []
        for pair, returns, measures in zip(self.pairs, self.returns, self.measures, strict=True):
            rows = zip(self.places, returns.mean(axis=0), returns.std(axis=0), strict=True)
            path = {"children": pair, "fork1_return": returns[:, 0].mean(), "fork2_return": returns[:, -1].mean()}
            path["interpolation"] = [{"alpha": a, "mean_return": m, "std_return": s} for a, m, s in rows]
            paths.append(path | {"measures": measures})
        barrier, instability = self.barrier, self.instability
        return {
            "kind": self.kind, "fork_id": self.fork, "fork_point": self.fraction,
            "num_episodes": self.returns.shape[1], "random_return": self.random_return, "scale": self.scale,
            "barrier": barrier.summary(), "normalised_barrier": barrier.over(self.scale).summary(),
            "instability": instability.summary(), "normalised_instability": instability.over(self.scale).summary(),
            "tolerance": self.tolerance, "verdict": self.verdict, "is_stable": self.verdict == CONNECTED,
            "paths": paths,
        }  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One experiment with all that was measured of it so far."""

    results: Path
    settings: dict
    forks: tuple[PathResult, ...]
    controls: tuple[PathResult, ...]

    @property
    def seed(self) -> int:
        """Of the parent."""
        return self.settings["seed"]

    @property
    def group(self) -> tuple:
        """What experiments have in common whose parents differ in their seeds alone."""
        return tuple((name, str(value)) for name, value in sorted(self.settings.items()) if name not in _DO_NOT_MATTER)

    def write(self) -> None:
        """The summaries: forks/instability_<i>.json, all_forks_results.json and controls.json."""
        for result in self.forks:
            path = self.results / "forks" / f"instability_{result.fork}.json"
            write_json(path, result.summary(), orjson.OPT_INDENT_2)
        all_of_them = {"forks": [result.summary() for result in self.forks]}
        write_json(self.results / "all_forks_results.json", all_of_them, orjson.OPT_INDENT_2)
        controls = {result.kind: result.summary() for result in self.controls}
        write_json(self.results / "controls.json", controls, orjson.OPT_INDENT_2)


def load_experiment(results: str | Path, total_steps: int | None = None) -> Experiment:
    """Read an experiment. total_steps: fork points are fractions of these steps; None: of those of the run.

    A path with fewer than `MIN_EPISODES` episodes is left out. Raises InputError where the folder is of something else,
    or holds no path yet, or where there are forks after total_steps.
    """
    settings = load_settings(Path(results))
    found = walks_of(read_rows(Path(results) / ROWS_NAME), settings["alpha_points"])
    if ("random", None, None) not in found:
        raise InputError(f"{Path(results) / ROWS_NAME} is cut off; finish the experiment with --resume")
    random_return = float(found.pop(("random", None, None))[1].mean())
    steps, total = fork_steps(settings), total_steps or settings["total_steps"]
    if total <= max(steps, default=0):
        raise InputError(f"--total_steps must be more than {max(steps)}, where the last fork of {results} is")
    parts = []
    for (kind, fork), keys in groupby(found, key=lambda key: key[:2]):
        keys = list(keys)
        num_episodes = min(len(found[key][1]) for key in keys)
        if num_episodes < MIN_EPISODES:
            continue
        measures = [_probe(probe_path(Path(results), Walk(*key))) for key in keys]
        returns = np.stack([found[key][1][:num_episodes] for key in keys])
        fraction = steps[fork] / total if fork is not None else None
        parts.append(
            PathResult(
                kind, fork, fraction, tuple(key[2] for key in keys), found[keys[0]][0], returns, random_return,
                settings["tolerance"], tuple(measures),
            )
        )  # fmt: skip
    forks = tuple(part for part in parts if part.kind == "fork")
    return Experiment(Path(results), settings, forks, tuple(part for part in parts if part.kind != "fork"))


def _probe(path: Path) -> dict | None:
    """Measures of a path besides its return; None where they were not taken. Raises InputError where damaged."""
    return read_json(path) if path.exists() else None


@dataclass(frozen=True)
class Pooled:
    """A fork point, or a control, of experiments that differ in their seeds alone; estimates are normalised."""

    kind: str
    fraction: float | None
    results: tuple[PathResult, ...]  # one for each parent
    barrier: Estimate
    instability: Estimate
    verdict: str


def pool(results: Sequence[PathResult]) -> Pooled:
    """Several parents together: the unit of the intervals is the parent, or the episode where there is one parent."""
    barrier = over_parents([result.barrier.over(result.scale) for result in results])
    instability = over_parents([result.instability.over(result.scale) for result in results])
    says = verdict(barrier, results[0].tolerance)
    return Pooled(results[0].kind, results[0].fraction, tuple(results), barrier, instability, says)


def by_group(experiments: Iterable[Grouped]) -> list[list[Grouped]]:
    """The experiments that differ in their seeds alone, together; those of `run_env`, or those of `run_mop`.

    Raises InputError where two of them have the same seed: they are one parent, and would count as two.
    """
    groups: dict[tuple, dict[int, Grouped]] = {}
    for experiment in experiments:
        members = groups.setdefault(experiment.group, {})
        other = members.setdefault(experiment.seed, experiment)
        if other is not experiment:
            raise InputError(
                f"{other.results} and {experiment.results} have the same seed and settings: they are one parent, not "
                "two; leave one of them out"
            )
    return [[*members.values()] for members in groups.values()]


def pooled_groups(experiments: Iterable[Experiment]) -> dict[str, list[Pooled]]:
    """Label of the group -> its fork points, then its controls, of experiments with the same settings but the seed.

    Raises as `by_group`.
    """
    together, groups = by_group(experiments), {}
    labels = labels_of([members[0].settings for members in together])
    for label, members in zip(labels, together, strict=True):
        by_place: dict[tuple, list[PathResult]] = {}
        for member in members:
            for result in (*member.forks, *member.controls):
                by_place.setdefault((result.kind, result.fraction), []).append(result)
        groups[label] = [pool(results) for results in by_place.values()]
    return groups


def labels_of(settings: Sequence[Mapping]) -> list[str]:
    """A name for each of several settings: environment, algorithm, buffer, and what else differs from the others."""
    told = {"env", "algo", "fork_buffer_strategy", *_DO_NOT_MATTER}
    labels = []
    for own in settings:
        alike = [other for other in settings if (other["env"], other["algo"]) == (own["env"], own["algo"])]
        differing = [name for name in own if name not in told and len({str(o.get(name)) for o in alike}) > 1]
        more = [f"{name} {own[name]}" for name in differing]
        labels.append(", ".join([f"{own['env']} {own['algo']}", own["fork_buffer_strategy"], *more]))
    return labels


# --- tables ---------------------------------------------------------------------------------------------------------

HEAD = ("settings", "fork", "parents", "end return", "B, %", "I, %", "verdict")


def table_of(groups: Mapping[str, Sequence[Pooled]]) -> list[tuple[str, ...]]:
    """A row of texts for each fork point and control, under `HEAD`."""
    rows = []
    for label, points in groups.items():
        for point in points:
            where = f"{point.fraction:.0%}" if point.kind == "fork" else point.kind
            ends = np.mean([result.end_return for result in point.results])
            row = (label, where, str(len(point.results)), f"{ends:,.1f}")
            rows.append((*row, percent(point.barrier), percent(point.instability), point.verdict))
    return rows


def percent(estimate: Estimate) -> str:
    """An estimate of a share with its interval, "12.3 (4.0 to 20.1)"."""
    if math.isnan(estimate.value):
        return "–"
    return f"{100 * estimate.value:.1f} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def as_text(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the screen, in columns."""
    widths = [max(len(line[k]) for line in (head, *rows)) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *rows)]
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a page."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
