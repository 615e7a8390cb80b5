"""Texts under the mouse: where their rectangles stand in a figure."""

import io

import pytest
from matplotlib.figure import Figure

from mop.plotting.hover import add_note, boxes_of, notes_of, values_of


def drawn(figure: Figure) -> Figure:
    figure.savefig(io.BytesIO(), format="png", dpi=170)  # another resolution than the figure's own
    return figure


def test_boxes_by_hand():
    """Axes on the right half of a figure of 4 x 2 inches, from 0 to 10 in x, and from 5 above to 0 below in y."""
    figure = Figure(figsize=(4, 2))
    ax = figure.add_axes((0.5, 0, 0.5, 1))
    ax.set(xlim=(0, 10), ylim=(5, 0))
    assert notes_of(ax) == [] and boxes_of(drawn(figure)) == []
    add_note(ax, 2, 4, 1, 2, "a cell")
    add_note(ax, 8, 12, 4, 9, "one that is cut off at the edge")
    add_note(ax, 11, 12, 0, 1, "one outside")
    add_note(ax, 5, 5, 2.5, 2.5, "a point")
    cell, cut, point = boxes_of(drawn(figure))
    assert tuple(cell)[:4] == pytest.approx((0.6, 0.2, 0.1, 0.2)) and cell.text == "a cell"
    assert tuple(cut)[:4] == pytest.approx((0.9, 0.8, 0.1, 0.2))
    side = 2 * 0.09  # inches
    assert tuple(point)[:4] == pytest.approx((0.75 - side / 8, 0.5 - side / 4, side / 4, side / 2))


def test_boxes_follow_the_place_that_drawing_gives_to_axes():
    """Axes of equal scales shrink when they are drawn; constrained layout moves them too."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="a title", xlabel="x")
    add_note(ax, 0, 1, 0, 1, "all of it")
    (box,) = boxes_of(drawn(figure))
    assert box.width * 6 == pytest.approx(box.height * 3) and box.height < 0.9
    frame = ax.get_position()
    assert (box.left, 1 - box.top) == pytest.approx((frame.x0, frame.y1))


def test_values_are_named_by_their_panel():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.set_title("layer 0\n3 steps", loc="left")
    right.set_title("mean LPC")
    add_note(left, 0, 1, 0, 1, "a cell", x=3, weight=0.5)
    add_note(left, 0, 1, 0, 1, "a text alone")
    add_note(right, 0, 1, 0, 1, "another", x=4, lpc=256.0)
    assert values_of(figure) == [
        {"panel": "layer 0 3 steps", "x": 3, "weight": 0.5},
        {"panel": "mean LPC", "x": 4, "lpc": 256.0},
    ]
