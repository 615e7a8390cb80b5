"""Tables as text: of Markdown for pages, in aligned columns for the screen."""

import math
from collections.abc import Iterable, Sequence


def interval_text(value: float, low: float, high: float, form: str = ".3f") -> str:
    """ "0.620 (0.580 to 0.660)"; without an interval, "0.620"."""
    return f"{value:{form}}" + ("" if math.isnan(low) else f" ({low:{form}} to {high:{form}})")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table of Markdown; it ends with a line break."""
    lines = [_line(head), "|---" * len(head) + "|", *map(_line, rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in columns as wide as their longest cells."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(line.rstrip() for line in padded)
