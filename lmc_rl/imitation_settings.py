"""The settings of an experiment on imitation runs: those of the run as `train_mop.py` has them, and its own.

YAML defaults -> a file of the user -> flags -> a checked dictionary. Without PyTorch, so that a page can read them.
"""

import argparse
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from lmc_rl.records import CONFIG_NAME
from lmc_rl.settings import CONFIGS, CONTROLS, check_episodes, check_values, folder_name, fractions, words_of
from mop.common.configuration import (
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
    text,
)
from mop.common.configuration import RUNTIME_KEYS as RUNTIME_KEYS_OF_RUNS
from mop.common.configuration import check_values as check_run_values
from mop.common.errors import InputError

DEFAULTS = CONFIGS / "default_mop.yaml"
PARTS = ("all", "routers", "experts", "ends", "layers")  # what moves along a line; layers: each alone
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
    "experiment_name": Field(folder_name),
    "output_dir": Field(text, is_runtime=True),
    "jobs": Field(integer(1, 1024), is_runtime=True),
}
RUNTIME_KEYS = tuple(name for name, field in FIELDS.items() if field.is_runtime)
OF_OTHER_SCRIPTS = {  # flags of train_mop.py that have no use here, and what to do
    "tasks": "an experiment is on one task",
    "name": "an experiment is on one task",
    "checkpoint_dir": "files go below --output_dir",
    "overwrite": "each experiment has a folder of its own",
    "wandb_project": "the log of each run is in training/",
}


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
    run, settings, given = read_config(DEFAULTS_FILE), check_values(read_yaml(DEFAULTS), DEFAULTS.name, FIELDS), set()
    for values, source in ((from_file, str(config_path)), (flags, "command line")):
        own = check_values({name: value for name, value in values.items() if name in FIELDS}, source, FIELDS)
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
    if "all" not in settings["parts"]:
        raise InputError("--parts must have all: the barrier is that of all weights together")
    if missing := [part for part in settings["played_parts"] if part not in settings["parts"]]:
        raise InputError(f"--played_parts has {missing[0]}, which --parts lacks")
    check_episodes(settings, "num_trajectories", "num_eval_episodes")
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


def lasting(settings: Mapping[str, Any]) -> dict[str, Any]:
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
    own = check_values({name: value for name, value in settings.items() if name != "run"}, str(path), FIELDS)
    return own | {"run": check_recorded(settings["run"], str(path))}
