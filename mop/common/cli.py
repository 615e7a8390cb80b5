"""Settings which are declared once: the fields of a frozen dataclass, from which flags, checks, help and files follow.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        checkpoint: str = required("a policy's checkpoint", metavar="FILE")
        num_steps: int = setting(300_000, "steps in all", low=1)
        epsilon: float = setting(0.2, "share of random actions", low=0, high=1)
        policies: tuple[str, ...] = setting(("argmax",), "who acts", choices=POLICIES, commas=True)
        max_steps: int | None = setting(None, "step limit of an episode (default: the task's)", low=1)
        resume: bool = setting(False, "go on with the recording in the folder")

        def __post_init__(self):                                           # what concerns several settings
            if self.resume and not self.max_steps:
                raise InputError("--resume needs --max_steps")

    def main() -> int:
        settings = parse(Settings, __doc__)                                # --num_steps 1000 --resume
        write_json("config.json", as_dict(settings))

The type is the annotation: int, float, bool, str, `... | None` ("null" on the command line), `tuple[int, ...]` (words
with spaces, or with `commas`); anything else has a `parse` of its own (mop/common/values.py), which raises ValueError.
Shared settings are a base class. `given_values` returns only what the user gave, `Settings(**given)` the whole.
A wrong value, an unknown flag or key is an InputError of one line that names it.
"""

import argparse
import copy
import dataclasses
import difflib
import functools
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from mop.common import values
from mop.common.errors import InputError
from mop.common.reading import check_nesting, read_bytes, reading
from mop.common.values import is_null, shown

T = TypeVar("T")
_MAX_YAML_BYTES = 2**20
FORMER_FLAGS = {  # of a command that had another name (docs/from_earlier_documents.md) -> what to type
    "--exp_name": "an agent of a game is trained by `python -m generative.train_agent --exp_name ...`",
}


def setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, above: float | None = None,
    choices: Collection | None = None, parse: Callable[[Any], Any] | None = None, commas: bool = False,
    nargs: str | int | None = None, metavar: str | None = None, alone: str | None = None, flag: str | None = None,
    also: Sequence[str] = (), positional: bool = False, group: str | None = None, replaces: str | None = None,
    **more: Any,
) -> Any:  # fmt: skip
    """Declare a field.

    low, high, above: the range of numbers; choices: the allowed values; parse: a check in place of the type's;
    commas: a tuple's items are one word with commas between them; nargs: of a tuple, in place of "+";
    alone: the value of the flag without a word behind it; flag: its name, where the field's name is no flag;
    also: other names of it; positional: whether it has no flag; group: its heading in the help; replaces: the setting
    which says the same in another way, so that only one of both is given; more: kept in the field's metadata.
    """
    options = {
        "help": help, "low": low, "high": high, "above": above, "choices": choices, "parse": parse, "commas": commas,
        "nargs": nargs, "metavar": metavar, "alone": alone, "flag": flag, "also": tuple(also),
        "positional": positional, "group": group, "replaces": replaces,
    }  # fmt: skip
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=options | more)
    return dataclasses.field(default=default, metadata=options | more)


def required(help: str, **options: Any) -> Any:
    """Declare a field that the user must give; options: of `setting`."""
    return setting(dataclasses.MISSING, help, **options)


def parse(
    settings: type[T], description: str | None, argv: Sequence[str] | None = None, config: str | None = None
) -> T:
    """The settings of a command line; config: the help of a flag --config for a YAML file, where there is one."""
    return settings(**given_values(settings, description, argv, config))


def given_values(
    settings: type, description: str | None, argv: Sequence[str] | None = None, config: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The checked values that the user gave, flags before the file of --config.

    defaults: values which count in place of the fields' defaults.
    """
    defaults = defaults or {}
    words = sys.argv[1:] if argv is None else list(argv)
    words = words[1:] if words[:1] == ["--"] else words  # as in `marimo run app.py -- --flag`
    flags = vars(parser_of(settings, description, config, defaults).parse_args(words))
    path = flags.pop("config", None) if config else None
    from_file = check_values(settings, read_yaml(path), str(path)) if path is not None else {}
    given = merged(settings, from_file, check_values(settings, flags))
    for field in declared(settings):
        if field.name not in given and defaults.get(field.name, default_of(field)) is dataclasses.MISSING:
            raise InputError(f"{_name(field)} is missing (see --help)")
    return given


def merged(settings: type, lower: Mapping[str, Any], higher: Mapping[str, Any]) -> dict[str, Any]:
    """Values of two sources, of which the higher wins, also where it gives what `replaces` a value of the lower."""
    replaced = {field.metadata["replaces"] for field in declared(settings) if field.name in higher}
    return {name: value for name, value in lower.items() if name not in replaced} | dict(higher)


def check_values(settings: type, given: Mapping[str, Any], source: str | None = None) -> dict[str, Any]:
    """Values in their types, by the names of the fields; source: the file which holds them, None for flags."""
    names = {name: field for field in declared(settings) for name in (field.name, *field.metadata["also"])}
    checked = {}
    for key, value in given.items():
        if (field := names.get(key)) is None:
            near = difflib.get_close_matches(str(key), names, 1)
            raise InputError(f"{source}: unknown key {shown(key)}{f'; did you mean {near[0]}?' if near else ''}")
        label = _name(field) if source is None else f"{source}: {key}"
        if field.name in checked:
            raise InputError(f"{label} gives {field.name} a second time; keep one of them")
        try:
            checked[field.name] = check_of(settings, field.name)(value)
        except ValueError as error:
            raise InputError(f"{label} {error}, not {shown(value)}") from None
    for field in declared(settings):
        other = field.metadata["replaces"]
        if checked.get(field.name) is not None and checked.get(other) is not None and source is None:
            raise InputError(f"give --{field.name} or --{other}, not both")
    return checked


def declared(settings: type[Any]) -> list[dataclasses.Field]:
    """The fields which are settings."""
    return [field for field in dataclasses.fields(settings) if "help" in field.metadata]


def default_of(field: dataclasses.Field) -> Any:
    """A field's default, MISSING where it has none."""
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def some_of(asked: Collection[str] | None, known: Collection[str], flag: str) -> list[str]:
    """What a flag asks for (None: all) of names that only a file tells, in the order of the known ones."""
    if not set(asked or ()) <= set(known):
        raise InputError(f"{flag} must be some of {', '.join(known)} with commas between them")
    return [name for name in known if asked is None or name in asked]


def as_dict(settings: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Settings as plain values for a file; leave_out: names of fields."""
    fields = (field.name for field in dataclasses.fields(settings) if field.name not in leave_out)
    return {name: _plain(getattr(settings, name)) for name in fields}


def changes_of(settings: Any, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """The values which differ from the defaults of their fields; leave_out: names of fields."""
    fields = [field for field in dataclasses.fields(settings) if field.name not in leave_out]
    values = {field.name: (getattr(settings, field.name), default_of(field)) for field in fields}
    return {name: value for name, (value, default) in values.items() if value != default}


def as_flags(given: Mapping[str, Any]) -> list[str]:
    """The words of a command line which gives these values.

    Several of a list or tuple, none of None; of true the flag alone.
    """
    words = []
    for name, value in given.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            several = value if isinstance(value, list | tuple) else ["false" if value is False else value]
            words += [f"--{name}", *map(str, several)]
    return words


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file as they are; {} for an empty one."""
    content = load_yaml(path)
    if content is not None and (not isinstance(content, dict) or not all(isinstance(key, str) for key in content)):
        raise InputError(f"{path} must hold `key: value` lines")
    return content or {}


def load_yaml(path: str | Path) -> Any:
    """What a YAML file holds."""
    import yaml

    with reading(path, "valid YAML"):
        content = read_bytes(path)
        if len(content) > _MAX_YAML_BYTES:
            raise InputError("it holds no settings: it has more than a million bytes")
        settings = yaml.safe_load(content)
        check_nesting(settings, max_items=len(content) + 1)  # an alias stands for as much as it likes
        return settings


class Parser(argparse.ArgumentParser):
    """A parser which reports bad usage as an InputError, and accepts no abbreviation of a flag."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        for word in words:
            if not values.is_plain(word):
                self.error(f"{shown(word)} has a line break, a control character or half a character")
        return super().parse_known_args(words, namespace)

    def parse_args(self, args=None, namespace=None):
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flag = unknown[0].partition("=")[0]
            near = difflib.get_close_matches(flag, self._option_string_actions, 1)
            hint = FORMER_FLAGS.get(flag) or (f"did you mean {near[0]}?" if near else "")
            self.error("; ".join(filter(None, (f"there is no {shown(flag)}", hint))))
        return found

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def parser_of(
    settings: type, description: str | None, config: str | None = None, defaults: Mapping[str, Any] | None = None
) -> Parser:
    """The parser of the settings; what the user does not give is absent from its result. See `given_values`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    prog = f"python -m {spec.name}" if spec is not None and spec.name.split(".")[0] != "pytest" else None
    parser = Parser(description=description, prog=prog)
    if config:
        parser.add_argument("--config", metavar="YAML", help=config)
    return add_settings(parser, settings, defaults)


def add_settings(parser: Parser, settings: type, defaults: Mapping[str, Any] | None = None) -> Parser:
    """The parser with further settings."""
    groups: dict[str | None, Any] = {None: parser}
    for field in declared(settings):
        group = field.metadata["group"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        default = (defaults or {}).get(field.name, default_of(field))
        words, options = _argument(settings, field, default)
        groups[group].add_argument(*words, **options)
    return parser


def _argument(settings: type, field: dataclasses.Field, default: Any) -> tuple[list[str], dict[str, Any]]:
    meta, (kind, item, _) = field.metadata, _type_of(settings, field.name)
    options: dict[str, Any] = {"help": _help(field, kind, default), "default": argparse.SUPPRESS}
    short = _short_choices(meta)
    options["metavar"] = meta["metavar"] or short or _METAVARS.get(item, "VALUE")
    alone = meta["alone"] or ("true" if kind is bool else None)
    if alone is not None:
        options |= {"nargs": "?", "const": alone}
    elif kind is tuple and not meta["commas"] and meta["parse"] is None:
        options["nargs"] = meta["nargs"] or "+"
        options |= {} if meta["positional"] or options["nargs"] != "+" else {"action": "extend"}
    elif meta["nargs"]:
        options["nargs"] = meta["nargs"]
    if meta["positional"]:
        return [field.name], options
    return [f"--{name}" for name in (meta["flag"] or field.name, *meta["also"])], options | {"dest": field.name}


def _short_choices(meta: Mapping[str, Any]) -> str:
    """The choices as one word, empty if there are none or many."""
    word = "|".join(map(str, meta["choices"] or ()))
    return word if len(word) <= 30 else ""


_METAVARS = {int: "INTEGER", float: "NUMBER", bool: "true|false", str: "TEXT", Path: "PATH"}


def _help(field: dataclasses.Field, kind: type, default: Any) -> str:
    """The help of a field with its range, its choices and its default."""
    meta, text = field.metadata, field.metadata["help"]
    limits = values.limits(meta["low"], meta["high"], meta["above"])
    if meta["choices"] and (meta["metavar"] or not _short_choices(meta)):
        limits = ", ".join(map(str, meta["choices"]))
    text, own_default, rest = text.partition(" (default:")
    text += (f"; {limits}" if limits else "") + own_default + rest
    is_shown = default not in (None, (), dataclasses.MISSING) and not (kind is bool and default is False)
    if is_shown and "(default:" not in text:
        joint = "," if meta["commas"] else " "
        of_list = isinstance(default, tuple)
        default = str(default).lower() if isinstance(default, bool) else default
        text += f" (default: {joint.join(map(str, default)) if of_list else default})"
    return text.replace("%", "%%")


@functools.cache
def check_of(settings: type, name: str) -> Callable[[Any], Any]:
    """The check of one setting: a function of a flag's or a file's value, which raises ValueError."""
    meta = next(field.metadata for field in declared(settings) if field.name == name)
    kind, item, is_optional = _type_of(settings, name)
    check = meta["parse"]
    if check is None:
        check = _check_of_type(item, meta)
        check = _check_of_items(check, meta) if kind is tuple else check
    return (lambda value: None if value is None or is_null(value) else check(value)) if is_optional else check


def _check_of_type(kind: type, meta: Mapping[str, Any]) -> Callable[[Any], Any]:
    checks: dict[type, Callable[[Any], Any]] = {
        int: values.integer(meta["low"], meta["high"]),
        float: values.number(meta["low"], meta["high"], meta["above"]),
        bool: values.flag,
        str: values.text,
        Path: lambda value: Path(values.text(str(value))),
    }
    check = checks[kind]

    def check_choice(value: Any) -> Any:
        if (found := check(value)) not in meta["choices"]:
            raise ValueError(f"must be {' or '.join(map(str, meta['choices']))}")
        return found

    return check_choice if meta["choices"] else check


def _check_of_items(check: Callable[[Any], Any], meta: Mapping[str, Any]) -> Callable[[Any], tuple]:
    """`check` of each item of a list, or of a text with commas, where each stands once."""
    length = meta["nargs"] if isinstance(meta["nargs"], int) else None
    least = 0 if meta["nargs"] == "*" else 1

    def parse_all(value: Any) -> tuple:
        if meta["commas"] and isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError("must be a list")
        if len(value) < least or length not in (None, len(value)):
            raise ValueError(f"must be a list of {length or f'at least {least}'}")
        found = tuple(map(check, value))
        if meta["commas"] and len(set(found)) < len(found):
            raise ValueError("must name each only once")
        return found

    return parse_all


def _type_of(settings: type, name: str) -> tuple[Any, Any, bool]:
    """The type of a field, that of its items where it is a tuple, and whether it may be None."""
    kind = _hints_of(settings)[name]
    is_optional = typing.get_origin(kind) in (types.UnionType, typing.Union)
    if is_optional:
        kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return tuple, typing.get_args(kind)[0], is_optional
    return kind, kind, is_optional


_hints_of = functools.cache(typing.get_type_hints)


def _name(field: dataclasses.Field) -> str:
    return field.name if field.metadata["positional"] else f"--{field.metadata['flag'] or field.name}"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
