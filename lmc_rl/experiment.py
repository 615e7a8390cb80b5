"""One experiment: a run, its forks, their children, the paths between these, and what was lost on them.

Each stage is a list of pieces of work. A piece that has its result is left out, so an experiment that was cut off goes
on where it was; pieces are done here, or in several processes, with the same results.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson

from lmc_rl import walks
from lmc_rl.forking import LockStep, child_of
from lmc_rl.learners.mujoco import Body
from lmc_rl.learners.rl import Learner
from lmc_rl.paths import alphas
from lmc_rl.policies import common_config, load_policy
from lmc_rl.probes import measure
from lmc_rl.records import CONFIG_NAME, ROWS_NAME, Places, Walk, load_settings, read_rows
from lmc_rl.settings import RUNTIME_KEYS, fork_steps
from lmc_rl.stages import Workers, at_work, latest, new_name, versions_of
from lmc_rl.trainings import Training, plan, train_stages, walks_between
from lmc_rl.walks import Stretch, cut_to_whole, rows_of, stretches
from mop.artifacts.checkpoints import load_training_state, save_training_state
from mop.common.files import check_writable, write_json
from mop.common.seeding import stream_seed
from mop.training.devices import choose_device
from mop.training.loop import drive

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "stable-baselines3")


# --- training -------------------------------------------------------------------------------------------------------


class Parent(Learner):
    """A learner that leaves a snapshot of itself at each fork; apart from that it learns as one without forks."""

    def __init__(self, settings: dict, device, places: Places):
        super().__init__(settings, device)
        self._snapshots = {step: places.snapshot(k) for k, step in enumerate(fork_steps(settings))}

    def after_update(self) -> None:
        super().after_update()
        if self.env_steps in self._snapshots:
            save_training_state(self._snapshots[self.env_steps], self.state())


class RLTraining(Training):
    """A run of reinforcement learning to be trained."""

    @property
    def has_curve(self) -> bool:
        return self.fork is None

    def make(self) -> Learner | LockStep:
        device = choose_device(self.settings["device"])
        if self.kind == "parent":
            return Parent(self.settings, device, self.places)
        if self.kind == "independent":
            return Learner(self.settings | {"seed": stream_seed(self.settings["seed"], "independent run")}, device)
        snapshot = load_training_state(self.places.snapshot(self.fork))
        step = fork_steps(self.settings)[self.fork]
        if self.settings["fork_buffer_strategy"] == "shared":
            return LockStep(self.settings, snapshot, step, device)
        return child_of(self.settings, snapshot, step, (self.child or 1) - 1, device)

    def drive(self, run: Learner | LockStep, saved: dict | None, on_save: Callable[[], object]) -> None:
        every, total_steps = self.settings["train_freq"], self.settings["total_steps"]
        interval = max(1, (self.settings["eval_freq"] or total_steps // 100) // every)
        drive(
            run, self.folder, total_steps // every, self.label, log_interval=interval, saved=saved,
            checkpoint_on_interrupt=False, on_save=on_save,
        )  # fmt: skip

    def report(self, run: Learner | LockStep) -> str:
        return f"return {run.summary()['eval_return']:.1f} after {run.env_steps:,} steps"


def trainings(settings: dict, places: Places) -> tuple[list[RLTraining], list[RLTraining]]:
    """`trainings.plan` of an experiment."""
    return plan(RLTraining, settings, places, settings["fork_buffer_strategy"] == "shared")


# --- paths ----------------------------------------------------------------------------------------------------------


def walks_of_experiment(settings: dict, places: Places) -> list[Walk]:
    """The random policy, the controls, and a path for each fork and pair of children."""
    return [Walk("random"), *walks_between(settings, places)]


@dataclass(frozen=True)
class Probe:
    """The measures of a path besides its return."""

    walk: Walk
    path: Path
    alpha_points: int

    def run(self) -> None:
        """Take them, and write them."""
        first, second = load_policy(self.walk.first), load_policy(self.walk.second)
        config = common_config(first, second)
        measures = measure(config, first.weights, second.weights, alphas(self.alpha_points))
        write_json(self.path, self.walk.identity | measures, orjson.OPT_INDENT_2)


# --- all of it ------------------------------------------------------------------------------------------------------


def run(settings: dict, given: set[str]) -> Path:
    """Do what is missing of an experiment; the folder of its results.

    settings: of `settings.settle`; given: the names of those that the user gave. Raises InputError; KeyboardInterrupt
    after a signal, when what is being trained is saved.
    """
    Body(settings["env"], settings["max_episode_steps"])  # raises where there is no such environment, ...
    choose_device(settings["device"])  # ... or device: before anything is written
    check_writable(Path(settings["output_dir"]) / "results", "--output_dir")
    settings, places = _begin_or_continue(settings, given)
    with at_work(places, settings["jobs"], lambda: recorded(settings)) as workers:
        train_stages(trainings(settings, places), workers)
        walk_all(settings, places, workers)
    return places.results


def recorded(settings: dict) -> dict:
    """What config.json holds: the settings of the experiment, and the versions that it was made with."""
    return {"settings": _lasting(settings), "versions": versions_of(PACKAGES)}


def _lasting(settings: dict) -> dict:
    """The settings of the experiment, without those of the machine and the moment."""
    return {name: value for name, value in settings.items() if name not in RUNTIME_KEYS}


def _begin_or_continue(settings: dict, given: set[str]) -> tuple[dict, Places]:
    """The settings with a seed, and the places of a new experiment or, with `resume`, of the latest such one."""
    kind = Path(settings["experiment_name"], settings["env"], settings["algo"])
    root, own = Path(settings["output_dir"]) / "results" / kind, _lasting(settings)

    def is_same(folder: Path) -> bool:
        old = load_settings(folder) if (folder / CONFIG_NAME).exists() else {}
        return bool(old) and own | ({} if "seed" in given else {"seed": old["seed"]}) == old

    name = latest(root, "seed_*", is_same) if settings["resume"] else None
    if name is not None:
        return settings | load_settings(root / name), Places.of(settings["output_dir"], kind / name)
    if settings["seed"] is None:
        settings = settings | {"seed": int.from_bytes(os.urandom(4), "little") % 1_000_000 + 1}
    return settings, Places.of(settings["output_dir"], kind / new_name(root, settings["seed"]))


def is_finished(results: Path) -> bool:
    """Whether an experiment has walked along all of its paths. Raises InputError where it is damaged."""
    settings, places = load_settings(results), Places.of_results(results)
    paths = walks_of_experiment(settings, places)
    num_rows = sum(stretch.num_rows for stretch in _stretches(settings, paths))
    is_measured = all(places.probe(walk).exists() for walk in paths if walk.kind != "random")
    return is_measured and len(read_rows(results / ROWS_NAME)) == num_rows


def _stretches(settings: dict, paths: list[Walk]) -> list[Stretch]:
    names = ("env", "max_episode_steps", "alpha_points", "num_eval_episodes")
    return list(stretches(paths, *(settings[name] for name in names)))


def walk_all(settings: dict, places: Places, workers: Workers, on_save: Callable[[], object] = lambda: None) -> None:
    """Walk along all paths, or go on with it: first their returns, row by row, then the other measures.

    on_save: called when more rows are on the disk.
    """
    paths = walks_of_experiment(settings, places)
    planned = _stretches(settings, paths)
    rows_path = places.results / ROWS_NAME
    missing = planned[cut_to_whole(rows_path, planned) :]
    if missing:
        with rows_path.open("ab") as file:
            results = workers.in_order(walks.play, missing, "walking along paths")
            for stretch, played in zip(missing, results, strict=True):
                file.write(rows_of(stretch, played, places.results.name))
                file.flush()
                os.fsync(file.fileno())
                on_save()
    probes = [Probe(walk, places.probe(walk), settings["alpha_points"]) for walk in paths if walk.kind != "random"]
    waiting = [probe for probe in probes if not probe.path.exists()]
    for _ in workers.in_order(Probe.run, waiting, "measuring paths"):
        pass
