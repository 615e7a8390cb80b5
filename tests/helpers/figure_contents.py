"""What a figure shows: texts, the colour of a cell, the fields of a matrix."""

from itertools import combinations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from mop.plotting.hover import notes_of


def new_axes() -> Axes:
    return Figure().subplots()


def texts(artists) -> list[str]:
    return [artist.get_text() for artist in artists]


def cell_color(ax: Axes, x: int, y: int) -> np.ndarray:
    """RGBA that is drawn at grid cell (x, y), found through the extent of the picture."""
    (image,) = ax.images
    left, _, _, top = image.get_extent()
    return image.get_array()[round(y - top - 0.5), round(x - left - 0.5)]


def faded(color, count: int) -> np.ndarray:
    """RGBA of a cell with `count` steps on the white page: all of its colour from 10 steps on, sqrt(n / 10) below."""
    return np.array([*(1 - min(count / 10, 1) ** 0.5 * (1 - np.array(to_rgb(color)))), 1.0])


def has_wall(ax: Axes, x: int, y: int) -> bool:
    """Whether a wall is drawn over grid cell (x, y)."""
    walls = [c for c in ax.collections if isinstance(c, PolyCollection)]
    return any(path.get_extents().contains(x, y) for part in walls for path in part.get_paths())


def is_hatched(ax: Axes, x: int, y: int) -> bool:
    """Whether diagonals are drawn over grid cell (x, y)."""
    (hatch,) = [c for c in ax.collections if c.get_label() == "hatched"]
    return any((abs(line.mean(0) - (x, y)) < 0.5).all() for line in hatch.get_segments())


def matrix_texts(ax: Axes) -> list[list[str]]:
    """The text in each field of a matrix."""
    return np.array(texts(ax.texts)).reshape(ax.images[0].get_array().shape).tolist()


def legend_of(figure: Figure) -> list[str]:
    """The texts of the only legend."""
    (legend,) = figure.legends
    return texts(legend.get_texts())


def hover_text(ax: Axes, x: float, y: float) -> str | None:
    """What axes show under the mouse at a place of the data; None: nothing."""
    for left, right, bottom, top, text, _ in notes_of(ax):
        if left <= x <= right and min(bottom, top) <= y <= max(bottom, top):
            return text
    return None


def drawn_texts(figure):
    """The texts that are drawn: neither those of a hidden axis, nor tick labels beyond its limits."""
    figure.draw_without_rendering()  # settles the layout
    hidden = set()
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            is_shown = ax.axison and axis.get_visible()
            hidden |= set() if is_shown else {axis.label, axis.offsetText}
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (is_shown and limits[0] - 1e-9 <= tick.get_loc() <= limits[1] + 1e-9):
                    hidden |= {tick.label1, tick.label2}
    found = figure.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text().strip() and text not in hidden]


def check_labels(figure: Figure, name: str) -> int:
    """Every text is inside the figure, and no two of them overlap; the number of texts."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in drawn_texts(figure)]
    width, height = figure.bbox.x1, figure.bbox.y1
    for text, box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1 and box.y0 >= -1 and box.y1 <= height + 1, (name, text)
    for (one, first), (other, second) in combinations(boxes, 2):
        overlap_x = min(first.x1, second.x1) - max(first.x0, second.x0)
        overlap_y = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert overlap_x <= 1 or overlap_y <= 1, (name, one, other)
    return len(boxes)
