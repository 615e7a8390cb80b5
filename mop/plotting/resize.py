"""A figure at another width, such as that of a column of a paper, with text that can still be read."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

from mop.plotting.sheets import SHEET_IN, Sheet
from mop.plotting.style import wrapped

_SHEET_SHARE = 0.6  # of the page for which maps are laid out: it brings 10 points to 6
TEXT_PT = (6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0)  # least size of text, the first that fits; journals ask for 5 to 7 points
_LARGEST_TEXT_PT = 18.0
_TITLE_PT = 12.0
_TICK_LABEL_PT, _TICK_LENGTH_PT, _TICK_WIDTH_PT = 10.0, 3.5, 0.8  # of matplotlib's axes
_DPI = 300  # at which it is found whether texts overlap: the fewer dots, the less even are their letters
_TOUCHING_PX = 1.0  # texts that share less than this do not overlap


def fit_to_width(figure: Figure, width_in: float) -> None:
    """Bring a figure to a width in inches, text and lines with it.

    Text shrinks less than the rest, to the first size of TEXT_PT at which no texts overlap that did not before, and
    none is cut off; where there is no such size, as much as the figure. Text that was smaller stays as it is.
    A figure that places its panels itself (constrained layout) keeps more of its height than of its width, which makes
    room for that text; a sheet of maps is laid out anew before.
    """
    if isinstance(figure, Sheet):
        figure.lay_out(min(SHEET_IN, width_in / _SHEET_SHARE))
    share = width_in / figure.get_figwidth()
    if abs(share - 1) < 1e-6:
        return
    before, title = _crowding(figure), figure.get_suptitle()
    texts = [(text, float(text.get_fontsize())) for text in figure.findobj(Text)]
    ticks = []
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        size = next((float(label.get_fontsize()) for label in axis.get_ticklabels()), _TICK_LABEL_PT)
        ticks.append((axis, size, axis.get_tick_params().get("length", _TICK_LENGTH_PT)))
    has_layout = figure.get_layout_engine() is not None
    figure.set_size_inches(width_in, figure.get_figheight() * (share**0.5 if has_layout and share < 1 else share))
    for artist in figure.findobj(lambda artist: hasattr(artist, "set_linewidth") and hasattr(artist, "get_linewidth")):
        if isinstance(width := getattr(artist, "get_linewidth", str)(), int | float):
            artist.set(linewidth=width * max(share, 0.5))
    for points in (line for part in (*figure.axes, *figure.legends) for line in part.get_lines()):
        points.set_markersize(points.get_markersize() * max(share, 0.4))
        points.set_markeredgewidth(points.get_markeredgewidth() * max(share, 0.5))
    for least in (*TEXT_PT, 0.0):
        _resize_texts(texts, ticks, share, least)
        if title:
            size = _text_size(_TITLE_PT, share, least)
            figure.suptitle(wrapped(" ".join(title.split()), (width_in - 0.3) * 10 / size), fontsize=size)
        if share > 1 or _crowding(figure) <= before:
            return


def smallest_text_pt(figure: Figure) -> float:
    """The size of the smallest text that a figure shows, in points; 0 if it shows none."""
    return min((float(text.get_fontsize()) for text in _shown_texts(figure)), default=0.0)


def _text_size(size: float, share: float, least: float) -> float:
    """The size of a text of `size` points in a figure that gets this share of its width."""
    if share > 1:
        return max(size, min(size * share, _LARGEST_TEXT_PT))
    return max(size * share, min(size, least))


def _resize_texts(
    texts: Sequence[tuple[Text, float]], ticks: Sequence[tuple[Axis, float, float]], share: float, least: float
) -> None:
    """Give texts the sizes of a figure that gets this share of its width; texts: with their sizes before.

    ticks: axes, whose texts are made anew when the figure is drawn, with the sizes of these and the lengths of ticks.
    """
    for text, size in texts:
        text.set_fontsize(_text_size(size, share, least))
    for axis, size, length in ticks:
        new_size = _text_size(size, share, least)
        shrunk = min(new_size / _TICK_LABEL_PT, 1.0)
        axis.set_tick_params("both", labelsize=new_size, length=length * shrunk, width=_TICK_WIDTH_PT * shrunk)


def _crowding(figure: Figure) -> set[tuple[str, ...]]:
    """The pairs of texts that overlap, and the texts that are cut off at the edge of the figure."""
    dpi = figure.dpi
    figure.set_dpi(_DPI)
    figure.draw_without_rendering()
    size, texts = np.array(figure.bbox.size), _shown_texts(figure)
    boxes = np.array([text.get_window_extent().extents for text in texts]).reshape(-1, 4)
    figure.set_dpi(dpi)
    low, high = boxes[:, :2], boxes[:, 2:]
    is_cut = (low < -_TOUCHING_PX).any(1) | (high > size + _TOUCHING_PX).any(1)
    shared = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    pairs = np.argwhere(np.triu((shared > _TOUCHING_PX).all(-1), 1))
    groups = [*pairs.tolist(), *np.flatnonzero(is_cut)[:, None].tolist()]
    return {tuple(texts[index].get_text() for index in group) for group in groups}


def _shown_texts(figure: Figure) -> list[Text]:
    """The texts that are drawn: visible, as are the axis and the panel that they belong to, and not empty."""
    hidden = set()
    for ax in figure.axes:
        for part in (ax, ax.xaxis, ax.yaxis):
            if not part.get_visible():
                hidden.update(part.findobj(Text))
        for axis in (ax.xaxis, ax.yaxis):  # labels of ticks outside the limits of the axis are not drawn
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden.update((tick.label1, tick.label2))
    texts = figure.findobj(Text)
    return [text for text in texts if text.get_visible() and text.get_text().strip() and text not in hidden]
