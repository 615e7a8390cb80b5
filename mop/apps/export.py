"""A figure as files for a paper or a talk: the picture, the numbers in it, and a caption that says how it was made."""

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mop.apps.runs import Run
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.files import figure_bytes, file_digest, write_together
from mop.plotting.hover import values_of
from mop.plotting.resize import fit_to_width, smallest_text_pt
from mop.plotting.style import counted

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
    Raises OSError.
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


@dataclass(frozen=True)
class Shown:
    """Which data a page or a script shows: of which run, and which part of them."""

    run: Run
    num_fresh: int | None = None  # episodes of a fresh evaluation; None: its routing cache
    action: str | None = None  # the action of all steps; None: any
    min_steps: int = 1  # of a cell

    @property
    def part(self) -> str:
        """What the names of files say of it: figures of other parts of the data are other files."""
        part = "" if self.action is None else f"_{self.action.replace(' ', '_')}"
        return part if self.min_steps == 1 else f"{part}_min_{self.min_steps}_steps"

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that show the same."""
        words = [*self.run.flags, *self.run.places]
        words += [] if self.num_fresh is None else ["--fresh", "--num_episodes", str(self.num_fresh)]
        words += [] if self.action is None else ["--action", self.action]
        return words + ([] if self.min_steps == 1 else ["--min_steps", str(self.min_steps)])


def caption_of(
    app: str, shown: Shown, data: RoutingData, name: str, about: str, export: Export, plots_dir: str = PLOTS_DIR
) -> str:
    """The caption of a figure of one run, in lines.

    app: the file of the app that saves it; data: the steps that are shown; name: of the figure; about: what it shows.
    """
    whole = data if data.whole is None else data.whole
    words = ["python", app, *shown.flags, "--only", name, *export.flags]
    words += [] if plots_dir == PLOTS_DIR else ["--plots_dir", plots_dir]
    lines = [
        f"{about.rstrip('.')}.",
        f"Run: {_describe_run(shown, data)}.",
        f"Data: {_describe_data(shown, whole)}.",
        f"Shown: {_describe_part(shown, data)}.",
        f"Command: {shlex.join(words)}",
    ]
    return "\n".join(lines)


def _describe_run(shown: Shown, data: RoutingData) -> str:
    header, run = data.header, shown.run
    digest = run.result.get("checkpoint_sha256") if shown.num_fresh is None else file_digest(run.checkpoint)
    parts = [run_name({**header, "is_final": True})]
    parts += [f"update {header['update']}"] if header.get("update") is not None else []
    parts += [f"checkpoint {header['checkpoint_path']}"] if header.get("checkpoint_path") else []
    return ", ".join([*parts, *([] if digest is None else [f"its SHA-256 begins with {digest}"])])


def _describe_data(shown: Shown, whole: RoutingData) -> str:
    header = whole.header
    parts = [
        f"{counted(len(whole.steps), 'step')} in {counted(header.get('num_episodes', len(whole.episodes)), 'world')}"
    ]
    parts += [f"eval_seed {header['eval_seed']}"] if header.get("eval_seed") is not None else []
    parts += [f"Minigrid {header['minigrid_version']}"] if header.get("minigrid_version") else []
    kind = "evaluated" if shown.num_fresh is None else "evaluated for this figure, not kept,"
    parts += [f"{kind} {header['evaluated_at']}"] if header.get("evaluated_at") else []
    return ", ".join(parts)


def _describe_part(shown: Shown, data: RoutingData) -> str:
    steps = (
        "all steps" if shown.action is None else f"the {counted(len(data.steps), 'step')} with action: {shown.action}"
    )
    return steps if shown.min_steps == 1 else f"{steps}; in maps, cells with {shown.min_steps} steps or more"
