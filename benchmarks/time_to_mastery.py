"""Minutes and environment steps until a policy solves 99 % of 1,000 fixed worlds, by settings, task and seed.

    python benchmarks/time_to_mastery.py                                       every task and settings, three seeds
    python benchmarks/time_to_mastery.py --settings defaults --tasks BabyAI-GoToObj-v0
    python benchmarks/time_to_mastery.py --report                              the table of what is there; runs nothing

One training at a time, in a process of its own; nothing else should run. Time counts from the start of the command to
the checkpoint, of which a training leaves ten at even intervals; what evaluates them afterwards does not count. A
checkpoint masters a task where it solves at least 99 %, and the lower end of the 95 % interval is above 98 %. Finished
trainings are passed over; one that was cut off begins anew, as its time could not be told. Compiling, which happens
once for an installation, comes before.

Writes results/mastery.csv, a row for each checkpoint, with how it routes; results/mastery.md, medians over seeds with
their range; and results/mastery.png.
Trainings stay under results/runs/mastery/ (not in git).
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import itertools
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from benchmarks.bench import spread
from mop.analysis.routing import compute_pathways
from mop.analysis.routing_data import checked_weights
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import as_flags, parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_csv, write_figure
from mop.common.reading import read_csv
from mop.common.tables import markdown_table
from mop.common.task_mix import task_name
from mop.common.workers import run_command
from mop.plotting.style import HUES, Figure, open_frame, wrapped
from mop.statistics.information import effective_number, entropy_nats
from studies.experiments import NUM_EPISODES, OF_RESULT, OF_THE_STUDIES, RESULTS, ROOT, RUNS, Training, read_published

GOALS = {  # task -> minutes that were aimed at; None: it is only compared
    "BabyAI-GoToObj-v0": 5 / 60, "BabyAI-UnlockPickup-v0": 5 / 60, "BabyAI-GoToLocal-v0": 0.5,
    "BabyAI-PickupLoc-v0": 1, "BabyAI-PutNextLocal-v0": 2, "BabyAI-KeyCorridorS3R3-v0": None,
}  # fmt: skip
NUM_CHECKPOINTS, NUM_SEEDS = 10, 3
MASTERED, LOWER_END = 0.99, 0.98
OF_ROUTING = ("router_entropy", "skip_weight", "pathways")
NO_FAILURE = 0.05  # where 0 stands on the log axis of the figure, in percent
TABLE, REPORT = RESULTS / "mastery.csv", RESULTS / "mastery.md"
OF_A_TIMING = ["setting", "task_id", "seed"]


_LINEAR = OF_THE_STUDIES | {"lr": 1e-3, "lr_decay": 0.25, "teacher_mix": 2.0}
_UPDATES = {  # of each task, in the order of GOALS
    "defaults": (40, 80, 320, 700, 1600, 600),
    "linear": (100, 200, 2500, 3000, 5500, 1200),
}
SETTINGS = {  # setting -> task -> flags; linear: the recipe of policies that read their mission in a linear map
    "defaults": {
        task: {"num_updates": n, "lang_encoder": "words"} for task, n in zip(GOALS, _UPDATES["defaults"], strict=True)
    },
    "linear": {
        task: {"num_updates": n} | _LINEAR | {"replay_size": max(1000, n)}
        for task, n in zip(GOALS, _UPDATES["linear"], strict=True)
    },
}


def timing(setting: str, task_id: str, seed: int) -> Training:
    """One training that is timed."""
    flags = SETTINGS[setting][task_id]
    num_updates = int(flags["num_updates"])
    interval = max(1, num_updates // NUM_CHECKPOINTS)
    own: dict[str, object] = {"device": "cpu", "num_updates": num_updates, "checkpoint_interval": interval}
    own |= {"log_interval": math.gcd(interval, 10), "num_workers": 2}  # the log tells the seconds of a checkpoint
    return Training(f"mastery/{setting}", task_id, setting, 0, seed, own | flags, again="--overwrite")


def run(training: Training) -> pd.DataFrame:
    """Train, then evaluate: a row for each checkpoint."""
    folder = training.folder
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    call(training.command)
    seconds = time.perf_counter() - start
    where = {"checkpoint_dir": RUNS / training.experiment, "cache_dir": folder / "cache"}
    where |= {"results_path": folder / "results.csv"}
    which = {"task": training.task_id, "trial": 0, "seed": training.seed, "num_episodes": NUM_EPISODES}
    call(["python", "batch_eval.py", *as_flags(where | which)])
    log = read_csv(folder / "training_log.csv", "training log", numbers=("update", "env_steps", "seconds"))
    log = log.set_index("update")
    rows = read_csv(folder / "results.csv", texts=("checkpoint_path",), numbers=("update", *OF_RESULT))
    update = rows["update"].fillna(training.flags["num_updates"]).astype(int)  # the final checkpoint's path names none
    keys = [RunKey.from_checkpoint(path) for path in rows["checkpoint_path"]]
    routing = [measure_routing(load_cache(cache_path(folder / "cache", key))) for key in keys]
    named = pd.DataFrame({name: getattr(training, name) for name in OF_A_TIMING}, index=rows.index)
    named = named.assign(update=update, env_steps=log["env_steps"].loc[update].to_numpy(), **rows[list(OF_RESULT)])
    named = named.join(pd.DataFrame(routing, index=rows.index))
    beside = seconds - log["seconds"].iloc[-1]  # start and end of the process
    named = named.assign(seconds=log["seconds"].loc[update].to_numpy() + beside, beside_seconds=beside)
    return named.assign(command=training.text).sort_values("update")


def measure_routing(cache: RoutingData) -> dict[str, float]:
    """What tells whether routing means anything, of the steps of one evaluation.

    router_entropy: nats, mean over steps and layers; skip_weight: the router's weight on the experts of size 0, mean
    over steps and layers; pathways: e to the entropy of their shares of the steps, so 1 where all go one way.
    """
    layers, sizes = checked_weights(cache.steps), cache.header["expert_hidden_sizes"]
    skips = [weights[:, np.asarray(of_layer) == 0].sum(1) for weights, of_layer in zip(layers, sizes, strict=True)]
    return {
        "router_entropy": float(np.mean([entropy_nats(weights).mean() for weights in layers])),
        "skip_weight": float(np.mean([skip.mean() for skip in skips])),
        "pathways": float(effective_number(compute_pathways(cache).shares.mean[0])),
    }


def call(words: list[str]) -> None:
    """Run a command that begins with python; where it fails, the message is the last line that it said."""
    with tempfile.TemporaryFile("w+") as told:
        code = run_command([sys.executable, *words[1:]], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=told)
        told.seek(0)
        last = (told.read().strip().splitlines() or ["it said nothing"])[-1]
    if code != 0:
        raise InputError(f"{shlex.join(words)} failed: {last}")


def warm_up() -> None:
    """Compile what an installation compiles once, and read its files, before any time is taken."""
    flags = {"num_updates": 1, "lang_encoder": "vocab", "device": "cpu", "num_workers": 2}
    with tempfile.TemporaryDirectory() as folder:
        call(["python", "train_mop.py", *as_flags(flags | {"checkpoint_dir": folder})])


def load_rows() -> pd.DataFrame:
    """What is timed already, whole, and with the flags that are asked for today."""
    if not TABLE.exists():
        return pd.DataFrame(columns=[*OF_A_TIMING, "command"])
    key, numbers = (*OF_A_TIMING, "update"), ("env_steps", *OF_RESULT, *OF_ROUTING, "seconds", "beside_seconds")
    rows = read_published(TABLE, texts=(*key[:2], "command"), numbers=(*key[2:], *numbers), key=key)
    rows = rows[rows["setting"].isin(SETTINGS) & rows["task_id"].isin(GOALS)]
    asked = [timing(*of_row) for of_row in rows[OF_A_TIMING].itertuples(index=False, name=None)]
    rows = rows.assign(last=[training.flags["num_updates"] for training in asked])
    rows = rows[rows["command"] == [training.text for training in asked]]
    is_whole = rows["command"].isin(rows.loc[rows["update"] == rows["last"], "command"])  # it has its last row
    return rows[is_whole].drop(columns="last")


def mastery_of(run: pd.DataFrame) -> pd.Series | None:
    """The first checkpoint of a training that masters its task."""
    mastered = run[(run["success_rate"] >= MASTERED) & (run["success_low"] > LOWER_END)]
    return None if mastered.empty else mastered.sort_values("update").iloc[0]


def as_table(rows: pd.DataFrame) -> str:
    """A line for each task and settings: medians over seeds, with their range."""
    head = "task | settings | seeds that master it | minutes | goal | steps | success at the end, % | minutes in all"
    lines = [
        _line(task_id, setting, group)
        for task_id, setting in itertools.product(GOALS, SETTINGS)
        if not (group := rows[(rows["task_id"] == task_id) & (rows["setting"] == setting)]).empty
    ]
    head += " | path ratio | mean LPC | router entropy, nats | pathways in use"
    return markdown_table(head.split(" | "), lines)


def _line(task_id: str, setting: str, rows: pd.DataFrame) -> list[str]:
    runs = [run.sort_values("update") for _, run in rows.groupby("seed")]
    reached = [row for row in map(mastery_of, runs) if row is not None]
    never = [math.inf] * (len(runs) - len(reached))  # so that the median is over all seeds
    minutes = spread([row["seconds"] / 60 for row in reached] + never, 2).replace("inf", "never")
    steps = f"{np.median([row['env_steps'] for row in reached] + never):,.0f}".replace("inf", "–")
    ends = pd.DataFrame([run.iloc[-1] for run in runs])
    return [
        task_name(task_id), setting, f"{len(reached)} of {len(runs)}", minutes if reached else "never",
        f"{GOALS[task_id]:.2g}" if GOALS[task_id] else "–", steps,
        spread(list(100 * ends["success_rate"])), spread(list(ends["seconds"] / 60), 2),
        spread(list(ends["path_ratio"]), 2), spread(list(ends["mean_lpc"]), 0),
        spread(list(ends["router_entropy"]), 2), spread(list(ends["pathways"])),
    ]  # fmt: skip


def plot_mastery(rows: pd.DataFrame) -> Figure:
    """A panel for each task: failures against minutes, a line for each training, a colour for each settings."""
    figure = Figure(figsize=(8.4, 5.0), layout="constrained")
    axes = figure.subplots(2, 3, sharey=True)
    colors = dict(zip(SETTINGS, (HUES["blue"], HUES["vermilion"]), strict=True))
    for ax, (task_id, goal) in zip(axes.ravel(), GOALS.items(), strict=True):
        for (name, _), run in rows[rows["task_id"] == task_id].groupby(["setting", "seed"]):
            failures = (100 * (1 - run["success_rate"])).clip(lower=NO_FAILURE)
            ax.plot(run["seconds"] / 60, failures, color=colors[name], marker=".", linewidth=1, label=name)
        ax.axhline(100 * (1 - MASTERED), color="#777777", linewidth=0.8, linestyle="dashed")
        if goal is not None:
            ax.axvline(goal, color="#777777", linewidth=0.8, linestyle="dotted")
        ax.set_yscale("log")
        ax.set_yticks([NO_FAILURE, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        ax.minorticks_off()
        ax.set_xlim(left=0)
        ax.set_title(task_name(task_id), fontsize="medium", loc="left")
        open_frame(ax)
    for ax in axes[-1]:
        ax.set_xlabel("minutes")
    figure.supylabel("failures, % of 1,000 worlds", fontsize="medium")
    lines = {line.get_label(): line for ax in axes.ravel() for line in ax.get_lines() if line.get_label() in colors}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, frameon=False)
    title = "Failures on the way, a line for each seed; dashed: 1 %, dotted: the time that was aimed at"
    figure.suptitle(wrapped(title, 8.4), fontsize="large")
    return figure


@dataclass(frozen=True)
class Settings:
    """The flags."""

    settings: tuple[str, ...] = setting(tuple(SETTINGS), "with commas", choices=SETTINGS, commas=True)
    tasks: tuple[str, ...] = setting(tuple(GOALS), "with commas", choices=GOALS, commas=True)
    seeds: int = setting(NUM_SEEDS, "how many", low=1)
    report: bool = setting(False, "run nothing: write the table of what is there")


def main() -> int:
    """Time what is missing, one training after the other; tell."""
    args = parse(Settings, __doc__)
    asked = [timing(s, task, seed) for seed in range(args.seeds) for task in args.tasks for s in args.settings]
    rows = load_rows()
    missing = [t for t in asked if not args.report and t.text not in set(rows["command"])]
    if missing:
        warm_up()
    for training in tqdm(missing, unit="training", dynamic_ncols=True, disable=not missing):
        tqdm.write(training.text)
        rows = pd.concat([rows, run(training)] if len(rows) else [run(training)], ignore_index=True)
        rows = rows.sort_values(["task_id", "setting", "seed", "update"])
        write_csv(TABLE, rows, "%.6g")
    if rows.empty:
        raise InputError(f"{TABLE} has no timing yet; leave --report out")
    table = as_table(rows)
    write_atomic(REPORT, lambda file: file.write(table.encode()))
    write_figure(REPORT.with_suffix(".png"), plot_mastery(rows))
    print(table)
    return 0


if __name__ == "__main__":
    run_script(main)
