"""A figure as files for a paper or a talk: the picture, the numbers in it, and a caption that says how it was made."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mop.common.files import figure_bytes, write_together
from mop.plotting.hover import values_of
from mop.plotting.resize import fit_to_width, smallest_text_pt

WIDTHS_IN = {"as on the screen": None, "one column": 3.35, "two columns": 6.75, "slide": 10.0}
_SCREEN_DPI, _PRINT_DPI = 100, 300


@dataclass(frozen=True)
class Export:
    """How a figure is saved: the format of its file, and its width in inches, None: as it is drawn for a screen.

    part: what the names of the files say of the part of the data that is shown, such as "_forward".
    """

    format: str = "png"
    width_in: float | None = None
    part: str = ""

    def stem(self, name: str) -> str:
        """The name of a figure's files, without their endings."""
        return f"{name}{self.part}" + ("" if self.width_in is None else f"_{self.width_in:g}in")

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that save a figure so."""
        return ["--format", self.format, *([] if self.width_in is None else ["--width", f"{self.width_in:g}"])]


def save_figure(figure: Figure, folder: str | Path, name: str, export: Export, caption: str) -> Path:
    """Write a figure, its numbers as `<stem>.csv` if it has some, and its caption as `<stem>.txt`; the picture's path.

    All of them are written, or none. The figure is brought to the width of the export; it is not to be shown after.
    """
    rows = values_of(figure)
    if export.width_in is not None:
        fit_to_width(figure, export.width_in)
    picture = figure_bytes(figure, export.format, _SCREEN_DPI if export.width_in is None else _PRINT_DPI)
    size = f"{figure.get_figwidth():.2f} x {figure.get_figheight():.2f} inches"
    text = f"{caption}\nSize: {size}, smallest text {smallest_text_pt(figure):.1f} pt.\n"
    stem = Path(folder) / export.stem(name)
    contents = {"csv": as_csv(rows), "txt": text.encode(), export.format: picture}
    files = [(stem.with_name(f"{stem.name}.{ending}"), data) for ending, data in contents.items() if data]
    write_together([(path, lambda file, data=data: file.write(data)) for path, data in files])
    return files[-1][0]


def as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    """Rows as a CSV table (UTF-8) with a column for each name, in the order in which the names first appear.

    What a row does not have, and what is no number (NaN), is empty; nothing if there are no rows.
    """
    if not rows:
        return b""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(file := io.StringIO(newline=""), columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return file.getvalue().encode()


def _plain(value: object) -> object:
    """A value as it stands in the table: single precision in its own digits, not in those of double precision."""
    if isinstance(value, np.floating | float) and np.isnan(value):
        return None
    if isinstance(value, np.float32):
        return str(value)
    return value.item() if isinstance(value, np.generic) else value
