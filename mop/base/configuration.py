"""One run's settings: config.yaml -> flags -> a checked dictionary of plain values.

config.yaml holds the defaults and, as comments, the help texts; this module holds what each key accepts.
"""

import argparse
import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mop.base.errors import InputError

MAX_INTEGER = 2**63 - 1  # what tables and JSON can hold

DEFAULTS_FILE = Path(__file__).parents[2] / "config.yaml"

# names used by earlier guides for the same settings
ALIASES = {
    "mop_layers": "expert_hidden_sizes",
    "mop_intermediate_dim": "intermediate_dim",
    "mop_router_dim": "router_hidden_size",
}

# what a config means that was written before the key was there
BEFORE = {
    "obs_encoding": "raw", "residual": False, "expert_gain": 1.0, "expert_dropout": 0.0, "expert_dropout_below": 0.1,
    "teacher_mix": 0.0, "replay": 0, "replay_size": 1, "lr_decay": False,
}  # fmt: skip

# settings of the machine and the moment, not of the experiment: they may differ when a run is resumed
RUNTIME_KEYS = (
    "num_workers",
    "num_updates",
    "log_interval",
    "checkpoint_interval",
    "checkpoint_dir",
    "resume",
    "overwrite",
    "device",
    "wandb_project",
)


def text(value: Any) -> str:
    """A non-empty string."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    return value.strip()


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def choice(*allowed: str) -> Callable[[Any], str]:
    """A parser of one of some words."""

    def parse(value: Any) -> str:
        if value not in allowed:
            raise ValueError(f"must be {' or '.join(allowed)}")
        return value

    return parse


def integer(low: int, high: int | None = None) -> Callable[[Any], int]:
    """A parser of integers within [low, high]."""

    def parse(value: Any) -> int:
        try:
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise ValueError
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("must be an integer") from None
        if number < low or (high is not None and number > high):
            raise ValueError(f"must be {low}" if low == high else f"must be {bounds(low, high)}")
        return number

    return parse


def number(low: float, above: bool = False, high: float = math.inf) -> Callable[[Any], float]:
    """A parser of finite numbers from `low` (`above`: greater than it) to `high`; `1e-4`, text to YAML, is a number."""

    def parse(value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise ValueError
            result = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("must be a number") from None
        if not math.isfinite(result) or result < low or (above and result == low) or result > high:
            limit = f" and <= {high:g}" if high < math.inf else ""
            raise ValueError(f"must be a finite number {'>' if above else '>='} {low:g}{limit}")
        return result

    return parse


def bounds(low: int, high: int | None) -> str:
    """The range [low, high] in words."""
    return f"at least {low}" if high is None else f"from {low} to {high}"


def optional(parse: Callable) -> Callable:
    """`parse`, or null ("null" or "none" on the command line)."""
    return lambda value: (
        None if value is None or (isinstance(value, str) and value.lower() in ("null", "none")) else parse(value)
    )


def expert_sizes(value: Any) -> list[list[int]]:
    """Layers of expert sizes: [[0, 16], [0, 32]], a flat list for one layer, "0,16;0,32" or ["0,16", "0,32"]."""
    form = 'must be layers of expert sizes such as "[[0,16,32],[0,64]]" or "0,16,32;0,64"'
    try:
        if isinstance(value, str):
            is_literal = value.strip().startswith("[")
            value = ast.literal_eval(value) if is_literal else value.strip().strip(";").split(";")
        if value and not any(isinstance(layer, (list, tuple, str)) for layer in value):
            value = [value]
        layers = [layer.split(",") if isinstance(layer, str) else layer for layer in value]
        sizes = [[integer(0, 65536)(size) for size in layer] for layer in layers]
    except (ValueError, SyntaxError, TypeError):
        raise ValueError(form) from None
    if not sizes or not all(sizes):
        raise ValueError(form + ", with at least one expert in each layer")
    return sizes


FIELDS: dict[str, Callable[[Any], Any]] = {
    "task_id": text,
    "trial": integer(0, MAX_INTEGER),
    "seed": optional(integer(0, MAX_INTEGER)),
    "max_steps": optional(integer(1, MAX_INTEGER)),
    "num_updates": integer(1, MAX_INTEGER),
    "num_envs": integer(1, 65536),
    "num_workers": integer(0, 1024),
    "unroll_len": integer(1),
    "lr": number(0, above=True),
    "lr_decay": flag,
    "teacher_mix": number(0, high=1),
    "replay": integer(0, MAX_INTEGER),
    "replay_size": integer(1, MAX_INTEGER),
    "grad_clip": number(0),
    "input_dim": integer(152, 152),
    "num_actions": integer(7, 7),
    "intermediate_dim": integer(1),
    "expert_hidden_sizes": expert_sizes,
    "router_hidden_size": integer(1),
    "residual": flag,
    "expert_gain": number(0, above=True),
    "expert_dropout": number(0, high=1),
    "expert_dropout_below": number(0, above=True, high=1),
    "obs_encoding": choice("raw", "one_hot"),
    "gru_hidden_size": integer(1),
    "lang_encoder": text,
    "lang_dim": integer(1),
    "train_lang_proj": flag,
    "lpc_alpha": number(0),
    "normalize_lpc": flag,
    "lpc_eps": number(0, above=True),
    "lpc_detach": flag,
    "log_interval": integer(1),
    "checkpoint_interval": integer(0),
    "checkpoint_dir": text,
    "resume": flag,
    "overwrite": flag,
    "device": text,
    "wandb_project": optional(text),
}


def check_values(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Known keys with parsed values, aliases resolved. Raises InputError naming source, key and what it accepts."""
    checked = {}
    for key, value in values.items():
        name = ALIASES.get(key, key)
        if name not in FIELDS:
            raise InputError(f"{source}: unknown key {key!r}; the keys are those of config.yaml")
        if name in checked:
            raise InputError(f"{source}: {key!r} gives {name!r} a second time; keep one of them")
        try:
            checked[name] = FIELDS[name](value)
        except ValueError as error:
            raise InputError(f"{source}: {key} {error}, not {value!r}") from None
    return checked


def read_config(path: str | Path) -> dict[str, Any]:
    """The checked values of a YAML file. Raises InputError for a file that is missing or no mapping of known keys."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} must hold `key: value` lines like those of config.yaml")
    return check_values(values, str(path))


def help_texts(path: Path = DEFAULTS_FILE) -> dict[str, str]:
    """The comment behind each key of a config file."""
    line = re.compile(r"^(\w+):.*?\s# (.*)$", re.MULTILINE)
    return dict(line.findall(path.read_text(encoding="utf-8")))


class Parser(argparse.ArgumentParser):
    """Reports bad usage as an InputError, so that every script answers with one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def check_flags(arguments: argparse.Namespace, **parsers: Callable[[Any], Any]) -> None:
    """Parse the named attributes in place. Raises InputError naming the flag."""
    for name, parse in parsers.items():
        value = getattr(arguments, name)
        try:
            setattr(arguments, name, parse(value))
        except ValueError as error:
            raise InputError(f"--{name} {error}, not {value!r}") from None


def check_recorded(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The config of a checkpoint, made here or elsewhere, with the values of our own keys checked and others kept.

    Raises InputError naming source and key.
    """
    own = {key: value for key, value in config.items() if key in FIELDS and value is not None}
    policy = config.get("policy", "mop")
    if policy not in ("mop", "gru"):
        raise InputError(f"{source}: policy must be mop or gru, not {policy!r}")
    return {key: value for key, value in config.items() if value is not None} | check_values(own, source)


def parser_for_training(description: str) -> Parser:
    """Every key of config.yaml as a flag, with its comment as help."""
    parser = Parser(description=description)
    parser.add_argument("--config", metavar="YAML", help="file with keys that differ from config.yaml")
    defaults, helps = read_config(DEFAULTS_FILE), help_texts()
    names = {name: alias for alias, name in ALIASES.items()}
    for key, parse in FIELDS.items():
        options = [f"--{key}"] + ([f"--{names[key]}"] if key in names else [])
        what = f"{helps[key]} (default: {'null' if defaults[key] is None else defaults[key]})".replace("%", "%%")
        switch = {"nargs": "?", "const": "true", "metavar": "true|false"} if parse is flag else {"metavar": "VALUE"}
        parser.add_argument(*options, dest=key, default=argparse.SUPPRESS, help=what, **switch)
    return parser


def parse_config(description: str, argv: Sequence[str] | None = None) -> tuple[dict[str, Any], set[str]]:
    """The run's config from config.yaml, --config and flags, later ones winning; and the keys given by the user.

    Raises InputError for an unknown key or flag, a wrong type, or an impossible value.
    """
    flags = vars(parser_for_training(description).parse_args(argv))
    config = read_config(DEFAULTS_FILE)
    path = flags.pop("config")
    given = read_config(path) if path is not None else {}
    given |= check_values(flags, "command line")
    return config | given, set(given)
