"""Summaries, tables and figures of experiments, of one or of several together."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson

from lmc_rl.analysis.barrier import CONNECTED, Estimate
from lmc_rl.analysis.figures import plot_all_lines, plot_lines, plot_path
from lmc_rl.analysis.lost_figures import plot_alignment, plot_instability, plot_parts
from lmc_rl.analysis.results import Experiment, LineResult, Pooled, load_experiment, pooled_groups, read_measures
from lmc_rl.analysis.table import has_rows
from lmc_rl.config import names_of
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure, write_json
from mop.common.reading import reading
from mop.common.tables import interval_text, markdown_table, text_table

# --- summaries --------------------------------------------------------------------------------------------------------


def write_summaries(experiment: Experiment) -> None:
    """Write forks/instability_<i>.json, all_forks_results.json and controls.json."""
    by_fork: dict[int | None, list[LineResult]] = {}
    for line in experiment.lines:
        if line.kind == "fork":
            by_fork.setdefault(line.fork, []).append(line)
    controls = [line for line in experiment.lines if line.kind != "fork"]
    if experiment.is_rl:
        forks = {fork: summary_of_returns(line) for fork, (line,) in by_fork.items()}
        of_controls = {line.kind: summary_of_returns(line) for line in controls}
    else:
        forks = {k: {"fork_id": k, "lines": [*map(summary_of_part, lines)]} for k, lines in by_fork.items()}
        of_controls = {"lines": [summary_of_part(line) for line in controls]}
    for fork, summary in forks.items():
        write_json(experiment.results / "forks" / f"instability_{fork}.json", summary, orjson.OPT_INDENT_2)
    every_fork = {"forks": list(forks.values())}
    write_json(experiment.results / "all_forks_results.json", every_fork, orjson.OPT_INDENT_2)
    write_json(experiment.results / "controls.json", of_controls, orjson.OPT_INDENT_2)


def summary_of_returns(line: LineResult) -> dict:
    """Barriers along the lines of a fork or control of an RL run, as plain values."""
    profile, paths = line.main, []
    for pair, returns, facts in zip(line.pairs, profile.gains, line.facts, strict=True):
        rows = zip(line.alphas, returns.mean(axis=0), returns.std(axis=0), strict=True)
        path = {"children": pair, "fork1_return": returns[:, 0].mean(), "fork2_return": returns[:, -1].mean()}
        path["interpolation"] = [{"alpha": a, "mean_return": m, "std_return": s} for a, m, s in rows]
        paths.append(path | {"measures": facts})
    barrier, instability = profile.barrier, profile.instability
    return {
        "kind": line.kind,
        "fork_id": line.fork,
        "fork_point": line.fraction,
        "num_episodes": profile.gains.shape[1],
        "random_return": profile.chance,
        "scale": profile.scale,
        "barrier": barrier.summary(),
        "normalised_barrier": barrier.over(profile.scale).summary(),
        "instability": instability.summary(),
        "normalised_instability": instability.over(profile.scale).summary(),
        "tolerance": profile.tolerance,
        "verdict": profile.verdict,
        "is_stable": profile.verdict == CONNECTED,
        "paths": paths,
    }


def summary_of_part(line: LineResult) -> dict:
    """Barriers along the lines of an imitation run when one part of the weights is interpolated, as plain values."""
    along = dict(line.means)
    if "kl_to_first" in along:
        along["kl"] = np.stack([along.pop("kl_to_first"), along.pop("kl_to_second")], axis=1)
    found = {
        "kind": line.kind,
        "fork_id": line.fork,
        "fork_point": line.fraction,
        "part": line.part,
        "aligned": line.is_aligned,
        "places": line.alphas,
        "pairs": line.pairs,
        "lpc_bulge": line.excess_lpc,
        "cross_entropy_rise": line.main.rise.summary(),
    }
    for name, profile in line.profiles.items():
        found[f"{name}_barrier"] = profile.barrier.summary()
        found[f"{name}_instability"] = profile.instability.summary()
        found |= {f"{name}_scale": profile.scale, f"{name}_verdict": line.verdict_of(name)}
        along[name] = profile.gains.mean(1) * (-1 if name == "cross_entropy" else 1)
    return found | {"along": {name: np.ascontiguousarray(values) for name, values in along.items()}}


# --- tables -----------------------------------------------------------------------------------------------------------

Cells = Sequence[str]
HEAD_OF_RETURNS = ("settings", "fork", "parents", "end return", "barrier (%)", "instability (%)", "connectivity")
HEAD_OF_PARTS = (
    *("run", "fork", "part", "parents", "cross-entropy of ends", "barrier (nats)", "instability (nats)"),
    *("rise (nats)", "connectivity", "success of ends (%)", "barrier (points)", "connectivity", "excess LPC"),
)
ALIGNMENT_HEAD = ("run", "line", "distance", "aligned", "units moved", "experts moved", "rotation of the stream")


def table_of(groups: Mapping[str, Sequence[Pooled]]) -> tuple[Cells, list[Cells]]:
    """Head and rows of all groups, a row for each fork point and control, with each part."""
    is_rl = any(point.measure == "return" for points in groups.values() for point in points)
    row_of = _row_of_returns if is_rl else _row_of_part
    rows: list[Cells] = [(label, *row_of(point)) for label, points in groups.items() for point in points]
    return HEAD_OF_RETURNS if is_rl else HEAD_OF_PARTS, rows


def _row_of_returns(point: Pooled) -> Cells:
    ends = np.mean([profile.end_mean for profile in point.profiles])
    numbers = (percent(point.barrier), percent(point.instability))
    return point.first.where, str(len(point.lines)), f"{ends:,.1f}", *numbers, point.verdict


def _row_of_part(point: Pooled) -> Cells:
    loss = np.mean([-profile.end_mean for profile in point.profiles])
    estimates = [_as_text(point.estimate(name)) for name in ("barrier", "instability", "rise")]
    played, success = ("–", "–", "–"), point.of("success")
    if success.is_known:
        ends = np.mean([profile.end_mean for profile in success.profiles])
        played = (f"{100 * ends:.1f}", _as_text(success.barrier, 100, 1), success.verdict)
    excess = f"{round(np.mean([line.excess_lpc for line in point.lines])):+d}"
    where = (point.first.where, point.first.name, str(len(point.lines)))
    return *where, f"{loss:.3f}", *estimates, point.verdict, *played, excess


def percent(estimate: Estimate) -> str:
    """An estimate of a share with its interval, "12.3 (4.0 to 20.1)"."""
    return "–" if math.isnan(estimate.value) else _as_text(estimate, 100, 1)


def _as_text(estimate: Estimate, factor: float = 1, digits: int = 3) -> str:
    return interval_text(factor * estimate.value, factor * estimate.low, factor * estimate.high, f".{digits}f")


def alignments_of(experiments: Sequence[Experiment]) -> list[Cells]:
    """The rows of all alignments, under `ALIGNMENT_HEAD`."""
    rows = []
    for experiment in experiments:
        for path in sorted((experiment.results / "paths").glob("*.json")):
            with reading(path):
                if (found := read_measures(path).get("alignment")) is not None:
                    distances = [f"{found[f'distance_{when}']:.3f}" for when in ("before", "after")]
                    moved = (f"{found['moved_units']:.1%}", str(found["moved_experts"]), f"{found['stream_turn']:.3f}")
                    rows.append((experiment.title, path.stem, *distances, *moved))
    return rows


# --- files ------------------------------------------------------------------------------------------------------------


def report_of(results: Path) -> None:
    """Write summaries, figures and tables of an experiment to its folder, if it has a fork or a control."""
    experiment = load_experiment(results) if has_rows(results) else None
    if experiment is not None and experiment.lines:
        write_summaries(experiment)
        write_report([experiment], results / "fork_analysis")


def write_report(experiments: Sequence[Experiment], folder: Path, say: Callable[[str], object] = print) -> None:
    """Write the figures and the tables of experiments of one kind to a folder, and print the main table."""
    if not any(experiment.lines for experiment in experiments):
        raise InputError(
            f"{experiments[0].results} has no fork and no control that is measured: there is nothing to show"
        )
    groups = pooled_groups(experiments)
    is_rl = experiments[0].is_rl
    for name, figure in (_figures_of_returns if is_rl else _figures_of_parts)(experiments, _with_forks(groups)):
        write_figure(folder / f"{name}.png", figure)
    head, rows = table_of(groups)
    aligned = [] if is_rl else alignments_of(experiments)
    text = markdown_table(head, rows) + ("\n" + markdown_table(ALIGNMENT_HEAD, aligned) if aligned else "")
    write_atomic(folder / "instability.md", lambda file: file.write(text.encode()))
    say(text_table(head, rows))
    say(f"figures and {'table' if is_rl else 'tables'}: {folder}")


def _with_forks(groups: Mapping[str, Sequence[Pooled]]) -> dict[str, Sequence[Pooled]]:
    return {label: points for label, points in groups.items() if any(point.first.kind == "fork" for point in points)}


def _figures_of_returns(experiments: Sequence[Experiment], forked: Mapping[str, Sequence[Pooled]]):
    """Names and figures of RL runs: the lines of all forks, of each fork, and what is lost on them."""
    names = names_of([experiment.config for experiment in experiments])
    by_name = {f"{name}, seed {own.config.drawn_seed}": own.lines for name, own in zip(names, experiments, strict=True)}
    lines = {name: [line for line in own if line.kind != "self"] for name, own in by_name.items()}
    lines = {name: own for name, own in lines.items() if own}
    if lines:
        yield "all_interpolations", plot_all_lines(lines, "Return between the children of each fork")
    for fork in sorted({line.fork for own in lines.values() for line in own if line.fork is not None}):
        of_fork = {n: line for n, own in lines.items() for line in own if line.kind == "fork" and line.fork == fork}
        where = " and ".join(sorted({line.where for line in of_fork.values()}))
        title = f"Return between the children of fork {fork}, at {where} of the training"
        yield f"interp_fork_{fork}", plot_path(of_fork, title)
    if forked:
        yield "instability_over_time", plot_instability(forked)


def _figures_of_parts(experiments: Sequence[Experiment], forked: Mapping[str, Sequence[Pooled]]):
    """Names and figures of imitation runs; each fork by itself only where there is one run."""
    if forked:
        yield "instability_over_time", plot_alignment(forked)
        yield "rise_by_part", plot_parts(forked)
    for experiment in experiments:
        more = "" if len(experiments) == 1 else f"_{experiment.results.name}"
        yield f"all_interpolations{more}", plot_all_lines({"": experiment.of_all_weights}, experiment.title)
        origins = dict.fromkeys(line.origin for line in experiment.lines) if len(experiments) == 1 else ()
        for origin in origins:
            own = [line for line in experiment.lines if line.origin == origin]
            is_fork = own[0].kind == "fork"
            what = f"forked at {own[0].where} of the training" if is_fork else own[0].kind
            name = f"interp_fork_{origin}" if is_fork else f"interp_{origin}"
            yield name, plot_lines(own, f"{experiment.title}: {what}")
