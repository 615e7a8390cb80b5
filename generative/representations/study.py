"""Directions of a recorded hidden state, block by block: fitted on training worlds, evaluated on test worlds.

Axis letters: M rows, S hidden units, D units of a block, K directions, P properties.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from tqdm import tqdm

from generative.domains.babyai.labels import UNKNOWN
from generative.recordings.format import SPLITS
from generative.representations.decompositions import METHODS, Fit, matched_cosines
from generative.representations.probes import Probe, balanced_accuracy, class_differences
from generative.representations.storage import Directions
from mop.artifacts.records import check_arrays
from mop.common.cli import setting
from mop.common.errors import InputError
from mop.common.files import write_atomic
from mop.common.reading import read_npz, reading
from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import MIN_EPISODES, bootstrap_interval
from mop.statistics.intervals import Interval
from mop.statistics.permutation import permute_within

PROBE = "probe"  # in place of a method's name: directions from one class of a property to another
Part = Mapping[str, np.ndarray]  # results of a block, as `study_block` returns them
_PROBE_ROWS = 8000  # training rows of a probe of a whole block
_SINGLE_ROWS = 4000  # and of the many probes of one coordinate
_DUAL_FREEDOM = 0.01  # of the probes whose weights are duals: as accurate, with much smaller weights
_MAX_DUAL_LENGTH = 2.0


class Rows(NamedTuple):
    """Steps of whole episodes: the hidden state after each, which has seen the labelled world state."""

    hidden: np.ndarray  # (M, S) float32, after the step
    labels: dict[str, np.ndarray]  # (M,) int8, by property: the number of a class, or UNKNOWN
    episode: np.ndarray  # (M,) int64, from 0, of its world: episodes of the same one count as one
    t_step: np.ndarray  # (M,) int64


def read_rows(
    recording, split: str, behaviours: Sequence[str] | None, max_rows: int, seed: int, label: Callable[..., dict]
) -> Rows:
    """The steps of randomly chosen whole episodes of a split; at most `max_rows`.

    recording: `recordings.Recording`; label: of `labels.labeller`.
    """
    episodes = recording.episodes(split, behaviours)
    order = np.random.default_rng(stream_seed(seed, f"rows of {split}")).permutation(len(episodes))
    steps = recording.index["num_rows"][episodes][order] - 1
    chosen = np.sort(episodes[order[: max(1, int((np.cumsum(steps) <= max_rows).sum()))]])
    if len(chosen) < MIN_EPISODES:
        way_out = "record more with python -m generative.record, or raise --max_rows"
        raise InputError(f"{len(chosen)} episodes of the {split} split are too few for an evaluation: {way_out}")
    parts = []
    worlds: dict[int, int] = {}
    for k in tqdm(chosen.tolist(), desc=f"{split} episodes", leave=False, dynamic_ncols=True):
        episode = recording.episode(k)
        number = worlds.setdefault(episode.seed, len(worlds))  # episodes of one world are one in intervals
        hidden = np.asarray(episode["hidden"])
        num_steps = len(hidden) - 1
        labels = {name: values[:-1] for name, values in label(episode).items()}
        parts.append(Rows(hidden[1:], labels, np.full(num_steps, number), np.arange(num_steps)))
    return Rows(
        np.concatenate([part.hidden for part in parts]),
        {name: np.concatenate([part.labels[name] for part in parts]) for name in parts[0].labels},
        np.concatenate([part.episode for part in parts]),
        np.concatenate([part.t_step for part in parts]),
    )


def known_properties(rows: Mapping[str, Rows]) -> dict[str, list[int]]:
    """The classes of each property that occur in enough episodes of every split; properties with several classes."""
    properties = {}
    for name in rows["train"].labels:
        in_all = set.intersection(*(_frequent(part.labels[name], part.episode) for part in rows.values()))
        if len(in_all) > 1:
            properties[name] = sorted(in_all)
    return properties


def _frequent(labels: np.ndarray, episode: np.ndarray) -> set[int]:
    pairs = np.unique(np.stack([labels, episode], 1), axis=0)
    classes, counts = np.unique(pairs[:, 0], return_counts=True)
    return set(classes[(counts >= MIN_EPISODES) & (classes != UNKNOWN)].tolist())


# --- probes of a block ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ProbeData:
    """A block's hidden states with the labels of one property, by split, and the labels of the control."""

    x: dict[str, np.ndarray]  # (M, D)
    labels: dict[str, np.ndarray]  # (M,) int8
    control: dict[str, np.ndarray]  # (M,) int8, of other episodes
    episode: dict[str, np.ndarray]  # (M,) int64
    classes: list[int]

    def known_rows(self, labels: Mapping[str, np.ndarray], split: str) -> np.ndarray:
        """The rows of a split whose class is one of `classes`."""
        return np.flatnonzero(np.isin(labels[split], self.classes))


class ProbeFit(NamedTuple):
    """A probe's training rows, and its predictions in the other splits."""

    rows: np.ndarray
    predictions: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # split -> predicted, label, episode

    @property
    def accuracy(self) -> Interval:
        """Balanced accuracy in the test worlds, with its interval."""
        return balanced_accuracy(*self.predictions["test"])

    def score(self, split: str) -> float:
        """Balanced accuracy in a split."""
        predicted, labels, _ = self.predictions[split]
        return float(balanced_accuracy_score(labels, predicted))


@dataclass(frozen=True, eq=False)
class ClassDirections:
    """Directions between the classes of a property."""

    classes: np.ndarray  # (K,) which rows of `class_differences`
    units: np.ndarray  # (K, D) float64
    duals: np.ndarray  # (K, D) float64


def probe_data(
    rows: Mapping[str, Rows], x: dict[str, np.ndarray], name: str, classes: list[int], rng: np.random.Generator
) -> ProbeData:
    """The labels of a property for hidden states x of each split (M, D).

    The control's labels are drawn from all rows of the same t_step: a probe of them reads time alone (a control task,
    Hewitt and Liang 2019, arXiv 1909.03368).
    """
    labels = {split: part.labels[name] for split, part in rows.items()}
    control = {split: permute_within(part.labels[name], part.t_step, rng) for split, part in rows.items()}
    return ProbeData(x, labels, control, {split: part.episode for split, part in rows.items()}, classes)


def fit_probe(
    data: ProbeData,
    labels: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    num_rows: int = _PROBE_ROWS,
    dual: np.ndarray | None = None,
) -> ProbeFit:
    """Fit a probe on some training rows; dual (D,): of that coordinate alone."""
    columns = np.eye(data.x["train"].shape[1]) if dual is None else dual[:, None]
    some = np.sort(rng.permutation(data.known_rows(labels, "train"))[:num_rows])
    probe = Probe(data.x["train"][some] @ columns, labels["train"][some])
    predictions = {}
    for split in SPLITS[1:]:
        known = data.known_rows(labels, split)
        predictions[split] = probe(data.x[split][known] @ columns), labels[split][known], data.episode[split][known]
    return ProbeFit(some, predictions)


def class_directions(data: ProbeData, probe_rows: np.ndarray) -> ClassDirections:
    """A direction for each class, for two classes one; those without length are left out.

    Units: from the mean of the others to the mean of the class. Duals: `_duals_of` the weights of a probe.
    """
    differences = _differences(data, slice(None))
    lengths = np.linalg.norm(differences, axis=1)
    kept = np.flatnonzero(lengths > 1e-9)
    units = differences[kept] / lengths[kept, None]
    x, labels = data.x["train"][probe_rows], data.labels["train"][probe_rows]
    weights = Probe(x, labels, _DUAL_FREEDOM, has_one_scale=True).contrasts
    return ClassDirections(kept, units, _duals_of(units, weights[kept]))


def class_stability(data: ProbeData, directions: ClassDirections, draws: Sequence[np.ndarray]) -> np.ndarray:
    """|cosine| (K,) of class directions with those of other training rows, the mean over all draws."""
    others = np.array([_differences(data, drawn)[directions.classes] for drawn in draws])
    others /= np.maximum(np.linalg.norm(others, axis=-1, keepdims=True), 1e-30)
    return np.abs((others * directions.units).sum(-1)).mean(0)


def score_directions(data: ProbeData, duals: np.ndarray, num_fitted: int, rng: np.random.Generator) -> dict[str, Any]:
    """Probe each coordinate of duals (K, D) alone, in validation and test worlds.

    best: of the first `num_fitted`, which no label was used for, in the validation worlds; and its accuracy in the
    others.
    """
    fits = [fit_probe(data, data.labels, rng, _SINGLE_ROWS, dual) for dual in duals]
    accuracies = [[fit.score(split) for split in SPLITS[1:]] for fit in fits]
    best = int(np.argmax([validation for validation, _ in accuracies[:num_fitted]]))
    return {"singles": accuracies, "best": best, "best accuracy": fits[best].accuracy}


def _differences(data: ProbeData, rows: np.ndarray | slice) -> np.ndarray:
    """Differences between the means of the classes of some training rows."""
    labels = data.labels["train"][rows]
    is_known = np.isin(labels, data.classes)
    return class_differences(data.x["train"][rows][is_known], labels[is_known], data.classes)


def _duals_of(units: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Duals (K, D) of unit vectors (K, D) that read what weights (K, D) do; as near to that as their length allows.

    A dual of length s makes nulling stretch other contents of the hidden state up to s times. The policy takes the
    hidden state up again, so that a long one can drive it anywhere: s is _MAX_DUAL_LENGTH at most. Where weights and
    unit disagree, the unit is its own dual.
    """
    along = (weights * units).sum(1, keepdims=True)
    across = weights / np.where(along > 0, along, np.inf) - np.where(along > 0, units, 0.0)
    lengths = np.linalg.norm(across, axis=1, keepdims=True)
    return units + across * np.minimum(1.0, np.sqrt(_MAX_DUAL_LENGTH**2 - 1) / np.maximum(lengths, 1e-30))


# --- decompositions of a block ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Settings of the study of a hidden state."""

    num_components: int = setting(16, "directions of each method", low=1, high=1024)
    num_seeds: int = setting(5, "further fits, for the stability", low=1, high=100)
    seed: int = setting(0, "seed of every random choice", low=0)

    def rng(self, name: str) -> np.random.Generator:
        """A named random stream."""
        return np.random.default_rng(stream_seed(self.seed, name))

    def draws(self, episode: np.ndarray) -> list[np.ndarray]:
        """Rows of as many training episodes as there are, drawn with replacement, once for each further fit."""
        episodes = np.split(np.arange(len(episode)), np.flatnonzero(np.diff(episode)) + 1)
        num, rngs = len(episodes), [self.rng(f"episodes {k}") for k in range(1, self.num_seeds + 1)]
        return [np.concatenate([episodes[k] for k in rng.integers(num, size=num)]) for rng in rngs]


def study_blocks(
    rows: Mapping[str, Rows], blocks: Mapping[str, slice], settings: StudySettings, folder: Path
) -> dict[str, Part]:
    """Study the blocks that have no file in a folder yet; returns the results of all blocks."""
    properties = known_properties(rows)
    paths = {block: folder / f"{block}.npz" for block in blocks}
    missing = [block for block, path in paths.items() if not path.exists()]
    num_fits = len(METHODS) * (1 + settings.num_seeds) + len(properties)
    with tqdm(total=len(missing) * num_fits, unit="fit", dynamic_ncols=True) as bar:
        for block in missing:
            bar.set_description(block)
            write_part(paths[block], study_block(rows, properties, block, blocks[block], settings, bar.update))
    return {block: read_part(path, blocks[block].stop - blocks[block].start) for block, path in paths.items()}


def study_block(
    rows: Mapping[str, Rows],
    properties: Mapping[str, list[int]],
    name: str,
    columns: slice,
    settings: StudySettings,
    progress: Callable[[], object],
) -> dict[str, np.ndarray]:
    """Fit every method on the hidden state of a block, and probe it: arrays by name.

    `units`, `duals` (K, D), `methods` and `names` (K,): all directions, the ones of probes last; "<method> explained",
    "converged", "stability", "chance"; "probe stability"; "<property> classes", "accuracy", "shuffled", "singles",
    "best", "best accuracy".
    """
    x = {split: part.hidden[:, columns].astype(np.float64) for split, part in rows.items()}
    draws = settings.draws(rows["train"].episode)
    part: dict[str, Any] = {}
    units, duals, names = [], [], []
    for method in METHODS:
        fit, measures = _fit_method(method, name, x, rows["test"].episode, draws, settings, progress)
        part |= {f"{method} {key}": value for key, value in measures.items()}
        units.append(fit.units)
        duals.append(fit.duals)
        names += [f"{method}.{k}" for k in range(len(fit.units))]
    num_fitted = len(names)
    rngs = {label: settings.rng(f"probe of {name} {label}") for label in properties}
    data = {label: probe_data(rows, x, label, classes, rngs[label]) for label, classes in properties.items()}
    stability = [np.empty(0)]
    for label, of_label in data.items():
        probe = fit_probe(of_label, of_label.labels, rngs[label])
        control = fit_probe(of_label, of_label.control, rngs[label])
        directions = class_directions(of_label, probe.rows)
        part |= {f"{label} classes": of_label.classes, f"{label} accuracy": probe.accuracy}
        part[f"{label} shuffled"] = control.accuracy
        units.append(directions.units)
        duals.append(directions.duals)
        names += _class_names(label, of_label.classes, directions.classes)
        stability.append(class_stability(of_label, directions, draws))
    methods = [name.partition(".")[0] for name in names]
    part |= {f"{PROBE} stability": np.concatenate(stability), "methods": methods, "names": names}
    part |= {"units": np.concatenate(units), "duals": np.concatenate(duals)}
    for label, of_label in data.items():
        scores = score_directions(of_label, part["duals"], num_fitted, rngs[label])
        part |= {f"{label} {key}": value for key, value in scores.items()}
        progress()
    return {key: np.asarray(value) for key, value in part.items()}


def _class_names(label: str, classes: Sequence[int], chosen: np.ndarray) -> list[str]:
    """Names of class directions; of two classes, there is one direction."""
    if len(classes) == 2:
        return [f"{PROBE}.{label}" for _ in chosen]
    return [f"{PROBE}.{label}:{classes[k]}" for k in chosen]


def _fit_method(
    method: str,
    block: str,
    x: Mapping[str, np.ndarray],
    test_episode: np.ndarray,
    draws: Sequence[np.ndarray],
    settings: StudySettings,
    progress: Callable[[], object],
) -> tuple[Fit, dict]:
    """A method's directions, and how good they are: again from other seeds, on episodes drawn with replacement."""
    train = x["train"]
    num = min(settings.num_components, train.shape[1])
    fits = []
    for k, rows in enumerate([slice(None), *draws]):
        fits.append(METHODS[method](train[rows], num, stream_seed(settings.seed, f"{block} {method} {k}")))
        progress()
    fit = fits[0]
    return fit, {
        "explained": variance_explained(fit, train.mean(0), x["test"], test_episode),
        "converged": [one.has_converged for one in fits],
        "stability": np.mean([matched_cosines(fit.units, other.units) for other in fits[1:]], axis=0),
        "chance": _chance(fit.units, settings.rng(f"chance of {block} {method}")),
    }


def variance_explained(fit: Fit, mean: np.ndarray, x: np.ndarray, episode: np.ndarray) -> Interval:
    """1 - squared error of the reconstruction of x (M, D) / squared distance of x from the training mean (D,).

    With its 95 % interval from a bootstrap over episodes.
    """
    errors = np.square(x - fit.reconstruct(x)).sum(1), np.square(x - mean).sum(1)
    sums = np.stack([np.bincount(episode, values) for values in errors], 1)
    return bootstrap_interval(sums, lambda sums: 1 - sums[..., 0] / sums[..., 1])


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


def join_parts(parts: Mapping[str, Part], blocks: Mapping[str, slice], train: Rows, digest: str) -> Directions:
    """The directions of all studied blocks as one set; blocks: of the hidden state; digest: of the policy's file."""
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


def write_part(path: Path, part: Part) -> None:
    """Write the result of `study_block`."""
    write_atomic(path, lambda file: np.savez_compressed(file, allow_pickle=False, **part))


def read_part(path: Path, width: int) -> dict[str, np.ndarray]:
    """Read what `write_part` wrote of a block of so many units."""
    way_out = "remove it, and it is made again"
    part = read_npz(path, way_out=way_out)
    with reading(path, "study of a block", way_out):
        check_arrays(part, _forms(part, width))
        num_directions = len(part["names"])
        if sum(len(part[f"{method} stability"]) for method in (*METHODS, PROBE)) != num_directions:
            raise InputError("it has no stability for each direction")
        if not all(0 <= best < num_directions for name, best in part.items() if name.endswith(" best")):
            raise InputError("it has no direction that is the best")
    return part


def _forms(part: Part, width: int) -> dict[str, tuple[str, str]]:
    """The forms of the arrays of a part, for `check_arrays`; its properties are those that have classes."""
    vectors, texts = (f"K {width}", "float"), ("K", "text")
    forms = {"units": vectors, "duals": vectors, "names": texts, "methods": texts}
    forms[f"{PROBE} stability"] = ("P", "float or nan")
    for method in METHODS:
        forms |= {f"{method} explained": ("3", "float or nan"), f"{method} converged": ("F", "bool")}
        forms |= {f"{method} stability": (method, "float or nan"), f"{method} chance": ("", "float or nan")}
    for k, name in enumerate(key.removesuffix(" classes") for key in part if key.endswith(" classes")):
        forms |= {f"{name} {key}": ("3", "float or nan") for key in ("accuracy", "shuffled", "best accuracy")}
        forms |= {f"{name} classes": (f"C{k}", "int"), f"{name} best": ("", "int"), f"{name} singles": ("K 2", "float")}
    return forms
