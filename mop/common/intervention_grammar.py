"""Interventions on routing as texts: the grammar, and the names of what an expert's memory does meanwhile.

An intervention puts other weights in the place of a router's. What each of them computes is in
`mop.evaluation.routing_gates`.
"""

import re
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from mop.common.errors import InputError
from mop.common.values import is_plain, shown

# What becomes of the GRU state of an expert at a step in which its weight is 0.
GATE_ONLY, FROZEN, ZEROED = "gate-only", "frozen", "zeroed"
VARIANTS = (GATE_ONLY, FROZEN, ZEROED)

NONE, SWAP, SEVERAL = "none", "swap", "several"
GRAMMAR = (
    "none | lesion L.E | lesion_size S | threshold T | argmax | clamp L.E=V | mean L | uniform L | shuffle L, "
    "several of them joined by ' + ', all but none also with ' in PHASE' behind; or swap FILE "
    "(layer L, expert E, size S; T and V from 0 to 1)"
)


class Intervention(NamedTuple):
    """One intervention; which of the fields it has depends on its kind, the first word of its text, or SEVERAL."""

    kind: str
    layer: int | None = None
    expert: int | None = None
    size: int | None = None
    value: float | None = None  # of `threshold` and `clamp`
    file: str | None = None  # of `swap`
    phase: str | None = None  # only at the steps in this phase; None: at every step
    parts: tuple["Intervention", ...] = ()  # of SEVERAL: those that are made together, see `together`

    @property
    def singles(self) -> tuple["Intervention", ...]:
        """Those that are made together, or this one alone."""
        return self.parts or (self,)

    def __str__(self) -> str:
        """The text that `parse` reads as this intervention."""
        words = [self.kind]
        if self.parts:
            words = [" + ".join(map(str, self.parts))]
        elif self.expert is not None:
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
    "clamp": rf" +(?P<layer>{_WHOLE})\.(?P<expert>{_WHOLE}) *= *(?P<value>{_REAL})",
    "mean": rf" +(?P<layer>{_WHOLE})",
    "uniform": rf" +(?P<layer>{_WHOLE})",
    "shuffle": rf" +(?P<layer>{_WHOLE})",
    "threshold": rf" +(?P<value>{_REAL})",
    "argmax": "",
    SWAP: r" +(?P<file>\S.*)",
}
_ORDER = {kind: place for place, kind in enumerate(_KINDS)}
_FIELDS: dict[str, Callable[[str], Any]] = {"layer": int, "expert": int, "size": int, "value": _share, "file": str}


def parse(text: str) -> Intervention:
    """Parse the text of an intervention; the message about another text names the grammar."""
    words = text.strip() if isinstance(text, str) and is_plain(text) else ""
    if words == NONE or words.startswith(f"{SWAP} "):
        return _parse_one(words, _KINDS, text)
    words = re.sub(" +", " ", words)  # the patterns look at a run of spaces once for each of them
    what, *phase = re.split(r" +in +(?=\S)", words, maxsplit=1)
    kinds = [kind for kind in _KINDS if kind not in (NONE, SWAP)]
    parts = [_parse_one(part, kinds, text) for part in re.split(" *[+] *", what)]
    return together(parts, phase[0] if phase else None)


def _parse_one(words: str, kinds: Collection[str], text: str) -> Intervention:
    """Parse what stands between two pluses; text: the whole, for the message."""
    kind = words.split(" ")[0]
    match = re.fullmatch(kind + _KINDS[kind], words) if kind in kinds else None
    with suppress(ValueError):  # a share past 1
        if match:
            return Intervention(kind, **{name: _FIELDS[name](word) for name, word in match.groupdict().items()})
    raise InputError(f"{shown(text)} is no intervention; the grammar: {GRAMMAR}")


def together(parts: Iterable[Intervention], phase: str | None = None) -> Intervention:
    """Several interventions as one, in the order in which they are made, whatever order they are given in.

    First `mean`, `uniform` and `shuffle` give a layer other weights; in these, all experts that are left out or clamped
    get their weights at once, and the rest is scaled; then comes `threshold` or `argmax`. Two of
    them must not give weights to one layer or expert, nor be of the last kind.
    """
    parts = sorted(parts, key=lambda part: (_ORDER[part.kind], part.layer or 0, part.expert or 0, part.size or 0))
    if len(parts) <= 1:
        return (parts or [Intervention(NONE)])[0]._replace(phase=phase)
    subjects: dict[tuple, Intervention] = {}
    for part in parts:
        subject = ("threshold or argmax",) if part.layer is None and part.size is None else part[1:4]
        if (other := subjects.setdefault(subject, part)) is not part:
            raise InputError(f"{other} and {part} cannot be made together: keep one of them")
    return Intervention(SEVERAL, phase=phase, parts=tuple(parts))


def parse_variants(text: str) -> list[str]:
    """Parse a list of memory variants with commas."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise InputError(f"there is no memory variant {shown(unknown[0])}; choose from {', '.join(VARIANTS)}")
    return list(dict.fromkeys(names))
