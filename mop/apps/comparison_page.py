"""Runs beside each other: the table of results, the tasks, success against cost, two runs in numbers and maps."""

import itertools
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from mop.analysis.groups import GROUPINGS, get_available_analyses
from mop.analysis.run_comparison import Pair, compare_metrics, pair_worlds
from mop.apps.flags import RESULTS_PATHS, CacheSettings, SavingSettings
from mop.apps.runs import Run, find_cached_runs, load_routing
from mop.apps.template import Page, PageFigure
from mop.artifacts.results import load_results, load_table_rows
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import CACHE_DIR, RunKey
from mop.common.cli import as_flags, setting
from mop.common.errors import InputError
from mop.common.tables import markdown_table
from mop.common.task_mix import task_name
from mop.plotting.compared_runs import ALL_MEASURES, difference_measures, plot_difference
from mop.plotting.maps import plot_routing_side_by_side
from mop.plotting.task_bars import MEASURES, plot_by_task, plot_success_against_lpc
from mop.statistics.intervals import Interval, interval_of_rate

if TYPE_CHECKING:
    import pandas as pd

    from mop.apps.elements import View

TABLE_COLUMNS = (
    *("task_id", "trial", "seed", "update", "policy", "success_rate", "success_low", "success_high", "path_ratio"),
    *("mean_lpc", "lpc_alpha", "num_episodes", "eval_seed", "env_steps", "trained_on"),
)
FORMATS: dict[str, str | Callable] = {  # of columns of the page's table
    "success": "{:.1%}",
    "path ratio": "{:.2f}",
    "lpc_alpha": "{:g}",
    "mean LPC": "{:,.0f}",
    "env_steps": "{:,.0f}",
}
POLICIES = {"mixture": "mop", "GRU baseline": "gru"}  # what a policy is called on the page -> its name in the table
NUM_COMPARED = 3  # runs side by side at first
COLORS = {"task": "task_id", "lpc_alpha": "lpc_alpha"}  # what points may be told apart by -> the column
TRADEOFFS = ("failures", "success")  # what may be drawn against LPC
ALL = "all"  # the word for no filter


@dataclass(frozen=True)
class Settings(CacheSettings, SavingSettings):
    """What is shown across runs, in the words of the flags and of the address."""

    results_path: tuple[str, ...] = setting(RESULTS_PATHS, "tables beside the cached results", metavar="CSV")
    worlds: str | None = setting(None, "of the results, as EPISODES:EVAL_SEED, or all (default: the most frequent)")
    lpc_alpha: str | None = setting(None, "of mixtures by task, or all (default: the most frequent)")
    policy: str = setting(ALL, "of success against cost", choices=("mop", "gru", ALL))
    left: str | None = setting(None, "compare this run (<task_id>/trial_<N>[/seed_<S>]...)", metavar="RUN")
    right: str | None = setting(None, "... with this one", metavar="RUN")
    analysis: str = setting("overall", "how their steps are split: by_key_phase, ...")
    map: str | None = setting(None, 'what of them is compared: LPC, "layer 0", ...')


UNKNOWN = "unknown"


# --- results ----------------------------------------------------------------------------------------------------------


def load_table(cache_dir: str, results_paths: Sequence[str | Path]) -> tuple["pd.DataFrame", list[str]]:
    """A row for each evaluation, in TABLE_COLUMNS, and what could not be read.

    An evaluation is a checkpoint in certain worlds: first the results below `cache_dir`, then the rows of the tables
    that are not there. Where a table does not name its worlds, only checkpoints without another row count. The
    intervals and the training lengths that older tables lack are filled in.
    """
    import pandas as pd

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tables = [load_results(cache_dir)]
    problems = [str(warning.message) for warning in caught]
    for path in map(Path, results_paths):
        try:
            if path.exists():
                tables.append(pd.DataFrame(load_table_rows(path, ("trial", "success_rate", "mean_lpc"))))
        except InputError as error:
            problems.append(str(error))
    rows = pd.concat([_comparable(table) for table in tables], ignore_index=True)
    run = ["task_id", "trained_on", "trial", "seed", "update"]
    rows = rows.drop_duplicates([*run, "num_episodes", "eval_seed"])
    rows = rows.sort_values("eval_seed", key=lambda seeds: seeds.isna(), kind="stable")
    rows = rows[rows["eval_seed"].notna() | ~rows.duplicated(run)].sort_index()
    rows = rows.infer_objects().reset_index(drop=True)
    if rows.empty:
        places = " and ".join(map(str, results_paths))
        raise InputError(f"there is no result under {cache_dir}/, nor in {places}: `python batch_eval.py` makes some")
    return rows, problems


def worlds_of(table: "pd.DataFrame") -> "pd.Series":
    """The word for the worlds of each row: "1000:0" for 1,000 worlds from eval_seed 0, UNKNOWN where none is named."""

    def word(row: "pd.Series") -> str:
        return UNKNOWN if row.isna().any() else f"{int(row['num_episodes'])}:{int(row['eval_seed'])}"

    return table[["num_episodes", "eval_seed"]].apply(word, axis=1)


def worlds_name(word: str) -> str:
    """What worlds are called on the page, by their word."""
    if word in (ALL, UNKNOWN):
        return {ALL: "all, though they differ", UNKNOWN: "worlds that the table does not name"}[word]
    num_episodes, eval_seed = word.split(":")
    return f"{int(num_episodes):,} worlds from eval_seed {eval_seed}"


def complete(args: Settings, table: "pd.DataFrame") -> Settings:
    """The settings with the most frequent worlds and penalty where they name none."""
    worlds = common_worlds(table)
    if args.worlds not in (None, ALL, *worlds):
        raise InputError(f"--worlds: there is no result in {args.worlds}; there are {', '.join([*worlds, ALL])}")
    penalty = args.lpc_alpha or next(iter(penalties(table)), ALL)
    try:
        float("nan" if penalty == ALL else penalty)
    except ValueError:
        raise InputError(f"--lpc_alpha must be a number, or {ALL}, not {penalty!r:.40}") from None
    return replace(args, worlds=args.worlds or worlds[0], lpc_alpha=penalty)


def filtered(args: Settings, table: "pd.DataFrame", of_any_alpha: bool = False) -> "pd.DataFrame":
    """The rows that completed settings let through; of_any_alpha: whatever their penalty."""
    is_shown = worlds_of(table).eq(args.worlds) | (args.worlds == ALL)
    if not of_any_alpha and args.lpc_alpha != ALL:
        is_asked = np.isclose(table["lpc_alpha"].astype(float), float(args.lpc_alpha or 0), rtol=1e-5, atol=0)
        is_shown &= table["policy"].eq("gru") | is_asked
    if not is_shown.any():
        raise InputError("no result fits the filters: choose other worlds")
    return table[is_shown]


def common_worlds(table: "pd.DataFrame") -> list[str]:
    """The words of `worlds_of`, the most frequent first."""
    return worlds_of(table).value_counts(sort=True).index.tolist()


def penalties(table: "pd.DataFrame") -> list[str]:
    """The lpc_alpha of mixtures as words, the most frequent first."""
    alphas = table[table["policy"] == "mop"]["lpc_alpha"].dropna().astype(float)
    return alphas.value_counts().index.map("{:g}".format).tolist()


def result_notes(table: "pd.DataFrame") -> list[str]:
    """What to know before rows are compared, a sentence each."""
    notes, worlds = [], common_worlds(table)
    if len(worlds) > 1:
        names = "; ".join(map(worlds_name, worlds))
        notes.append(f"these runs were evaluated in different worlds ({names}): part of what differs is due to them")
    is_of_list = table["trained_on"].notna()
    if is_of_list.any() and not is_of_list.all():
        many = f"{is_of_list.sum()} of these rows are of policies of several tasks"
        notes.append(f"{many}, which have rows of their own")
    for name, policy in POLICIES.items():
        if not (table["policy"] == policy).any():
            script = "train_mop.py" if policy == "mop" else "train.py"
            notes.append(f"there is no {name} among these results: `python {script}` trains one")
    return notes


def as_shown(table: "pd.DataFrame") -> "pd.DataFrame":
    """The columns that a page shows, under the names that it uses; those without a value are left out."""
    bounds = zip(table["success_low"], table["success_high"], strict=True)
    names = {word: name for name, word in POLICIES.items()}
    shown = {"task": table["task_id"].map(task_name), "trained on": table["trained_on"]}
    shown |= {"policy": table["policy"].map(names)}
    intervals = [None if low != low else f"{low:.1%} to {high:.1%}" for low, high in bounds]
    shown |= {"success": table["success_rate"], "interval": intervals}
    shown |= {"path ratio": table["path_ratio"], "mean LPC": table["mean_lpc"], "env_steps": table["env_steps"]}
    shown |= {name: table[name] for name in ("lpc_alpha", "trial", "seed", "update")}
    shown |= {"worlds": worlds_of(table).map(worlds_name) if len(common_worlds(table)) > 1 else None}
    rows = table.assign(**shown)[[*shown]].dropna(axis="columns", how="all")
    for column, unknown in (("trained on", "one task"), ("update", "final")):
        if column in rows:
            rows[column] = rows[column].astype(object).fillna(unknown)
    return rows


def link_to_run(view: "View") -> Callable[[Mapping], str]:
    """For a figure of a page: from the point of a run to its routing, where this server has that page too."""

    def address(row: Mapping) -> str:
        if row.get("trial") is None:
            return ""
        seed = None if row["seed"] is None or row["seed"] != row["seed"] else int(row["seed"])
        tasks = row["trained_on"] if isinstance(row.get("trained_on"), str) else None
        key = RunKey(row["task_id"], int(row["trial"]), seed, trained_on=tasks)
        return view.link("routing_viz.py", run=key.artefacts("").as_posix())

    return address


def plot_tasks(table: "pd.DataFrame", measure: str) -> Figure:
    """`plot_by_task` of the last checkpoint of each run, with a title that names the worlds."""
    last = table.sort_values("env_steps", kind="stable", na_position="first")
    last = last.drop_duplicates(["task_id", "trained_on", "policy", "trial", "seed"], keep="last").sort_index()
    return plot_by_task(last, measure, _in_which_worlds(last))


def plot_tradeoff(table: "pd.DataFrame", color_by: str, policy: str | None, measure: str = "failures") -> Figure:
    """Success, or failures, against LPC, by one of COLORS, of one policy ("mop" or "gru") or of all.

    Rows without a value of the column are left out; so are tasks with a single value if other tasks have several.
    """
    column = COLORS[color_by]
    rows = table if policy is None else table[table["policy"] == policy]
    rows = rows[rows[column].notna()].sort_values(column, kind="stable")
    if rows.empty:
        raise InputError(f"no result of this policy has a value of {color_by}")
    varies = rows.groupby("task_id")[column].transform("nunique") > 1
    rows = rows[varies] if varies.any() else rows
    return plot_success_against_lpc(rows, column, color_by, measure, _in_which_worlds(rows))


def _in_which_worlds(table: "pd.DataFrame") -> str:
    worlds = common_worlds(table)
    return worlds_name(worlds[0]) if len(worlds) == 1 else "runs in different worlds"


# --- two runs ---------------------------------------------------------------------------------------------------------


def run_words(cached: Mapping[str, Run]) -> dict[str, str]:
    """What each run is called -> its word in an address: the folder of its cache below the root."""
    return {name: word_of(run) for name, run in cached.items()}


def word_of(run: Run) -> str:
    return run.key.artefacts("").as_posix()


def choose_pair(cached: Mapping[str, Run], left: str | None, right: str | None) -> tuple[Run, Run]:
    """The runs of two words; where one is missing, the first pair that has the other, of one task if there is one."""
    by_word = {word_of(run): run for run in cached.values()}
    for word in filter(None, (left, right)):
        if word not in by_word:
            raise InputError(f"there is no routing cache of {word}; there are {', '.join(by_word)}")
    if left and right:
        return by_word[left], by_word[right]
    of_left, of_right = ([by_word[word]] if word else [*by_word.values()] for word in (left, right))
    pairs = [pair for pair in itertools.product(of_left, of_right) if pair[0] != pair[1]]
    if not pairs:
        raise InputError(
            f"{next(iter(cached))} is the only run with a routing cache, and two are needed to compare: "
            "`python batch_eval.py` makes more"
        )
    return next((pair for pair in pairs if pair[0].key.task_id == pair[1].key.task_id), pairs[0])


def short_name(data: RoutingData) -> str:
    """The name of a run without its task, which is the head of its maps."""
    return run_name(data.header, with_task=False)


def common_analyses(left: RoutingData, right: RoutingData) -> dict[str, str]:
    """The analyses that both support: what each is called on a page -> its name in GROUPINGS."""
    of_right = get_available_analyses(right)
    names = [name for name in get_available_analyses(left) if name in of_right]
    return {"overall" if name == "overall" else f"by {GROUPINGS[name].title}": name for name in names}


def measures_of(left: RoutingData, right: RoutingData, group_by: str) -> list[str]:
    """What the maps of two runs can show, the first choice first: of all steps everything, of groups one measure."""
    measures = difference_measures(left, right)
    return [ALL_MEASURES, *measures] if group_by == "overall" and len(measures) > 1 else measures


def compare_in_numbers(left: RoutingData, right: RoutingData) -> tuple[str, list[str]]:
    """A Markdown table with a row for each measure, and what to know before they are compared, a sentence each."""
    pair = pair_worlds(left, right)
    head = ["", f"left: {short_name(left)}", f"right: {short_name(right)}", "right minus left", "95 % intervals"]
    rows = []
    for measure in compare_metrics(pair):
        title, form = _SHOWN[measure.name]
        cells = [_as_text(measure.left, form), _as_text(measure.right, form)]
        cells += [f"**{_as_text(measure.difference, form.replace(':', ':+'))}**", _basis(pair, measure)]
        rows.append([title, *cells])
    return markdown_table(head, rows).rstrip() if rows else "", pair.notes()


_SHOWN = {
    "success_rate": ("success", "{:.1f} %"),
    "path_ratio": ("path ratio", "{:.3f}"),
    "mean_lpc": ("mean LPC", "{:,.1f}"),
}


def _as_text(interval: Interval, form: str) -> str:
    factor = 100 if "%" in form else 1
    value, low, high = (form.format(factor * number) for number in interval)
    return f"{value} ({low.removesuffix(' %')} to {high.removesuffix(' %')})"


def _basis(pair: Pair, measure) -> str:
    if not pair.is_paired:
        return f"not paired, {measure.left_episodes:,} and {measure.right_episodes:,} episodes"
    solved = " that both solve" if measure.name == "path_ratio" else ""
    return f"paired by world, {measure.left_episodes:,} worlds{solved}"


# --- the page ---------------------------------------------------------------------------------------------------------


def page_of(args: Settings, table: "pd.DataFrame", compared: Sequence[Run] | None = None) -> Page:
    """The figures across runs.

    args: completed; table: of `load_table`; compared: runs side by side, by default the first.
    """
    names = ("worlds", "lpc_alpha", "policy", "left", "right", "analysis", "map")
    usual = {"analysis": "overall", "map": ALL_MEASURES, "cache_dir": CACHE_DIR}
    words = {name: getattr(args, name) for name in (*names, "results_path", "cache_dir")}
    flags = as_flags({name: word for name, word in words.items() if word != usual.get(name)})

    def describe(name: str) -> list[str]:
        if name == "difference":
            cached = {word_of(run): run for run in _cached(args).values()}
            sides = {"Left": args.left, "Right": args.right}
            return [f"{side}: {cached[word].name}." for side, word in sides.items() if word in cached]
        return [] if name == "routing_side_by_side" else [f"Results: {worlds_name(args.worlds or ALL)}."]

    figures, folder = _figures(args, table, compared), args.plots_dir
    return Page("cross_task_viz.py", flags, folder, figures, describe, folder)


def _figures(args: Settings, table: "pd.DataFrame", compared: Sequence[Run] | None) -> list[PageFigure]:
    of_tasks, shown = filtered(args, table), filtered(args, table, of_any_alpha=True)
    of_alpha = "" if args.lpc_alpha == ALL else f", of mixtures with lpc_alpha {args.lpc_alpha}"
    names = "; ".join(run.name for run in compared or ()) or "several runs"
    policy = None if args.policy == ALL else args.policy
    figures = []
    for name, measure in MEASURES.items():
        about = f"{name.capitalize()} by task{of_alpha}{', with 95 % intervals' if measure.low else ''}"
        figures.append(PageFigure(tasks_name(name), about, partial(plot_tasks, of_tasks, name)))
    for measure, color in itertools.product(TRADEOFFS, COLORS):
        about = f"{measure.capitalize()} against mean LPC, 95 % intervals, by {color}; grey: the best for each cost"
        draw = partial(plot_tradeoff, shown, color, policy, measure)
        figures.append(PageFigure(tradeoff_name(measure, color), about, draw))
    about = f"The dominant experts and the mean LPC of {names}"
    figures.append(PageFigure("routing_side_by_side", about, partial(plot_comparison, args, compared)))
    about = "Two runs, and right minus left in each cell; hatched where the 95 % interval holds 0"
    return [*figures, PageFigure("difference", about, partial(_plot_difference, args))]


def plot_comparison(args: Settings, compared: Sequence[Run] | None = None) -> Figure:
    """The routing of some cached runs side by side, by default of the first."""
    runs = [*_cached(args).values()][:NUM_COMPARED] if compared is None else compared
    caches = [load_routing(run) for run in runs]
    named = {f"{data.header['task_id']}\n{short_name(data)}": data for data in caches}
    return plot_routing_side_by_side(named)


def _plot_difference(args: Settings) -> Figure:
    """Two runs and their difference, under their names."""
    left, right = map(load_routing, choose_pair(_cached(args), args.left, args.right))
    measure = args.map or measures_of(left, right, args.analysis)[0]
    return plot_difference(left, right, (short_name(left), short_name(right)), args.analysis, measure)


def _cached(args: Settings) -> dict[str, Run]:
    return find_cached_runs(args.checkpoint_dir, args.cache_dir)


def tasks_name(measure: str) -> str:
    """The name of the file of `plot_tasks`."""
    return f"{measure.lower().replace(' ', '_')}_by_task"


def tradeoff_name(measure: str, color_by: str) -> str:
    """The name of the file of `plot_tradeoff`."""
    return f"{measure}_against_lpc_by_{color_by}"


def save_as_script(args: Settings) -> None:
    """Save the figures of the flags."""
    table, problems = load_table(args.cache_dir, args.results_path)
    args = complete(args, table)
    problems += result_notes(filtered(args, table))
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    with nullcontext() if args.left or args.right else suppress(InputError):  # the figures of runs say what is missing
        left, right = map(word_of, choose_pair(_cached(args), args.left, args.right))
        args = replace(args, left=left, right=right)
    page_of(args, table).save_as_script(args)


# --- reading ----------------------------------------------------------------------------------------------------------


def _comparable(table: "pd.DataFrame") -> "pd.DataFrame":
    """TABLE_COLUMNS of the rows that have a result; `update` of periodic checkpoints only, as in their keys."""
    rows = table.reindex(columns=[*TABLE_COLUMNS, "is_final", "num_envs", "unroll_len"]).astype(object)
    rows["env_steps"] = rows["env_steps"].fillna(rows["update"] * rows.pop("num_envs") * rows.pop("unroll_len"))
    rows["update"] = rows["update"].where(rows.pop("is_final") != True)  # noqa: E712 - it may be missing
    rows["policy"] = rows["policy"].fillna("mop")
    rows = rows[rows[["task_id", "trial", "success_rate", "mean_lpc"]].notna().all(axis=1)].copy()
    for index, row in rows[rows["success_low"].isna() & rows["num_episodes"].notna()].iterrows():
        interval = interval_of_rate(row["success_rate"], int(row["num_episodes"]))
        rows.loc[index, ["success_low", "success_high"]] = interval
    return rows
