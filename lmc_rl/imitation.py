"""One experiment on imitation runs: a run, its forks, their children, and what is lost on the lines between these.

The counterpart of `experiment` for pathways policies, with the same stages and folders; `lines` measures. A piece of
work that has its result is left out, so an experiment that was cut off goes on where it was.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmc_rl.imitation_settings import fork_updates, lasting, load_settings
from lmc_rl.line_records import TRAJECTORIES_NAME, read_records
from lmc_rl.lines import Line, lines_of, write_rows
from lmc_rl.pathways import parts_of
from lmc_rl.records import Places, Walk
from lmc_rl.stages import at_work, latest, new_name, versions_of
from lmc_rl.trainings import Training, plan, train_stages, walks_between
from mop.artifacts.checkpoints import load_training_state, save_training_state
from mop.common.configuration import check_recorded
from mop.common.files import check_writable
from mop.common.seeding import stream_seed
from mop.envs.babyai import check_task_id, check_teachable
from mop.envs.missions import load_encoder
from mop.training.devices import choose_device, use_device
from mop.training.imitation import ImitationRun
from mop.training.loop import STATE_NAME, drive
from mop.training.states import check_state

PACKAGES = ("torch", "numpy", "numba", "scipy", "minigrid")
_cached_encoder = functools.lru_cache(load_encoder)


# --- training -------------------------------------------------------------------------------------------------------


class Parent(ImitationRun):
    """A run that leaves a snapshot of itself at each fork; apart from that it learns as one without forks."""

    def __init__(self, snapshots: Mapping[int, Path], *args):
        super().__init__(*args)
        self._snapshots = snapshots

    def step_update(self) -> dict[str, float]:
        if self.update in self._snapshots:
            save_training_state(self._snapshots[self.update], self.state())
        return super().step_update()


class ImitationTraining(Training):
    """An imitation run to be trained."""

    @property
    def has_curve(self) -> bool:
        return self.kind == "parent"

    def make(self) -> ImitationRun:
        config = run_config(self.settings)
        encoder, device = _cached_encoder(config["lang_encoder"]), choose_device(config["device"])
        if self.kind == "parent":
            snapshots = {update: self.places.snapshot(k) for k, update in enumerate(fork_updates(self.settings))}
            return Parent(snapshots, config, encoder, device)
        if self.kind == "independent":
            run = ImitationRun(config | {"seed": stream_seed(config["seed"], "independent run")}, encoder, device)
            if not config["train_lang_proj"]:  # it is no weight then, but a part of what a policy sees
                parent = ImitationRun(config, encoder, device)
                run.lang_proj.load_state_dict(parent.lang_proj.state_dict())
                parent.close()
            return run
        update, run = fork_updates(self.settings)[self.fork], ImitationRun(config, encoder, device)
        if update > 0:  # at 0 its weights are the parent's, and no world of the parent's has begun
            run.load_state(load_training_state(self.places.snapshot(self.fork)))
        run.draw_from(stream_seed(config["seed"], f"fork at update {update}, child {self.child or 1}"))
        return run

    def drive(self, run: ImitationRun, saved: dict | None, on_save: Callable[[], object]) -> None:
        config = self.settings["run"]
        if saved is not None:
            check_state(saved, run, str(self.folder / STATE_NAME))
        drive(
            run, self.folder, config["num_updates"], self.label, log_interval=config["log_interval"],
            checkpoint_interval=config["checkpoint_interval"], saved=saved, checkpoint_on_interrupt=False,
            on_save=on_save,
        )  # fmt: skip

    def report(self, run: ImitationRun) -> str:
        return f"{run.update} updates, {run.summary()['episodes']:,} episodes"


def run_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config that the runs of an experiment are made with, which their checkpoints carry.

    All its texts are new ones: a pickle tells two equal texts from one that stands in two places, so that a checkpoint
    would have other bytes where an optimiser that was restored, or another process, has texts of its own.
    """
    return json.loads(json.dumps(settings["run"] | {"checkpoint_dir": "model_weights", "wandb_project": None}))


# --- all of it ------------------------------------------------------------------------------------------------------


def run(settings: dict, given: set[str]) -> Path:
    """Do what is missing of an experiment; the folder of its results.

    settings: of `imitation_settings.settle`; given: the names of those that the user gave. Raises InputError;
    KeyboardInterrupt after a signal, when what is being trained is saved.
    """
    check_task_id(settings["run"]["task_id"])
    check_writable(Path(settings["output_dir"]) / "results", "--output_dir")
    use_device(settings["run"]["device"])
    encoder = _cached_encoder(settings["run"]["lang_encoder"])
    settings = settings | {"run": settings["run"] | {"lang_encoder": encoder.name}}
    places, config = _places_of(settings), settings["run"]
    with at_work(places, settings["jobs"], lambda: recorded(settings)) as workers:
        train_stages(plan(ImitationTraining, settings, places), workers)
        walks = walks_between(settings, places)
        write_rows(all_lines(walks, settings, places.weights), config, settings, places.results, workers)
    return places.results


def is_finished(results: Path) -> bool:
    """Whether an experiment has measured all of its lines. Raises InputError where it is damaged."""
    settings, places = load_settings(results), Places.of_results(results)
    if not (results / TRAJECTORIES_NAME).exists():
        return False
    found = read_records(results, settings["alpha_points"]).lines
    planned = all_lines(walks_between(settings, places), settings, places.weights)
    return all(line.key in found and (found[line.key].success is not None) >= line.is_played for line in planned)


def all_lines(walks: Sequence[Walk], settings: Mapping[str, Any], folder: Path) -> list[Line]:
    """The lines of all walks: of each part, and to the aligned second end, which is written to the folder."""
    parts, played = (parts_of(settings["run"], settings[name]) for name in ("parts", "played_parts"))
    return [line for walk in walks for line in lines_of(walk, parts, played, settings["align"], folder)]


def recorded(settings: Mapping[str, Any]) -> dict:
    """What config.json holds: the settings of the experiment, and the versions that it was made with.

    Raises InputError where the bot cannot teach the task.
    """
    check_teachable(*(settings["run"][name] for name in ("task_id", "seed", "max_steps")))
    return {"imitation": lasting(settings), "versions": versions_of(PACKAGES)}


def _places_of(settings: Mapping[str, Any]) -> Places:
    """The places of a new experiment or, with `resume`, of the latest such one."""
    kind = Path(settings["experiment_name"], settings["run"]["task_id"], "mop")
    root, seed = Path(settings["output_dir"]) / "results" / kind, settings["run"]["seed"]
    own = lasting(settings | {"run": check_recorded(settings["run"], "run")})

    def is_same(folder: Path) -> bool:
        old = load_settings(folder)
        return old is not None and lasting(old) == own

    name = latest(root, f"seed_{seed}_*", is_same) if settings["resume"] else None
    return Places.of(settings["output_dir"], kind / (name or new_name(root, seed)))
