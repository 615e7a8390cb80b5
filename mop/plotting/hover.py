"""What a figure says under the mouse, and the numbers that it shows: notes for rectangles of its axes.

The pages show the texts over a still picture, which cannot be of another run than the one it was made of, whatever the
browser has kept of an earlier page. The numbers are saved beside the picture.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_POINT_IN = 0.09  # half the side of the square around a point, in inches


class Note(NamedTuple):
    """A text for a rectangle, or a point, in the coordinates of the data."""

    left: float
    right: float
    bottom: float
    top: float
    text: str
    values: dict[str, object]  # the numbers that are drawn there, by name


class Box(NamedTuple):
    """A text for a rectangle, in shares of the figure; y from its top."""

    left: float
    top: float
    width: float
    height: float
    text: str
    values: Mapping[str, object] = {}  # of its note


def add_note(ax: Axes, left: float, right: float, bottom: float, top: float, text: str, **values: object) -> None:
    """Let a rectangle of the data show a text under the mouse, or a point, with a little around it.

    values: the numbers that are drawn there, by name: a row of `values_of`. A note without a text is such a row alone.
    """
    notes_of(ax).append(Note(left, right, bottom, top, text, values))


def notes_of(ax: Axes) -> list[Note]:
    """The notes of axes, in the order in which they were added."""
    return ax.__dict__.setdefault("hover_notes", [])


def values_of(figure: Figure) -> list[dict[str, object]]:
    """The numbers that a figure shows: those of each note that has some, behind the name of its panel ("panel").

    That is the label of its axes, or their title where they have none.
    """
    rows = []
    for ax in figure.axes:
        name = " ".join((str(ax.get_label()) or ax.get_title(loc="left") or ax.get_title()).split())
        rows += [{"panel": name} | note.values for note in notes_of(ax) if note.values]
    return rows


def boxes_of(figure: Figure) -> list[Box]:
    """Where the notes of a figure stand; call it after the figure was drawn, which settles where its axes are.

    Notes outside the limits of their axes are cut to these, or left out.
    """
    boxes = []
    for ax in figure.axes:
        frame = ax.get_window_extent().transformed(figure.transFigure.inverted())
        for note in filter(lambda note: note.text, notes_of(ax)):
            corners = ax.transData.transform([(note.left, note.bottom), (note.right, note.top)])
            if note.left == note.right and note.bottom == note.top:
                corners += figure.dpi * _POINT_IN * np.array([[-1], [1]])
            (x0, y0), (x1, y1) = figure.transFigure.inverted().transform(corners)
            x0, x1 = np.clip(sorted((x0, x1)), frame.x0, frame.x1)
            y0, y1 = np.clip(sorted((y0, y1)), frame.y0, frame.y1)
            if x1 > x0 and y1 > y0:
                boxes.append(Box(float(x0), float(1 - y1), float(x1 - x0), float(y1 - y0), note.text, note.values))
    return boxes
