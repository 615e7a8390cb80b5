"""A page as a list of figures: what an app shows, what its buttons give and what it saves as a script follow from it.

A figure is saved for a paper or a talk as a picture, the numbers in it, and a caption that ends with the command which
makes it again.
"""

import csv
import io
import shlex
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mop.apps.flags import SavingSettings
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.errors import InputError
from mop.common.files import figure_bytes, write_together
from mop.plotting.hover import values_of
from mop.plotting.resize import fit_to_width, smallest_text_pt

WIDTHS_IN = {"as on the screen": None, "one column": 3.35, "two columns": 6.75, "slide": 10.0}
_SCREEN_DPI, _PRINT_DPI = 100, 300


# --- a figure as files ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """How a figure is saved: the format of its file, and its width in inches, None: as it is drawn for a screen."""

    format: str = "png"
    width_in: float | None = None

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that save a figure so."""
        return ["--format", self.format, *([] if self.width_in is None else ["--width", f"{self.width_in:g}"])]


def files_of(figure: Figure, name: str, export: Export, caption: str) -> dict[str, bytes]:
    """The files of a figure by their names: its numbers as `<stem>.csv` if it has some, its caption, the picture last.

    The figure is brought to the width of the export; it is not to be shown after.
    """
    rows = values_of(figure)
    if export.width_in is not None:
        fit_to_width(figure, export.width_in)
        name = f"{name}_{export.width_in:g}in"
    picture = figure_bytes(figure, export.format, _SCREEN_DPI if export.width_in is None else _PRINT_DPI)
    size = f"{figure.get_figwidth():.2f} x {figure.get_figheight():.2f} inches"
    text = f"{caption}\nSize: {size}, smallest text {smallest_text_pt(figure):.1f} pt.\n"
    contents = {"csv": as_csv(rows), "txt": text.encode(), export.format: picture}
    return {f"{name}.{ending}": data for ending, data in contents.items() if data}


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


# --- a page -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PageFigure:
    """A figure of a page."""

    name: str  # as --only takes it
    about: str  # what it shows, for its caption
    draw: Callable[..., Figure]
    file: str = ""  # the name of its files, where that is not `name`
    is_extra: bool = False  # whether a script saves it only where --only names it
    command: str = ""  # what makes it again, where that is not the script of the page

    def of(self, *data: object) -> "PageFigure":
        """The figure of some data, which `draw` takes first."""
        return replace(self, draw=partial(self.draw, *data))


class Page:
    """The figures of a page, and what their files have in common."""

    def __init__(
        self,
        script: str,
        flags: Sequence[str],
        folder: str | Path,
        figures: Iterable[PageFigure],
        describe: Callable[[str], Sequence[str]] = lambda name: (),
        plots_dir: str = PLOTS_DIR,
        part: str = "",
    ):
        """script, flags: the command that shows the same; describe: name of a figure -> lines of its caption.

        part: what the names of files say of the part of the data that is shown, such as "_action_forward".
        """
        self.figures = {figure.name: figure for figure in figures}
        self._command = ["python", script, *flags]
        self._folder = Path(folder)
        self._describe = describe
        self._more = [] if plots_dir == PLOTS_DIR else ["--plots_dir", plots_dir]
        self._part = part
        self.controls: dict[str, tuple] = {}  # of a figure, on a page in a browser

    def about(self, name: str) -> str:
        """What a figure shows, of which data, a line each."""
        return "\n".join([f"{self.figures[name].about.rstrip('.')}.", *self._describe(name)])

    def caption(self, name: str, export: Export) -> str:
        """The same, and the command that makes it again."""
        figure, words = self.figures[name], [*self._command, "--only", name, *export.flags, *self._more]
        return f"{self.about(name)}\nCommand: {figure.command or shlex.join(words)}"

    def stem(self, name: str) -> str:
        """The name of the files of a figure."""
        return (self.figures[name].file or name) + self._part

    def files(self, name: str, export: Export) -> dict[str, bytes]:
        """Draw a figure; its files by name, as `files_of`."""
        return files_of(self.figures[name].draw(), self.stem(name), export, self.caption(name, export))

    def archive(self, name: str, export: Export) -> bytes:
        """The files of a figure as a zip."""
        with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
            for path, data in self.files(name, export).items():
                archive.writestr(path, data)
        return file.getvalue()

    def save(self, name: str, export: Export) -> Path:
        """Write the files of a figure, all or none; the path of the picture."""
        files = [(self._folder / path, data) for path, data in self.files(name, export).items()]
        write_together([(path, lambda file, data=data: file.write(data)) for path, data in files])
        return files[-1][0]

    def save_as_script(self, args: SavingSettings) -> None:
        """Save the figures that --only names, else all, and print their paths; on stderr, say why one cannot be."""
        export, reasons = Export(args.format, args.width), []
        names = chosen(self.figures.values(), args.only)
        for name in names:
            try:
                print(self.save(name, export))
            except InputError as error:
                reasons.append(f"no {self.stem(name)}.{export.format}: {error}")
        if len(reasons) == len(names):
            raise InputError(reasons[0])
        print(*reasons, sep="\n", end="\n" if reasons else "", file=sys.stderr)


def chosen(figures: Iterable[PageFigure], only: Sequence[str] | None) -> list[str]:
    """The names of the figures that a script saves: those of --only, else all that are not extra."""
    known = {figure.name: figure for figure in figures}
    usual = [figure.name for figure in known.values() if not figure.is_extra]
    for name in only or ():
        if name not in known:
            more = "" if len(usual) == len(known) else f" and more, such as {[*known][-1]}"
            raise InputError(f"--only: there is no figure {name!r} here; there are {', '.join(usual)}{more}")
    return list(only or usual)
