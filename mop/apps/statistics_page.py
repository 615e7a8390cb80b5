"""A sample of trainings (`samples`): what is measured of each run, tables and figures over seeds."""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from matplotlib.figure import Figure

from mop.analysis import many_runs
from mop.analysis.actions import hold_action
from mop.analysis.explained import compute_layer_costs, explain_beyond, explain_variance, gate_values, index_factors
from mop.analysis.groups import GROUPINGS, choose_phases
from mop.apps.runs import Run, file_version, load_routing
from mop.apps.samples import AUTO_PHASES, NO_PHASES, Asked, LeftOut, Unit, choose_units, count_reasons, reason_of
from mop.apps.template import Page, PageFigure
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_paths import PLOTS_DIR, task_folder
from mop.common.errors import InputError
from mop.common.task_mix import task_name
from mop.plotting import alphas
from mop.plotting.maps import common_size, common_walls, walls_of, world_size
from mop.plotting.style import counted
from mop.statistics.bootstrap import EpisodeSums, OverSeeds, mean_over_seeds

if TYPE_CHECKING:
    import pandas as pd

SCRIPT = "seed_statistics.py"
FOLDER = "statistics"  # below that of the task in the folder of plots
NO_TASK = "none"
_ANY = (-np.inf, np.inf)
_EXTRA = ("lpc_difference", "complexity_plug_in_nats", "complexity_null_nats")


def analyse(asked: Asked, progress: Callable[..., Iterable] = lambda found, total: found) -> "Tables":
    """The tables of a task; progress: shows how far an iterator has come, of `total` runs."""
    import pandas as pd

    units, left_out = choose_units(asked)
    phases = _choose_phases(units, asked)
    found = progress(_measure_units(units, asked, left_out, phases), total=len(units))
    measured = [of_run for of_run in found if of_run is not None]
    if not measured:
        raise InputError(f"no run of {asked.task_id} can be measured: {left_out[0].reason}")
    seeds = pd.DataFrame([_row(of_run.unit, part) for of_run in measured for part in of_run.parts])
    rows = [_names(of_run.unit) | row for of_run in measured for row in of_run.shares]
    shares = pd.DataFrame(rows, columns=_SHARES)
    summary, shares_summary = _summary(measured), _summary_of_shares(shares, measured)
    return Tables(asked, phases, measured, left_out, seeds, summary, shares, shares_summary)


# --- what is measured of each -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measured:
    """A run that counts, measured; its steps are not kept."""

    unit: Unit
    parts: list[many_runs.Part]
    shares: list[dict[str, object]]  # rows of the table of variance explained
    notes: list[str]  # what could not be measured
    grid_size: tuple[int, int] | None  # of its worlds, where they have one
    walls: np.ndarray | None  # (H, W) bool, of all its worlds


def _choose_phases(units: Sequence[Unit], asked: Asked) -> str | None:
    """The grouping whose groups are the phases: the one asked for, else the first of PHASE_GROUPINGS that suits half
    of the runs; None: there are no phases.
    """
    if asked.phases == NO_PHASES:
        return None
    if asked.phases != AUTO_PHASES:
        return asked.phases
    return choose_phases([_phases_of(unit.run, *file_version(unit.run.cache_path)) for unit in units])


def _measure_units(
    units: Sequence[Unit], asked: Asked, left_out: list[LeftOut], phases: str | None
) -> Iterator[Measured | None]:
    """Each run measured, one after the other; None for one that cannot be, which `left_out` then has."""
    for unit in units:
        try:
            yield _measured(unit, phases, asked.state, asked.action, *file_version(unit.run.cache_path))
        except InputError as error:
            left_out.append(LeftOut(unit.run.key.label, f"it cannot be measured: {reason_of(error, unit.run)}"))
            yield None


@functools.lru_cache(maxsize=1024)
def _phases_of(run: Run, *version: int) -> tuple[str, ...]:
    try:
        return tuple(many_runs.available_phases(load_routing(run)))
    except InputError:  # `_measure_units` tells
        return ()


@functools.lru_cache(maxsize=256)  # visitors of one server share them
def _measured(unit: Unit, phases: str | None, state: tuple[str, ...], action: str | None, *version: int) -> Measured:
    data = load_routing(unit.run)
    if data.steps.lpc is None or not np.isfinite(data.steps.lpc).all():
        raise InputError("its steps have no finite LPC")
    held = data if action is None else hold_action(data, action)
    parts, notes = many_runs.measure_run(held, phases, state)
    shares = []
    try:
        shares = _explain(held, phases)
    except InputError as error:
        notes.append(f"no variance explained: {error}")
    size = world_size(data)
    return Measured(unit, parts, shares, notes, size, None if size is None else walls_of(data))


def _explain(data: RoutingData, phases: str | None) -> list[dict[str, object]]:
    """Rows of what explains LPC, that of each layer, and each gate: factors alone and together, and beyond others."""
    pieces = [compute_layer_costs(data)]
    if data.steps.layer_routing is not None:
        pieces.append(gate_values(data))
    names = [name for of_piece, _ in pieces for name in of_piece]
    values = np.concatenate([of_piece for _, of_piece in pieces], axis=1)
    alone = explain_variance(data, values, phases)
    found: list[tuple] = [(e.factors, (), e.r2, e.low, e.high, e.in_sample) for e in alone]
    factors = list(index_factors(data, phases))
    phase = next((name for name in factors if name not in ("cell", "action", "time since start")), None)
    held_sets = (("action",), ("action", "time since start"), ("cell", "action", "time since start"))
    known = dict.fromkeys(tuple(name for name in held if name in factors) for held in held_sets)
    for held in known:  # of one action, the action is held anyway
        if phase is not None and held:
            beyond = explain_beyond(data, values, phase, held, phases)
            found.append(((phase,), held, beyond.share, beyond.low, beyond.high, np.full(len(names), np.nan)))
    return [
        {"value": name, "factors": " × ".join(of), "held": " × ".join(held), "r2": float(r2[place])}
        | {"low": float(low[place]), "high": float(high[place]), "in_sample": float(in_sample[place])}
        for place, name in enumerate(names)
        for of, held, r2, low, high, in_sample in found
    ]


# --- tables -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tables:
    """What is found of a sample of runs."""

    asked: Asked
    phases: str | None  # the grouping of the phases
    measured: list[Measured]
    left_out: list[LeftOut]
    seeds: "pd.DataFrame"  # a row for each part of each run
    summary: "pd.DataFrame"  # a row for each measure of each part at each lpc_alpha, over seeds
    shares: "pd.DataFrame"  # variance explained: a row for each run, value and set of factors
    shares_summary: "pd.DataFrame"  # the same over seeds

    @property
    def num_seeds(self) -> dict[float, int]:
        """lpc_alpha -> runs."""
        return dict(sorted(Counter(found.unit.lpc_alpha for found in self.measured).items()))

    @property
    def notes(self) -> list[str]:
        """What to know before the numbers are read, a sentence each."""
        notes = []
        few = [f"{alpha:g}" for alpha, count in self.num_seeds.items() if count == 1]
        if few:
            notes.append(
                f"one seed at lpc_alpha {', '.join(few)}: numbers without intervals, as nothing tells how far "
                "another seed would be off"
            )
        problems = Counter(note for found in self.measured for note in found.notes)
        notes += [f"in {counted(count, 'run')}: {note}" for note, count in problems.items()]
        notes += [
            f"left out, {counted(count, 'run')}: {reason}" for reason, count in count_reasons(self.left_out).items()
        ]
        return notes


_SHARES = ["task_id", "lpc_alpha", "trial", "seed", "value", "factors", "held", "r2", "low", "high", "in_sample"]


def _names(unit: Unit) -> dict[str, object]:
    key = unit.run.key
    return {"task_id": key.task_id, "lpc_alpha": unit.lpc_alpha, "trial": key.trial, "seed": unit.seed}


def _row(unit: Unit, part: many_runs.Part) -> dict[str, object]:
    row = {"phase": part.phase, "action": part.action, "steps": part.num_steps, "episodes": part.num_episodes}
    values = part.measures.items()
    return _names(unit) | row | {name: one.value if isinstance(one, EpisodeSums) else one for name, one in values}


def _summary(measured: Sequence[Measured]) -> "pd.DataFrame":
    """Every measure over seeds. A run without the part, as nobody came so far, counts as one without a value."""
    import pandas as pd

    by_alpha: dict[float, list[Measured]] = {}
    for found in measured:
        by_alpha.setdefault(found.unit.lpc_alpha, []).append(found)
    places = dict.fromkeys((part.phase, part.action) for found in measured for part in found.parts)
    rows = []
    for alpha, runs in by_alpha.items():
        parts_of = [{(part.phase, part.action): part for part in found.parts} for found in runs]
        for place in places:
            parts = [of_run.get(place) for of_run in parts_of]
            for name in (*many_runs.MEASURES, *_EXTRA, *many_runs.CORRELATIONS):
                values = [np.nan if part is None else part.measures.get(name, np.nan) for part in parts]
                if all(isinstance(value, float) and np.isnan(value) for value in values):
                    continue
                head = {"task_id": runs[0].unit.run.key.task_id, "lpc_alpha": alpha}
                head |= {"phase": place[0], "action": place[1], "measure": name}
                rows.append(head | asdict(mean_over_seeds(values, many_runs.LIMITS.get(name, _ANY))))
    return pd.DataFrame(rows)


def _summary_of_shares(shares: "pd.DataFrame", measured: Sequence[Measured]) -> "pd.DataFrame":
    import pandas as pd

    num_runs = Counter(found.unit.lpc_alpha for found in measured)
    rows, names = [], ["task_id", "lpc_alpha", "value", "factors", "held"]
    for place, group in shares.groupby(names, sort=False):
        values = group["r2"].tolist()
        values += [np.nan] * (num_runs[place[1]] - len(values))
        rows.append(dict(zip(names, place, strict=True)) | asdict(mean_over_seeds(values, (-np.inf, 1.0))))
    return pd.DataFrame(rows, columns=[*names, *(field.name for field in fields(OverSeeds))])


def table_files(tables: Tables, folder: Path) -> list[tuple[Path, Callable[[BinaryIO], object]]]:
    """Every table as a CSV file, for `write_together`."""
    import pandas as pd

    named = {"seeds": tables.seeds, "summary": tables.summary, "variance": tables.shares}
    named |= {"variance_summary": tables.shares_summary}
    named |= {"left_out": pd.DataFrame(tables.left_out, columns=LeftOut._fields)}
    look = {"index": False, "lineterminator": "\n"}
    return [(folder / f"{name}.csv", functools.partial(table.to_csv, **look)) for name, table in named.items()]


# --- figures ----------------------------------------------------------------------------------------------------------


def page_of(tables: Tables, plots_dir: str = PLOTS_DIR) -> Page:
    """The figures of a sample of runs."""
    counts = tables.num_seeds.items()
    runs = ", ".join(f"{count} at lpc_alpha {alpha:g}" for alpha, count in counts)
    lines = [f"Runs: {runs}, of {tables.asked.task_id}."]
    lines += [f"Phases: {tables.phases}."] if tables.phases else []
    lines += [f"Note: {note}." for note in tables.notes]
    folder = folder_of(tables.asked, plots_dir)
    return Page(
        SCRIPT, tables.asked.flags, folder, [figure.of(tables) for figure in FIGURES], lambda name: lines, plots_dir
    )


def title_of(tables: Tables, more: str = "", has_lines: bool = True) -> str:
    """What is shown of how many runs, for a title."""
    counts = tables.num_seeds
    least, most = min(counts.values()), max(counts.values())
    seeds = counted(least, "seed") if least == most else f"{least} to {most} seeds"
    parts = [f"{task_name(tables.asked.task_id)}, {seeds} for each lpc_alpha"]
    parts += [f"by {GROUPINGS[tables.phases].title}"] if tables.phases else []
    parts += [f"action: {tables.asked.action}"] if tables.asked.action else []
    parts += [more] if more else []
    if has_lines:
        parts += ["lines: 95\u00a0% over seeds" if most > 1 else "one seed, so no intervals"]
    parts += [f"{counted(len(tables.left_out), 'run')} left out"] if tables.left_out else []
    return ", ".join(parts)


def _plot_maps(value: str, tables: Tables) -> Figure:
    parts_of: dict[str, dict[float, list[many_runs.Part]]] = {}
    for found in tables.measured:
        for part in found.parts:
            if part.action == many_runs.ANY_ACTION and value in part.cell_means:
                parts_of.setdefault(part.phase, {}).setdefault(found.unit.lpc_alpha, []).append(part)
    maps = {
        phase: {alpha: many_runs.mean_cells(parts, value) for alpha, parts in by_alpha.items()}
        for phase, by_alpha in parts_of.items()
    }
    if len(maps) > 1:
        maps.pop(many_runs.ALL_STEPS)
    size = common_size(found.grid_size for found in tables.measured)
    walls = None if size is None else common_walls([found.walls for found in tables.measured])
    return alphas.plot_phase_maps(maps, value, size, walls, title_of(tables, has_lines=False))


def _plot_measures(plot: Callable[..., Figure], tables: Tables) -> Figure:
    """A figure of the seeds, with the state of the policy complexity in its title."""
    return plot(tables.seeds, tables.summary, title_of(tables, f"S: {' × '.join(tables.asked.state)}"))


FIGURES = [  # they are drawn of `Tables`
    PageFigure(
        "measures_against_alpha",
        "Success, LPC, path ratio, policy entropy and policy complexity against lpc_alpha",
        functools.partial(_plot_measures, alphas.plot_measures_against_alpha),
    ),
    PageFigure(
        "measures_by_phase",
        "LPC, path ratio (the part of each phase), policy entropy and policy complexity by phase. Other actions are "
        "taken in other phases: lpc_with_action_held shows what is left of the differences of LPC",
        functools.partial(_plot_measures, alphas.plot_measures_by_phase),
    ),
    PageFigure(
        "lpc_with_action_held",
        "LPC of the steps with one action in one phase, minus that of the same action in the other phases",
        lambda tables: alphas.plot_lpc_with_action_held(tables.seeds, tables.summary, title_of(tables)),
    ),
    PageFigure(
        "correlations_by_phase",
        "Correlation of LPC with policy entropy and walking distances over the steps of each run; means of z",
        lambda tables: alphas.plot_correlations_by_phase(tables.seeds, tables.summary, title_of(tables)),
    ),
    PageFigure(
        "variance_over_seeds",
        "How much of the variance of LPC cell, action, phase and time explain, for each seed",
        lambda tables: alphas.plot_explained_over_seeds(tables.shares, tables.shares_summary, title_of(tables)),
    ),
    PageFigure(
        "variance_of_gates",
        "How much of the variance of LPC and of each gate cell, action, phase and time explain, means over seeds",
        lambda tables: alphas.plot_gates_explained(tables.shares_summary, title_of(tables, has_lines=False)),
    ),
    PageFigure(
        "lpc_maps",
        "Mean LPC in each cell, by phase and lpc_alpha, means over seeds",
        functools.partial(_plot_maps, "lpc"),
    ),
    PageFigure(
        "entropy_maps",
        "Mean entropy of the policy in each cell, by phase and lpc_alpha, means over seeds",
        functools.partial(_plot_maps, "entropy_nats"),
    ),
]


def folder_of(asked: Asked, plots_dir: str) -> Path:
    """Where figures and tables of a task go; of one action, a folder of its own."""
    folder = task_folder(plots_dir, asked.task_id) / FOLDER
    return folder if asked.action is None else folder / asked.action.replace(" ", "_")


# --- in numbers -------------------------------------------------------------------------------------------------------


def in_numbers(tables: Tables) -> "pd.DataFrame":
    """What was found of all steps: a row for each measure at each lpc_alpha, with the mean over seeds."""
    import pandas as pd

    called = many_runs.MEASURES | {name: f"r of LPC and {label}" for name, label in many_runs.CORRELATIONS.items()}
    summary, shares = tables.summary, tables.shares_summary
    summary = summary[(summary["phase"] == many_runs.ALL_STEPS) & (summary["action"] == many_runs.ANY_ACTION)]
    summary = summary.assign(measure=summary["measure"].map(called)).dropna(subset="measure")
    shares = shares[(shares["value"] == "LPC") & (shares["held"] != "")]
    shares = shares.assign(measure="variance of LPC by " + shares["factors"] + ", " + shares["held"] + " held")
    rows = pd.concat([part for part in (summary, shares) if len(part)]).sort_values("lpc_alpha", kind="stable")
    return rows[["lpc_alpha", "measure", "mean", "low", "high", "num_seeds", "num_missing"]]
