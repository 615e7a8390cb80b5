"""A page as a list of figures: what an app shows, what its buttons save and what it saves as a script follow from it.

Every figure is a picture, the numbers in it, and a caption that ends with the command which makes it again.
"""

import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from mop.apps.export import Export, save_figure
from mop.apps.flags import SavingSettings
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.errors import InputError


@dataclass(frozen=True)
class PageFigure:
    """A figure of a page."""

    name: str  # as --only takes it
    about: str  # what it shows, for its caption
    draw: Callable[..., Figure]
    fits_width: bool = False  # whether `draw` takes `width_in`, the width that it will be brought to
    file: Callable[[], str] | None = None  # the name of its files, where that is not `name`
    is_episode: bool = False  # of the episodes, a script saves the first
    command: str = ""  # what makes it again, where that is not the script of the page

    def __call__(self, width_in: float | None = None) -> Figure:
        """Draw it; width_in: None for a screen."""
        return self.draw(width_in=width_in) if self.fits_width else self.draw()

    def of(self, *data: object) -> "PageFigure":
        """The figure of some data, which `draw` takes first."""
        return replace(self, draw=partial(self.draw, *data))

    @property
    def stem(self) -> str:
        """The name of its files."""
        return self.name if self.file is None else self.file()


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
    ):
        """script, flags: the command that shows the same; describe: name of a figure -> lines of its caption."""
        self.figures = {figure.name: figure for figure in figures}
        self._command = ["python", script, *flags]
        self._folder = Path(folder)
        self._describe = describe
        self._more = [] if plots_dir == PLOTS_DIR else ["--plots_dir", plots_dir]

    def caption(self, name: str, export: Export) -> str:
        """What a figure shows, of which data, and the command that makes it again, a line each."""
        figure, words = self.figures[name], [*self._command, "--only", name, *export.flags, *self._more]
        command = figure.command or shlex.join(words)
        return "\n".join([f"{figure.about.rstrip('.')}.", *self._describe(name), f"Command: {command}"])

    def file_name(self, name: str, export: Export) -> str:
        """The name of the picture of a figure."""
        return f"{export.stem(self.figures[name].stem)}.{export.format}"

    def save(self, name: str, export: Export) -> tuple[Path, Figure]:
        """Draw a figure and write its files as `export.save_figure`; the path of the picture, and what was drawn."""
        drawn = self.figures[name](export.width_in)
        return save_figure(drawn, self._folder, self.figures[name].stem, export, self.caption(name, export)), drawn

    def save_as_script(self, args: SavingSettings, part: str = "") -> None:
        """Save the figures that --only names, else all, and print their paths; on stderr, say why one cannot be."""
        export, reasons = Export(args.format, args.width, part), []
        names = chosen(self.figures.values(), args.only)
        for name in names:
            try:
                print(self.save(name, export)[0])
            except InputError as error:
                reasons.append(f"no {self.file_name(name, export)}: {error}")
        if len(reasons) == len(names):
            raise InputError(reasons[0])
        print(*reasons, sep="\n", end="\n" if reasons else "", file=sys.stderr)


def chosen(figures: Iterable[PageFigure], only: Sequence[str] | None) -> list[str]:
    """The names of the figures that a script saves: those of --only, else all, but of the episodes only the first."""
    figures = list(figures)
    episodes = [figure.name for figure in figures if figure.is_episode]
    usual = [figure.name for figure in figures if not figure.is_episode] + episodes[:1]
    for name in only or ():
        if name not in usual and name not in episodes:
            more = " or another episode of the data" if len(episodes) > 1 else ""
            raise InputError(f"--only: there is no figure {name!r} here; there are {', '.join(usual)}{more}")
    return list(only or usual)
