"""What a figure shows: texts, the colour of a cell, the fields of a matrix."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

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
