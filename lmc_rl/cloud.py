"""The jobs of `modal_app.py::lmc`, without Modal: which there are, what each makes and needs, what each does.

An experiment in the cloud is that of `lmc_rl.run_env` in pieces: the parent and the independent run, then each child,
then the paths of each parent, then all parents together. A piece is left out where what it makes is on the volume. The
folder of an experiment is named by its seed and a digest of its settings, so the same command finds it again, and
another one has a folder of its own. No file is written by two jobs.
"""

import hashlib
import shlex
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from lmc_rl.analysis.report import write_report, write_summaries
from lmc_rl.analysis.results import ExperimentPaths, load_experiment
from lmc_rl.config import CONFIG_NAME, RLConfig, resolve_rl
from lmc_rl.experiment import Training, measure_all, pairs_of, plan_trainings, recorded
from lmc_rl.learners.mujoco import Body
from lmc_rl.learners.rl import RLLearner
from lmc_rl.workers import Workers
from mop.cloud.cloud_jobs import LMC_DIR, Job, Result, parse_list
from mop.common.cli import parser_of
from mop.common.errors import InputError
from mop.common.files import write_json
from mop.training.devices import choose_device

OWN_FLAGS = {"env", "algo", "seed", "fork_points", "output_dir", "jobs", "resume"}  # of every experiment in the cloud
TABLE = "fork_analysis/instability.md"  # written last
COMMIT_S = 60.0  # between two times that rows of episodes are put on the volume


@dataclass(frozen=True)
class Piece:
    """A job with the files that it makes and those that it needs, relative to the volume."""

    job: Job
    makes: tuple[str, ...]
    needs: tuple[str, ...]

    def is_done(self, files: Collection[str]) -> bool:
        """Whether the volume holds what it makes."""
        return set(self.makes) <= set(files)

    def lacks(self, files: Collection[str]) -> list[str]:
        """What it needs and the volume does not hold."""
        return [name for name in self.needs if name not in files]


class Plan(NamedTuple):
    """The pieces of some experiments, by stage; those of a stage can be done side by side."""

    parents: list[Piece]
    children: list[Piece]
    paths: list[Piece]
    analysis: list[Piece]


# --- planning -------------------------------------------------------------------------------------------------------


def plan(env: str, algo: str, seeds: str, fork_points: str, extra_args: str) -> Plan:
    """The pieces of an experiment for each seed of a list such as "1,2,3".

    fork_points: such as "0.1,0.5", "" for the defaults; extra_args: other flags of `python -m lmc_rl.run_env`. Raises
    InputError where something of it is wrong.
    """
    flags = _parse_extra_args(extra_args) | {"env": env, "algo": algo}
    flags |= {"fork_points": fork_points} if fork_points else {}
    config = flags.pop("config", None)
    found = Plan([], [], [], [])
    for seed in parse_list("seeds", seeds, _seed):
        settings = resolve_rl(flags | {"seed": seed, "output_dir": LMC_DIR}, config)
        if not found.parents:
            Body(settings.env, settings.max_episode_steps)  # raises where there is no such environment
        _add(found, settings)
    folders = [piece.job.arguments[0].paths.results for piece in found.paths]
    if len(folders) > 1:
        whole = folders[0].parent.joinpath(f"all_{_digest([str(folder) for folder in folders])}")
        label = f"all seeds of {_on_volume(folders[0].parent)}"
        needs = tuple(_on_volume(folder / TABLE) for folder in folders)
        found.analysis.append(Piece(Job(label, (folders, whole)), (_on_volume(whole / "instability.md"),), needs))
    return found


def _seed(text: str) -> int:
    if not text.isdigit():
        raise ValueError("must be a number of at least 0")
    return int(text)


def _parse_extra_args(extra_args: str) -> dict:
    try:
        flags = vars(parser_of(RLConfig, "", "YAML").parse_args(shlex.split(extra_args)))
    except (InputError, ValueError) as error:
        raise InputError(f"--extra-args: {error}; its flags are those of `python -m lmc_rl.run_env --help`") from None
    taken = sorted(OWN_FLAGS & flags.keys())
    if taken:
        raise InputError(
            f"--extra-args: {taken[0]} is not free in the cloud: --env, --algo, --seeds and "
            "--fork-points name the experiments, and one goes on where it stopped"
        )
    return flags


def _add(found: Plan, config: RLConfig) -> None:
    """Add the pieces of one experiment."""
    folder = f"seed_{config.seed}_{_digest(config.recorded())}"
    name = config.folder / folder
    learner = RLLearner(config, ExperimentPaths.of(LMC_DIR, name))
    first, later = plan_trainings(learner)
    for training in first:
        snapshots = list(learner.snapshots.values())
        made = [*training.targets, *(snapshots if training.kind == "parent" else [])]
        found.parents.append(_piece(f"{name} {training.label}", (training,), made, []))
    for training in later:
        needs = [learner.paths.weights / "final.pt", learner.paths.snapshot(training.fork)]
        found.children.append(_piece(f"{name} {training.label}", (training,), training.targets, needs))
    ends = [path for pair in pairs_of(learner) for path in (pair.first, pair.second)]
    if ends:
        found.paths.append(_piece(f"{name} paths", (learner,), [learner.paths.results / TABLE], ends))


def _piece(label: str, arguments: tuple, makes: Sequence[Path], needs: Sequence[Path]) -> Piece:
    return Piece(Job(label, arguments), tuple(map(_on_volume, makes)), tuple(dict.fromkeys(map(_on_volume, needs))))


def _on_volume(path: Path) -> str:
    return Path(path).relative_to(LMC_DIR).as_posix()


def _digest(value) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


# --- in containers --------------------------------------------------------------------------------------------------


def train(training: Training, on_save: Callable[[], object]) -> Result:
    """Train one run, or go on with it from its last state; `on_save` is called when its files are worth keeping."""
    learner = training.learner
    label = _label(learner.paths, training.label)
    try:
        if training.kind == "parent":
            write_json(learner.paths.results / CONFIG_NAME, recorded(learner), orjson.OPT_INDENT_2)
        training.train(on_save)
    except InputError as error:
        return Result(label, error=str(error))
    return Result(label, tuple(map(_on_volume, training.targets)))


def walk(learner: RLLearner, on_save: Callable[[], object]) -> Result:
    """Measure all lines of an experiment, or go on with it; then its summaries and figures."""
    saved_at, results = time.monotonic(), learner.paths.results

    def save_now_and_then() -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at > COMMIT_S:
            on_save()
            saved_at = time.monotonic()

    try:
        choose_device("cpu")
        with Workers(1) as workers:
            measure_all(learner, pairs_of(learner), workers, save_now_and_then)
        experiment = load_experiment(results)
        write_summaries(experiment)
        write_report([experiment], results / "fork_analysis")
    except InputError as error:
        return Result(_label(learner.paths, "paths"), error=str(error))
    return Result(_label(learner.paths, "paths"), (_on_volume(results / TABLE),))


def analyze(folders: Sequence[Path], out: Path) -> Result:
    """Draw several parents together."""
    label = f"all seeds of {_on_volume(folders[0].parent)}"
    try:
        write_report([load_experiment(folder) for folder in folders], out)
    except InputError as error:
        return Result(label, error=str(error))
    return Result(label, (_on_volume(out / "instability.md"),))


def _label(paths: ExperimentPaths, what: str) -> str:
    return f"{_on_volume(paths.results).removeprefix('results/')} {what}"
