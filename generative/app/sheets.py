"""Sheets: columns for steps, rows of pictures, bars or strips exactly below each other; router weights over time.

Axis letters: T steps, L layers, E experts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from generative.domains.babyai.pictures import WRONG_HUE
from generative.figures.film import Strip
from mop.plotting.heatmaps import page_size_in
from mop.plotting.hover import add_note
from mop.plotting.panels import weights_text
from mop.plotting.style import HUES, Figure, short_name

Rows = Mapping[str, np.ndarray]  # arrays as a recording has them, (T, ...)
Sizes = Sequence[Sequence[int]]  # of the experts of each layer
MAX_PICTURES = 9  # side by side; of more steps, some are left out
WIDTH_IN = 11.5
LEFT_IN, RIGHT_IN = 1.85, 0.25
GAP_IN, TEXT_IN, TITLE_IN, LEGEND_IN = 0.1, 0.22, 0.6, 0.24  # between panels; a line of text; above all panels
STRIP_IN = 0.22
_STRIP_ROWS = 40
_VIEW = (7, 7)
LABEL_STYLE: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "fontsize": "small", "labelpad": 8}


def part(rows: Rows, steps: slice) -> Rows:
    """Some of the rows."""
    return {name: array[steps] for name, array in rows.items()}


def shown_columns(num_columns: int) -> list[int]:
    """The columns that have a picture: all, or some, evenly spread."""
    return np.unique(np.linspace(0, num_columns - 1, min(num_columns, MAX_PICTURES)).round().astype(int)).tolist()


def gaps_below(num_pictures: int, num_strips: int) -> list[float]:
    """Room below panels: for actions below rows of pictures, for the name of a layer above strips."""
    gaps = [TEXT_IN + GAP_IN] * num_pictures + [TEXT_IN] * num_strips
    return [*gaps[: num_pictures - 1], TEXT_IN * 2, *gaps[num_pictures + 1 :]]


def make_sheet(
    num_columns: int, heights_in: Sequence[float], gaps_in: Sequence[float], below_in: float, above_in: float = TITLE_IN
) -> tuple[Figure, list[Axes]]:
    """A figure of panels of these heights below each other, with columns 0, 1, ... in the same places.

    gaps_in: below each panel but the last.
    """
    height = above_in + sum(heights_in) + sum(gaps_in[: len(heights_in) - 1]) + below_in
    figure = Figure(figsize=(WIDTH_IN, height))
    axes, top = [], height - above_in
    for panel, gap in zip(heights_in, [*gaps_in, 0.0][: len(heights_in)], strict=True):
        box = (LEFT_IN, top - panel, WIDTH_IN - LEFT_IN - RIGHT_IN, panel)
        ax = figure.add_axes((box[0] / WIDTH_IN, box[1] / height, box[2] / WIDTH_IN, box[3] / height))
        ax.set_xlim(-0.5, num_columns - 0.5)
        ax.set_xticks([])
        axes.append(ax)
        top -= panel + gap
    return figure, axes


def height_of(picture: np.ndarray, num_pictures: int) -> float:
    """The height in inches of a row of such pictures; few of them are not drawn larger than many."""
    width = (WIDTH_IN - LEFT_IN - RIGHT_IN) / max(num_pictures, 5)
    return 0.94 * width * picture.shape[0] / picture.shape[1]


def draw_pictures(
    ax: Axes, pictures: Sequence[np.ndarray], shown: Sequence[int], is_wrong: np.ndarray | None = None
) -> None:
    """Pictures in some of the columns; is_wrong: (T, 7, 7), the cells of each that get a frame."""
    low, high = ax.get_xlim()
    box = ax.get_position()
    width_in, height_in = page_size_in(ax) * (box.width, box.height)
    for column in shown:
        if column >= len(pictures):
            continue
        picture = pictures[column]
        half = 0.5 * height_in * picture.shape[1] / picture.shape[0] * (high - low) / width_in
        ax.imshow(picture, extent=(column - half, column + half, 0, 1), aspect="auto", interpolation="antialiased")
        wrong = np.zeros(_VIEW) if is_wrong is None else is_wrong[column]
        for row, cell in np.argwhere(wrong).tolist():
            side = 2 * half / wrong.shape[1], 1 / wrong.shape[0]
            corner = column - half + cell * side[0], 1 - (row + 1) * side[1]
            ax.add_patch(Rectangle(corner, *side, fill=False, edgecolor=WRONG_HUE, linewidth=1.6))
    ax.set_xlim(low, high)
    ax.set_ylim(0, 1)
    ax.set_yticks([])
    ax.tick_params(length=0, labelsize="small")
    ax.spines[:].set_visible(False)


def write_actions(ax: Axes, names: Sequence[str], shown: Sequence[int], step: int, plain: Sequence[str]) -> None:
    """What is done in each column that has a picture; in bold where it is another action than in the plain future."""
    for column in shown:
        if column < len(names):
            is_other = column < len(plain) and names[column] != plain[column]
            style: dict[str, Any] = {"weight": "bold", "color": HUES["vermilion"]} if is_other else {"color": "#333333"}
            style |= {"xytext": (0, -2), "textcoords": "offset points", "ha": "center", "va": "top"}
            ax.annotate(f"{step + column}: {names[column]}", (column, 0), fontsize="small", **style)


def draw_strips(ax: Axes, layers: Sequence[Strip], words: Sequence[str], step: int) -> None:
    """The weights of one layer over time, of several futures below each other."""
    for place, (layer, word) in enumerate(zip(layers, words, strict=True)):
        low, high = place + 0.06, place + 0.94
        ax.imshow(
            layer.colors(_STRIP_ROWS),
            extent=(-0.5, len(layer.weights) - 0.5, high, low),
            aspect="auto",
            interpolation="nearest",
        )
        for at, weights in enumerate(layer.weights):
            text = f"{layer.label}, {word}, step {step + at}: {weights_text(layer.names, weights)}"
            values = dict(zip(map(short_name, layer.names), weights.tolist(), strict=True))
            numbers = {"layer": layer.label, "future": word, "step": step + at, **values}
            add_note(ax, at - 0.5, at + 0.5, low, high, text, **numbers)
    ax.set_xlim(-0.5, ax.get_xlim()[1] if len(layers) == 0 else max(len(layer.weights) for layer in layers) - 0.5)
    ax.set_ylim(len(layers), 0)
    ax.set_yticks(np.arange(len(layers)) + 0.5, words, fontsize="x-small")
    ax.set_title(layers[0].label, loc="left", fontsize="small", pad=1)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def label_steps(figure: Figure, ax: Axes, step: int, num_columns: int, layers: Sequence[Strip]) -> None:
    """Steps below the last panel, and a legend of the experts; nothing where no layer is drawn."""
    if not layers:
        return
    columns = range(0, num_columns, max(1, num_columns // 12))
    ax.set_xticks(columns, [f"step {step}", *(str(step + column) for column in columns[1:])], fontsize="small")
    patches = expert_patches(layers)
    figure.legend(handles=patches, loc="lower right", ncols=6, frameon=False, fontsize="small", handlelength=1)


def expert_patches(layers: Sequence[Strip]) -> list[Patch]:
    hues = {short_name(name): hue for layer in layers for name, hue in zip(layer.names, layer.hues, strict=True)}
    return [Patch(color=hue, label=name) for name, hue in hues.items()]
