"""What all figures share: colours, names of experts, text that fits.

Figures are made without pyplot, which keeps every figure alive in a global list and is not safe in the threads of a
server.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba

from mop.base.errors import InputError
from mop.measures.groups import Groups
from mop.store.run_names import run_name

# Hues of Okabe and Ito (https://jfly.uni-koeln.de/color/), the fourth one of Paul Tol's "bright" set. They are in this
# order because blue, orange and green stay furthest apart at every intensity, for colour-blind eyes too, and most
# layers have three experts.
HUES = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "purple": "#AA3377",
    "sky": "#56B4E9",
    "vermilion": "#D55E00",
}
_PALEST = 0.12  # share of the hue at confidence 0: nearly white, but not the white of the page


def _ramp(name: str, hue: str) -> LinearSegmentedColormap:
    palest = 1 - _PALEST * (1 - np.array(to_rgba(hue)))
    return LinearSegmentedColormap.from_list(f"expert_{name}", [tuple(palest), hue])


EXPERT_CMAPS = tuple(_ramp(name, hue) for name, hue in HUES.items())  # confidence 0..1 -> colour of expert 0, 1, ...
UNVISITED_COLOR = "#333333"  # dark: for some eyes, any paler grey is on the ramp of an expert


def expert_hues(num_experts: int, layer: int) -> list[str]:
    """The full hue of each expert of a layer. Raises InputError if there are more experts than hues."""
    if num_experts > len(HUES):
        raise InputError(f"layer {layer} has {num_experts} experts, and EXPERT_CMAPS has colours for {len(HUES)}")
    return list(HUES.values())[:num_experts]


def expert_names(header: Mapping, layers: Sequence[np.ndarray]) -> list[list[str]]:
    """What the experts of each layer are called: by their sizes, or by their numbers where no sizes are known.

    header: of the routing data, with the sizes as `expert_hidden_sizes`; layers: L arrays (..., E_l).
    Raises InputError if a layer has another number of experts than of sizes.
    """
    sizes = header.get("expert_hidden_sizes")
    names = []
    for layer, num_experts in enumerate(weights.shape[-1] for weights in layers):
        if sizes is None:
            names.append([f"expert {index}" for index in range(num_experts)])
            continue
        of_layer = sizes[layer] if layer < len(sizes) else ()
        if len(of_layer) != num_experts:
            raise InputError(f"layer {layer} has {counted(num_experts, 'expert')}, and {len(of_layer)} sizes are given")
        names.append([f"GRU {size}" if size else "skip (size 0)" for size in of_layer])
    return names


def short_name(name: str) -> str:
    """The name of an expert without its size in brackets: "skip"."""
    return name.removesuffix(" (size 0)")


def task_name(task_id: str) -> str:
    """A task id without what all task ids share: "UnlockPickup"."""
    return task_id.removeprefix("BabyAI-").removesuffix("-v0")


def isolated(values: np.ndarray) -> np.ndarray:
    """Which of values (S,) are finite without a finite neighbour, (S,) bool: a line does not show them."""
    padded = np.pad(np.isfinite(values), 1)
    return padded[1:-1] & ~padded[:-2] & ~padded[2:]


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
