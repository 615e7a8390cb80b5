"""One experiment on imitation runs: a run, its forks, their children, and what is lost on the lines between these.

The counterpart of `experiment` for pathways policies, with the same stages and folders; `measures` has what is measured
of a line. A piece of work that has its result is left out, so an experiment that was cut off goes on where it was.
"""

import argparse
import functools
import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

from lmc_rl.experiment import Workers
from lmc_rl.lines import Line, lines_of, write_rows
from lmc_rl.pathways import PARTS, parts_of
from lmc_rl.records import CONFIG_NAME, Places, Walk
from lmc_rl.settings import CONFIGS, CONTROLS, fractions, words_of
from lmc_rl.trainings import Training, plan, train_stages, walks_between
from mop.base.configuration import (
    DEFAULTS_FILE,
    MAX_EPISODES,
    Field,
    Parser,
    check_recorded,
    flag,
    integer,
    number,
    parser_for_training,
    read_config,
    read_yaml,
    shown,
    text,
)
from mop.base.configuration import RUNTIME_KEYS as RUNTIME_KEYS_OF_RUNS
from mop.base.configuration import check_values as check_run_values
from mop.base.errors import InputError
from mop.base.files import check_writable, claimed, write_json
from mop.base.streams import stream_seed
from mop.kernels.devices import choose_device, use_device
from mop.learning.imitation import ImitationRun
from mop.learning.loop import STATE_NAME, drive
from mop.learning.states import check_state
from mop.store.checkpoints import load_training_state, save_training_state
from mop.worlds.missions import load_encoder
from mop.worlds.world import check_task_id, check_teachable

DEFAULTS = CONFIGS / "default_mop.yaml"
PACKAGES = ("torch", "numpy", "numba", "scipy", "minigrid")
FIELDS = {
    "fork_points": Field(functools.partial(fractions, with_zero=True)),
    "children": Field(integer(2, 64)),
    "alpha_points": Field(integer(3, 1001)),
    "parts": Field(words_of(*PARTS)),
    "played_parts": Field(words_of(*PARTS)),
    "align": Field(flag),
    "num_trajectories": Field(integer(2, MAX_EPISODES)),
    "num_eval_episodes": Field(integer(2, MAX_EPISODES)),
    "tolerance": Field(number(0, above=True, high=1)),
    "controls": Field(words_of(*CONTROLS)),
    "experiment_name": Field(text),
    "output_dir": Field(text, is_runtime=True),
    "jobs": Field(integer(1, 1024), is_runtime=True),
}
RUNTIME_KEYS = tuple(name for name, field in FIELDS.items() if field.is_runtime)
OF_OTHER_SCRIPTS = {  # flags of train_mop.py that have no use here, and what to do
    "checkpoint_dir": "files go below --output_dir",
    "overwrite": "each experiment has a folder of its own",
    "wandb_project": "the log of each run is in training/",
}
_cached_encoder = functools.lru_cache(load_encoder)


# --- settings -------------------------------------------------------------------------------------------------------


def check_values(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Settings of the experiment parsed. Raises InputError naming the source, the key and what it accepts."""
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = FIELDS[name].parse(value)
        except ValueError as error:
            raise InputError(f"{source}: {name} {error}, not {shown(value)}") from None
    return checked


def parser(description: str) -> Parser:
    """Every flag of train_mop.py, and those of the experiment."""
    parser = parser_for_training(description)
    parser.prog = "python -m lmc_rl.run_mop"
    add_flags(parser, FIELDS)
    return parser


def add_flags(parser: Parser, names: Iterable[str]) -> None:
    """Settings of the experiment as flags, with their defaults and comments as help."""
    defaults = read_yaml(DEFAULTS)
    lines = re.findall(r"^(\w+):.*?\s# (.*)$", DEFAULTS.read_text(encoding="utf-8"), re.MULTILINE)
    for name, meaning in lines:
        if name in names:
            what = f"{meaning} (default: {defaults[name]})".replace("%", "%%")
            parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=what, metavar="VALUE")


def settle(flags: Mapping[str, Any], config_path: str | None = None) -> tuple[dict[str, Any], set[str]]:
    """The settings of defaults, --config and flags, later ones winning; and the names of those that were given.

    The flags of train_mop.py are under `run`, without those of the machine. Raises InputError for what cannot be.
    """
    from_file = read_yaml(config_path) if config_path is not None else {}
    run, settings, given = read_config(DEFAULTS_FILE), check_values(read_yaml(DEFAULTS), DEFAULTS.name), set()
    for values, source in ((from_file, str(config_path)), (flags, "command line")):
        own = check_values({name: value for name, value in values.items() if name in FIELDS}, source)
        others = check_run_values({name: value for name, value in values.items() if name not in FIELDS}, source)
        for name in others.keys() & OF_OTHER_SCRIPTS.keys():
            raise InputError(f"{source}: {name} is of train_mop.py alone, {OF_OTHER_SCRIPTS[name]}; leave it out")
        settings, run, given = settings | own, run | others, given | own.keys() | others.keys()
    settings |= {"resume": run.pop("resume"), "run": run | {"policy": "mop"}}
    for name in OF_OTHER_SCRIPTS:
        del run[name]
    settings["run"] |= {"seed": run["trial"] if run["seed"] is None else run["seed"]}
    check_together(settings)
    return settings, given


def check_together(settings: dict[str, Any]) -> None:
    """Raises InputError where settings that are each possible cannot be together."""
    name = settings["experiment_name"]
    if name in (".", "..") or re.search(r"[\\/]", name):
        raise InputError(f"--experiment_name must be the name of a folder, not {shown(name)}")
    check_task_id(settings["run"]["task_id"])
    if "all" not in settings["parts"]:
        raise InputError("--parts must have all: the barrier is that of all weights together")
    if missing := [part for part in settings["played_parts"] if part not in settings["parts"]]:
        raise InputError(f"--played_parts has {missing[0]}, which --parts lacks")
    updates = fork_updates(settings)
    for point, update in zip(settings["fork_points"], updates, strict=True):
        if updates.count(update) > 1 or (update == 0 and point > 0):
            num = settings["run"]["num_updates"]
            raise InputError(
                f"--fork_points: {point:g} is update {update} of {num}, where another fork or the start is"
            )


def fork_updates(settings: Mapping[str, Any]) -> list[int]:
    """How many updates are done at each fork."""
    return [int(point * settings["run"]["num_updates"] + 1e-9) for point in settings["fork_points"]]


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

    settings: of `settle`; given: the names of those that the user gave. Raises InputError; KeyboardInterrupt after a
    signal, when what is being trained is saved.
    """
    check_writable(Path(settings["output_dir"]) / "results", "--output_dir")
    use_device(settings["run"]["device"])
    encoder = _cached_encoder(settings["run"]["lang_encoder"])
    settings = settings | {"run": settings["run"] | {"lang_encoder": encoder.name}}
    settings, places = _begin_or_continue(settings)
    config = settings["run"]
    with claimed(places.results) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {places.results}; wait for it, or take another --seed")
        if not (places.results / CONFIG_NAME).exists():
            check_teachable(config["task_id"], config["seed"], config["max_steps"])
            write_json(places.results / CONFIG_NAME, recorded(settings), orjson.OPT_INDENT_2)
        print(f"experiment {places.results}")
        try:
            with Workers(settings["jobs"]) as workers:
                train_stages(plan(ImitationTraining, settings, places), workers)
                walks = walks_between(settings, places)
                write_rows(all_lines(walks, settings, places.weights), config, settings, places.results, workers)
        except KeyboardInterrupt:
            print("interrupted: all is saved; the same command with --resume goes on")
            raise
    return places.results


def all_lines(walks: Sequence[Walk], settings: Mapping[str, Any], folder: Path) -> list[Line]:
    """The lines of all walks: of each part, and to the aligned second end, which is written to the folder."""
    parts, played = (parts_of(settings["run"], settings[name]) for name in ("parts", "played_parts"))
    return [line for walk in walks for line in lines_of(walk, parts, played, settings["align"], folder)]


def recorded(settings: Mapping[str, Any]) -> dict:
    """What config.json holds: the settings of the experiment, and the versions that it was made with."""
    versions = {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}
    return {"imitation": _lasting(settings), "versions": versions}


def _lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the experiment, without those of the machine and the moment."""
    kept = {name: value for name, value in settings.items() if name not in (*RUNTIME_KEYS, "resume")}
    drop = set(RUNTIME_KEYS_OF_RUNS) - {"num_updates"}
    return kept | {"run": {name: value for name, value in settings["run"].items() if name not in drop}}


def load_settings(results: Path) -> dict | None:
    """The settings of an experiment on imitation runs; None where the folder is of anything else.

    Raises InputError where they are damaged.
    """
    path = Path(results) / CONFIG_NAME
    try:
        settings = orjson.loads(path.read_bytes())["imitation"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    is_whole = isinstance(settings, dict) and settings.keys() == {*FIELDS} - {*RUNTIME_KEYS} | {"run"}
    if (
        not is_whole
        or not isinstance(settings["run"], dict)
        or not {"task_id", "num_updates"} <= settings["run"].keys()
    ):
        raise InputError(f"{path} is damaged: it lacks settings of lmc_rl.run_mop")
    own = check_values({name: value for name, value in settings.items() if name != "run"}, str(path))
    return own | {"run": check_recorded(settings["run"], str(path))}


def _begin_or_continue(settings: dict) -> tuple[dict, Places]:
    """The settings and places of a new experiment or, with `resume`, of the latest such one."""
    kind = Path(settings["experiment_name"], settings["run"]["task_id"], "mop")
    root, seed = Path(settings["output_dir"]) / "results" / kind, settings["run"]["seed"]
    if settings["resume"]:
        for folder in sorted(root.glob(f"seed_{seed}_*"), reverse=True):
            old = load_settings(folder)
            if old is not None and _lasting(old) == _lasting(
                settings | {"run": check_recorded(settings["run"], "run")}
            ):
                return settings, Places.of(settings["output_dir"], kind / folder.name)
        print(f"nothing to resume in {root}: beginning a new experiment")
    name = f"seed_{seed}_{datetime.now():%Y%m%d_%H%M%S}"
    if (root / name).exists():
        raise InputError(f"{root / name} was begun in this second; try again")
    return settings, Places.of(settings["output_dir"], kind / name)
