"""A map of the grid for each phase at each lpc_alpha, on one scale, each a mean over runs with different seeds."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mop.analysis.many_runs import SeedCells
from mop.analysis.maps import compute_grid_bounds
from mop.common.errors import InputError
from mop.plotting.heatmaps import LPC_CMAP, LogScale, Scale, render_values, render_walls, value_range
from mop.plotting.maps import ENTROPY_CMAP
from mop.plotting.sheets import LABEL_IN, Panel, draw_sheet, marks_legend, scale_legend
from mop.plotting.style import counted, wrapped

_MAPPED = {  # value of a cell -> colours, text under the mouse, what the scale is called
    "lpc": (LPC_CMAP, "mean LPC {:.0f}", "mean LPC, mean over seeds"),
    "entropy_nats": (ENTROPY_CMAP, "mean entropy {:.3f} nats", "policy entropy in nats,\nmean over seeds"),
}
_LOG_FROM = 5.0  # ratio of the ends of a scale from which on it is logarithmic


def plot_phase_maps(
    maps: Mapping[str, Mapping[float, SeedCells]],
    value: str,
    grid_size: tuple[int, int] | None = None,
    walls: np.ndarray | None = None,
    title: str = "",
    width_in: float | None = None,
) -> Figure:
    """A row for each phase, a column for each lpc_alpha, all maps on one scale.

    maps: phase -> lpc_alpha -> what is in each cell; value: "lpc" (on a log scale where it spans more than a factor of
    5) or "entropy_nats"; grid_size: (width, height) of the worlds; walls: (H, W) bool, None where they are not known.
    Raises InputError if there is no map.
    """
    alphas = sorted({alpha for of_phase in maps.values() for alpha in of_phase})
    found = [cells for of_phase in maps.values() for cells in of_phase.values()]
    if not found:
        raise InputError("there is no phase with a map: the steps have no positions, or not this value")
    cmap, _, label = _MAPPED[value]
    scale = value_range([cells.values for cells in found], [cells.counts for cells in found])
    if value == "lpc" and 0 < _LOG_FROM * scale[0] < scale[1]:
        scale = LogScale(scale)
    grid_info = compute_grid_bounds(np.concatenate([cells.cells for cells in found]), grid_size)
    rows = []
    for phase, of_phase in maps.items():
        panels = []
        for alpha in alphas:
            head = f"lpc_alpha {alpha:g}" if phase == next(iter(maps)) else ""
            draw = _drawing(of_phase.get(alpha), grid_info, scale, walls, value, phase, alpha)
            panels.append(Panel(head, draw) if alpha in of_phase else None)
        rows.append(panels)
    labels = [
        f"{wrapped(phase, LABEL_IN)}\n{counted(sum(int(c.counts.sum()) for c in of_phase.values()), 'step')}"
        for phase, of_phase in maps.items()
    ]
    legends = [scale_legend(scale, cmap, label, [cells.values for cells in found])]
    legends.append(marks_legend(1, walls is not None, False))
    return draw_sheet(rows, labels, grid_info, legends, title, width_in=width_in)


def _drawing(
    cells: SeedCells,
    grid_info: dict[str, int],
    scale: Scale,
    walls: np.ndarray | None,
    value: str,
    phase: str,
    alpha: float,
) -> Callable[[Axes], None]:
    cmap, text, _ = _MAPPED[value]

    def draw(ax: Axes) -> None:
        more = {"phase": phase, "lpc_alpha": alpha}
        render_values(ax, cells.cells, cells.counts, cells.values, grid_info, scale, cmap, text, value, **more)
        render_walls(ax, walls)

    return draw
