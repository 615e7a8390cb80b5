"""Experiments as they are read: their files, what was measured on each line, and several parents together.

Axis letters: P pairs of children, E episodes, A alphas, L layers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lmc_rl.analysis.barrier import Estimate, Profile, over_parents, verdict
from lmc_rl.analysis.table import ROWS_NAME, LineKey, Series, read_table
from lmc_rl.config import MIN_EPISODES, ExperimentConfig, RLConfig, load_config, names_of
from mop.artifacts.sums import read_summed
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.common.reading import reading

CHANCE_NATS = math.log(len(ACTION_NAMES))  # cross-entropy of a policy that draws each action evenly
SIGNS = {"return": 1, "cross_entropy": -1, "success": 1}  # measures that have a barrier: 1 where more is better
NO_VERDICT = "–"


@dataclass(frozen=True)
class ExperimentPaths:
    """The files of an experiment, in two folders of the same name: for results and for weights."""

    results: Path
    weights: Path

    @classmethod
    def of(cls, output_dir: str | Path, name: Path) -> "ExperimentPaths":
        """name: <experiment>/<env>/<algo>/seed_<seed>_<time>."""
        return cls(Path(output_dir) / "results" / name, Path(output_dir) / "model_weights" / name)

    @classmethod
    def of_results(cls, results: Path) -> "ExperimentPaths":
        """The paths of a folder of results, whose weights are where they were written."""
        results = Path(results).resolve()
        return cls.of(results.parents[4], results.relative_to(results.parents[3]))

    def snapshot(self, fork: int) -> Path:
        """The whole state of the run at a fork."""
        return self.results / "forks" / f"snapshot_{fork}.pt"

    def child(self, fork: int, child: int) -> Path:
        """The final weights of a child, from 1 on."""
        return self.weights / f"fork{child}_{fork}.pt"


@dataclass(frozen=True)
class LineResult:
    """What was measured on the lines of a fork, or of a control, on which one part of the weights moves."""

    kind: str  # fork, self, independent, other
    fork: int | None
    fraction: float | None  # of the training after which it was forked
    part: str
    is_aligned: bool
    pairs: tuple[tuple[int, int] | None, ...]
    alphas: np.ndarray  # (A,)
    profiles: dict[str, Profile]  # of each measure in SIGNS
    means: dict[str, np.ndarray]  # of each other measure, over episodes: (P, A), of each layer (P, A, L)
    facts: tuple[dict | None, ...]  # of each pair: what its file in paths/ says, None where there is none

    @property
    def main(self) -> Profile:
        """The measure whose barrier gives the verdict."""
        return next(iter(self.profiles.values()))

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
    def origin(self) -> str:
        """The word of its fork or control in an address."""
        return str(self.fork) if self.kind == "fork" else self.kind

    @property
    def where(self) -> str:
        """The fork point in percent, or the control."""
        digits = 0 if "return" in self.profiles else 1
        return f"{self.fraction:.{digits}%}" if self.kind == "fork" else self.kind

    @property
    def has_verdict(self) -> bool:
        """Whether both endpoints were trained. If only a part moves, the second one is a hybrid."""
        return self.part == "all"

    def verdict_of(self, measure: str) -> str:
        """The verdict of one of its profiles, if it has one."""
        return self.profiles[measure].verdict if self.has_verdict else NO_VERDICT

    @property
    def excess_lpc(self) -> float:
        """LPC above its chord, negative below, where it is farthest; mean over the pairs."""
        lpc = self.means["lpc"]
        off = lpc - ((1 - self.alphas) * lpc[:, :1] + self.alphas * lpc[:, -1:])
        return float(np.take_along_axis(off, np.abs(off).argmax(1)[:, None], 1).mean())


def load_lines(
    folder: str | Path, fractions: Sequence[float], num_alphas: int, tolerance: float
) -> tuple[LineResult, ...]:
    """The lines of a folder that are measured at all alphas, forks first; fractions: of the training, at each fork.

    Those with fewer than `MIN_EPISODES` episodes are left out.
    """
    table = read_table(folder, num_alphas)
    chance = {series.measure: float(series.values.mean()) for series in table if series.line.kind == "random"}
    chance["cross_entropy"] = CHANCE_NATS
    groups: dict[LineKey, dict[tuple[int, int] | None, dict[str, Series]]] = {}
    for series in table:
        if series.line.kind != "random":
            pairs = groups.setdefault(series.line._replace(pair=None), {})
            pairs.setdefault(series.line.pair, {})[series.measure] = series
    if any(series.measure == "return" for series in table) and "return" not in chance:
        raise InputError(f"{Path(folder) / ROWS_NAME} is cut off; finish the experiment with --resume")
    lines = []
    for key, pairs in groups.items():
        profiles, means = {}, {}
        for measure in (name for name in next(iter(pairs.values())) if all(name in own for own in pairs.values())):
            values = [own[measure].values for own in pairs.values()]
            values = np.stack([one[: min(map(len, values))] for one in values])
            if measure not in SIGNS:
                means[measure] = values.mean(axis=1)
            elif values.shape[1] >= MIN_EPISODES:
                sign = SIGNS[measure]
                gains = sign * values
                profiles[measure] = Profile(_alphas(pairs), gains, sign * chance.get(measure, math.nan), tolerance)
        if profiles and next(iter(profiles)) != "success":
            if key.fork is not None and key.fork >= len(fractions):
                raise InputError(
                    f"{folder}: something was measured at fork {key.fork}, of {len(fractions)} of its config"
                )
            fraction = fractions[key.fork] if key.fork is not None else None
            facts = tuple(_facts(Path(folder), key._replace(pair=pair)) for pair in pairs)
            _check_alike(Path(folder), facts)
            where = (key.kind, key.fork, fraction, key.part, key.is_aligned, tuple(pairs))
            lines.append(LineResult(*where, _alphas(pairs), profiles, means, facts))
    return tuple(sorted(lines, key=lambda line: line.kind != "fork"))


def _alphas(pairs: dict[tuple[int, int] | None, dict[str, Series]]) -> np.ndarray:
    return next(iter(next(iter(pairs.values())).values())).alphas


def read_measures(path: Path) -> dict[str, Any]:
    """What was measured of a pair of policies beside what was played."""
    return read_summed(path, "measures of two policies", "remove it: the same command, or --resume, measures again")


def _facts(folder: Path, line: LineKey) -> dict | None:
    path = folder / "paths" / f"{line.name_of_pair}.json"
    if not path.exists():
        return None
    with reading(path):
        found = read_measures(path)
        of_places = {name: value for name, value in found.items() if isinstance(value, list) and name != "children"}
        if not all(np.isfinite(np.array(value, float)).all() for value in of_places.values()):
            raise ValueError("a number is not finite")
        if not math.isfinite(found.get("distance", 0)):
            raise ValueError("the distance is no number")
        return found


def _check_alike(folder: Path, facts: Iterable[dict | None]) -> None:
    """Refuse measures of several pairs of which some have what others lack."""
    shapes = [
        {name: np.shape(value) for name, value in of_pair.items() if name != "children"} for of_pair in facts if of_pair
    ]
    if any(of_pair != shapes[0] for of_pair in shapes):
        raise InputError(f"{folder / 'paths'}: the measures of several pairs differ; remove them, and use --resume")


@dataclass(frozen=True)
class Experiment:
    """One experiment with all that was measured of it so far."""

    results: Path
    config: ExperimentConfig
    lines: tuple[LineResult, ...]

    @property
    def is_rl(self) -> bool:
        """Whether it is one of `run_env`; else of `run_mop`."""
        return isinstance(self.config, RLConfig)

    @property
    def title(self) -> str:
        """The run in words."""
        return f"{self.config.name}, seed {self.config.drawn_seed}"

    @property
    def of_all_weights(self) -> list[LineResult]:
        """The line of each fork and control on which all weights move, as they are."""
        return [line for line in self.lines if line.word == "all"]


AnyExperiment = TypeVar("AnyExperiment", bound=Experiment)


def load_experiment(results: str | Path) -> Experiment:
    """Read an experiment."""
    config = load_config(results)
    lines = load_lines(results, config.fractions, config.alpha_points, config.tolerance)
    return Experiment(Path(results), config, lines)


# --- several parents --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooled:
    """A measure of a fork point, or of a control, of experiments that differ in their seeds alone.

    The unit of its intervals is the parent, or the episode where there is one parent.
    """

    lines: tuple[LineResult, ...]  # one for each parent
    measure: str
    is_share: bool  # whether the estimates are shares of what was learned

    @property
    def first(self) -> LineResult:
        """The line of one parent, for what all have in common."""
        return self.lines[0]

    @property
    def profiles(self) -> list[Profile]:
        """The measure with each parent."""
        return [line.profiles[self.measure] for line in self.lines]

    @property
    def is_known(self) -> bool:
        """Whether it was measured with all parents."""
        return all(self.measure in line.profiles for line in self.lines)

    def estimate(self, name: str, is_share: bool | None = None) -> Estimate:
        """`barrier`, `instability` or `rise`."""
        is_share = self.is_share if is_share is None else is_share
        found = [(getattr(profile, name), profile.scale) for profile in self.profiles]
        return over_parents([estimate.over(scale) if is_share else estimate for estimate, scale in found])

    @cached_property
    def barrier(self) -> Estimate:
        """B."""
        return self.estimate("barrier")

    @cached_property
    def instability(self) -> Estimate:
        """I."""
        return self.estimate("instability")

    @property
    def verdict(self) -> str:
        """Of the barrier as a share of what was learned; `NO_VERDICT` of a part alone."""
        if not self.first.has_verdict:
            return NO_VERDICT
        return verdict(self.estimate("barrier", is_share=True), self.profiles[0].tolerance)

    def of(self, measure: str, is_share: bool = False) -> "Pooled":
        """Another measure of the same lines."""
        return Pooled(self.lines, measure, is_share)


def pool(lines: Sequence[LineResult], measure: str | None = None, is_share: bool | None = None) -> Pooled:
    """Several parents together: the main measure of their lines, returns as shares, or the one that is named."""
    main = next(iter(lines[0].profiles))
    return Pooled(tuple(lines), measure or main, main == "return" if is_share is None else is_share)


def by_group(experiments: Iterable[AnyExperiment]) -> list[list[AnyExperiment]]:
    """The experiments that differ in their seeds alone, together.

    Two of them with one seed are one parent, and would count as two: they are refused.
    """
    groups: dict[tuple, dict[int, AnyExperiment]] = {}
    for experiment in experiments:
        members = groups.setdefault(tuple(experiment.config.group.items()), {})
        other = members.setdefault(experiment.config.drawn_seed, experiment)
        if other is not experiment:
            raise InputError(
                f"{other.results} and {experiment.results} have the same seed and settings: they are one parent, not "
                "two; leave one of them out"
            )
    return [[*members.values()] for members in groups.values()]


def pooled_groups(experiments: Iterable[Experiment], words: Sequence[str] | None = None) -> dict[str, list[Pooled]]:
    """Name of the group -> its fork points, then its controls, each with each part; words: only these parts."""
    groups = by_group(experiments)
    names = names_of([members[0].config for members in groups])
    return {name: pooled_lines(members, words) for name, members in zip(names, groups, strict=True)}


def pooled_lines(members: Sequence[Experiment], words: Sequence[str] | None = None) -> list[Pooled]:
    """The lines of experiments that differ in their seeds alone, pooled."""
    by_key: dict[tuple, list[LineResult]] = {}
    for line in (line for member in members for line in member.lines if words is None or line.word in words):
        by_key.setdefault(line.key, []).append(line)
    kinds = ("fork", *members[0].config.CONTROL_ORDER, "other")
    in_order = sorted(by_key, key=lambda key: (kinds.index(key[0]), key[1] or 0.0))  # parts stay as they come
    return [pool(by_key[key]) for key in in_order]
