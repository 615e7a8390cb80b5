"""A sheet of maps: rows of panels, labels of rows, legends above.

Everything is placed in inches here: the sizes are known, and matplotlib's constrained layout of sixty axes takes
seconds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure

from mop.plotting.style import UNVISITED_COLOR, expert_cmap, wrapped

LABEL_IN = 1.75  # width of a row's label
_LINE_IN = 0.19  # height of a line of text
_AXIS_IN = 0.42  # tick labels and the name of an axis
_GAP_IN = 0.22  # between neighbouring maps
_MAP_IN = (1.7, 2.7)  # the longer side of a map: least and most
_SHEET_IN = 12.0  # width of a page: maps shrink to fit it, down to their least side


@dataclass(frozen=True)
class Panel:
    """One map: what draws it, and the text above it."""

    title: str
    draw: Callable[[Axes], object]


@dataclass(frozen=True)
class Legend:
    """What the colours mean, drawn above the maps."""

    width_in: float
    height_in: float
    left_in: float  # room for the labels to its left
    foot_in: float  # room for those below it
    draw: Callable[[Axes], object]


@dataclass(frozen=True)
class _Places:
    """Where everything of a sheet goes, in inches; y is counted from the top."""

    width: float
    height: float
    title: str  # in as many lines as it needs
    panel_titles: list[list[str]]
    legends_x: float
    legends_y: float
    left: float  # of the first column
    slot: float  # width of a column, with the gap to its neighbour
    gap: float
    map_width: float
    map_height: float
    row_tops: list[float]  # of the maps, below their titles

    def map_x(self, column: int) -> float:
        """The left edge of a column's maps, which stand in the middle of their slot."""
        return self.left + column * self.slot + (self.slot - self.gap - self.map_width) / 2


def draw_sheet(
    rows: Sequence[Sequence[Panel | None]],
    labels: Sequence[str],
    grid_info: dict[str, int],
    legends: Sequence[Legend],
    title: str,
    has_own_axes: bool = False,
) -> Figure:
    """Rows of maps (None: an empty place) with a label to the left of each row, if any has one, and legends above.

    grid_info: the cells that every map shows, of `compute_grid_bounds`. Coordinates stand below the lowest map of each
    column and to the left of the first column; the axes of the other maps are made invisible before `Panel.draw`.
    has_own_axes: the columns show different grids, and grid_info is the largest; then y stands beside every column.
    """
    places = _place(rows, labels, grid_info, legends, title, has_own_axes)
    figure = Figure(figsize=(places.width, places.height))
    if title:
        figure.suptitle(places.title, y=1 - 0.08 / places.height, va="top", fontsize="large")
    for number, (row, label, top) in enumerate(zip(rows, labels, places.row_tops, strict=True)):
        if label:
            x, middle = places.left - _AXIS_IN - 0.18, 1 - (top + places.map_height / 2) / places.height
            figure.text(x / places.width, middle, label, ha="right", va="center", fontsize="medium")
        for column, panel in enumerate(row):
            if panel is None:
                continue
            ax = _add_axes(figure, places.map_x(column), top, places.map_width, places.map_height)
            ax.xaxis.set_visible(number == len(rows) - 1 or column >= len(rows[number + 1]))
            ax.yaxis.set_visible(column == 0 or has_own_axes)
            panel.draw(ax)
            ax.set_anchor("N")  # the first row of a smaller grid is level with those of the others
            ax.set_title(places.panel_titles[number][column], fontsize="medium", pad=4)
    x = places.legends_x
    for legend in legends:  # last, so that the axes of a figure begin with its maps
        x += legend.left_in
        legend.draw(_add_axes(figure, x, places.legends_y, legend.width_in, legend.height_in))
        x += legend.width_in + 0.3
    return figure


def expert_legend(names: Sequence[str], hues: Sequence[str], title: str) -> Legend:
    """One strip per expert from low to high confidence, and the colour of unvisited cells below them."""
    num_experts = len(names)

    def draw(ax: Axes) -> None:
        levels = np.linspace(0, 1, 256)
        strips = [expert_cmap(hue)(levels) for hue in hues]
        strips.append(np.tile(to_rgba(UNVISITED_COLOR), (len(levels), 1)))
        ax.imshow(np.stack(strips), extent=(0, 1, num_experts + 0.5, -0.5), interpolation="nearest", aspect="auto")
        ax.set_yticks(range(num_experts + 1), [*names, "not visited"])
        ax.hlines(np.arange(num_experts) + 0.5, 0, 1, color="white", linewidth=4)
        ax.tick_params(axis="y", length=0)
        ax.set_xticks(
            [1] if num_experts == 1 else [0, 1], ["1"] if num_experts == 1 else [f"{1 / num_experts:.2f}", "1"]
        )
        ax.tick_params(labelsize="small")
        ax.set_title(title, fontsize="small")
        ax.set_xlabel("its mean weight", fontsize="small")
        ax.spines[:].set_visible(False)

    return Legend(1.5, 0.2 * (num_experts + 1), 1.0, 0.5, draw)


def scale_legend(scale: tuple[float, float], cmap: str, label: str) -> Legend:
    """A horizontal colour bar from scale[0] to scale[1], with one label if these are equal."""

    def draw(ax: Axes) -> None:
        low, high = scale
        norm = Normalize(low, high if high > low else low + 1)
        ax.figure.colorbar(ScalarMappable(norm, cmap), cax=ax, orientation="horizontal")
        ax.tick_params(labelsize="small")
        ax.locator_params(nbins=5 if high < 1000 else 3)  # labels of four digits or more are wide
        if high == low:
            ax.set_xticks([low])
        ax.set_title(label, fontsize="small")

    return Legend(1.9, 0.2, 0.15, 0.35, draw)


def _place(
    rows: Sequence[Sequence[Panel | None]],
    labels: Sequence[str],
    grid_info: dict[str, int],
    legends: Sequence[Legend],
    title: str,
    has_own_axes: bool,
) -> _Places:
    """The places of a sheet with the arguments of `draw_sheet`."""
    left = (LABEL_IN if any(labels) else 0.0) + _AXIS_IN + 0.1
    gap = _GAP_IN + (_AXIS_IN if has_own_axes else 0)
    num_columns, cells = max(map(len, rows)), (grid_info["grid_width"], grid_info["grid_height"])
    longer_side = max(_MAP_IN[0], min(_MAP_IN[1], (_SHEET_IN - left) / num_columns - gap))
    cell = min(0.45, longer_side / max(cells))
    map_width, map_height = cells[0] * cell, cells[1] * cell
    slot = max(map_width, _MAP_IN[0]) + gap
    legends_width = sum(legend.left_in + legend.width_in + 0.3 for legend in legends)
    width = max(left + num_columns * slot, legends_width + 0.3, 4.0)

    title = wrapped(title, width / 1.2 - 0.3)
    title_height = 0.25 * (title.count("\n") + 1) + 0.1 if title else 0.05
    y = title_height + max(legend.height_in + legend.foot_in for legend in legends) + _LINE_IN
    panel_titles = [[wrapped(panel.title, slot - 0.1) if panel else "" for panel in row] for row in rows]
    row_tops = []
    for texts, label in zip(panel_titles, labels, strict=True):
        row_tops.append(y + _LINE_IN * max(text.count("\n") + 1 if text else 0 for text in texts) + 0.1)
        label_height = 0.17 * (label.count("\n") + 2) if label else 0.0
        y = row_tops[-1] + max(map_height + _GAP_IN, label_height)
    return _Places(
        width=width,
        height=y + _AXIS_IN,
        title=title,
        panel_titles=panel_titles,
        legends_x=max((width - legends_width) / 2, 0.1),
        legends_y=title_height + _LINE_IN,
        left=left,
        slot=slot,
        gap=gap,
        map_width=map_width,
        map_height=map_height,
        row_tops=row_tops,
    )


def _add_axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose upper left corner is x, y inches from that of the figure."""
    all_width, all_height = figure.get_size_inches()
    return figure.add_axes((x / all_width, 1 - (y + height) / all_height, width / all_width, height / all_height))
