"""What the apps show, without marimo: the runs there are, their routing data, frames of episodes, figures, tables."""

import functools
import html
import math
import re
import shlex
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

import runs
from configuration import Parser, check_flags, integer, optional
from errors import InputError
from plotting_style import task_name
from plotting_utils import (
    GROUPINGS,
    get_available_analyses,
    group_routing_data,
    plot_action_entropy,
    plot_action_frequency,
    plot_episode_routing,
    plot_grouped_lpc,
    plot_grouped_routing,
    plot_overall_lpc,
    plot_overall_routing,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_routing_over_progress,
    plot_routing_side_by_side,
    plot_specialisation,
    plot_success_against_lpc,
)
from routing_cache import RoutingCache, load_cache
from routing_groups import ACTION_NAMES
from runs import FoundCheckpoint, RunKey

if TYPE_CHECKING:
    import pandas as pd

# Minigrid, pandas and torch are imported by the functions that need them: a page opens seconds sooner.

CHECKPOINT_DIRS = (*runs.DEFAULT_ROOTS, "results/zoo")
RESULTS_PATHS = (runs.RESULTS_TABLE, "results/tasks.csv", "results/alpha.csv")

# --- the command line of an app -------------------------------------------------------------------------------------


def parser(description: str) -> Parser:
    """The flags that the apps share: where things are, and which run is shown first."""
    parser = Parser(description=description)
    parser.add_argument(
        "--checkpoint_dir", nargs="+", default=CHECKPOINT_DIRS, metavar="DIR", help="trees of checkpoints"
    )
    parser.add_argument("--cache_dir", default=runs.CACHE_DIR, help="results and caches (default: %(default)s)")
    parser.add_argument("--plots_dir", default=runs.PLOTS_DIR, help="where pictures go (default: %(default)s)")
    return parser


def run_parser(description: str) -> Parser:
    """The flags of an app that shows one run."""
    added = parser(description)
    added.add_argument("--task", help="begin with a run of this task id")
    added.add_argument("--trial", help="... of this trial")
    added.add_argument("--seed", help="... of this seed")
    added.add_argument("--update", help="... of this update (a periodic checkpoint)")
    added.add_argument("--fresh", action="store_true", help="evaluate the checkpoint now, without the cache")
    added.add_argument("--num_episodes", default=100, help="worlds of a fresh evaluation (default: %(default)s)")
    added.add_argument("--num_envs", default=64, help="of these, side by side (default: %(default)s)")
    return added


def parse(parser: Parser) -> Namespace:
    """The flags behind the app's name; a "--" in front of them is left out. Raises InputError."""
    given = sys.argv[1:]
    args = parser.parse_args(given[1:] if given[:1] == ["--"] else given)
    if "num_episodes" in args:
        number = optional(integer(0))
        check_flags(args, num_episodes=integer(1), num_envs=integer(1), trial=number, seed=number, update=number)
    return args


def as_html(message: str) -> str:
    """A message for a page: `...` is code, nothing else is markup."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(message))


# --- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One run that can be looked at: it has a routing cache, a checkpoint on this machine, or both."""

    key: RunKey
    cache_dir: str
    has_cache: bool
    checkpoint: Path | None

    @property
    def cache_path(self) -> Path:
        return runs.cache_path(self.cache_dir, self.key)

    @property
    def remake(self) -> str:
        """The command that makes its cache."""
        key, words = self.key, ["python", "batch_eval.py", "--force"]
        if self.checkpoint is not None:
            root = self.checkpoint.parents[len(key.checkpoint("").parts) - 1].as_posix()
            words += [] if root in runs.DEFAULT_ROOTS else ["--checkpoint_dir", root]
        words += ["--task", key.task_id, "--trial", str(key.trial)]
        words += [] if key.seed is None else ["--seed", str(key.seed)]
        words += ["--final_only"] if key.update is None else ["--update", str(key.update)]
        words += [] if self.cache_dir == runs.CACHE_DIR else ["--cache_dir", self.cache_dir]
        return shlex.join(words)


def find_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, Run]:
    """Every run with a routing cache or a checkpoint, by a label that tells which, those with a cache first.

    Raises InputError if there is none.
    """
    found = _list_runs(checkpoint_dirs, cache_dir)
    if not found:
        places = " and ".join(f"{folder}/" for folder in checkpoint_dirs)
        raise InputError(
            f"there is no routing cache under {cache_dir}/ and no checkpoint under {places}: "
            "train a policy with `python train_mop.py`, then evaluate it with `python batch_eval.py`"
        )
    return {_label(run): run for run in found}


def find_cached_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> dict[str, Run]:
    """Every run with a routing cache, by its name. Raises InputError if there is none."""
    cached = {run.key.label: run for run in _list_runs(checkpoint_dirs, cache_dir) if run.has_cache}
    if not cached:
        raise InputError(f"there is no routing cache under {cache_dir}/: `python batch_eval.py` makes some")
    return cached


def _list_runs(checkpoint_dirs: Sequence[str | Path], cache_dir: str) -> list[Run]:
    cached = runs.find_caches(cache_dir)
    checkpoints = {found.key: found.path for found in runs.find_checkpoints(checkpoint_dirs, is_quick=True)}
    keys = [*cached, *(key for key in checkpoints if key not in cached)]
    return [Run(key, cache_dir, key in cached, checkpoints.get(key)) for key in keys]


def _label(run: Run) -> str:
    label = run.key.label
    if run.key.update is None:
        update = _result(run).get("update")
        label += " final" if update is None else f" final (update {update})"
    if not run.has_cache:
        label += " · no cache"
    return label if run.checkpoint else f"{label} · no checkpoint"


def _result(run: Run) -> dict:
    try:
        return runs.load_result(runs.result_path(run.cache_dir, run.key))
    except InputError:  # older caches have none beside them
        return {}


def choose_run(found: Mapping[str, Run], args: Namespace) -> str:
    """The label of the first run that --task, --trial, --seed and --update ask for. Raises InputError if none fits."""
    asked = {"task_id": args.task, "trial": args.trial, "seed": args.seed, "update": args.update}
    asked = {name: value for name, value in asked.items() if value is not None}
    for label, run in found.items():
        if all(getattr(run.key, name) == value for name, value in asked.items()):
            return label
    raise InputError(f"none of the {len(found)} runs has {asked}; they are: {', '.join(found)}")


# --- routing data ---------------------------------------------------------------------------------------------------


def no_cache(run: Run) -> str:
    """What to say of a run that has no cache."""
    return f"{run.cache_path}: there is no routing cache; `{run.remake}` makes it"


def other_checkpoint(run: Run) -> str | None:
    """What to say of a run whose cache was made from another file than its checkpoint here; None if none is known."""
    digest = _result(run).get("checkpoint_sha256")
    if run.checkpoint is None or digest in (None, runs.file_digest(run.checkpoint)):
        return None
    return f"{run.cache_path} was made from another checkpoint than {run.checkpoint}; `{run.remake}` makes a new one"


def load_routing(run: Run) -> RoutingCache:
    """The cached routing data of a run; the header of an older cache is completed from the run's key.

    Raises InputError, naming the file and the command that makes it, if it is missing, broken or without steps.
    """
    if not run.has_cache:
        raise InputError(f"{no_cache(run)}; `--fresh` does without")
    try:
        stat = run.cache_path.stat()
    except OSError as error:
        raise InputError(f"{run.cache_path}: {error.strerror}; `{run.remake}` makes a new one") from error
    return _load(run, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=4)  # visitors of one server share them
def _load(run: Run, *version: int) -> RoutingCache:
    cache = load_cache(run.cache_path, run.remake)
    if not len(cache.steps):
        raise InputError(f"{run.cache_path}: it holds no steps; `{run.remake}` makes a new one")
    key = run.key
    cache.header = {"task_id": key.task_id, "trial": key.trial, "seed": key.seed, "update": key.update, **cache.header}
    cache.header["is_final"] = key.update is None
    return cache


def evaluate_now(run: Run, num_episodes: int, num_envs: int, progress: Callable[[int], None]) -> RoutingCache:
    """Routing data of a fresh evaluation, which is not written.

    progress: called with the number of episodes just finished. Raises InputError if the checkpoint cannot be used.
    """
    if run.checkpoint is None:
        raise InputError(f"the checkpoint of {run.key.label} is not on this machine: only its cached data can be shown")
    from batch_eval import Settings, evaluate_found

    settings = Settings(num_episodes=num_episodes, num_envs=num_envs, cache_dir=run.cache_dir)
    header, evaluation = evaluate_found(FoundCheckpoint(run.key, run.checkpoint), settings, progress)
    return RoutingCache(header, evaluation.episodes, evaluation.steps, run.remake)


def describe_metrics(data: RoutingCache) -> list[tuple[str, str, str]]:
    """What was measured, for a row of figures: name, value and a remark of each; unknown values are left out."""
    metrics = {name: value for name, value in (data.header.get("metrics") or {}).items() if value is not None}
    interval, failures = "", metrics.get("bot_plan_failures", 0)
    if {"success_low", "success_high"} <= metrics.keys():
        interval = f"95 % interval {metrics['success_low']:.1%} to {metrics['success_high']:.1%}"
    shown = [
        ("success_rate", "success", "{:.1%}", interval),
        ("path_ratio", "path ratio", "{:.2f}", "steps / the bot's steps"),
        ("mean_lpc", "mean LPC", "{:,.0f}", "layered parameter cost of a step"),
    ]
    rows = [(title, form.format(metrics[name]), caption) for name, title, form, caption in shown if name in metrics]
    num_episodes = data.header.get("num_episodes", len(data.episodes))
    remark = f"without {failures:,} worlds that the bot cannot solve" if failures else "one in each world"
    rows.append(("episodes", f"{num_episodes:,}", remark))
    rows.append(("steps", f"{len(data.steps):,}", str(data.header.get("evaluated_at", ""))[:16].replace("T", " ")))
    return rows


# --- pictures of worlds ---------------------------------------------------------------------------------------------


def episode_labels(data: RoutingCache) -> dict[str, int]:
    """The episodes with a step in the data, described in a line each -> their index."""
    counts = np.bincount(data.steps.episode, minlength=len(data.episodes))
    labels = {}
    for index, (episode, count) in enumerate(zip(data.episodes, counts.tolist(), strict=True)):
        outcome = {True: "success", False: "failure"}.get(episode.get("success"), "")
        parts = [f"{index}", episode.get("mission", ""), outcome, f"{count} steps"]
        if count:
            labels[" · ".join(filter(None, parts))] = index
    return labels


def episode_frame(data: RoutingCache, episode: int, t_step: int, tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of an episode's world before action `t_step`, from its seed and its actions.

    Raises InputError if the cache lacks what is needed, or this machine's Minigrid makes another world of the seed.
    """
    from world_pictures import replay_world

    for field in ("seed", "action", "t_step", "position"):
        data.require(field)
    steps = data.steps
    rows = np.flatnonzero(steps.episode == episode)
    rows = rows[np.argsort(steps.t_step[rows], kind="stable")]
    seed = data.episodes[episode]["seed"]
    world = replay_world(data.header["task_id"], seed, steps.action[rows[:t_step]].tolist())
    if t_step < len(rows) and list(map(int, world.agent_pos)) != steps.position[rows[t_step]].tolist():
        made_with = data.header.get("minigrid_version")
        raise InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")
    return world.get_frame(tile_size=tile_size)


def example_images(data: RoutingCache, group_by: str, max_groups: int = 16) -> dict[str, np.ndarray]:
    """A picture of the first step of each of the first groups: label -> (height, width, 3) uint8.

    Empty where the cache lacks what is needed: a figure does without. Raises InputError as `group_routing_data`.
    """
    groups = group_routing_data(data, group_by)
    shown = sorted(np.argsort(-groups.counts, kind="stable")[:max_groups].tolist())
    try:
        for field in ("seed", "action", "t_step", "position"):
            data.require(field)
        first = {groups.labels[group]: groups.first_steps[group] for group in shown}
        return {
            label: episode_frame(data, data.steps.episode[step], data.steps.t_step[step], tile_size=16)
            for label, step in first.items()
        }
    except InputError:
        return {}


def step_caption(data: RoutingCache, episode: int, t_step: int) -> str:
    """What the agent does at a step of an episode and what that costs, as far as the data tells.

    Raises InputError if the episode has no such step.
    """
    steps = data.steps
    rows = np.flatnonzero((steps.episode == episode) & (steps.t_step == t_step))
    if not len(rows):
        raise InputError(f"episode {episode} has no step {t_step}")
    row = rows[0]
    parts = [f"step {t_step}"]
    if steps.action is not None:
        parts.append(f"next action: {ACTION_NAMES[steps.action[row]]}")
    if steps.carrying is not None:
        parts.append("carrying" if steps.carrying[row] else "hands empty")
    if steps.lpc is not None and math.isfinite(steps.lpc[row]):
        parts.append(f"LPC {steps.lpc[row]:,.0f}")
    return " · ".join(parts)


# --- figures --------------------------------------------------------------------------------------------------------

Figures = Mapping[str, Callable[[], Figure]]  # name of the file without its ending -> what draws it

MAPS = {  # measure: name of the file, the figure of all steps, that of groups of them
    "dominant expert": ("routing_heatmap", plot_overall_routing, plot_grouped_routing),
    "LPC": ("lpc_heatmap", plot_overall_lpc, plot_grouped_lpc),
}
CHARTS = {  # tab: name of the file, figure, what it shows
    "Near objects": (
        "routing_near_objects",
        plot_routing_near_objects,
        "Router weights against the walking distance to the nearest door, key and target at the start.",
    ),
    "Temporal": (
        "routing_over_progress",
        plot_routing_over_progress,
        "Mean router weights from the first to the last step of an episode; the band holds the middle half of them.",
    ),
    "Distributions": (
        "routing_distributions",
        plot_routing_distributions,
        "How the weights of each expert and the entropy of each router are distributed over the steps.",
    ),
    "Specialisation": (
        "specialisation",
        plot_specialisation,
        "Which expert carries which action, phase and outcome: mean weights, with the number of steps.",
    ),
    "Pathways": (
        "pathways",
        plot_pathways,
        "The combinations of dominant experts over the layers, and which follows which in the next step.",
    ),
}


def grouped_name(name: str, group_by: str) -> str:
    """The name of the figure of all steps ("overall") or of groups of them."""
    return name if group_by == "overall" else f"{name}_{group_by}"


def plot_map(data: RoutingCache, measure: str, group_by: str, images: Mapping[str, np.ndarray]) -> Figure:
    """One of MAPS; images: of `example_images`. Raises InputError as the plots."""
    _, plot_overall, plot_grouped = MAPS[measure]
    if group_by != "overall":
        return plot_grouped(data, group_by, images)
    return plot_overall(data, next(iter(images.values()), None), data.episodes[0].get("mission", ""))


def analyses(data: RoutingCache) -> dict[str, str]:
    """The analyses that the data supports: what a person calls each -> its name in GROUPINGS."""
    names = get_available_analyses(data)
    return {"overall" if name == "overall" else f"by {GROUPINGS[name].title}": name for name in names}


def routing_figures(data: RoutingCache) -> Figures:
    """What routing_viz saves as a script: the dominant expert by every analysis, LPC, every chart, an episode."""

    def map_of(measure: str, group_by: str) -> Callable[[], Figure]:
        return lambda: plot_map(data, measure, group_by, example_images(data, group_by))

    names = analyses(data).values()
    figures = {grouped_name("routing_heatmap", name): map_of("dominant expert", name) for name in names}
    figures["lpc_heatmap"] = map_of("LPC", "overall")
    figures |= {name: lambda plot=plot: plot(data) for name, plot, _ in CHARTS.values()}
    return figures | {"episode_0": lambda: plot_episode_routing(data, 0)}


def plot_entropy(data: RoutingCache) -> Figure:
    """The entropy of the action in each cell, beside the first world."""
    images = example_images(data, "overall")
    return plot_action_entropy(data, next(iter(images.values()), None), data.episodes[0].get("mission", ""))


def action_figures(data: RoutingCache) -> Figures:
    """What logit_viz saves as a script."""
    return {
        "action_frequency": lambda: plot_action_frequency(data),
        "action_frequency_by_carrying": lambda: plot_action_frequency(data, "by_carrying"),
        "action_entropy_heatmap": lambda: plot_entropy(data),
    }


def save_figures(figures: Figures, folder: str | Path) -> None:
    """Write each figure as a PNG and print its path; of one that the data does not support, say why.

    Raises InputError if none can be drawn.
    """
    reasons = []
    for name, draw in figures.items():
        try:
            print(runs.write_figure(Path(folder) / f"{name}.png", draw()))
        except InputError as error:
            reasons.append(f"no {name}.png: {error}")
    if len(reasons) == len(figures):
        raise InputError(reasons[0])
    print(*reasons, sep="\n", end="\n" if reasons else "", file=sys.stderr)


def save_figures_of_run(parser: Parser, figures_of: Callable[[RoutingCache], Figures]) -> None:
    """An app of one run as a script: save the figures of the run that the flags ask for. Raises InputError."""
    args = parse(parser)
    found = find_runs(args.checkpoint_dir, args.cache_dir)
    run = found[choose_run(found, args)]
    if args.fresh:
        data = evaluate_now(run, args.num_episodes, args.num_envs, lambda num_done: None)
    else:
        data = load_routing(run)
        if (note := other_checkpoint(run)) is not None:
            print(f"note: {note}", file=sys.stderr)
    save_figures(figures_of(data), run.key.artefacts(args.plots_dir))


# --- many runs ------------------------------------------------------------------------------------------------------


TABLE_COLUMNS = (
    *("task_id", "trial", "seed", "update", "policy", "success_rate", "success_low", "success_high", "path_ratio"),
    *("mean_lpc", "lpc_alpha", "num_episodes"),
)
POLICIES = {"mixture": "mop", "GRU baseline": "gru"}
NUM_COMPARED = 3  # runs side by side at first
COLORS = {"task": "task_id", "lpc_alpha": "lpc_alpha"}


def load_table(cache_dir: str, results_paths: Sequence[str | Path]) -> tuple["pd.DataFrame", list[str]]:
    """A row for each evaluated checkpoint, and what could not be read.

    The results below `cache_dir`, then the rows of the tables for checkpoints that have none there, in TABLE_COLUMNS;
    the intervals of older tables are filled in. Raises InputError if there is no row.
    """
    import pandas as pd

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tables = [runs.load_results(cache_dir)]
    problems = [str(warning.message) for warning in caught]
    for path in map(Path, results_paths):
        try:
            if path.exists():
                tables.append(pd.read_csv(path))
        except (ValueError, OSError) as error:
            problems.append(f"{path}: it is no table ({error})")
    rows = pd.concat([_comparable(table) for table in tables], ignore_index=True)
    rows = rows.drop_duplicates(["task_id", "trial", "seed", "update"]).infer_objects().reset_index(drop=True)
    if rows.empty:
        places = " and ".join(map(str, results_paths))
        raise InputError(f"there is no result under {cache_dir}/, nor in {places}: `python batch_eval.py` makes some")
    return rows, problems


def _comparable(table: "pd.DataFrame") -> "pd.DataFrame":
    """TABLE_COLUMNS of the rows that have a result; `update` of periodic checkpoints only, as in a run's key."""
    rows = table.reindex(columns=[*TABLE_COLUMNS, "is_final"]).astype(object)
    rows["update"] = rows["update"].where(rows.pop("is_final") != True)  # noqa: E712 - it may be missing
    rows["policy"] = rows["policy"].fillna("mop")
    rows = rows[rows[["task_id", "trial", "success_rate", "mean_lpc"]].notna().all(axis=1)].copy()
    for index, row in rows[rows["success_low"].isna() & rows["num_episodes"].notna()].iterrows():
        from eval_mop import wilson_interval

        successes = round(row["success_rate"] * row["num_episodes"])
        rows.loc[index, ["success_low", "success_high"]] = wilson_interval(successes, int(row["num_episodes"]))
    return rows


def plot_tradeoff(table: "pd.DataFrame", color_by: str, policy: str | None) -> Figure:
    """Success against LPC, coloured by a column of COLORS, of one policy of POLICIES or of all.

    Rows without a value of the column are left out, and tasks with a single one if others have several. Raises
    InputError if no row is left.
    """
    column = COLORS[color_by]
    rows = table if policy is None else table[table["policy"] == policy]
    rows = rows[rows[column].notna()].sort_values(column, kind="stable")
    if rows.empty:
        raise InputError(f"no result of this policy has a value of {color_by}")
    varies = rows.groupby("task_id")[column].transform("nunique") > 1
    rows = rows[varies] if varies.any() else rows
    return plot_success_against_lpc(rows.assign(task_id=rows["task_id"].map(task_name)), column, color_by)


def plot_comparison(chosen: Sequence[Run]) -> Figure:
    """The routing of some cached runs side by side. Raises InputError as `load_routing`, or without routing."""
    return plot_routing_side_by_side({run.key.label.replace(" ", "\n", 1): load_routing(run) for run in chosen})


def save_comparison(parser: Parser) -> None:
    """cross_task_viz as a script: the figures across runs. Raises InputError."""
    args = parse(parser)
    table, problems = load_table(args.cache_dir, args.results_path)
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    figures = {f"success_against_lpc_by_{name}": lambda name=name: plot_tradeoff(table, name, "mop") for name in COLORS}
    figures["routing_side_by_side"] = lambda: plot_comparison(
        list(find_cached_runs(args.checkpoint_dir, args.cache_dir).values())[:NUM_COMPARED]
    )
    save_figures(figures, args.plots_dir)
