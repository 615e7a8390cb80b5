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

from lmc_rl import run_env
from lmc_rl.analysis import load_experiment
from lmc_rl.experiment import RLTraining, recorded, trainings, walk_all, walks_of_experiment
from lmc_rl.learners.mujoco import Body
from lmc_rl.records import CONFIG_NAME, Places
from lmc_rl.reports import report
from lmc_rl.settings import RUNTIME_KEYS, settle
from lmc_rl.stages import Workers
from mop.cloud.cloud_jobs import LMC_DIR, Job, Result, parse_list
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
        settings, _ = settle(flags | {"seed": seed, "output_dir": LMC_DIR}, config)
        if not found.parents:
            Body(settings["env"], settings["max_episode_steps"])  # raises where there is no such environment
        _add(found, settings)
    folders = [piece.job.arguments[1].results for piece in found.paths]
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
        flags = vars(run_env.parser().parse_args(shlex.split(extra_args)))
    except (InputError, ValueError) as error:
        raise InputError(f"--extra-args: {error}; its flags are those of `python -m lmc_rl.run_env --help`") from None
    taken = sorted(OWN_FLAGS & flags.keys())
    if taken:
        raise InputError(
            f"--extra-args: {taken[0]} is not free in the cloud: --env, --algo, --seeds and "
            "--fork-points name the experiments, and one goes on where it stopped"
        )
    return flags


def _add(found: Plan, settings: dict) -> None:
    """Add the pieces of one experiment."""
    kept = {name: value for name, value in settings.items() if name not in RUNTIME_KEYS}
    folder = f"seed_{settings['seed']}_{_digest(kept)}"
    name = Path(settings["experiment_name"], settings["env"], settings["algo"], folder)
    places = Places.of(LMC_DIR, name)
    first, later = trainings(settings, places)
    for training in first:
        snapshots = [places.snapshot(fork) for fork in range(len(settings["fork_points"]))]
        made = [*training.targets, *(snapshots if training.kind == "parent" else [])]
        found.parents.append(_piece(f"{name} {training.label}", (training,), made, []))
    for training in later:
        needs = [places.weights / "final.pt", places.snapshot(training.fork)]
        found.children.append(_piece(f"{name} {training.label}", (training,), training.targets, needs))
    ends = [path for walk in walks_of_experiment(settings, places) for path in (walk.first, walk.second) if path]
    if ends:
        found.paths.append(_piece(f"{name} paths", (settings, places), [places.results / TABLE], ends))


def _piece(label: str, arguments: tuple, makes: Sequence[Path], needs: Sequence[Path]) -> Piece:
    return Piece(Job(label, arguments), tuple(map(_on_volume, makes)), tuple(dict.fromkeys(map(_on_volume, needs))))


def _on_volume(path: Path) -> str:
    return Path(path).relative_to(LMC_DIR).as_posix()


def _digest(value) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]


# --- in containers --------------------------------------------------------------------------------------------------


def train(training: RLTraining, on_save: Callable[[], object]) -> Result:
    """Train one run, or go on with it from its last state; `on_save` is called when its files are worth keeping."""
    label = _label(training.places, training.label)
    try:
        if training.kind == "parent":
            write_json(training.places.results / CONFIG_NAME, recorded(training.settings), orjson.OPT_INDENT_2)
        training.train(on_save)
    except InputError as error:
        return Result(label, error=str(error))
    return Result(label, tuple(map(_on_volume, training.targets)))


def walk(settings: dict, places: Places, on_save: Callable[[], object]) -> Result:
    """Walk along all paths of an experiment, or go on with it; then its summaries and figures."""
    saved_at = time.monotonic()

    def save_now_and_then() -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at > COMMIT_S:
            on_save()
            saved_at = time.monotonic()

    try:
        choose_device("cpu")
        with Workers(1) as workers:
            walk_all(settings, places, workers, save_now_and_then)
        experiment = load_experiment(places.results)
        experiment.write()
        report([experiment], places.results / "fork_analysis")
    except InputError as error:
        return Result(_label(places, "paths"), error=str(error))
    return Result(_label(places, "paths"), (_on_volume(places.results / TABLE),))


def analyze(folders: Sequence[Path], out: Path) -> Result:
    """Draw and tell several parents together."""
    label = f"all seeds of {_on_volume(folders[0].parent)}"
    try:
        report([load_experiment(folder) for folder in folders], out)
    except InputError as error:
        return Result(label, error=str(error))
    return Result(label, (_on_volume(out / "instability.md"),))


def _label(places: Places, what: str) -> str:
    return f"{_on_volume(places.results).removeprefix('results/')} {what}"
