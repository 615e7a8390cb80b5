"""The settings of an experiment: YAML defaults -> a file of the user -> flags -> a checked dictionary."""

import argparse
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mop.common.configuration import (
    FORMS,
    Field,
    Parser,
    choice,
    flag,
    folder_name,
    integer,
    number,
    optional,
    read_yaml,
    shown,
    text,
)
from mop.common.errors import InputError

CONFIGS = Path(__file__).parent / "configs"
EXPERIMENT_DEFAULTS = CONFIGS / "experiment_default.yaml"
ALGORITHM_DEFAULTS = {"SAC": CONFIGS / "default_sac.yaml", "DDPG": CONFIGS / "default_ddpg.yaml"}

ENVIRONMENTS = {  # those that the documents name, by how hard they are
    "easy": ("InvertedDoublePendulum-v5", "Hopper-v5", "Swimmer-v5", "Reacher-v5"),
    "medium": ("HalfCheetah-v5", "Pusher-v5"),
    "hard": ("HumanoidStandup-v5", "Humanoid-v5"),
}
STRATEGIES = ("copy", "fresh", "shared", "split", "frozen")
NOISES = ("exploration", "replay", "environment")
CONTROLS = ("self", "independent")
MAX_ALPHAS = 1001
MIN_EPISODES = 5  # at each place of a path: fewer give no interval that holds


def words_of(*allowed: str) -> Callable[[Any], list[str]]:
    """A parser of some of these words with commas between them, or "none", into a list in the order of `allowed`."""

    def parse(value: Any) -> list[str]:
        words = value.replace(" ", "").split(",") if isinstance(value, str) else value
        words = [] if words in (None, ["none"]) else words
        if not isinstance(words, list) or not set(map(str, words)) <= set(allowed) or len(set(words)) < len(words):
            raise ValueError(f"must be some of {', '.join(allowed)} with commas between them, or none")
        return [word for word in allowed if word in words]

    return parse


def fractions(value: Any, with_zero: bool = False) -> list[float]:
    """Increasing fractions between 0 and 1, "0.1,0.5" or a list; "none" is no fraction. 1 is not included.

    with_zero: whether 0 is.
    """
    limits = "from 0 to 1, 1 not included" if with_zero else "between 0 and 1, neither included"
    form = f"must be fractions {limits}, such as 0.1,0.5"
    if isinstance(value, str):
        value = [] if value.strip().lower() == "none" else value.strip().strip(",").split(",")
    try:
        given = [number(0)(item) for item in ([value] if isinstance(value, float) else value or [])]
    except (ValueError, TypeError):
        raise ValueError(form) from None
    if not all(0 < point < 1 or (with_zero and point == 0) for point in given):
        raise ValueError(form)
    if given != sorted(set(given)):
        raise ValueError("must increase, each fraction once")
    return given


def hidden_sizes(value: Any) -> list[int]:
    """Sizes of hidden layers, [256, 256] or "256,256"."""
    sizes = value.strip("[] ").split(",") if isinstance(value, str) else value
    try:
        sizes = [integer(1, 65536)(size) for size in sizes]
    except (ValueError, TypeError):
        raise ValueError("must be sizes of hidden layers such as 256,256") from None
    if not 1 <= len(sizes) <= 16:
        raise ValueError("must be from 1 to 16 sizes")
    return sizes


def entropy_coefficient(value: Any) -> float | str:
    """A number of at least 0, or "auto"."""
    return value if value == "auto" else number(0)(value)


FIELDS = {
    "env": Field(folder_name),
    "algo": Field(choice("SAC", "DDPG")),
    "seed": Field(optional(integer(0))),
    "total_steps": Field(integer(1)),
    "max_episode_steps": Field(integer(1)),
    "train_freq": Field(integer(1)),
    "learning_starts": Field(integer(1)),
    "buffer_size": Field(integer(1)),
    "eval_freq": Field(integer(0)),
    "eval_episodes": Field(integer(1, 10_000)),
    "fork_points": Field(fractions),
    "fork_buffer_strategy": Field(choice(*STRATEGIES)),
    "children": Field(integer(2, 64)),
    "split_noise": Field(words_of(*NOISES)),
    "perturb": Field(number(0)),
    "alpha_points": Field(integer(3, MAX_ALPHAS)),
    "num_eval_episodes": Field(integer(2, 100_000)),
    "tolerance": Field(number(0, above=True, high=1)),
    "controls": Field(words_of(*CONTROLS)),
    "experiment_name": Field(folder_name),
    "output_dir": Field(text, is_runtime=True),
    "jobs": Field(integer(1, 1024), is_runtime=True),
    "resume": Field(flag, is_runtime=True),
    "device": Field(text, is_runtime=True),
    "batch_size": Field(integer(1)),
    "learning_rate": Field(number(0, above=True)),
    "gamma": Field(number(0, high=1)),
    "tau": Field(number(0, above=True, high=1)),
    "hidden_sizes": Field(hidden_sizes),
    "ent_coef": Field(entropy_coefficient),
    "noise_std": Field(number(0)),
}
RUNTIME_KEYS = tuple(name for name, field in FIELDS.items() if field.is_runtime)


def check_values(values: Mapping[str, Any], source: str, fields: Mapping[str, Field] = FIELDS) -> dict[str, Any]:
    """The values parsed. Raises InputError naming the source, the key and what it accepts."""
    checked = {}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"{source}: unknown key {shown(name)}; the keys are those of lmc_rl/configs")
        try:
            checked[name] = fields[name].parse(value)
        except ValueError as error:
            raise InputError(f"{source}: {name} {error}, not {shown(value)}") from None
    return checked


def defaults(algo: str | None = None) -> dict[str, Any]:
    """The checked defaults of an experiment, with those of an algorithm if one is named."""
    files = [EXPERIMENT_DEFAULTS] + ([ALGORITHM_DEFAULTS[algo]] if algo else [])
    return {name: value for path in files for name, value in check_values(read_yaml(path), path.name).items()}


def meanings() -> dict[str, str]:
    """What each setting means: the comment behind it in its YAML file."""
    texts = [path.read_text(encoding="utf-8") for path in (EXPERIMENT_DEFAULTS, *ALGORITHM_DEFAULTS.values())]
    found = [re.findall(r"^(\w+):.*?\s# (.*)$", content, re.MULTILINE) for content in texts]
    return {name: meaning for pairs in reversed(found) for name, meaning in pairs}


def add_flags(parser: Parser, names: Sequence[str] = tuple(FIELDS)) -> None:
    """The named settings as flags, with their defaults and comments as help."""
    helps, general = meanings(), read_yaml(EXPERIMENT_DEFAULTS)
    of_algorithms = {algo: read_yaml(path) for algo, path in ALGORITHM_DEFAULTS.items()}
    for name in names:
        found = {algo: values[name] for algo, values in of_algorithms.items() if name in values}
        default = general[name] if name in general else "; ".join(f"{algo}: {value}" for algo, value in found.items())
        default = "null" if default is None else default
        what = f"{helps[name]} (default: {default})".replace("%", "%%")
        form = FORMS.get(FIELDS[name].parse, {"metavar": "VALUE"})
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help=what, **form)


def settle(flags: dict[str, Any], config_path: str | None = None) -> tuple[dict[str, Any], set[str]]:
    """The settings of defaults, --config and flags, later ones winning; and the names of those that were given.

    Raises InputError for what cannot be, alone or together.
    """
    given = check_values(read_yaml(config_path), config_path) if config_path is not None else {}
    given |= check_values(flags, "command line")
    algo = given.get("algo", defaults()["algo"])
    settings = defaults(algo)
    foreign = sorted(given.keys() - settings.keys())
    if foreign:
        raise InputError(f"{algo} has no {' and no '.join(foreign)}; leave it out, or choose another --algo")
    settings |= given
    beyond = settings["total_steps"] % settings["train_freq"]
    if beyond:
        settings["total_steps"] -= beyond
        told = f"{settings['total_steps']}, for the {settings['train_freq']} of --train_freq"
        print(f"--total_steps is rounded down to {told}")
    if settings["perturb"] > 0:
        if given.get("split_noise"):
            raise InputError("with --perturb children share all noise; leave --split_noise out, or set it to none")
        settings["split_noise"] = []
    check_together(settings)
    return settings, set(given)


def check_together(settings: dict[str, Any]) -> None:
    """Raises InputError where settings that are each possible cannot be together."""
    total, every = settings["total_steps"], settings["train_freq"]
    if total <= settings["learning_starts"]:
        raise InputError(f"--total_steps must be more than the {settings['learning_starts']} of --learning_starts")
    if settings["buffer_size"] < settings["learning_starts"]:
        raise InputError("--buffer_size holds fewer transitions than --learning_starts waits for; enlarge it")
    if settings["eval_freq"] % every:
        raise InputError(f"--eval_freq must be a multiple of the {every} of --train_freq, not {settings['eval_freq']}")
    check_episodes(settings, "num_eval_episodes")
    steps = fork_steps(settings)
    for point, step in zip(settings["fork_points"], steps, strict=True):
        problem = fork_problem(settings, step)
        if step == 0 or steps.count(step) > 1:
            problem = f"is step {step} of {total}, where no fork is or another one is already"
        if problem:
            raise InputError(f"--fork_points: {point:g} {problem}")


def check_episodes(settings: Mapping[str, Any], *names: str) -> None:
    """Raises InputError where a path would be walked with too few episodes; names: of the settings that count them."""
    is_walked = bool(settings["fork_points"] or settings["controls"])
    for name in names:
        if is_walked and settings[name] < MIN_EPISODES:
            raise InputError(f"--{name} must be at least {MIN_EPISODES} for an interval, not {settings[name]}")


def fork_steps(settings: dict[str, Any]) -> list[int]:
    """The environment step of each fork: the fraction of the run, down to a multiple of `train_freq`."""
    every = settings["train_freq"]
    exact = [point * settings["total_steps"] for point in settings["fork_points"]]
    return [math.floor(step / every + 1e-9) * every for step in exact]


def fork_problem(settings: dict[str, Any], step: int) -> str | None:
    """Why children of a fork at this step would learn nothing; None where they learn."""
    left, wait = settings["total_steps"] - step, settings["learning_starts"]
    known = min(step, settings["buffer_size"])
    strategy = settings["fork_buffer_strategy"]
    if strategy == "fresh" and left <= wait:
        return f"leaves {left} steps, and a fresh buffer needs {wait} before anything is learned (--learning_starts)"
    if strategy == "split" and known // settings["children"] + left <= wait:
        return f"leaves each child too few transitions to learn from (--learning_starts {wait})"
    return None
