"""One run's settings: config.yaml -> flags -> a checked dictionary of plain values, which its checkpoints carry.

`FIELDS` declares every key of such a config. Of the flags, config.yaml holds the defaults and, as comments, the
meanings; this module holds what each key accepts, and what its absence means in a file that is older than the key.
"""

import argparse
import ast
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from mop.common.errors import InputError
from mop.common.task_mix import is_task_id, name_of_list
from mop.common.values import (  # noqa: F401
    MAX_ENVS,
    MAX_EPISODES,
    MAX_INTEGER,
    choice,
    flag,
    folder_name,
    integer,
    is_plain,
    optional,
    or_word,
    share,
    shown,
    text,
    words,
)

MAX_NAME_BYTES = 200  # of a list of tasks: files beside its folder have longer names
MAX_LAYERS = MAX_EXPERTS = 256  # of a policy, of a layer: far more than a figure can show
_MAX_YAML_CHARACTERS, _MAX_YAML_DEPTH = 2**20, 20

DEFAULTS_FILE = Path(__file__).parents[2] / "config.yaml"

# names used by earlier guides for the same settings
ALIASES = {
    "mop_layers": "expert_hidden_sizes",
    "mop_intermediate_dim": "intermediate_dim",
    "mop_router_dim": "router_hidden_size",
}


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


def numbers(value: Any) -> list[float]:
    """A list of finite numbers."""
    try:
        if not isinstance(value, list | tuple):
            raise ValueError
        return [number(-math.inf)(item) for item in value]
    except ValueError:
        raise ValueError("must be a list of finite numbers") from None


def expert_sizes(value: Any) -> list[list[int]]:
    """Layers of expert sizes: [[0, 16], [0, 32]], a flat list for one layer, "0,16;0,32" or ["0,16", "0,32"]."""
    form = 'must be layers of expert sizes such as "[[0,16,32],[0,64]]" or "0,16,32;0,64"'
    try:
        if isinstance(value, str):
            is_literal = value.strip().startswith("[")
            value = ast.literal_eval(value.strip()) if is_literal else value.strip().strip(";").split(";")
        if isinstance(value, list | tuple) and value and not any(isinstance(x, list | tuple | str) for x in value):
            value = [value]
        layers = [layer.split(",") if isinstance(layer, str) else layer for layer in value]
        if not all(isinstance(layer, list | tuple) for layer in (value, *layers)):
            raise ValueError  # a mapping, a set: their order and repetitions say nothing
        sizes = [[integer(0, 65536)(size) for size in layer] for layer in layers]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: brackets without end
        raise ValueError(form) from None
    if not sizes or not all(sizes):
        raise ValueError(form + ", with at least one expert in each layer")
    if len(sizes) > MAX_LAYERS or max(map(len, sizes)) > MAX_EXPERTS:
        raise ValueError(f"{form}, with at most {MAX_LAYERS} layers of {MAX_EXPERTS} experts")
    return sizes


def task_weights(value: Any) -> list[list]:
    """Tasks with weights, [[task_id, weight], ...]: given so, as {task_id: weight}, or as [task_id, ...] of weight 1.

    Which ids there are is not known here.
    """
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list | tuple):
        pairs = [item if isinstance(item, list | tuple) else (item, 1.0) for item in value]
    else:
        pairs = []
    if not pairs or not all(len(pair) == 2 for pair in pairs):
        raise ValueError("must be tasks with weights, `task_id: weight` lines, or a list of tasks")
    tasks = []
    for task_id, weight in pairs:
        try:
            tasks.append([text(task_id), number(0, above=True, high=1e6)(weight)])
        except ValueError as error:
            raise ValueError(f"must be tasks with weights; of {shown(task_id)}, it {error}") from None
    task_ids = [task_id for task_id, _ in tasks]
    if twice := [task_id for task_id in task_ids if task_ids.count(task_id) > 1]:
        raise ValueError(f"must name each task once, and {twice[0]} is there {task_ids.count(twice[0])} times")
    return tasks


PAPER_EXPERT_DROPOUT = 0.8  # of the Mixture-of-Pathways paper (arXiv 2506.02813): 0.8 (1 - w / 0.1) where w < 0.1
UNKNOWN = object()  # no value can be assumed


@dataclass(frozen=True)
class Field:
    """A key that the config of a run may have.

    parse: checks a value of a flag, a file or a checkpoint and returns it in its proper type, or raises ValueError.
    before: what it means that a file lacks the key, because the file is older than the key or was made elsewhere.
    is_runtime: a setting of the machine and the moment, not of the experiment, so that it may differ in a resumed run.
    meaning: of a key that no user gives, because the program adds it. Flags have none here: theirs is in config.yaml.
    """

    parse: Callable[[Any], Any]
    before: Any = UNKNOWN
    is_runtime: bool = False
    meaning: str | None = None


FIELDS = {
    "task_id": Field(text),
    "tasks": Field(optional(task_weights), before=None),
    "name": Field(optional(folder_name)),  # no checkpoint has it: it is the `task_id` of several tasks
    "trial": Field(integer(0, MAX_INTEGER)),
    "seed": Field(optional(integer(0, MAX_INTEGER)), before=None),
    "max_steps": Field(optional(integer(1, MAX_INTEGER)), before=None),
    "num_updates": Field(integer(1, MAX_INTEGER), is_runtime=True),
    "num_envs": Field(integer(1, MAX_ENVS)),
    "num_workers": Field(integer(0, 1024), is_runtime=True),
    "unroll_len": Field(integer(1)),
    "lr": Field(number(0, above=True)),
    "lr_decay": Field(share, before=0.0),
    "teacher_mix": Field(number(0, high=1000), before=0.0),
    "replay": Field(integer(0, MAX_INTEGER), before=0),
    "replay_size": Field(integer(1, MAX_INTEGER), before=1),
    "grad_clip": Field(number(0)),
    "input_dim": Field(integer(152, 152)),
    "num_actions": Field(integer(7, 7)),
    "intermediate_dim": Field(integer(1)),
    "expert_hidden_sizes": Field(expert_sizes),
    "router_hidden_size": Field(integer(1)),
    "obs_encoding": Field(choice("raw", "one_hot"), before="raw"),
    "residual": Field(flag, before=False),
    "expert_gain": Field(number(0, above=True), before=1.0),
    "expert_dropout": Field(or_word(number(0, high=1), paper=PAPER_EXPERT_DROPOUT), before=0.0),
    "expert_dropout_below": Field(number(0, above=True, high=1), before=0.1),
    "gru_hidden_size": Field(integer(1)),
    "lang_encoder": Field(text),
    "lang_dim": Field(integer(1)),
    "train_lang_proj": Field(flag),
    "lpc_alpha": Field(number(0)),
    "normalize_lpc": Field(flag),
    "lpc_eps": Field(number(0, above=True)),
    "lpc_detach": Field(flag),
    "log_interval": Field(integer(1), is_runtime=True),
    "checkpoint_interval": Field(integer(0), is_runtime=True),
    "checkpoint_dir": Field(text, is_runtime=True),
    "resume": Field(flag, is_runtime=True),
    "overwrite": Field(flag, is_runtime=True),
    "device": Field(text, is_runtime=True),
    "wandb_project": Field(optional(text), before=None, is_runtime=True),
    "policy": Field(
        choice("mop", "gru"), before="mop", meaning="mop: mixture of pathways (train_mop.py); gru: baseline (train.py)"
    ),
    "scheduled_updates": Field(
        integer(1, MAX_INTEGER),
        meaning="num_updates when the run began: lr_decay and teacher_mix go by it, also where the run is continued",
    ),
    "encoder_dim": Field(integer(1), meaning="numbers of the encoder's embedding of a mission"),
    "encoder_fingerprint": Field(
        numbers, meaning="first numbers of the embedding of a fixed mission, to know the encoder again"
    ),
}
FLAGS = tuple(name for name, field in FIELDS.items() if field.meaning is None)
RUNTIME_KEYS = tuple(name for name, field in FIELDS.items() if field.is_runtime)
BEFORE = {name: field.before for name, field in FIELDS.items() if field.before is not UNKNOWN}


def check_values(values: Mapping[str, Any], source: str, allowed: Collection[str] = FLAGS) -> dict[str, Any]:
    """The values parsed, under the names of `allowed` keys, with aliases resolved.

    Raises InputError naming the source, the key and what it accepts.
    """
    checked = {}
    for key, value in values.items():
        name = ALIASES.get(key, key)
        if name not in allowed:
            raise InputError(f"{source}: unknown key {shown(key)}; the keys are those of config.yaml")
        if name in checked:
            raise InputError(f"{source}: {key!r} gives {name!r} a second time; keep one of them")
        try:
            checked[name] = FIELDS[name].parse(value)
        except ValueError as error:
            raise InputError(f"{source}: {key} {error}, not {shown(value)}") from None
    return checked


# --- configs of files -----------------------------------------------------------------------------------------------


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what the absence of its missing keys means; None is taken for absence.

    Keys of which nothing can be assumed stay absent. Keys that are not ours are kept.
    """
    known = {name: value for name, value in config.items() if value is not None}
    before = BEFORE | ({"scheduled_updates": known["num_updates"]} if "num_updates" in known else {})
    return known | {name: value for name, value in before.items() if name not in known}


def check_recorded(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The completed config of a checkpoint or state, made here or elsewhere, with the values of declared keys checked.

    The loaders of `mop.artifacts.checkpoints` call it, so that every config in memory is complete. Raises InputError
    naming the source, the key and what it accepts.
    """
    declared = {name: value for name, value in config.items() if name in FIELDS and value is not None}
    return complete({**config, **check_values(declared, source, FIELDS)})


def check_declared(config: Mapping[str, Any]) -> None:
    """Raises KeyError, as it is a bug, where a config that we are about to write has a key that FIELDS lacks."""
    undeclared = sorted(config.keys() - FIELDS.keys())
    if undeclared:
        raise KeyError(f"configuration.FIELDS does not declare {', '.join(undeclared)}")


# --- files and flags ------------------------------------------------------------------------------------------------


class _PlainYaml(yaml.SafeLoader):
    """YAML without what makes a small file large, or leaves open which value counts."""

    _depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"an alias (*{event.anchor}) is not accepted: write the value out")
        if self._depth >= _MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_MAX_YAML_DEPTH} levels deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):
            keys = [key.value for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), keys[-1])
            raise yaml.YAMLError(f"it gives {shown(twice)} twice; keep one of them")
        return mapping

    def construct_yaml_int(self, node):
        # 010 and 1:30 are 8 and 90 in YAML, which nobody means: they stay texts, and no integer
        return super().construct_yaml_int(node) if not re.search(r"^[+-]?0[0-9_]|:", node.value) else node.value


_PlainYaml.add_constructor("tag:yaml.org,2002:int", _PlainYaml.construct_yaml_int)


def read_config(path: str | Path) -> dict[str, Any]:
    """The checked values of a YAML file.

    Raises InputError for a file that is missing or no mapping of known keys, each once; aliases are not accepted.
    """
    return check_values(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file, as they are; {} of an empty one. Raises InputError as `read_config`."""
    values = _load_yaml(path)
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise InputError(f"{path} must hold `key: value` lines like those of config.yaml")
    return values


def read_tasks(path: str | Path) -> list[list]:
    """The `task_weights` of a YAML file. Raises InputError where it is missing, or holds anything else."""
    try:
        return task_weights(_load_yaml(path))
    except ValueError as error:
        raise InputError(f"--tasks {path}: it {error}") from None


def _load_yaml(path: str | Path) -> Any:
    try:
        with Path(path).open(encoding="utf-8") as file:
            content = file.read(_MAX_YAML_CHARACTERS + 1)
        if len(content) > _MAX_YAML_CHARACTERS:
            raise InputError(f"{path} is no config: it has more than a million characters")
        values = yaml.load(content, _PlainYaml)
    except OSError as error:
        raise InputError(f"cannot read the config {path}: {error.strerror}") from None
    except InputError:
        raise
    except Exception as error:  # where a value does not fit its tag, yaml raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is no valid YAML: {reason[:300]}") from None
    return values


def meanings() -> dict[str, str]:
    """What each declared key means: the comment behind it in config.yaml, or `Field.meaning`."""
    line = re.compile(r"^(\w+):.*?\s# (.*)$", re.MULTILINE)
    of_flags = dict(line.findall(DEFAULTS_FILE.read_text(encoding="utf-8")))
    return of_flags | {name: field.meaning for name, field in FIELDS.items() if field.meaning is not None}


class Parser(argparse.ArgumentParser):
    """Reports bad usage as an InputError, so that every script answers with one line and exit code 2."""

    def __init__(self, **kwargs):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

    def parse_known_args(self, args=None, namespace=None):
        given = sys.argv[1:] if args is None else list(args)
        for word in given:
            if not is_plain(word):
                self.error(f"{shown(word)} has a line break, a control character or half a character")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def check_flags(arguments: argparse.Namespace, **parsers: Callable[[Any], Any]) -> None:
    """Parse the named attributes in place. Raises InputError naming the flag."""
    for name, parse in parsers.items():
        value = getattr(arguments, name)
        try:
            setattr(arguments, name, parse(value))
        except ValueError as error:
            raise InputError(f"--{name} {error}, not {shown(value)}") from None


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that gives these values."""
    return [str(word) for name, value in values.items() for word in (f"--{name}", value)]


FORMS = {  # of flags that may stand alone
    flag: {"nargs": "?", "const": "true", "metavar": "true|false"},
    share: {"nargs": "?", "const": "true", "metavar": "SHARE"},
}


def parser_for_training(description: str) -> Parser:
    """Every key of config.yaml as a flag, with its comment as help."""
    parser = Parser(description=description)
    parser.add_argument("--config", metavar="YAML", help="file with keys that differ from config.yaml")
    defaults, helps = read_config(DEFAULTS_FILE), meanings()
    names = {name: alias for alias, name in ALIASES.items()}
    for key in FLAGS:
        options = [f"--{key}"] + ([f"--{names[key]}"] if key in names else [])
        what = f"{helps[key]} (default: {'null' if defaults[key] is None else defaults[key]})".replace("%", "%%")
        form = FORMS.get(FIELDS[key].parse, {"metavar": "VALUE"})
        parser.add_argument(*options, dest=key, default=argparse.SUPPRESS, help=what, **form)
    return parser


def parse_config(description: str, argv: Sequence[str] | None = None) -> tuple[dict[str, Any], set[str]]:
    """The run's config from config.yaml, --config and flags, later ones winning; and the keys given by the user.

    Raises InputError for an unknown key or flag, a wrong type, or an impossible value.
    """
    flags = vars(parser_for_training(description).parse_args(argv))
    config = read_config(DEFAULTS_FILE)
    path = flags.pop("config")
    given = read_config(path) if path is not None else {}
    if "tasks" in flags:
        flags["tasks"] = optional(read_tasks)(flags["tasks"])
    flags = check_values(flags, "command line")
    for one, other in (("task_id", "tasks"), ("tasks", "task_id")):
        if one in flags and other not in flags:  # the two say the same, so a flag replaces either in the file
            given.pop(other, None)
    given |= flags
    return _with_tasks(config | given, set(given))


def _with_tasks(config: dict[str, Any], given: set[str]) -> tuple[dict[str, Any], set[str]]:
    """A config as its checkpoints carry it, and the keys that were given in this form.

    `task_id` is the one task, or the name of a list of them, which is under `tasks`; `name` is gone.
    """
    name, tasks = config.pop("name"), config["tasks"]
    if tasks is not None and "task_id" in given:
        raise InputError("give --task_id or --tasks, not both: each says what is learned")
    try:
        tasks = tasks or task_weights([part.strip() for part in config["task_id"].split(",")])
    except ValueError as error:
        raise InputError(f"--task_id {error}, not {shown(config['task_id'])}") from None
    task_ids = [task_id for task_id, _ in tasks]
    name = name or (task_ids[0] if len(task_ids) == 1 else name_of_list(task_ids))
    is_list = task_ids != [name]
    if is_list and (is_task_id(name) or "," in name or len(name.encode()) > MAX_NAME_BYTES):
        raise InputError(f"--name must be no task's id, without commas, and not longer than a folder's, not {name!r}")
    config |= {"task_id": name, "tasks": tasks if is_list else None}
    has_tasks, has_name = bool(given & {"task_id", "tasks"}), bool(given & {"task_id", "tasks", "name"})
    given = given - {"task_id", "tasks", "name"}
    return config, given | ({"task_id"} if has_name else set()) | ({"tasks"} if has_tasks and is_list else set())
