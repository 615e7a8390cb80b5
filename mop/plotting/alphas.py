"""Measures of many runs against lpc_alpha -> figures: one dot for each seed, means over seeds, maps of their cells.

Tables: `seeds` has a row for each part of each run (`lpc_alpha`, `seed`, `phase`, `action`, and the measures as
columns); `summary` one for each measure of each part at each lpc_alpha (`OverSeeds` as columns). Where there is an
interval it is that of Student's t over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mop.analysis.cells import compute_grid_bounds
from mop.analysis.many_runs import ALL_STEPS, ANY_ACTION, CORRELATIONS, MEASURES, SeedCells
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.common.tables import interval_text
from mop.plotting.heatmaps import LPC_CMAP, LogScale, render_values, value_range
from mop.plotting.hover import add_note
from mop.plotting.measures import ENTROPY_CMAP
from mop.plotting.panels import make_panels, render_matrix, set_title, wrap_panels
from mop.plotting.sheets import LABEL_IN, MapGrid, Panel, Sheet, marks_legend, scale_legend
from mop.plotting.style import HUES, counted, open_frame, wrapped

if TYPE_CHECKING:
    import pandas as pd

_DOT: dict[str, Any] = {"color": HUES["blue"], "alpha": 0.6}
_MEAN: dict[str, Any] = {"color": "black"}
_SPREAD = 0.12  # of the dots around their lpc_alpha, which are 1 apart
_MOST_FLAT = 4  # names of more lpc_alpha stand upright
_WIDTH_IN, _HEIGHT_IN = 2.3, 1.75  # of a panel


_MAPPED = {  # value of a cell -> colours, text under the mouse, what the scale is called
    "lpc": (LPC_CMAP, "mean LPC {:.0f}", "mean LPC, mean over seeds"),
    "entropy_nats": (ENTROPY_CMAP, "mean entropy {:.3f} nats", "policy entropy in nats,\nmean over seeds"),
}
_LOG_FROM = 5.0  # ratio of the ends of a scale from which on it is logarithmic


class _Field(NamedTuple):
    """What a panel shows: one measure of one part of the steps."""

    measure: str
    phase: str = ALL_STEPS
    action: str = ANY_ACTION


def plot_measures_against_alpha(seeds: "pd.DataFrame", summary: "pd.DataFrame", title: str = "") -> Figure:
    """A panel for each of MEASURES that is known, of all steps."""
    fields = [_Field(measure) for measure in MEASURES if _is_known(seeds, _Field(measure))]
    if not fields:
        raise InputError("no measure of these runs is known")
    figure, axes, _ = wrap_panels(len(fields), 3, _WIDTH_IN, _HEIGHT_IN, 1.0, sharex=True)
    for ax, field in zip(axes, fields, strict=True):
        _draw_field(ax, seeds, summary, field)
        ax.set_title(MEASURES[field.measure], fontsize="medium", loc="left")
    figure.supxlabel("lpc_alpha", fontsize="medium")
    set_title(figure, title)
    return figure


def plot_measures_by_phase(seeds: "pd.DataFrame", summary: "pd.DataFrame", title: str = "") -> Figure:
    """A row for each measure, a column for each phase, the first one all steps.

    The path ratio of a phase is its part of the whole; it has no success.
    """
    phases = [ALL_STEPS, *_phases(seeds)]
    known = {name: label for name, label in MEASURES.items() if _is_known(seeds, _Field(name, phases[1]))}
    rows = {label: [_Field(name, phase) for phase in phases] for name, label in known.items()}
    return _panels(seeds, summary, rows, title)[0]


def plot_correlations_by_phase(seeds: "pd.DataFrame", summary: "pd.DataFrame", title: str = "") -> Figure:
    """Correlation of LPC with each of CORRELATIONS over the steps of a run: rows; all steps and each phase: columns.

    Means and intervals are of Fisher's z over seeds.
    """
    known = {name: label for name, label in CORRELATIONS.items() if name in seeds and seeds[name].notna().any()}
    if not known:
        raise InputError("no correlation of these runs is known: neither the entropy nor a distance varies with LPC")
    phases = [ALL_STEPS, *_phases(seeds, is_needed=False)]
    rows = {f"r of LPC and {label}": [_Field(name, phase) for phase in phases] for name, label in known.items()}
    figure, axes = _panels(seeds, summary, rows, title)
    for line in axes:
        line[0].set_ylim(-1.05, 1.05)
    _mark_zero(axes)
    return figure


def plot_lpc_with_action_held(seeds: "pd.DataFrame", summary: "pd.DataFrame", title: str = "") -> Figure:
    """What a phase (columns) changes in the LPC of the steps with one action (rows): minus that in the other phases.

    Each seed is compared with itself, and what differs is not the action. Actions that occur in one phase only are
    left out, which the title says.
    """
    phases, name = _phases(seeds), "lpc_difference"
    in_phases = seeds[(seeds["phase"] != ALL_STEPS) & (seeds["action"] != ANY_ACTION)]
    known = set(in_phases[in_phases[name].notna()]["action"]) if name in in_phases else set()
    actions = [action for action in ACTION_NAMES if action in known]
    if not actions:
        raise InputError("no action occurs in two phases: with the action held fixed, phases cannot be compared")
    alone = [action for action in ACTION_NAMES if action in set(in_phases["action"]) - known]
    if alone:
        title = f"{title}; in one phase only, and not shown: {', '.join(alone)}"
    rows = {action: [_Field(name, phase, action) for phase in phases] for action in actions}
    figure, axes = _panels(seeds, summary, rows, title)
    _mark_zero(axes)
    about = "LPC in this phase minus that in the others, of the same action"
    figure.supylabel(wrapped(about, figure.get_figheight() - 0.6), fontsize="medium")
    return figure


def plot_explained_over_seeds(shares: "pd.DataFrame", summary: "pd.DataFrame", title: str = "") -> Figure:
    """How much of the variance of LPC each factor explains, alone and together, and beyond others: a column an alpha.

    shares: rows with `lpc_alpha`, `seed`, `value`, `factors`, `held` ("" where nothing is), `r2`; summary: over seeds.
    """
    shares, summary = (table[table["value"] == "LPC"] for table in (shares, summary))
    if shares.empty:
        raise InputError("the variance of LPC of no run can be explained")
    names = _order_of_factors(shares, summary)
    alphas = sorted(shares["lpc_alpha"].unique())
    figure, axes = make_panels(1, len(alphas), 2.4, 0.27 * len(names), extra_height=1.7, sharey=True)
    for ax, alpha in zip(axes[0], alphas, strict=True):
        for place, (factors, held) in enumerate(names):
            rows, over = (
                table[(table["lpc_alpha"] == alpha) & (table["factors"] == factors) & (table["held"] == held)]
                for table in (shares, summary)
            )
            _draw_shares(ax, place, rows, over, factors, held)
        ax.set_title(f"lpc_alpha {alpha:g}", fontsize="medium", loc="left")
        ax.set_xlim(-0.06, 1.04)
        ax.set_xticks([0, 0.5, 1])
        ax.xaxis.set_major_formatter(PercentFormatter(1, 0))
        open_frame(ax)
    labels = [f"{factors}, {held} held" if held else factors for factors, held in names]
    axes[0, 0].set_yticks(range(len(names)), labels)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    about = "share of the variance of LPC explained, each episode predicted from the others; held: of what is left"
    figure.supxlabel(wrapped(about, figure.get_figwidth()), fontsize="medium")
    set_title(figure, title)
    return figure


def plot_gates_explained(summary: "pd.DataFrame", title: str = "") -> Figure:
    """The same for LPC, that of each layer, and each gate: a panel for each alpha, means over seeds in its fields."""
    if summary.empty:
        raise InputError("the variance of no run can be explained")
    values, alphas = list(dict.fromkeys(summary["value"])), sorted(summary["lpc_alpha"].unique())
    names = _order_of_factors(summary, summary)
    together = max((name for name in names if not name[1]), key=lambda name: name[0].count(" × "))
    names = [name for name in names if name[1] or " × " not in name[0] or name == together]
    labels = [_label_of_factors(*name, together[0]) for name in names]
    figure, axes = make_panels(
        len(alphas), 1, 0.8 * len(names) + 1.2, 0.25 * len(values), extra_height=2.4, sharex=True
    )
    for ax, alpha in zip(axes[:, 0], alphas, strict=True):
        of_alpha = summary[summary["lpc_alpha"] == alpha].set_index(["value", "factors", "held"])["mean"]
        shares = np.array([[of_alpha.get((value, *name), np.nan) for name in names] for value in values])
        render_matrix(ax, np.clip(shares, 0, 1), [[_share(share) for share in line] for line in shares])
        for (row, column), share in np.ndenumerate(shares):
            numbers = {"lpc_alpha": alpha, "value": values[row], "factors": names[column][0], "held": names[column][1]}
            note = f"lpc_alpha {alpha:g}, {values[row]}, {labels[column]}: {share:.3f}".replace("\n", " ")
            add_note(ax, column - 0.5, column + 0.5, row - 0.5, row + 0.5, note, **numbers, mean=float(share))
        ax.set_title(f"lpc_alpha {alpha:g}", fontsize="medium", loc="left")
        ax.set_yticks(range(len(values)), values)
    axes[-1, 0].set_xticks(range(len(names)), labels, rotation=90)
    set_title(figure, title)
    return figure


def _label_of_factors(factors: str, held: str, together: str) -> str:
    short = held.replace("time since start", "time")
    return "all together" if factors == together and not held else f"{factors}\n({short} held)" if held else factors


def _share(share: float) -> str:
    return "" if np.isnan(share) else f"{round(share, 2) + 0.0:.2f}"


# --- panels over lpc_alpha --------------------------------------------------------------------------------------------


def _panels(
    seeds: "pd.DataFrame", summary: "pd.DataFrame", rows: Mapping[str, Sequence[_Field]], title: str
) -> tuple[Figure, np.ndarray]:
    """A panel for each field of some rows, by their names, with the dots of the seeds, their means and intervals."""
    phases = [field.phase for field in next(iter(rows.values()))]
    figure, axes = make_panels(len(rows), len(phases), _WIDTH_IN, _HEIGHT_IN, 1.0, sharex=True, sharey="row")
    for line, (label, fields) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(wrapped(label, _HEIGHT_IN))
        for ax, field in zip(line, fields, strict=True):
            _draw_field(ax, seeds, summary, field)
    for ax, phase in zip(axes[0], phases, strict=True):
        ax.set_title(phase, fontsize="medium", loc="left")
    figure.supxlabel("lpc_alpha", fontsize="medium")
    set_title(figure, title)
    return figure, axes


def _draw_field(ax: Axes, seeds: "pd.DataFrame", summary: "pd.DataFrame", field: _Field) -> None:
    """One measure at each lpc_alpha, side by side: a dot for each seed, and their mean."""
    rows, over = _of_part(seeds, field), _of_part(summary, field)
    over = over[over["measure"] == field.measure]
    means, alphas = [], sorted(seeds["lpc_alpha"].unique())
    for x, alpha in enumerate(alphas):
        dots = _with_value(rows[rows["lpc_alpha"] == alpha], field.measure)
        offsets = np.linspace(-_SPREAD, _SPREAD, len(dots)) if len(dots) > 1 else [0.0] * len(dots)
        for offset, row in zip(offsets, dots.to_dict("records"), strict=True):
            value = row[field.measure]
            ax.plot(x + offset, value, "o", markersize=4, zorder=3, **_DOT)
            text = f"lpc_alpha {alpha:g} seed {row['seed']}: {value:.4g}, {counted(int(row['steps']), 'step')}"
            numbers = field._asdict() | {"lpc_alpha": alpha, "seed": row["seed"], "value": value}
            add_note(ax, x + offset, x + offset, value, value, text, **numbers, steps=int(row["steps"]))
        for found in over[over["lpc_alpha"] == alpha].to_dict("records"):
            if np.isfinite(found["mean"]):
                means.append((x + 2 * _SPREAD, found["mean"]))
                _draw_mean(ax, *means[-1], found, field)
    if not means:
        ax.text(0.5, 0.5, "no value", transform=ax.transAxes, ha="center", va="center", color="#888888")
    if len(means) > 1:
        ax.plot(*zip(*means, strict=True), color="#999999", linewidth=0.9, zorder=1)
    names = [f"{alpha:g}".replace("e-0", "e-") for alpha in alphas]
    ax.set_xticks(range(len(alphas)), names, rotation=90 if len(alphas) > _MOST_FLAT else 0)
    ax.set_xlim(-0.5, len(alphas) - 0.5)
    open_frame(ax)


def _draw_mean(ax: Axes, x: float, mean: float, found: Mapping, field: _Field) -> None:
    """The mean over seeds, with its interval where it has one."""
    ax.plot(x, mean, "_", markersize=9, markeredgewidth=2, zorder=4, **_MEAN)
    if np.isfinite(found["low"]):
        ax.plot([x, x], [found["low"], found["high"]], linewidth=1.2, zorder=4, **_MEAN)
    interval = interval_text(mean, found["low"], found["high"], ".4g")
    text = f"lpc_alpha {found['lpc_alpha']:g}: mean of {counted(int(found['num_seeds']), 'seed')} {interval}"
    if np.isfinite(found["drawn_low"]):
        text += f", bootstrap {found['drawn_low']:.4g} to {found['drawn_high']:.4g}"
    text += f", {int(found['num_missing'])} without a value" if found["num_missing"] else ""
    add_note(ax, x, x, mean, mean, text, **field._asdict(), **{name: found[name] for name in _OVER})


_OVER = ("lpc_alpha", "mean", "low", "high", "drawn_low", "drawn_high", "num_seeds", "num_missing")


def _mark_zero(axes: np.ndarray) -> None:
    for ax in axes.ravel():
        ax.axhline(0, color="#666666", linewidth=0.9, zorder=0)


# --- rows -------------------------------------------------------------------------------------------------------------


def _phases(seeds: "pd.DataFrame", is_needed: bool = True) -> list[str]:
    """The phases in the order of the table."""
    phases = [phase for phase in dict.fromkeys(seeds["phase"]) if phase != ALL_STEPS]
    if is_needed and len(phases) < 2:
        found = "no phases" if not phases else f"one phase alone, {phases[0]!r}"
        raise InputError(f"these runs have {found}: choose another grouping of the steps")
    return phases


def _of_part(table: "pd.DataFrame", field: _Field) -> "pd.DataFrame":
    return table[(table["phase"] == field.phase) & (table["action"] == field.action)]


def _with_value(rows: "pd.DataFrame", measure: str) -> "pd.DataFrame":
    return rows[rows[measure].notna()] if measure in rows else rows[:0]


def _is_known(seeds: "pd.DataFrame", field: _Field) -> bool:
    return not _with_value(_of_part(seeds, field), field.measure).empty


def _order_of_factors(shares: "pd.DataFrame", summary: "pd.DataFrame") -> list[tuple[str, str]]:
    """Factors and what is held: alone, in pairs, together, beyond others; among these the best first, on average."""
    means = summary.groupby(["factors", "held"], sort=False)["mean"].mean()
    names = list(dict.fromkeys(zip(shares["factors"], shares["held"], strict=True)))
    return sorted(names, key=lambda name: (bool(name[1]), name[0].count(" × "), -means.get(name, 0.0)))


def _draw_shares(ax: Axes, place: int, rows: "pd.DataFrame", over: "pd.DataFrame", factors: str, held: str) -> None:
    for row in rows[rows["r2"].notna()].to_dict("records"):
        ax.plot(max(row["r2"], -0.05), place, "o", markersize=3.5, **_DOT)
        text = f"seed {row['seed']}: {factors}{f', {held} held' if held else ''} {row['r2']:.3f}"
        names = ("lpc_alpha", "seed", "value", "factors", "held", "r2", "low", "high")
        add_note(ax, row["r2"], row["r2"], place, place, text, **{name: row[name] for name in names})
    for found in over.to_dict("records"):
        if np.isfinite(found["mean"]):
            ax.plot(found["mean"], place + 0.25, "|", markersize=8, markeredgewidth=2, **_MEAN)
        if np.isfinite(found["low"]):
            ends = np.clip([found["low"], found["high"]], -0.05, 1.03)
            ax.plot(ends, [place + 0.25] * 2, linewidth=1.2, **_MEAN)


def plot_phase_maps(
    maps: Mapping[str, Mapping[float, SeedCells]],
    value: str,
    grid_size: tuple[int, int] | None = None,
    walls: np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """A row for each phase, a column for each lpc_alpha, all maps on one scale.

    maps: phase -> lpc_alpha -> what is in each cell; value: "lpc" (on a log scale where it spans more than a factor of
    5) or "entropy_nats"; grid_size: (width, height) of the worlds; walls: (H, W) bool, None where they are not known.
    """
    alphas = sorted({alpha for of_phase in maps.values() for alpha in of_phase})
    found = [cells for of_phase in maps.values() for cells in of_phase.values()]
    if not found:
        raise InputError("there is no phase with a map: the steps have no positions, or not this value")
    cmap, text, label = _MAPPED[value]
    scale = value_range([cells.values for cells in found], [cells.counts for cells in found])
    if value == "lpc" and 0 < _LOG_FROM * scale[0] < scale[1]:
        scale = LogScale(scale)
    grid = MapGrid(compute_grid_bounds(np.concatenate([cells.cells for cells in found]), grid_size), walls)
    highest = {alpha: next(phase for phase in maps if alpha in maps[phase]) for alpha in alphas}  # of each column

    def map_of(phase: str, alpha: float) -> Panel | None:
        cells, head = maps[phase].get(alpha), f"lpc_alpha {alpha:g}" if phase == highest[alpha] else ""
        if cells is None:
            return None
        shown, place = (cells.cells, cells.counts, cells.values), {"phase": phase, "lpc_alpha": alpha}
        return grid.map(head, render_values, *shown, scale=scale, cmap=cmap, text=text, name=value, **place)

    rows = [[map_of(phase, alpha) for alpha in alphas] for phase in maps]
    labels = [
        f"{wrapped(phase, LABEL_IN)}\n{counted(sum(int(c.counts.sum()) for c in of_phase.values()), 'step')}"
        for phase, of_phase in maps.items()
    ]
    legends = [scale_legend(scale, cmap, label, [cells.values for cells in found]), marks_legend(1, grid)]
    return Sheet(rows, labels, grid.info, legends, title)
