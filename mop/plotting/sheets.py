"""A sheet of maps: rows of panels, labels of rows, legends above.

Everything is placed in inches here: the sizes are known, and matplotlib's constrained layout of sixty axes takes
seconds.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from mop.analysis.cells import CLOSE, FULL_STEPS, compute_confidence, visit_strength
from mop.plotting.heatmaps import GRID_COLOR, HATCH_COLOR, LogScale, Scale, norm_of, render_walls
from mop.plotting.panels import log_ticks
from mop.plotting.style import SKIP_HUE, UNVISITED_COLOR, WALL_COLOR, Figure, Look, counted, expert_cmap, wrapped

LABEL_IN = 1.75  # width of a row's label
_LINE_IN = 0.19  # height of a line of text
_AXIS_IN = 0.42  # tick labels and the name of an axis
_GAP_IN = 0.22  # between neighbouring maps
_CELL_IN = 0.45  # a cell is not larger
_MAP_IN = (1.7, 2.7)  # the longer side of a map: least and most
_FILLED_MAP_IN = (0.75, 4.5)  # the same of a sheet that is to have a certain width
SHEET_IN = 12.0  # width of a page: maps shrink to fit it, down to their least side
_BETWEEN_IN = 0.3  # between legends
_SWATCH_IN = 0.3  # width of a swatch of `marks_legend`


@dataclass(frozen=True)
class Panel:
    """One map: what draws it, and the text above it."""

    title: str
    draw: Callable[[Axes], object]


@dataclass(frozen=True, eq=False)
class MapGrid:
    """The cells that every map of a figure shows, and which are walls (H, W) bool, None where that is not known."""

    info: dict[str, int]  # of `compute_grid_bounds`
    walls: np.ndarray | None

    def map(self, title: str, render: Callable[..., object], *what: Any, **look: Any) -> Panel:
        """A panel that draws a map, with walls over it; render: takes axes, `what`, and `grid_info` with the look."""

        def draw(ax: Axes) -> None:
            render(ax, *what, grid_info=self.info, **look)
            render_walls(ax, self.walls)

        return Panel(title, draw)


@dataclass(frozen=True)
class Legend:
    """What the colours mean, drawn above the maps."""

    width_in: float
    height_in: float
    left_in: float  # room for the labels to its left
    foot_in: float  # room for those below it
    draw: Callable[[Axes], object]
    num_lines: int = 1  # of the text above it


@dataclass(frozen=True)
class _Columns:
    """The columns of maps of a sheet, all alike, in inches."""

    left: float  # of the first column
    right: float  # of the last column
    slot: float  # width of a column, with the gap to its neighbour
    gap: float
    map_width: float
    map_height: float

    def map_x(self, column: int) -> float:
        """The left edge of a column's maps, which stand in the middle of their slot."""
        return self.left + column * self.slot + (self.slot - self.gap - self.map_width) / 2


class Sheet(Figure):
    """A figure of maps, which can be laid out for another width."""

    def __init__(
        self,
        rows: Sequence[Sequence[Panel | None]],
        labels: Sequence[str],
        grid_info: dict[str, int],
        legends: Sequence[Legend],
        title: str,
        has_own_axes: bool = False,
    ):
        """Rows of maps (None: an empty place) with a label to the left of each row, if any has one, and legends above.

        A single row without a label is wrapped. grid_info: the cells that every map shows, of `compute_grid_bounds`.
        has_own_axes: the columns show different grids, and grid_info is the largest; then y stands beside every column.
        """
        super().__init__()
        self._shown = rows, labels, grid_info, legends, title, has_own_axes
        self.lay_out()

    def lay_out(self, width_in: float | None = None) -> None:
        """Draw everything anew. Without a width, maps are 1.7 to 2.7 inches wide on a page of 12.

        With one, maps grow and shrink to fill it, but a cell is at most 0.45 inches wide and a map at least 0.75.
        Coordinates stand below the lowest map of each column and to the left of the first column; the axes of the other
        maps are made invisible before `Panel.draw`.
        """
        rows, labels, grid_info, legends, title, has_own_axes = self._shown
        page_in = width_in or SHEET_IN
        if len(rows) == 1 and not labels[0]:  # two maps side by side at least, else as many as have the usual most
            most = max(2, int((page_in - _AXIS_IN - 0.1) / (_MAP_IN[1] + _GAP_IN)))
            rows = [rows[0][start : start + most] for start in range(0, len(rows[0]), most)]
            labels = [""] * len(rows)
        columns = _columns(rows, labels, grid_info, has_own_axes, width_in)
        legends_width, legends_height, corners = _place_legends(legends, max(page_in, columns.right))
        width = max(columns.right, legends_width, 4.0)
        title = wrapped(title, width / 1.2 - 0.3)
        title_height = 0.25 * (title.count("\n") + 1) + 0.1 if title else 0.05
        titles = [[wrapped(panel.title, columns.slot - 0.1) if panel else "" for panel in row] for row in rows]
        row_tops, bottom = _place_rows(titles, labels, title_height + legends_height, columns.map_height)
        height = bottom + _AXIS_IN

        self.clear()
        self.set_size_inches(width, height)
        if title:
            self.suptitle(title, y=1 - 0.08 / height, va="top", fontsize="large")
        for number, (row, label, top) in enumerate(zip(rows, labels, row_tops, strict=True)):
            if label:
                x, middle = columns.left - _AXIS_IN - 0.18, 1 - (top + columns.map_height / 2) / height
                self.text(x / width, middle, label, ha="right", va="center", fontsize="medium")
            for column, panel in enumerate(row):
                if panel is None:
                    continue
                ax = _add_axes(self, columns.map_x(column), top, columns.map_width, columns.map_height)
                ax.xaxis.set_visible(number == len(rows) - 1 or column >= len(rows[number + 1]))
                ax.yaxis.set_visible(column == 0 or has_own_axes)
                panel.draw(ax)
                ax.set_anchor("N")  # the first row of a smaller grid is level with those of the others
                ax.set_title(titles[number][column], fontsize="medium", pad=4)
                heading = panel.title or titles[0][column]  # where only the first row has titles
                ax.set_label(", ".join(filter(None, (label, heading))))  # for `values_of`
        for legend, (x, y) in zip(legends, corners, strict=True):  # last: the axes of a figure begin with its maps
            x, y = x + (width - legends_width) / 2, y + title_height
            legend.draw(_add_axes(self, x + legend.left_in, y, legend.width_in, legend.height_in))


def expert_legend(names: Sequence[str], hues: Sequence[str], title: str) -> Legend:
    """One strip per expert over its mean weight, from 1/E to 1."""
    num_experts = len(names)
    least = 1 / num_experts

    def draw(ax: Axes) -> None:
        weights = np.linspace(least, 1, 256)
        strips = [expert_cmap(hue)(compute_confidence(weights, num_experts)) for hue in hues]
        extent = (0, 1, num_experts - 0.5, -0.5)
        ax.imshow(np.stack(strips), extent=extent, interpolation="nearest", aspect="auto")
        ax.set_yticks(range(num_experts), names)
        ax.hlines(np.arange(num_experts - 1) + 0.5, 0, 1, color="white", linewidth=4)
        ax.tick_params(axis="y", length=0)
        ticks = [1.0] if num_experts == 1 else [least, 1.0] if least > 0.4 else [least, 0.5, 1.0]
        places = [(tick - least) / (1 - least) if num_experts > 1 else 1 for tick in ticks]
        ax.set_xticks(places, [f"{tick:.2g}" for tick in ticks])
        ax.tick_params(labelsize="small")
        ax.set_title(title, fontsize="small")
        ax.set_xlabel("its mean weight", fontsize="small")
        ax.spines[:].set_visible(False)

    return Legend(1.5, 0.2 * num_experts, 1.25, 0.5, draw)


def expert_legends(looks: Iterable[Look]) -> list[Legend]:
    """A legend for each look of experts that differs from the others."""
    return [expert_legend(*look, "dominant expert") for look in {str(look): look for look in looks}.values()]


def marks_legend(min_steps: int, grid: MapGrid, has_ties: bool = False) -> Legend:
    """What else a cell can be: hatched, pale, not visited, a wall.

    min_steps: cells with fewer steps are left out; has_ties: the maps hatch cells where two experts are close.
    """
    left_out = "not visited" if min_steps <= 1 else f"fewer than {counted(min_steps, 'step')}"
    marks = {f"first two closer than {CLOSE:g}": "hatched"} if has_ties else {}
    marks |= {f"pale: fewer than {FULL_STEPS} steps": "pale"} if min_steps < FULL_STEPS else {}
    marks |= {left_out: "dot"} | ({"wall": "wall"} if grid.walls is not None else {})

    def draw(ax: Axes) -> None:
        width = _SWATCH_IN / 2.4
        for row, mark in enumerate(marks.values()):
            middle, low, high = width / 2, row - 0.38, row + 0.38
            if mark == "pale":
                steps = visit_strength(np.arange(1, FULL_STEPS + 1))[None, :, None]
                shades = 1 - steps * (1 - np.array(to_rgb(SKIP_HUE)))
                ax.imshow(shades, extent=(0, width, high, low), aspect="auto", interpolation="nearest")
                continue
            face = WALL_COLOR if mark == "wall" else UNVISITED_COLOR
            ax.add_patch(Rectangle((0, low), width, high - low, facecolor=face, edgecolor=GRID_COLOR, linewidth=0.5))
            if mark == "dot":
                ax.plot(middle, row, ".", color=GRID_COLOR, markersize=2.5)
            elif mark == "hatched":
                for left in np.linspace(0, width, 5)[:-1]:
                    ax.plot([left, left + width / 4], [high, low], color=HATCH_COLOR, linewidth=0.6)
        for row, text in enumerate(marks):
            ax.text(width + 0.04, row, text, va="center", fontsize="small")
        ax.set(xlim=(0, 1), ylim=(len(marks) - 0.5, -0.5))
        ax.set_axis_off()

    return Legend(2.4, 0.2 * len(marks), 0.15, 0.1, draw)


def scale_legend(scale: Scale, cmap: str, label: str, values: Sequence[np.ndarray]) -> Legend:
    """A horizontal colour bar from scale[0] to scale[1], with one label if these are equal.

    values: what the maps show (C,) each; where some lie beyond an end, the bar has an arrow there.
    """
    low, high = scale
    is_beyond = min(map(np.nanmin, values)) < low, max(map(np.nanmax, values)) > high
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}

    def draw(ax: Axes) -> None:
        norm = norm_of(scale) if high > low else Normalize(low, low + 1)
        extend = ends[is_beyond] if high > low else "neither"
        ax.figure.colorbar(ScalarMappable(norm, cmap), cax=ax, orientation="horizontal", extend=extend)
        ax.tick_params(labelsize="small")
        if high == low:
            ax.set_xticks([low])
        elif isinstance(scale, LogScale):
            ax.xaxis.set_minor_locator(NullLocator())
            ticks = log_ticks(low, high, 4)
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        else:
            is_wide = high >= 1000 or high - low < 0.2 * abs(high)  # labels of four digits or more
            ax.locator_params(nbins=3 if is_wide else 5)
        ax.set_title(label, fontsize="small")

    return Legend(1.9, 0.2, 0.15, 0.35, draw, num_lines=label.count("\n") + 1)


def _columns(
    rows: Sequence[Sequence],
    labels: Sequence[str],
    grid_info: dict[str, int],
    has_own_axes: bool,
    width_in: float | None,
) -> _Columns:
    """The columns of a sheet with the arguments of `draw_sheet`."""
    least, most = _MAP_IN if width_in is None else _FILLED_MAP_IN
    left = (LABEL_IN if any(labels) else 0.0) + _AXIS_IN + 0.1
    gap = _GAP_IN + (_AXIS_IN if has_own_axes else 0)
    num_columns, cells = max(map(len, rows)), (grid_info["grid_width"], grid_info["grid_height"])
    longer_side = max(least, min(most, ((width_in or SHEET_IN) - left) / num_columns - gap))
    cell = min(_CELL_IN, longer_side / max(cells))
    map_width, map_height = cells[0] * cell, cells[1] * cell
    slot = max(map_width, min(_MAP_IN[0], longer_side)) + gap
    return _Columns(left, left + num_columns * slot, slot, gap, map_width, map_height)


def _place_rows(
    titles: Sequence[Sequence[str]], labels: Sequence[str], top: float, map_height: float
) -> tuple[list[float], float]:
    """Where the maps of each row begin, below their titles, from the top of the sheet; and where the last row ends."""
    row_tops = []
    for texts, label in zip(titles, labels, strict=True):
        row_tops.append(top + _LINE_IN * max(text.count("\n") + 1 if text else 0 for text in texts) + 0.1)
        label_height = 0.17 * (label.count("\n") + 2) if label else 0.0
        top = row_tops[-1] + max(map_height + _GAP_IN, label_height)
    return row_tops, top


def _place_legends(legends: Sequence[Legend], width: float) -> tuple[float, float, list[tuple[float, float]]]:
    """Width and height of all legends, in as many rows as a width needs, and the left upper corner of each."""
    head = _LINE_IN * max(legend.num_lines for legend in legends)
    corners, x, y, height, widest = [], _BETWEEN_IN, head, 0.0, 0.0
    for legend in legends:
        legend_width = legend.left_in + legend.width_in + _BETWEEN_IN
        if corners and x + legend_width > width:
            x, y, height = _BETWEEN_IN, y + height + head, 0.0
        corners.append((x, y))
        x, height = x + legend_width, max(height, legend.height_in + legend.foot_in)
        widest = max(widest, x)
    return widest, y + height, corners


def _add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose upper left corner is x, y inches from that of the figure."""
    all_width, all_height = figure.get_size_inches()
    return figure.add_axes((x / all_width, 1 - (y + height) / all_height, width / all_width, height / all_height))
