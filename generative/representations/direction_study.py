"""Directions of a recorded memory, block by block: found on some worlds, judged on others.

Axis letters: M rows, S hidden units, D units of a block, K directions, P properties.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from generative.domains.babyai.labels import UNKNOWN
from generative.recordings.format import SPLITS
from generative.representations.decompositions import METHODS, Fit, matched_cosines
from generative.representations.direction_sets import Directions
from generative.representations.probes import (
    Probe,
    above_chance,
    accuracy_alone,
    balanced_accuracy,
    class_differences,
    labels_of_others,
)
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import MIN_EPISODES, bounds, resample
from mop.statistics.intervals import Interval

PROBE = "probe"  # in place of a method's name: directions from one class of a property to another
_PROBE_ROWS = 8000  # of the training worlds, for each probe
_SINGLE_ROWS = 4000  # and for those of one coordinate, of which there are many
_DUAL_FREEDOM = 0.01  # of the probes whose weights are duals: they read as well, with much smaller weights
_MOST_LENGTH = 2.0  # of a probe's dual


class Rows(NamedTuple):
    """Steps of whole episodes: the memory after each, which has seen the state that is labelled."""

    hidden: np.ndarray  # (M, S) float32, after the step
    labels: dict[str, np.ndarray]  # (M,) int8, by property: the number of a class, or UNKNOWN
    episode: np.ndarray  # (M,) int64, from 0, of its world: episodes of the same one count as one
    t_step: np.ndarray  # (M,) int64


def read_rows(
    recording, split: str, behaviours: Sequence[str] | None, max_rows: int, seed: int, label: Callable[..., dict]
) -> Rows:
    """The steps of whole episodes of a split, chosen at random; at most `max_rows`.

    recording: `recordings.Recording`; label: of `labels.labeller`. Raises InputError where they are fewer than
    MIN_EPISODES.
    """
    episodes = recording.episodes(split, behaviours)
    order = np.random.default_rng(stream_seed(seed, f"rows of {split}")).permutation(len(episodes))
    steps = recording.index["num_rows"][episodes][order] - 1
    chosen = np.sort(episodes[order[: max(1, int((np.cumsum(steps) <= max_rows).sum()))]])
    if len(chosen) < MIN_EPISODES:
        way_out = "record more with python -m generative.record, or raise --max_rows"
        raise InputError(f"{len(chosen)} episodes of the {split} split are too few to judge by: {way_out}")
    parts, worlds = [], {}
    for k in tqdm(chosen.tolist(), desc=f"{split} episodes", leave=False, dynamic_ncols=True):
        episode = recording.episode(k)
        number = worlds.setdefault(episode.seed, len(worlds))  # episodes of one world are one in intervals
        hidden, num_steps = np.asarray(episode["hidden"]), len(episode["hidden"]) - 1
        labels = {name: values[:-1] for name, values in label(episode).items()}
        where = np.full(num_steps, number), np.arange(num_steps)
        parts.append(Rows(hidden[1:], labels, *where))
    labels = {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels}
    hidden, episode, t_step = (np.concatenate(column) for column in zip(*((p[0], *p[2:]) for p in parts), strict=True))
    return Rows(hidden, labels, episode, t_step)


def known_properties(rows: Mapping[str, Rows]) -> dict[str, list[int]]:
    """The classes of each property that occur in enough episodes of every split; those with a choice of classes."""
    found = {}
    for name in rows["train"].labels:
        in_all = set.intersection(*(_frequent(part.labels[name], part.episode) for part in rows.values()))
        if len(in_all) > 1:
            found[name] = sorted(in_all)
    return found


def _frequent(labels: np.ndarray, episode: np.ndarray) -> set[int]:
    """Labels that occur in MIN_EPISODES episodes at least."""
    pairs = np.unique(np.stack([labels, episode], 1), axis=0)
    classes, counts = np.unique(pairs[:, 0], return_counts=True)
    return set(classes[(counts >= MIN_EPISODES) & (classes != UNKNOWN)].tolist())


# --- one block --------------------------------------------------------------------------------------------------------


class Study:
    """What is found in the blocks of one recorded memory. rows: of each of SPLITS."""

    def __init__(self, rows: Mapping[str, Rows], num: int, num_seeds: int, seed: int):
        """num: directions of a method, at most; num_seeds: further fits, for their stability."""
        self.rows, self.num, self.num_seeds, self.seed = rows, num, num_seeds, seed
        self.properties = known_properties(rows)

    @property
    def num_pieces(self) -> int:
        """How often `block` reports progress."""
        return len(METHODS) * (1 + self.num_seeds) + len(self.properties)

    def block(self, name: str, columns: slice, progress: Callable[[], object]) -> dict[str, np.ndarray]:
        """Fit every method on the memory of a block, and probe it: arrays by name.

        `units`, `duals` (K, D), `methods` and `names` (K,): all directions, those of the probes last; "<method>
        explained", "converged", "stability", "chance"; "probe stability"; "<property> classes", "accuracy", "shuffled",
        "singles", "best", "best accuracy".
        """
        x = {split: part.hidden[:, columns].astype(np.float64) for split, part in self.rows.items()}
        part, sets = {}, []
        for method in METHODS:
            fit, measures = self._fit(name, method, x, progress)
            numbers = [str(k) for k in range(len(fit.units))]
            sets.append(_Set(method, numbers, fit.units, fit.duals))
            part |= {f"{method} {key}": np.asarray(value) for key, value in measures.items()}
        num_found = sum(len(some.units) for some in sets)
        judges = {label: _Judge(self, label, x, self._rng(f"probe of {name} {label}")) for label in self.properties}
        for label, judge in judges.items():
            part |= {f"{label} {key}": np.asarray(value) for key, value in judge.whole().items()}
            sets.append(judge.directions())
        draws = [self._draw(k) for k in range(1, self.num_seeds + 1)]
        part[f"{PROBE} stability"] = np.concatenate(
            [np.empty(0), *(judge.stability(draws) for judge in judges.values())]
        )
        part["units"], part["duals"] = (
            np.concatenate([getattr(some, key) for some in sets]) for key in _Set._fields[2:]
        )
        part["methods"] = np.array([some.method for some in sets for _ in some.names])
        part["names"] = np.array([f"{some.method}.{name}" for some in sets for name in some.names])
        for label, judge in judges.items():
            measures = judge.alone(part["duals"], num_found)
            part |= {f"{label} {key}": np.asarray(value) for key, value in measures.items()}
            progress()
        return part

    def _fit(self, name: str, method: str, x: Mapping[str, np.ndarray], progress: Callable) -> tuple[Fit, dict]:
        """A method's directions, and how good they are: again from other seeds, on episodes drawn with replacement."""
        train, num = x["train"], min(self.num, x["train"].shape[1])
        fits = []
        for k in range(self.num_seeds + 1):
            drawn = self._draw(k) if k else slice(None)
            fits.append(METHODS[method](train[drawn], num, stream_seed(self.seed, f"{name} {method} {k}")))
            progress()
        first, *others = fits
        return first, {
            "explained": variance_explained(first, train.mean(0), x["test"], self.rows["test"].episode),
            "converged": [fit.has_converged for fit in fits],
            "stability": np.mean([matched_cosines(first.units, fit.units) for fit in others], axis=0),
            "chance": _chance(first.units, self._rng(f"chance of {name} {method}")),
        }

    def _draw(self, number: int) -> np.ndarray:
        """The rows of as many training episodes as there are, drawn with replacement."""
        return _draw_episodes(self.rows["train"].episode, self._rng(f"episodes {number}"))

    def _rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng(stream_seed(self.seed, name))


class _Set(NamedTuple):
    """K directions of a block that were found in one way."""

    method: str
    names: list[str]  # of the directions, after the method's
    units: np.ndarray  # (K, D) float64
    duals: np.ndarray  # (K, D) float64


class _Judge:
    """What memories x of each split (M, D) tell of a property: all of them, and each direction alone."""

    def __init__(self, study: Study, label: str, x: Mapping[str, np.ndarray], rng: np.random.Generator):
        self._rows, self._label, self._classes = study.rows, label, study.properties[label]
        self._x, self._rng, self._true, self._others = x, rng, {}, {}
        for split, part in study.rows.items():
            self._true[split] = part.labels[label]
            self._others[split] = labels_of_others(part.labels[label], part.t_step, rng)

    def whole(self) -> dict[str, object]:
        """How well a probe of the whole block tells the property, and the control."""
        everything, found = np.eye(self._x["train"].shape[1]), {"classes": self._classes}
        self._taught, says = self._teach(self._true, everything, _PROBE_ROWS)
        found["accuracy"] = balanced_accuracy(*says["test"])
        return found | {"shuffled": balanced_accuracy(*self._teach(self._others, everything, _PROBE_ROWS)[1]["test"])}

    def directions(self) -> _Set:
        """A direction for each class, of two classes one; after `whole`. One without length is left out.

        Units: from the mean of the others to that of the class. Duals: `_duals_of` the weights of a probe.
        """
        x, differences = self._x["train"], self._differences(slice(None))
        is_one = len(differences) == 1
        names = [self._label if is_one else f"{self._label}:{number}" for number in self._classes[is_one:]]
        lengths = np.linalg.norm(differences, axis=1)
        self._kept = np.flatnonzero(lengths > 1e-9)
        self._units = differences[self._kept] / lengths[self._kept, None]
        probe = Probe(x[self._taught], self._true["train"][self._taught], _DUAL_FREEDOM, has_one_scale=True)
        duals = _duals_of(self._units, probe.contrasts[self._kept])
        return _Set(PROBE, [names[k] for k in self._kept], self._units, duals)

    def stability(self, draws: Sequence[np.ndarray]) -> np.ndarray:
        """|cosine| (K,) of `directions` with those of other training rows, the mean of all draws."""
        others = np.array([self._differences(drawn)[self._kept] for drawn in draws])
        others /= np.maximum(np.linalg.norm(others, axis=-1, keepdims=True), 1e-30)
        return np.abs((others * self._units).sum(-1)).mean(0)

    def _differences(self, rows: np.ndarray | slice) -> np.ndarray:
        """Those of the means of the classes, of some training rows."""
        labels = self._true["train"][rows]
        is_known = np.isin(labels, self._classes)
        return class_differences(self._x["train"][rows][is_known], labels[is_known], self._classes)

    def alone(self, duals: np.ndarray, num_found: int) -> dict[str, object]:
        """How well each coordinate of duals (K, D) tells the property; the best of the first `num_found` of them."""
        says = [self._teach(self._true, dual[:, None], _SINGLE_ROWS)[1] for dual in duals]
        scores = [[accuracy_alone(*judged[split][:2]) for split in SPLITS[1:]] for judged in says]
        best = int(np.argmax([validation for validation, _ in scores[:num_found]]))
        return {"singles": scores, "best": best, "best accuracy": balanced_accuracy(*says[best]["test"])}

    def _teach(self, labels: Mapping[str, np.ndarray], columns: np.ndarray, num_rows: int) -> tuple[np.ndarray, dict]:
        """Training rows; what a probe of their memories . columns says in the other splits.

        Of each split: predictions, labels, episodes.
        """
        some = np.sort(self._rng.permutation(self._known(labels, "train"))[:num_rows])
        probe, says = Probe(self._x["train"][some] @ columns, labels["train"][some]), {}
        for split in SPLITS[1:]:
            these = self._known(labels, split)
            says[split] = probe(self._x[split][these] @ columns), labels[split][these], self._rows[split].episode[these]
        return some, says

    def _known(self, labels: Mapping[str, np.ndarray], split: str) -> np.ndarray:
        """The rows of a split whose class is one of those that are told apart."""
        return np.flatnonzero(np.isin(labels[split], self._classes))


def _duals_of(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Duals (K, D) of unit vectors (K, D) that read what weights (K, D) do; as near to that as their length allows.

    A dual of length s makes nulling stretch what else is there up to s times. The policy takes the memory up again, so
    that a long one can drive it anywhere: s is _MOST_LENGTH at most. Where weights and unit disagree, the unit is its
    own dual.
    """
    along = (weights * units).sum(1, keepdims=True)
    across = weights / np.where(along > 0, along, np.inf) - np.where(along > 0, units, 0.0)
    lengths = np.linalg.norm(across, axis=1, keepdims=True)
    return units + across * np.minimum(1.0, np.sqrt(_MOST_LENGTH**2 - 1) / np.maximum(lengths, 1e-30))


def _draw_episodes(episode: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rows of as many episodes as there are, drawn with replacement."""
    starts = np.flatnonzero(np.diff(episode, prepend=-1))
    ends = np.append(starts[1:], len(episode))
    return np.concatenate([np.arange(starts[k], ends[k]) for k in rng.integers(len(starts), size=len(starts))])


def variance_explained(fit: Fit, mean: np.ndarray, x: np.ndarray, episode: np.ndarray) -> Interval:
    """1 - squared error of the rebuilt x (M, D) / squared distance of x from the training mean (D,).

    With its 95 % interval from a bootstrap over episodes.
    """
    errors = np.square(x - fit.rebuild(x)).sum(1), np.square(x - mean).sum(1)
    sums = np.stack([np.bincount(episode, values) for values in errors], 1)
    error, total = sums.sum(0)
    drawn = resample(sums)
    low, high = bounds(1 - drawn[:, 0] / drawn[:, 1])
    return Interval(float(1 - error / total), float(low), float(high))


def _chance(units: np.ndarray, rng: np.random.Generator) -> float:
    """Mean matched |cosine| of directions with as many random ones of the space that they span."""
    _, lengths, basis = np.linalg.svd(units, full_matrices=False)
    basis = basis[lengths > 1e-6 * lengths[0]]
    values = []
    for _ in range(20):
        others = rng.standard_normal((len(units), len(basis))) @ basis
        values.append(matched_cosines(units, others / np.linalg.norm(others, axis=1, keepdims=True)).mean())
    return float(np.mean(values))


# --- all blocks -------------------------------------------------------------------------------------------------------


def join_parts(
    parts: Mapping[str, Mapping[str, np.ndarray]], blocks: Mapping[str, slice], train: Rows, digest: str
) -> Directions:
    """The directions of all studied blocks as one set; blocks: those of the memory; digest: of the policy's file."""
    size, placed = train.hidden.shape[1], {"units": [], "duals": []}
    names, of_block, methods = [], [], []
    for block, part in parts.items():
        for key, vectors in placed.items():
            vectors.append(np.zeros((len(part[key]), size), np.float32))
            vectors[-1][:, blocks[block]] = part[key]
        names += [f"{block}.{name}" for name in part["names"].tolist()]
        of_block += [block] * len(part["names"])
        methods += part["methods"].tolist()
    hidden = train.hidden.astype(np.float64)
    return Directions(
        **{key: np.concatenate(vectors) for key, vectors in placed.items()},
        names=np.array(names),
        blocks=np.array(of_block),
        methods=np.array(methods),
        mean=hidden.mean(0).astype(np.float32),
        covariance=np.cov(hidden.T).astype(np.float32),
        block_names=np.array(list(blocks)),
        block_columns=np.array([[columns.start, columns.stop] for columns in blocks.values()]),
        checkpoint=np.array(digest),
    )


def method_rows(parts: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict]:
    """A row for each block and method: how much it explains in other worlds, and how much of it comes back."""
    rows = []
    for block, part in parts.items():
        for method in METHODS:
            explained, stability = Interval(*part[f"{method} explained"].tolist()), part[f"{method} stability"]
            row = {"block": block, "units": part["units"].shape[1], "method": method, "directions": len(stability)}
            row |= {"explained": explained.value, "low": explained.low, "high": explained.high}
            row |= {"stability": float(stability.mean()), "chance": float(part[f"{method} chance"])}
            row |= {"least_stable": float(stability.min()), "converged": int(part[f"{method} converged"].sum())}
            rows.append(row | {"fits": len(part[f"{method} converged"])})
    return rows


def probe_rows(parts: Mapping[str, Mapping[str, np.ndarray]], directions: Directions) -> list[dict]:
    """A row for each property and block: balanced accuracy of the whole block, of its best direction, of the control.

    The best direction is the best in the validation worlds, but for those of the probes; every accuracy is of the test
    worlds. selectivity: how far it is above chance there (0 chance, 1 all right), minus the same for the property that
    it tells best besides.
    """
    rows, singles = [], scores_of(parts)
    for label in singles:
        for block, part in parts.items():
            first = directions.blocks.tolist().index(block)
            best, classes = first + int(part[f"{label} best"]), part[f"{label} classes"]
            row = {"property": label, "block": block, "classes": len(classes), "chance": 1 / len(classes)}
            for key in ("accuracy", "shuffled", "best accuracy"):
                value, low, high = part[f"{label} {key}"].tolist()
                name = key.replace(" ", "_")
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            others = [scores[best] for name, scores in singles.items() if name != label]
            selectivity = singles[label][best] - max(others, default=0.0)
            row |= {"best": directions.names[best], "best_number": best, "selectivity": selectivity}
            rows.append(row | {"validation": float(part[f"{label} singles"][int(part[f"{label} best"]), 0])})
    return rows


def scores_of(parts: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """How far above chance each direction alone is in the test worlds, property -> (K,): 0 chance, 1 all right."""
    ending, column = " singles", SPLITS[1:].index("test")
    names = [key.removesuffix(ending) for key in next(iter(parts.values())) if key.endswith(ending)]
    return {
        name: np.concatenate(
            [above_chance(part[name + ending][:, column], len(part[f"{name} classes"])) for part in parts.values()]
        )
        for name in names
    }


def direction_rows(parts: Mapping[str, Mapping[str, np.ndarray]], directions: Directions) -> list[dict]:
    """A row for each direction: its spread, how much of it comes back, and what it tells, above chance, in the test."""
    stability = np.concatenate([part[f"{method} stability"] for part in parts.values() for method in (*METHODS, PROBE)])
    scores = scores_of(parts)
    return [
        {"number": k, "name": name, "sd": sd, "stability": comes_back} | {label: scores[label][k] for label in scores}
        for k, (name, sd, comes_back) in enumerate(zip(directions.names, directions.sd, stability, strict=True))
    ]


def write_part(path: Path, part: Mapping[str, np.ndarray]) -> None:
    """Write what `Study.block` found, as a whole. Raises OSError."""
    write_atomic(path, lambda file: np.savez_compressed(file, **part))


def read_part(path: Path) -> dict[str, np.ndarray]:
    """What `write_part` wrote. Raises InputError where it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception:  # a damaged zip raises nearly anything
        raise InputError(f"{path} is damaged; remove it, and it is made again") from None
