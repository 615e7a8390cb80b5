"""Interventions on routing as texts: the grammar, and the names of what an expert's memory does meanwhile.

An intervention puts other weights in the place of a router's. What each of them computes is in `mop.kernels.gates`.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mop.base.configuration import is_plain, shown
from mop.base.errors import InputError

# What becomes of the GRU state of an expert at a step in which its weight is 0.
GATE_ONLY, FROZEN, ZEROED = "gate-only", "frozen", "zeroed"
VARIANTS = (GATE_ONLY, FROZEN, ZEROED)

NONE = "none"
GRAMMAR = (
    "none | lesion L.E | lesion_size S | threshold T | argmax | clamp L.E=V | mean L | uniform L | shuffle L, "
    "each also with ' in PHASE' behind it, or swap FILE (layer L, expert E, size S; T and V from 0 to 1)"
)


class Intervention(NamedTuple):
    """One intervention; which of the fields it has depends on its kind, the first word of its text."""

    kind: str
    layer: int | None = None
    expert: int | None = None
    size: int | None = None
    value: float | None = None  # of `threshold` and `clamp`
    file: str | None = None  # of `swap`
    phase: str | None = None  # only at the steps in this phase; None: at every step

    def __str__(self) -> str:
        """The text that `parse` reads as this intervention."""
        words = [self.kind]
        if self.expert is not None:
            words.append(f"{self.layer}.{self.expert}" + ("" if self.value is None else f"={self.value!r}"))
        else:
            values = (self.layer, self.size, self.value, self.file)
            words += [str(value) for value in values if value is not None]
        return " ".join(words) + ("" if self.phase is None else f" in {self.phase}")


def _share(text: str) -> float:
    if not 0 <= (value := float(text)) <= 1:
        raise ValueError
    return value


_WHOLE = "0|[1-9][0-9]{0,8}"
_REAL = r"[0-9]*\.?[0-9]+(?:[eE]-?[0-9]+)?"
_KINDS = {  # kind -> what stands behind it
    NONE: "",
    "lesion": rf" +(?P<layer>{_WHOLE})\.(?P<expert>{_WHOLE})",
    "lesion_size": rf" +(?P<size>{_WHOLE})",
    "threshold": rf" +(?P<value>{_REAL})",
    "argmax": "",
    "clamp": rf" +(?P<layer>{_WHOLE})\.(?P<expert>{_WHOLE}) *= *(?P<value>{_REAL})",
    "mean": rf" +(?P<layer>{_WHOLE})",
    "uniform": rf" +(?P<layer>{_WHOLE})",
    "shuffle": rf" +(?P<layer>{_WHOLE})",
    "swap": r" +(?P<file>\S.*)",
}
_PHASE = r"(?: +in +(?P<phase>\S.*))?"
_FIELDS: dict[str, Callable[[str], Any]] = {"layer": int, "expert": int, "size": int, "value": _share}


def parse(text: str) -> Intervention:
    """The intervention of a text. Raises InputError, which names the grammar, where it is none."""
    words = text.strip() if isinstance(text, str) and is_plain(text) else ""
    kind = words.split(" ")[0]
    if kind in _KINDS:
        rest = _KINDS[kind] + ("" if kind in (NONE, "swap") else _PHASE)
        if (match := re.fullmatch(rf"{kind}{rest}", words)) is not None:
            found = {name: word for name, word in match.groupdict().items() if word is not None}
            try:
                return Intervention(kind, **{name: _FIELDS.get(name, str)(word) for name, word in found.items()})
            except ValueError:  # a share past 1
                pass
    raise InputError(f"{shown(text)} is no intervention; the grammar: {GRAMMAR}")


def parse_variants(text: str) -> list[str]:
    """Memory variants from a list with commas. Raises InputError where one is unknown."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise InputError(f"there is no memory variant {shown(unknown[0])}; choose from {', '.join(VARIANTS)}")
    return list(dict.fromkeys(names))
