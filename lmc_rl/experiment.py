"""One experiment: a run, its forks, their children, and what is measured on the lines between these.

Each stage is a list of pieces of work. A piece that has its result is left out, so an experiment that was cut off goes
on where it was; pieces are done here, or in several processes, with the same results.
"""

import dataclasses
import os
import platform
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from itertools import combinations
from operator import methodcaller
from pathlib import Path
from typing import Any

import orjson

from lmc_rl.analysis.results import ExperimentPaths, read_measures
from lmc_rl.analysis.table import Kept, LineKey, rows_file, rows_of_pieces
from lmc_rl.config import CONFIG_NAME, ExperimentConfig, RLConfig, load_config
from lmc_rl.learners.base import Learner, Line, WorkItem
from lmc_rl.workers import Workers
from mop.artifacts.checkpoints import load_training_state, save_checkpoint
from mop.artifacts.sums import SUMS, check_sum, has_sums, read_sums, write_summed, write_sums
from mop.common.errors import InputError
from mop.common.files import check_writable, only_process, remove_leftovers, write_json
from mop.plotting.style import counted
from mop.training.loop import FINAL_NAME, STATE_NAME, Trainable


def learner_class(config: ExperimentConfig) -> type[Learner]:
    """The kind of learner of an experiment; what the other kind needs is not loaded."""
    if isinstance(config, RLConfig):
        from lmc_rl.learners.rl import RLLearner

        return RLLearner
    from lmc_rl.learners.imitation import ImitationLearner

    return ImitationLearner


def run(config: ExperimentConfig) -> Path:
    """Do what is missing of an experiment; the folder of its results.

    Raises KeyboardInterrupt after a signal, when what is being trained is saved.
    """
    kind = learner_class(config)
    config = kind.prepare(config)
    check_writable(Path(config.output_dir) / "results", "--output_dir")
    config, paths = begin_or_resume(config)
    learner = kind(config, paths)
    with _at_work(learner) as workers:
        first, later = plan_trainings(learner)
        print(_announcement(learner, [*first, *later]))
        train_all(first, workers)
        train_all(lost_snapshots(later), workers)
        train_all(later, workers)
        measure_all(learner, pairs_of(learner), workers)
    return paths.results


def _announcement(learner: Learner, trainings: Sequence["Training"]) -> str:
    """How much there is to do, in words."""
    work = learner.work([line for pair in pairs_of(learner) for line in learner.lines(pair)])
    num_rows = sum(len(item.places()) for items in work.values() for item in items)
    targets = [path for training in trainings for path in training.targets]
    missing = sum(not path.exists() for path in targets)
    pairs = f"{counted(len(pairs_of(learner)), 'pair')} of policies, {num_rows:,} episodes on the lines between them"
    return f"{counted(len(targets), 'run')} of {learner.config.size} ({missing} to train), {pairs}"


# --- its folder -------------------------------------------------------------------------------------------------------


def begin_or_resume(config: ExperimentConfig) -> tuple[ExperimentConfig, ExperimentPaths]:
    """The settings with a seed, and the paths of a new experiment or, with `resume`, of the latest such one."""
    root = Path(config.output_dir) / "results" / config.folder
    old = _latest(root, config) if config.resume else None
    if config.seed is None:
        seed = int.from_bytes(os.urandom(4), "little") % 1_000_000 + 1
        config = dataclasses.replace(config, seed=load_config(old).drawn_seed if old else seed)
    name = old.name if old else f"seed_{config.seed}_{datetime.now():%Y%m%d_%H%M%S}"
    if old is None and (root / name).exists():
        raise InputError(f"{root / name} was begun in this second; try again")
    return config, ExperimentPaths.of(config.output_dir, config.folder / name)


def _latest(root: Path, config: ExperimentConfig) -> Path | None:
    """The latest experiment below a folder with the same settings.

    Stops at one that cannot be read: it may be the one, with hours of work in it.
    """
    for folder in sorted(root.glob("seed_*"), key=lambda folder: folder.name.split("_")[2:], reverse=True):
        of_this_seed = config.seed is None or folder.name.startswith(f"seed_{config.seed}_")
        if not of_this_seed or not any(folder.glob("[!.]*")):  # empty: killed before it had its settings
            continue
        try:
            if config.is_same(load_config(folder)):
                return folder
        except InputError as error:
            ways_out = f"put it back from a copy, or move {folder} away to begin anew"
            raise InputError(f"{error}. It may be the experiment to go on with: {ways_out}") from None
    print(f"nothing to resume in {root}: beginning a new experiment")
    return None


def recorded(learner: Learner) -> dict[str, Any]:
    """What config.json holds: the settings of the experiment, and the versions that it was made with."""
    versions = {name: version(name) for name in learner.PACKAGES} | {"python": platform.python_version()}
    return {learner.config.SECTION: learner.config.recorded(), "versions": versions}


@contextmanager
def _at_work(learner: Learner) -> Generator[Workers]:
    """The workers of an experiment whose folder no other process may use meanwhile."""
    results = learner.paths.results
    with only_process(results, "another --seed, or wait for it"):
        # of those killed before they had a folder: no later one has the same time in its name
        remove_leftovers(results.parent.glob(".seed_*.lock"))
        if not (results / CONFIG_NAME).exists():
            learner.check_teaching()
            write_json(results / CONFIG_NAME, recorded(learner), orjson.OPT_INDENT_2)
        print(f"experiment {results}")
        try:
            with Workers(learner.config.jobs) as workers:
                yield workers
        except KeyboardInterrupt:
            raise KeyboardInterrupt("all is saved; the same command with --resume goes on") from None


def is_finished(results: Path) -> bool:
    """Whether all that an experiment measures is there."""
    config, paths = load_config(results), ExperimentPaths.of_results(results)
    learner = learner_class(config)(config, paths)
    lines = [learner.lines(pair) for pair in pairs_of(learner)]
    work = learner.work([line for own in lines for line in own])
    is_measured = all(_is_measured(results, own) for own in lines)
    return is_measured and not any(_rows_on_disk(results / name, items).lacking for name, items in work.items())


# --- training ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """A run to be trained: the parent, an independent one, a child, or all children of a fork together.

    Or the parent once more, as far as a snapshot of it is lost.
    """

    learner: Learner
    kind: str  # parent, independent, child, children, self, snapshots
    fork: int | None = None
    child: int | None = None  # from 1 on

    @property
    def label(self) -> str:
        """Its name in what is printed, and of its folder."""
        return "_".join(str(part) for part in (self.kind, self.fork, self.child) if part is not None)

    @property
    def folder(self) -> Path:
        """Where its log is, and its state while it is trained."""
        return self.learner.paths.results / "training" / self.label

    @property
    def targets(self) -> list[Path]:
        """The files of its final weights."""
        paths = self.learner.paths
        if self.kind == "snapshots":
            return [paths.snapshot(self._fork)]
        names = {"parent": "final", "independent": "independent", "self": f"self_{self.fork}"}
        if self.kind in names:
            return [paths.weights / f"{names[self.kind]}.pt"]
        children = range(1, self.learner.config.children + 1) if self.child is None else [self.child]
        return [paths.child(self._fork, child) for child in children]

    @property
    def _fork(self) -> int:
        assert self.fork is not None, f"a {self.kind} has no fork"
        return self.fork

    @property
    def is_finished(self) -> bool:
        """Whether all of its weights are there."""
        return all(path.exists() for path in self.targets)

    @property
    def _kept(self) -> list[Path]:
        """The files that are there of what others need of it: its final weights, and the parent's snapshots."""
        forks = range(len(self.learner.config.fork_points)) if self.kind == "parent" else ()
        return [path for path in (*self.targets, *map(self.learner.paths.snapshot, forks)) if path.exists()]

    def check_kept(self) -> None:
        """Refuse weights and snapshots that are not those that were written; an older experiment cannot tell."""
        if has_sums(self.folder):
            sums = read_sums(self.folder)
            for path in self._kept:
                check_sum(path, sums, "put it back from a copy, or remove it: with --resume it is trained again")

    def make(self) -> Trainable:
        """The run at its beginning."""
        if self.kind == "parent":
            return self.learner.parent_of(range(len(self.learner.config.fork_points)))
        if self.kind == "snapshots":
            lost = [fork for fork in range(self._fork + 1) if not self.learner.paths.snapshot(fork).exists()]
            return self.learner.parent_of(lost, is_for_snapshots=True)
        if self.kind == "independent":
            return self.learner.independent()
        if self.kind == "children" or (self.kind == "self" and self.learner.trains_forks_together):
            return self.learner.fork_together(self._fork)
        return self.learner.fork(self._fork, self.child or 1)

    def train(self) -> None:
        """Train it to its end, from its last state if there is one; then only its weights and its log stay."""
        state_path = self.folder / STATE_NAME
        if not self.is_finished:
            remove_leftovers(self.folder.glob(".*.tmp"))
            run = self.make()
            try:
                if self.kind not in self.learner.DRAWN:
                    run.columns = dataclasses.replace(run.columns, plot=None)
                saved = load_training_state(state_path) if state_path.exists() else None
                with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
                    self.learner.train(run, self.folder, self.label, saved)
                if self.kind == "snapshots":
                    shutil.rmtree(self.folder)
                    parent = Training(self.learner, "parent")
                    write_sums(parent.folder, parent._kept)
                    return
                for path, own in zip(self.targets, getattr(run, "runs", [run]), strict=False):
                    save_checkpoint(path, own.checkpoint())
                (self.folder / SUMS).unlink(missing_ok=True)  # of weights that were removed
                print(f"{self.label}: {self.learner.report(run)}")
            finally:
                getattr(run, "close", lambda: None)()
        if not has_sums(self.folder):
            write_sums(self.folder, self._kept)
        state_path.unlink(missing_ok=True)
        (self.folder / FINAL_NAME).unlink(missing_ok=True)


def plan_trainings(learner: Learner) -> tuple[list[Training], list[Training]]:
    """The runs that depend on nothing, and those that need the snapshots of the parent."""
    config = learner.config
    first = [Training(learner, "parent")]
    if "independent" in config.controls:
        first.append(Training(learner, "independent"))
    forks, children = range(len(config.fork_points)), range(1, config.children + 1)
    if learner.trains_forks_together:
        later = [Training(learner, "children", fork) for fork in forks]
    else:
        later = [Training(learner, "child", fork, child) for fork in forks for child in children]
    if "self" in config.controls and config.fork_points:
        later.append(Training(learner, "self", len(config.fork_points) - 1))
    return first, later


def lost_snapshots(later: Sequence[Training]) -> list[Training]:
    """The training that makes again what trainings continue from and is not there."""
    forks = [training.fork for training in later if not training.is_finished and training.fork is not None]
    lost = [fork for fork in forks if later[0].learner.config.fork_steps[fork] > 0]
    lost = [fork for fork in lost if not later[0].learner.paths.snapshot(fork).exists()]
    return [Training(later[0].learner, "snapshots", max(lost))] if lost else []


def train_all(stage: Sequence[Training], workers: Workers) -> None:
    """Train what is not trained."""
    waiting = [training for training in stage if not training.is_finished]
    for training in stage:
        if training.is_finished:
            training.check_kept()
            training.train()  # removes what a kill has left
    workers.do(Training.train, waiting, "training")


# --- lines ------------------------------------------------------------------------------------------------------------


def pairs_of(learner: Learner) -> list[Line]:
    """The controls, and a line for each fork and two of its children."""
    config, paths = learner.config, learner.paths
    last, found = len(config.fork_points) - 1, []
    if "self" in config.controls and last >= 0:
        found.append(Line(LineKey("self", last), paths.child(last, 1), paths.weights / f"self_{last}.pt"))
    if "independent" in config.controls:
        ends = paths.weights / "final.pt", paths.weights / "independent.pt"
        found.append(Line(LineKey("independent"), *ends))
    for fork in range(last + 1):
        found += [
            Line(LineKey("fork", fork, (one, other)), paths.child(fork, one), paths.child(fork, other))
            for one, other in combinations(range(1, config.children + 1), 2)
        ]
    return found


def measure_all(learner: Learner, pairs: Sequence[Line], workers: Workers) -> None:
    """Measure what is missing of the lines between these policies: once for each pair, then each alpha and episode."""
    results = learner.paths.results
    lines = [learner.lines(pair) for pair in pairs]
    waiting = [(learner, own) for own in lines if not (_is_measured(results, own) and _is_aligned(own))]
    workers.do(_measure_pair, waiting, "measuring pairs of policies")
    for name, items in learner.work([line for own in lines for line in own]).items():
        _append_rows(results / name, items, workers)


def _measures_path(results: Path, lines: Sequence[Line]) -> Path:
    return results / "paths" / f"{lines[0].key.name_of_pair}.json"


def _is_measured(results: Path, lines: Sequence[Line]) -> bool:
    try:
        found = read_measures(_measures_path(results, lines))  # those of older experiments do not say whose they are
        return all(found.get(name, value) == value for name, value in lines[0].key.of_pair.items())
    except InputError:  # not there, or damaged
        return False


def _is_aligned(lines: Sequence[Line]) -> bool:
    return all(line.ends[1].exists() for line in lines if line.key.is_aligned)


def _measure_pair(work: tuple[Learner, Sequence[Line]]) -> None:
    learner, lines = work
    found = lines[0].key.of_pair | dict(learner.measures(lines))
    write_summed(_measures_path(learner.paths.results, lines), found)


def _append_rows(path: Path, items: Sequence[WorkItem], workers: Workers) -> None:
    """Add the rows of the items that the file lacks, and leave all rows in the order of the items."""
    lines, lacking = _rows_on_disk(path, items)
    rows_file(path).replace(lines)
    if not lacking:
        return
    missing = [items[number] for number in lacking]
    missing[0].prepare()
    for rows in workers.in_order(methodcaller("rows"), missing, path.stem):
        rows_file(path).append(*({"run": path.parent.name} | row for row in rows))
    if lines and lacking[0] < len(items) - len(lacking):  # some were made again before others
        rows_file(path).replace(_rows_on_disk(path, items).lines)


def _rows_on_disk(path: Path, items: Sequence[WorkItem]) -> Kept:
    return rows_of_pieces(path, [item.places() for item in items])
