"""The experiments behind the numbers of results/: trains what is missing, evaluates it, writes tables.

    python studies/experiments.py settings --jobs 2      one change of the settings at a time
    python studies/experiments.py alpha --jobs 2         success against cost, up to where success breaks; by phase
    python studies/experiments.py settings --dry_run     prints the commands of the trainings, and runs nothing
    python studies/experiments.py settings --jobs 0      trains nothing more: evaluates what is there

Each training is one `train_mop.py` or `train.py` command; its checkpoint and log stay under results/runs/ (not in git).
Ctrl-C at any time: the same command goes on. Success is measured in 1,000 fixed worlds that training never sees.
Writes results/<experiment>.csv, a row for each training, results/<experiment>_curves.csv, its learning curve, and
results/<experiment>.md, the table that the documentation shows; and pictures.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from mop.apps.example_worlds import example_images
from mop.apps.samples import Asked
from mop.apps.statistics_page import analyse
from mop.artifacts.checkpoints import load_checkpoint
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common import cli
from mop.common.cli import as_flags
from mop.common.errors import InputError, run_script
from mop.common.files import remove_leftovers, write_atomic, write_csv, write_figure
from mop.common.reading import REMAKE, read_bytes, read_csv, reading
from mop.common.speed import num_threads
from mop.common.tables import interval_text, markdown_table
from mop.common.task_mix import task_name
from mop.common.train_config import RUNTIME_KEYS, parse_config
from mop.common.workers import run_command, run_commands
from mop.plotting.alphas import plot_measures_against_alpha
from mop.plotting.style import plain_number
from plotting_utils import (
    PHASES,
    LogScale,
    get_available_analyses,
    key_phases,
    lpc_scale,
    plot_curves_by,
    plot_grouped_routing,
    plot_map,
    plot_success_against_lpc,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
RUNS = RESULTS / "runs"
SEEDS = (0, 1, 2)
OF_THE_MACHINE = set(RUNTIME_KEYS) - {"num_updates"}
OF_THE_MIXTURE = {
    "expert_hidden_sizes", "router_hidden_size", "residual", "expert_gain", "expert_dropout", "expert_dropout_below",
}  # fmt: skip
ENDINGS = (".csv", "_curves.csv", ".md")
NUM_EPISODES = 1000  # of an evaluation
CURVE_ROWS = 25  # of a learning curve that are kept
LAST_ROWS = 5  # of a training's log that tell how it ended
OF_A_TRAINING = ["task_id", "setting", "seed"]  # which no two trainings of a table have in common
OF_RESULT = ("success_rate", "success_low", "success_high", "path_ratio", "mean_lpc")
OF_CURVE = ("env_steps", "accuracy", "success_rate", "path_ratio", "lpc", "bot_share")


@dataclass(frozen=True)
class Training:
    """One training: its setting has a name within the experiment, and a trial number on disk."""

    experiment: str
    task_id: str
    setting: str
    trial: int
    seed: int
    flags: Mapping[str, object]
    policy: str = "mop"
    tasks: str | None = None  # a file of tasks, of which `task_id` is the name
    again: str = "--resume"  # what it does where it was begun before

    @property
    def key(self) -> RunKey:
        """What names its files."""
        return RunKey(self.task_id, self.trial, self.seed)

    @property
    def folder(self) -> Path:
        """Where it leaves its files."""
        return self.key.folder(RUNS / self.experiment)

    @property
    def command(self) -> list[str]:
        """The words of its command line, for the root of the repository."""
        what = {"task_id": self.task_id} if self.tasks is None else {"tasks": self.tasks, "name": self.task_id}
        given = {**what, "trial": self.trial, "seed": self.seed, "lang_encoder": "vocab", **self.flags}
        where = RUNS / self.experiment
        given["checkpoint_dir"] = (where.relative_to(ROOT) if where.is_relative_to(ROOT) else where).as_posix()
        script = "train_mop.py" if self.policy == "mop" else "train.py"
        return ["python", script, *as_flags(given), self.again]

    @property
    def state(self) -> Path:
        """What it goes on from where it was cut off."""
        return self.folder / "training_state.pt"

    @property
    def log(self) -> Path:
        """Its command, and what that said."""
        return RUNS / "logs" / f"{self.experiment}_{self.task_id}_{self.trial}_{self.seed}.txt"

    @property
    def text(self) -> str:
        """Its command as a line for a shell."""
        return " ".join(self.command)

    @property
    def is_finished(self) -> bool:
        """Whether its last checkpoint is there."""
        return (self.folder / "checkpoint_final.pt").exists()


# --- one change of the settings at a time ---------------------------------------------------------------------------

# What was the default when the studies were made; their policies read the mission through a linear map alone.
OF_THE_STUDIES = {
    "replay": 8, "input_encoder": "linear", "lang_dim": 32, "lr_decay": 0.0, "teacher_mix": 0.5, "replay_size": 1000,
}  # fmt: skip

STUDY_STEPS = {"BabyAI-UnlockPickup-v0": 64_000, "BabyAI-GoToLocal-v0": 128_000}  # environment steps of a training
BASE = OF_THE_STUDIES | {
    "num_envs": 16, "unroll_len": 32, "lr": 1e-3, "lr_decay": "true", "grad_clip": 0.5, "replay": 8, "replay_size": 200,
    "teacher_mix": 0.5, "obs_encoding": "one_hot", "residual": "true", "expert_gain": 1.0,
    "train_lang_proj": "true", "expert_dropout": 0.0,
}  # fmt: skip
SETTINGS = {  # "bare": none of the changes, which is where collapse was seen first
    "base": {},
    "replay 0": {"replay": 0},
    "replay 2": {"replay": 2},
    "raw observations": {"obs_encoding": "raw"},
    "no residual": {"residual": "false"},
    "raw, no residual": {"obs_encoding": "raw", "residual": "false"},
    "student from the start": {"teacher_mix": 0.0},
    "lr 3e-4": {"lr": 3e-4},
    "lr 3e-3": {"lr": 3e-3},
    "no lr_decay": {"lr_decay": "false"},
    "no clipping": {"grad_clip": 0.0},
    "lang_proj frozen": {"train_lang_proj": "false"},
    "unroll 20": {"unroll_len": 20},
    "unroll 64": {"unroll_len": 64},
    "64 environments": {"num_envs": 64},
    "bare": {
        "replay": 0, "teacher_mix": 0.0, "obs_encoding": "raw", "residual": "false", "lr": 3e-4, "lr_decay": "false",
        "grad_clip": 0.0,
    },
    "expert dropout": {"expert_dropout": 0.3, "expert_dropout_below": 0.1},
    "replay_size 1000": {"replay_size": 1000},  # the whole training
    "no residual, expert_gain 10": {"residual": "false", "expert_gain": 10.0},
    "no residual, expert_gain 5": {"residual": "false", "expert_gain": 5.0},
    "raw, no residual, expert_gain 10": {"obs_encoding": "raw", "residual": "false", "expert_gain": 10.0},
}  # fmt: skip


def settings_study() -> Iterator[Training]:
    """One change at a time from the base, all of a task with as many environment steps.

    In one of the tasks the mission need not be read, in the other it must be.
    """
    for seed in SEEDS:
        for task_id, num_steps in STUDY_STEPS.items():
            for trial, (setting, changes) in enumerate(SETTINGS.items()):
                flags: dict[str, Any] = BASE | changes
                flags["num_updates"] = num_steps // (flags["num_envs"] * flags["unroll_len"])
                flags["log_interval"] = max(1, flags["num_updates"] // CURVE_ROWS)
                yield Training("settings", task_id, setting, trial, seed, flags)


# --- the price of computation ---------------------------------------------------------------------------------------

ALPHAS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
ALPHA_TASK = "BabyAI-UnlockPickup-v0"  # which has phases
ALPHA_UPDATES = {ALPHA_TASK: 300, "BabyAI-GoToLocal-v0": 600}  # the mission of the latter must be read
ALPHA_SEEDS = (0, 1, 2, 3, 4)
ZOO_ALPHAS = ALPHAS[:4]  # of the zoo's policies of ALPHA_TASK, trials 0 to 3: an earlier run of the same commands


def alpha_sweep() -> Iterator[Training]:
    """`OF_THE_STUDIES` with a growing weight of the cost in the loss."""
    for seed in ALPHA_SEEDS:
        for task_id, num_updates in ALPHA_UPDATES.items():
            for trial, alpha in enumerate(ALPHAS):
                flags = OF_THE_STUDIES | {"num_updates": num_updates, "lpc_alpha": alpha}
                yield Training("alpha", task_id, f"{alpha:g}", trial, seed, flags)


EXPERIMENTS = {"settings": settings_study, "alpha": alpha_sweep}

# --- running them ---------------------------------------------------------------------------------------------------


def train_missing(trainings: list[Training], jobs: int) -> None:
    """Run the command of each that is not finished, `jobs` at a time; once more where a kill left its state behind."""
    missing = [training for training in trainings if not training.is_finished or training.state.exists()]
    remove_leftovers((RUNS / "logs").glob(".*.tmp"))
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, num_threads() // jobs))}

    def commands() -> Iterator[tuple[list[str], dict[str, Any]]]:
        for training in missing:
            # now, not when it fails: on a full disk nothing could be written then
            write_atomic(training.log, lambda file, text=training.text: file.write(f"{text}\n".encode()))
            with open(training.log, "a") as log:
                options = {"cwd": ROOT, "env": environment, "stdout": log, "stderr": subprocess.STDOUT}
                yield [sys.executable, *training.command[1:]], options

    failed = []
    with tqdm(total=len(missing), unit="training") as bar:
        for number, code in run_commands(commands(), jobs):
            bar.update()
            if code == 0:  # nothing goes on from its state, which takes some 80 MB with its replay
                missing[number].state.unlink()
            else:
                failed.append(f"{missing[number].log}: {_last_words(missing[number].log)}")
    if failed:
        raise InputError(f"{len(failed)} of {len(missing)} trainings failed; {'; '.join(failed)}")


def _last_words(log: Path) -> str:
    """The error that a command has written to its log, or the last line."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1])


def check_commands(trainings: list[Training]) -> None:
    """Refuse a finished training that is not what its command says: settings or defaults have changed."""
    for training in trainings:
        recorded = load_checkpoint(training.folder / "checkpoint_final.pt")["config"]
        with contextlib.chdir(ROOT):  # which the files that a command names are given from
            wanted, _ = parse_config("", training.command[2:])
        ignored = OF_THE_MACHINE | (OF_THE_MIXTURE if training.policy == "gru" else set())
        wrong = [name for name in wanted if name not in ignored and recorded.get(name) != wanted[name]]
        if recorded.get("scheduled_updates", wanted["num_updates"]) != wanted["num_updates"]:
            wrong.append("scheduled_updates")  # of a length that it was begun with
        if wrong:
            raise InputError(f"{training.folder} was trained with other {', '.join(wrong)}; move it away")


def run_stage(script: str, *words) -> None:
    """Run a script of this repository, which says on the terminal what it does."""
    if run_command([sys.executable, script, *map(str, words)], cwd=ROOT) != 0:
        raise InputError(f"{script} failed; it says why above")


def evaluate(experiment: str, jobs: int, *which: str) -> pd.DataFrame:
    """The results table of an experiment's finished trainings, made by batch_eval.py; which: flags that choose them."""
    folder = RUNS / experiment
    where = ("--checkpoint_dir", folder, "--cache_dir", folder / "evaluation", "--results_path", folder / "table.csv")
    routing = ("--skip_routing",) if experiment == "settings" else ()
    flags = (*where, "--final_only", "--num_episodes", str(NUM_EPISODES), "--jobs", str(jobs), *routing, *which)
    run_stage("batch_eval.py", *flags)
    key, numbers = ("task_id", "trial", "seed"), (*OF_RESULT, "num_episodes", "eval_seed", "lpc_alpha")
    return read_csv(folder / "table.csv", texts=key[:1], numbers=(*key[1:], *numbers), key=key)


def load_log(training: Training, *more: str) -> pd.DataFrame:
    """Read the log of a finished training; more: columns that it must have besides those of its curve."""
    path = training.folder / "training_log.csv"
    log = read_csv(path, "training log", numbers=(*OF_CURVE, "seconds", *more))
    if log.empty:
        raise InputError(f"{path} has no rows; {REMAKE}")
    return log


def tables_of(trainings: list[Training], evaluated: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for each finished training, and their learning curves below each other."""
    by_key = evaluated.set_index(["task_id", "trial", "seed"])
    rows, curves = [], []
    for training in trainings:
        log, key = load_log(training), (training.task_id, training.trial, training.seed)
        if key not in by_key.index:
            raise InputError(f"{RUNS / training.experiment / 'table.csv'} has no row of {training.key.label}; {REMAKE}")
        last, result = log.iloc[-1], by_key.loc[key]
        rows.append(
            {"task_id": training.task_id, "setting": training.setting, "policy": training.policy}
            | {"trial": training.trial, "seed": training.seed}
            | {"env_steps": int(last["env_steps"]), "seconds": round(last["seconds"])}
            | {name: result[name] for name in OF_RESULT}
            | {name: int(result[name]) for name in ("num_episodes", "eval_seed")}
            | {"accuracy": round(final_accuracy(log), 4), "lpc_alpha": result["lpc_alpha"], "command": training.text}
        )
        shown = log[list(OF_CURVE)].round(4)
        curves.append(shown.assign(task_id=training.task_id, setting=training.setting, seed=training.seed))
    return pd.DataFrame(rows), pd.concat(curves)


def write_results(experiment: str, trainings: list[Training], evaluated: pd.DataFrame) -> pd.DataFrame:
    """Write and return the table of the finished trainings, a row each; write their learning curves."""
    table, curves = tables_of(trainings, evaluated)
    write_csv(RESULTS / f"{experiment}_curves.csv", curves)
    write_table(experiment, table, markdown(table))
    print(f"{len(table)} trainings: {', '.join(f'results/{experiment}{ending}' for ending in ENDINGS)}")
    return table


def final_accuracy(log: pd.DataFrame) -> float:
    """Share of the bot's labels matched at the end of a training: of several rows, as one is of few updates."""
    return log["accuracy"].tail(LAST_ROWS).mean()


def spread(values: pd.Series, digits: int = 0) -> str:
    """Mean and range of one value for each seed."""
    return interval_text(values.mean(), values.min(), values.max(), f".{digits}f")


def percent(rows: pd.DataFrame) -> str:
    """Success of several seeds as mean and range, of one with its 95 % interval."""
    if len(rows) == 1:
        return interval_text(*(100 * rows[["success_rate", "success_low", "success_high"]].iloc[0]), ".1f")
    return spread(100 * rows["success_rate"], 1)


def cost(rows: pd.DataFrame) -> str:
    """Mean LPC, of several seeds with its range."""
    return f"{rows['mean_lpc'].iloc[0]:.0f}" if len(rows) == 1 else spread(rows["mean_lpc"])


def ratio(rows: pd.DataFrame) -> str:
    """Mean path ratio, a dash where no world was solved."""
    mean = rows["path_ratio"].mean()
    return "–" if math.isnan(mean) else f"{mean:.2f}"


def write_table(name: str, table: pd.DataFrame, text: str) -> None:
    """results/<name>.csv, and `text`, which is printed too, as results/<name>.md."""
    write_csv(RESULTS / f"{name}.csv", table)
    write_atomic(RESULTS / f"{name}.md", lambda file: file.write(text.encode()))
    print(text)


def read_published(path: Path, **columns: Any) -> pd.DataFrame:
    """Read a table of results/, which is whole; columns: which it must have, as `mop.common.reading.read_csv` says."""
    about = ("table of results", f"`git checkout {path}` brings it back")
    with reading(path, *about):
        if not read_bytes(path, about[1]).endswith(b"\n"):
            raise ValueError("it is cut short")
    return read_csv(path, *about, **columns)


def read_curves(experiment: str) -> pd.DataFrame:
    """Read the published learning curves of an experiment."""
    path, texts = RESULTS / f"{experiment}_curves.csv", ("task_id", "setting")
    return read_published(path, texts=texts, numbers=("seed", *OF_CURVE), key=(*OF_A_TRAINING, "env_steps"))


def markdown(table: pd.DataFrame) -> str:
    """A row for each task and setting."""
    lines = []
    for (task_id, setting), rows in table.groupby(["task_id", "setting"], sort=False):
        cells = [task_name(task_id), setting, str(len(rows)), f"{rows['seconds'].median() / 60:.1f}", percent(rows)]
        cells += [ratio(rows), f"{rows['accuracy'].mean():.3f}", cost(rows)]
        lines.append(cells)
    head = "task | setting | seeds | minutes | success, % | path ratio | accuracy | mean LPC"
    return markdown_table(head.split(" | "), lines)


# --- what belongs to one experiment ---------------------------------------------------------------------------------


def write_settings_pictures() -> None:
    """Draw the curves of each setting of the study in a panel, over those of the base; two pictures for each task."""
    curves = read_curves("settings")
    for task_id, of_task in curves.groupby("task_id", sort=False):
        for measure in ("accuracy", "lpc"):
            figure = plot_curves_by(of_task, "setting", measure, f"{task_name(task_id)}, in grey: base")
            write_figure(RESULTS / f"settings_{task_name(task_id)}_{measure}.png", figure)


def write_alpha_pictures(trainings: list[Training], table: pd.DataFrame) -> None:
    """Draw success against LPC, and every measure against alpha, in each task; write the phases of ALPHA_TASK."""
    caches = RUNS / "alpha" / "evaluation"
    shown = table.assign(alpha=table["setting"].astype(float))
    for task_id, of_task in shown.groupby("task_id", sort=False):
        title = f"{task_name(task_id)}: success against cost"
        figure = plot_success_against_lpc(of_task, "alpha", "lpc_alpha", title=title)
        figure.axes[0].set_xscale("symlog", linthresh=1)  # LPC is thousands to none
        figure.axes[0].xaxis.set_major_formatter(plain_number)
        write_figure(RESULTS / f"alpha_{task_name(task_id)}_cost.png", figure)
        tables = analyse(Asked(task_id, cache_dir=caches.as_posix()))
        write_figure(
            RESULTS / f"alpha_{task_name(task_id)}.png", plot_measures_against_alpha(tables.seeds, tables.summary)
        )
    write_phases([training for training in trainings if training.task_id == ALPHA_TASK])


def write_phases(trainings: list[Training]) -> None:
    """Write the mean LPC of each phase of the task in each training."""
    rows = []
    for training in trainings:
        cache = load_cache(cache_path(RUNS / "alpha" / "evaluation", training.key))
        phase = key_phases(cache.steps, cache.episodes)
        means = {
            PHASES[k]: round(float(cache.column("lpc")[phase == k].mean()), 1) for k in range(len(PHASES)) if k in phase
        }
        rows.append({"lpc_alpha": training.setting, "seed": training.seed} | means)
    phases = pd.DataFrame(rows)
    write_table("alpha_phases", phases, markdown_of_phases(phases))


def write_phase_pictures(caches: Mapping[str, RoutingData]) -> None:
    """Draw the mean LPC of each cell in each phase of the task, and the routing of each layer in each phase.

    results/README.md calls it with those of the zoo. caches: lpc_alpha -> the evaluation of one policy. All pictures
    have one scale of LPC, a logarithmic one: a policy may cost a twentieth of another.
    """
    by_phase = all("by_key_phase" in get_available_analyses(cache) for cache in caches.values())
    grouping = "by_key_phase" if by_phase else "overall"
    scale = LogScale(lpc_scale(caches.values(), grouping))
    for alpha, cache in caches.items():
        name = f"UnlockPickup, lpc_alpha {alpha}"
        figure = plot_map(cache, "LPC", grouping, scale=scale)
        write_figure(RESULTS / f"alpha_{alpha}_phases.png", figure)
        if by_phase:
            figure = plot_grouped_routing(cache, "by_key_phase", example_images(cache, "by_key_phase"), scale=scale)
            shown = f"dominant expert of each layer and mean LPC, by phase, over {len(cache.episodes):,} worlds"
            figure.suptitle(f"{name}: {shown}", y=0.988)
            write_figure(RESULTS / f"alpha_{alpha}_routing.png", figure)


def markdown_of_phases(phases: pd.DataFrame) -> str:
    """Mean LPC of each phase for each alpha: mean over the seeds and their range."""
    names = [name for name in PHASES if name in phases]
    by_alpha = phases.groupby("lpc_alpha", sort=False)
    return markdown_table(
        ["lpc_alpha", *names], ([str(alpha), *(spread(rows[n]) for n in names)] for alpha, rows in by_alpha)
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    experiment: str = cli.required("which experiment", positional=True, choices=EXPERIMENTS)
    jobs: int = cli.setting(1, "trainings at a time; 0: none", low=0)
    dry_run: bool = cli.setting(False, "print the commands of the missing trainings")


def main() -> int:
    """Train what is missing, evaluate, write the tables."""
    args = cli.parse(Settings, __doc__)
    trainings = list(EXPERIMENTS[args.experiment]())
    if args.dry_run:
        print("\n".join(training.text for training in trainings if not training.is_finished))
        return 0
    if args.jobs > 0:
        train_missing(trainings, args.jobs)
    finished = [training for training in trainings if training.is_finished]
    if not finished:
        raise InputError("no training is finished; give --jobs 1 or more")
    check_commands(finished)
    print(f"{len(finished)} of {len(trainings)} trainings are finished")
    table = write_results(args.experiment, finished, evaluate(args.experiment, max(1, args.jobs)))
    if args.experiment == "settings":
        write_settings_pictures()
    elif args.experiment == "alpha":
        write_alpha_pictures(finished, table)
    return 0


if __name__ == "__main__":
    run_script(main)
