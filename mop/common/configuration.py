# ruff: noqa: F401
"""Former home of settings: see mop/common/cli.py, values.py and train_config.py."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mop.common import cli
from mop.common.cli import Parser, as_flags, read_yaml
from mop.common.errors import InputError
from mop.common.train_config import (
    BEFORE,
    DEFAULTS_FILE,
    MAX_EXPERTS,
    MAX_LAYERS,
    RUNTIME_KEYS,
    TrainConfig,
    check_recorded,
    complete,
    parse_config,
    read_config,
    task_weights,
)
from mop.common.values import (
    MAX_ENVS,
    MAX_EPISODES,
    MAX_INTEGER,
    choice,
    flag,
    folder_name,
    integer,
    is_plain,
    optional,
    share,
    shown,
    text,
    words,
)


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


@dataclass(frozen=True)
class Field:
    """A key of an experiment's config."""

    parse: Callable[[Any], Any]
    before: Any = None
    is_runtime: bool = False
    meaning: str | None = None


FORMS = {  # of flags that may stand alone
    flag: {"nargs": "?", "const": "true", "metavar": "true|false"},
    share: {"nargs": "?", "const": "true", "metavar": "SHARE"},
}


def check_flags(arguments, **parsers: Callable[[Any], Any]) -> None:
    """Parse the named attributes in place. Raises InputError naming the flag."""
    for name, parse in parsers.items():
        value = getattr(arguments, name)
        try:
            setattr(arguments, name, parse(value))
        except ValueError as error:
            raise InputError(f"--{name} {error}, not {shown(value)}") from None


def parser_for_training(description: str) -> Parser:
    """Every setting of a training run as a flag."""
    return cli.parser_of(TrainConfig, description, "file with keys that differ from config.yaml")


def check_values(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checked settings of a training run."""
    return cli.check_values(TrainConfig, values, source)
