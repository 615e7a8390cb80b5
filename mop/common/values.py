"""What a setting accepts: functions which check a value of a flag or a file and return it in its own type.

Each raises a ValueError whose message goes on behind the setting's name: "must be an integer, at least 1".
"""

import math
import re
import unicodedata
from collections.abc import Callable
from typing import Any

MAX_INTEGER = 2**63 - 1  # what tables and JSON can hold
MAX_ENVS = 2**16
MAX_EPISODES = 10**6  # of an evaluation, which keeps them all in memory
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?", re.IGNORECASE)


def shown(value: Any) -> str:
    """A value in a message: its `repr`, cut where it is long."""
    try:
        words = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits; lists in lists without end
        return f"a {type(value).__name__} too large to show"
    return words if len(words) <= 200 else f"{words[:200]}..."


def is_plain(value: str) -> bool:
    """Whether a text has no control character, line break or lone surrogate, which no file format here can hold."""
    return value.isprintable() or not {"Cc", "Cs", "Zl", "Zp"}.intersection(map(unicodedata.category, value))


def text(value: Any) -> str:
    """A non-empty text that a path, a table and a line on the screen can hold."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    if not is_plain(value.strip()):
        raise ValueError("must be a text of one line, without control characters")
    return value.strip()


def folder_name(value: Any) -> str:
    """A text that can be the name of one folder that is seen, on every system."""
    name = text(value)
    if name[0] == "." or name[-1] == "." or re.search(r"[\\/]", name) or _DEVICE.fullmatch(name):
        raise ValueError("must be a name for a folder: no slash, no dot at either end, no device of Windows (CON, NUL)")
    return name


def flag(value: Any) -> bool:
    """True or false."""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def share(value: Any) -> float:
    """A share from 0 to 1; false is none of it, and true all of it."""
    try:
        return float(flag(value))
    except ValueError:
        return number(0, high=1)(value)


def limits(low: float | None = None, high: float | None = None, above: float | None = None) -> str:
    """A range in words: "from 1 to 8", "at least 1", "above 0 and at most 1"; empty for no limit."""
    if low is not None and high is not None:
        return f"{low:g}" if low == high else f"from {low:g} to {_plain_number(high)}"
    parts = [f"{word} {_plain_number(bound)}" for word, bound in
             (("at least", low), ("above", above), ("at most", high)) if bound is not None]  # fmt: skip
    return " and ".join(parts)


def _plain_number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def integer(low: int | None = None, high: int | None = None) -> Callable[[Any], int]:
    """A check for integers of 64 bits within [low, high]. `010` is refused: it is 8 to some programs."""

    def parse(value: Any) -> int:
        try:
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise ValueError
            if isinstance(value, str) and re.fullmatch(r"\s*[+-]?0[0-9_]+\s*", value):
                raise ValueError
            number = int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("must be an integer") from None
        is_within = (low is None or number >= low) and (high is None or number <= high)
        if not is_within or abs(number) > MAX_INTEGER:
            end = "" if high is not None else ", and below 2^63"
            raise ValueError(f"must be an integer {limits(low, high)}{end}")
        return number

    return parse


def number(low: float | None = None, high: float | None = None, above: float | None = None) -> Callable[[Any], float]:
    """A check for finite numbers within [low, high], or greater than `above`. `1e-4`, a text to YAML, is a number."""

    def parse(value: Any) -> float:
        try:
            if isinstance(value, bool):
                raise ValueError
            result = float(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError("must be a number") from None
        is_low = (low is not None and result < low) or (above is not None and result <= above)
        if not math.isfinite(result) or is_low or (high is not None and result > high):
            raise ValueError(f"must be a finite number {limits(low, high, above)}".rstrip())
        return result

    return parse


def is_null(value: Any) -> bool:
    """Whether a value of a flag stands for no value."""
    return isinstance(value, str) and value.lower() in ("null", "none")


def or_word(parse: Callable[[Any], Any], **meanings: Any) -> Callable[[Any], Any]:
    """`parse`, or one of some words, each of which stands for a value."""

    def parse_or_word(value: Any) -> Any:
        if isinstance(value, str) and value in meanings:
            return meanings[value]
        try:
            return parse(value)
        except ValueError as error:
            raise ValueError(f"{error}, or {' or '.join(meanings)}") from None

    return parse_or_word
