"""What all figures share: colours, names of experts, text that fits.

Figures are made without pyplot, which keeps every figure alive in a global list and is not safe in the threads of a
server.
"""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, hsv_to_rgb, to_hex, to_rgb
from matplotlib.text import Text

from mop.analysis.groups import Groups
from mop.artifacts.run_names import run_name
from mop.common.errors import InputError

# Hues of Okabe and Ito (https://jfly.uni-koeln.de/color/), the fourth one of Paul Tol's "bright" set: for lines, points
# and bars that are no experts.
HUES = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#AA3377",
    "sky": "#56B4E9",
    "vermilion": "#D55E00",
}
SKIP_HUE = "#787878"
SIZE_HUES = {  # found by a search; test_style.py measures how far apart they are, for every kind of sight
    16: "#1f4eff",
    32: "#9c7e00",
    64: "#88006f",
    8: "#82a7f9",
    128: "#1b520e",
    256: "#e79b64",
}
BASELINE_HUE = "#b63b96"  # of the GRU baseline, whatever its size
UNVISITED_COLOR = "#ffffff"  # the page: the fewer steps in a cell, the nearer its colour
WALL_COLOR = "#222222"
Look = tuple[list[str], list[str]]  # names and hues of the experts of a layer
_PALEST = 0.55  # share of the hue at confidence 0: a tie of two experts is still clearly coloured
_BEND = 0.6  # below 1: the ramp falls most where most weights are, little above 1/E


class Figure(matplotlib.figure.Figure):
    """A figure that shows its texts as they are: a "$" in the name of a run begins no formula."""

    def draw(self, renderer) -> None:
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)


def expert_cmap(hue: str) -> LinearSegmentedColormap:
    """The ramp of an expert: confidence 0..1 (of `compute_confidence`) -> from a pale shade of its hue to all of it.

    hue: of `expert_hues`.
    """
    shares = _PALEST + (1 - _PALEST) * np.linspace(0, 1, 256)[:, None] ** _BEND
    return LinearSegmentedColormap.from_list(f"expert_{hue}", 1 - shares * (1 - np.array(to_rgb(hue))))


def size_hue(size: int) -> str:
    """The full hue of experts of a size, 0 for the skip: the same in every figure. Any size has one."""
    if size == 0:
        return SKIP_HUE
    if size in SIZE_HUES:
        return SIZE_HUES[size]
    turn, depth = size * (5**0.5 - 1) / 2 % 1, size * 2**0.5 % 1  # multiples of irrational numbers stay apart
    return to_hex(tuple(hsv_to_rgb((turn, 0.85, 0.55 + 0.3 * depth))))


def expert_looks(header: Mapping, layers: Sequence[np.ndarray]) -> list[Look]:
    """Names and full hues (hex) of the experts of each layer, by their sizes, else by their numbers.

    header: of the routing data, with the sizes as `expert_hidden_sizes`; layers: L arrays (..., E_l). The skip is grey,
    each size has a hue of its own, the GRU baseline another. Several experts of one size in a layer are "GRU 32a",
    "GRU 32b", each darker than the one before. Where no sizes are known, experts take the hues of SIZE_HUES in order.
    """
    sizes = _sizes(header, layers)
    if sizes is None:
        hues = [*SIZE_HUES.values(), *(size_hue(index) for index in range(300, 400))]
        counts = [weights.shape[-1] for weights in layers]
        return [([f"expert {index}" for index in range(count)], hues[:count]) for count in counts]
    if is_baseline(header):
        return [([f"baseline GRU {size}" for size in of_layer], [BASELINE_HUE] * len(of_layer)) for of_layer in sizes]
    return [_looks_by_size(of_layer) for of_layer in sizes]


def _looks_by_size(sizes: Sequence[int]) -> Look:
    names, hues = [], []
    for index, size in enumerate(sizes):
        rank, count = sizes[:index].count(size), sizes.count(size)  # how often it came before, and comes
        letter = chr(ord("a") + rank) if count > 1 else ""
        names.append(f"GRU {size}{letter}" if size else f"skip{letter} (size 0)")
        hues.append(to_hex(tuple((1 - 0.7 * rank / count) * np.array(to_rgb(size_hue(size))))))
    return names, hues


def expert_hues(header: Mapping, layers: Sequence[np.ndarray]) -> list[list[str]]:
    """The hues of `expert_looks`: L lists of E_l hex colours."""
    return [hues for _, hues in expert_looks(header, layers)]


def expert_names(header: Mapping, layers: Sequence[np.ndarray]) -> list[list[str]]:
    """The names of `expert_looks`."""
    return [names for names, _ in expert_looks(header, layers)]


def short_name(name: str) -> str:
    """The name of an expert, of `expert_names`, where space is short: "skip"."""
    return name.removesuffix(" (size 0)")


def is_baseline(header: Mapping) -> bool:
    """Whether routing data is of the GRU baseline: its header says so, or knows of one layer with one expert."""
    sizes = header.get("expert_hidden_sizes") or []
    return header.get("policy", "gru" if [len(of_layer) for of_layer in sizes] == [1] else "mop") == "gru"


def _sizes(header: Mapping, layers: Sequence[np.ndarray]) -> list[list[int]] | None:
    """The sizes of the experts of each layer, None where they are not known."""
    sizes = header.get("expert_hidden_sizes")
    if sizes is None:
        return None
    for layer, num_experts in enumerate(weights.shape[-1] for weights in layers):
        num_sizes = len(sizes[layer]) if layer < len(sizes) else 0
        if num_sizes != num_experts:
            raise InputError(f"layer {layer} has {counted(num_experts, 'expert')}, and {num_sizes} sizes are given")
    return [list(of_layer) for of_layer in sizes[: len(layers)]]


def isolated(values: np.ndarray) -> np.ndarray:
    """Which of values (S,) are finite without a finite neighbour, (S,) bool: a line does not show them."""
    padded = np.pad(np.isfinite(values), 1)
    return padded[1:-1] & ~padded[:-2] & ~padded[2:]


def plain_number(value: float, _position: float = 0) -> str:
    """A tick of a logarithmic axis, where matplotlib would write a formula: "1,000", "0.5"."""
    return f"{value:,g}"


def open_frame(ax: Axes) -> None:
    """A pale grid behind the data, and no frame above and to the right of it."""
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def wrapped(text: str, width_in: float) -> str:
    """Text in lines that fit a width: a letter of the usual size is about 0.09 inches wide."""
    lines = [textwrap.fill(line, max(16, int(width_in / 0.09))) for line in text.split("\n")]
    return "\n".join(lines)


def counted(count: int, noun: str) -> str:
    """ "1 step", "12,345 steps"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def describe(header: Mapping, episode: np.ndarray, suffix: str = "") -> str:
    """What was evaluated and how much of it is shown, for a title; episode: (S,) int, of the steps that are shown."""
    counts = f"{counted(len(episode), 'step')} of {counted(len(np.unique(episode)), 'episode')}"
    return ", ".join(filter(None, [run_name(header), header.get("restricted_to"), counts, suffix]))


def describe_groups(groups: Groups, shown: Sequence[int]) -> str:
    """How the steps are grouped, and which groups are shown if not all, for a title."""
    text = f"by {groups.grouping.title}"
    return text if len(shown) == len(groups) else f"{text} (the largest {len(shown)} of {len(groups)} groups)"
