"""Every task, three seeds each: the mixture beside a GRU of as many weights, with a cost, and without its mission.

    python studies/tasks.py --jobs 2                            what is not published yet, task after task
    python studies/tasks.py --jobs 2 --tasks BabyAI-GoTo-v0     one of them
    python studies/tasks.py --jobs 2 --settings mixture,GRU     without the mixtures with a cost or without a mission
    python studies/tasks.py --dry_run                           prints the commands of the trainings, and runs nothing
    python studies/tasks.py --dry_run --modal                   the same trainings on Modal, as commands
    python studies/tasks.py --report                            writes tables and figure anew from what is published

All tasks get their first seed before any gets its second. After each task, what was found is written to results/:
tasks.csv, a row for each training; tasks_curves.csv, their learning curves; tasks_worlds.csv, which worlds each solves;
tasks.md and tasks.png; tasks_cost.md and tasks_cost.png, what the cost does; tasks_reading.md, what is solved without
the mission, and by random actions; and the policy of the median seed, in results/zoo/. A training is not repeated while
tasks.csv has a row with its command. Ctrl-C at any time: the same command goes on. What Modal trained, copied from
modal_checkpoints/ to results/runs/tasks/, counts as trained here.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import functools
import itertools
import math
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from mop.artifacts.checkpoints import load_checkpoint, save_checkpoint
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import cache_path
from mop.common import cli
from mop.common.cli import as_flags
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_csv, write_figure
from mop.common.reading import reading
from mop.common.tables import interval_text, markdown_table
from mop.common.task_mix import task_name
from mop.statistics.bootstrap import mean_over_seeds
from mop.statistics.intervals import interval_of_mean, interval_of_rate, rank_correlation
from mop.statistics.variance import intraclass_correlation
from plotting_utils import plot_by_task
from studies import experiments, references
from studies.experiments import OF_A_TRAINING, OF_RESULT, SEEDS, Training

LENGTHS = {  # updates of 512 environment steps -> tasks: BabyAI's levels (Minigrid lacks PutNext), JAT's, smaller ones
    200: ("GoToObj", "OpenRedDoor", "GoToRedBallNoDists"),
    400: (
        "UnlockLocal", "UnlockPickup", "OpenTwoDoors", "KeyCorridorS3R1", "OpenDoor", "GoToDoor", "GoToObjDoor",
        "ActionObjDoor", "OneRoomS8", "GoToRedBallGrey", "GoToRedBall", "GoToRedBlueBall", "GoToLocal",
    ),
    600: ("PickupDist", "PickupLoc", "OpenDoorLoc", "OpenDoorsOrderN4"),
    800: ("BlockedUnlockPickup", "KeyCorridorS3R2", "GoToObjMazeS4"),
    1000: ("UnlockPickupDist", "FindObjS5", "KeyCorridorS3R3", "PutNextS5N2", "PutNextLocal", "PickupAbove"),
    2000: ("MoveTwoAcrossS5N2", "KeyCorridorS4R3", "GoToSeqS5R2", "GoToObjMaze", "PutNextS7N4"),
    3000: ("GoTo", "Pickup", "UnblockPickup", "Open"),
    4000: ("KeyCorridor", "MoveTwoAcrossS8N9", "UnlockToUnlock", "MiniBossLevel"),
    10000: ("Synth", "SynthLoc", "GoToSeq", "SynthSeq", "BossLevelNoUnlock"),
    20000: ("Unlock", "GoToImpUnlock", "BossLevel"),
}  # fmt: skip
TASKS = {f"BabyAI-{name}-v0": num_updates for num_updates, names in LENGTHS.items() for name in names}
COMMON: dict[str, object] = {"lang_encoder": "words"}  # flags of all trainings; the rest are defaults
POLICIES = {  # setting -> trial, script, flags; trials below 10 are those of older policies of the zoo
    "mixture": (30, "mop", {}),
    "GRU": (130, "gru", {"gru_hidden_size": 173}),  # 159,891 weights; the mixture has 160,184
    "lpc_alpha 1e-5": (40, "mop", {"lpc_alpha": 1e-5}),
    "mission-blind": (50, "mop", {"lang_encoder": "none"}),
}
# which settings a table compares
RIVALS, COSTS, READERS = ("mixture", "GRU"), ("mixture", "lpc_alpha 1e-5"), ("mixture", "mission-blind")
CURVE_ROWS = 50  # of a learning curve
FILES = ("tasks_worlds.csv", "tasks_curves.csv", "tasks.csv")  # the last one says what is published


def task_table() -> Iterator[Training]:
    """Every training, task after task, the first seed of each task before the second of any."""
    for seed, (task_id, num_updates) in itertools.product(SEEDS, TASKS.items()):
        for setting, (trial, policy, flags) in POLICIES.items():
            length = {"num_updates": num_updates, "log_interval": max(1, num_updates // CURVE_ROWS)}
            flags = COMMON | length | flags
            yield Training("tasks", task_id, setting, trial, seed, flags, policy)


# --- what is published ----------------------------------------------------------------------------------------------


def load_published() -> list[pd.DataFrame]:
    """The tables of FILES, of the trainings that are in all of them and still asked for; empty where there is none."""
    lost = [name for name in FILES if not (experiments.RESULTS / name).exists()]
    if len(lost) == len(FILES):
        return [pd.DataFrame(columns=[*OF_A_TRAINING, "command"]) for _ in FILES]
    if lost:
        raise InputError(f"{experiments.RESULTS} lacks {', '.join(lost)}; `git checkout results` brings it back")
    tables = [_read_worlds(), experiments.read_curves("tasks"), _read_trainings()]
    known = tables[-1]["command"].isin({training.text for training in task_table()})
    kept = [pd.MultiIndex.from_frame(table[OF_A_TRAINING]) for table in (*tables[:-1], tables[-1][known])]
    in_all = functools.reduce(pd.MultiIndex.intersection, [index.unique() for index in kept])
    return [table[pd.MultiIndex.from_frame(table[OF_A_TRAINING]).isin(in_all)] for table in tables]


def _read_worlds() -> pd.DataFrame:
    path, texts, numbers = experiments.RESULTS / FILES[0], ("task_id", "setting", "solved"), ("seed", "num_episodes")
    worlds = experiments.read_published(path, texts=texts, numbers=numbers, key=OF_A_TRAINING)
    with reading(path, "table of worlds", f"`git checkout {path}` brings it back"):
        for _, of_task in worlds.groupby("task_id"):
            solved_worlds(of_task)
    return worlds


def _read_trainings() -> pd.DataFrame:
    numbers = ("trial", "seed", "env_steps", "seconds", *OF_RESULT, "num_episodes", "eval_seed", "accuracy")
    return experiments.read_published(
        experiments.RESULTS / FILES[-1],
        texts=("task_id", "setting", "policy", "command"),
        numbers=(*numbers, "lpc_alpha", "mean_return"),
        key=OF_A_TRAINING,
    )


def publish(trainings: list[Training], evaluated: pd.DataFrame) -> None:
    """Add finished trainings to what is published, and the median seed to the zoo.

    tasks.csv is written last: until then, the trainings are not published, and the same command publishes them.
    """
    table, curves = experiments.tables_of(trainings, evaluated)
    episodes = [episodes_of(training) for training in trainings]
    table["mean_return"] = mean_returns(trainings[0].task_id, episodes)
    references.add_random_actions(trainings[0].task_id, [episode["seed"] for episode in episodes[0]])
    new = pd.MultiIndex.from_frame(table[OF_A_TRAINING])
    order = {name: k for k, name in enumerate(TASKS)}
    whole = []
    for old, added in zip(load_published(), (worlds_of(trainings, episodes), curves, table), strict=True):
        others = old[~pd.MultiIndex.from_frame(old[OF_A_TRAINING]).isin(new)]
        both = pd.concat([others, added] if len(others) else [added])
        both = both.assign(place=both["task_id"].map(order)).sort_values(["place", "setting", "seed"], kind="stable")
        whole.append(both.drop(columns="place"))
    for name, content in zip(FILES[:-1], whole[:-1], strict=True):
        write_csv(experiments.RESULTS / name, content)
    add_medians_to_zoo(trainings, whole[-1])
    write_csv(experiments.RESULTS / FILES[-1], whole[-1])


def episodes_of(training: Training) -> list[dict]:
    """The episodes of its evaluation, in the order of the worlds' seeds."""
    cache = load_cache(cache_path(experiments.RUNS / "tasks" / "evaluation", training.key))
    return sorted(cache.episodes, key=lambda episode: episode["seed"])


def mean_returns(task_id: str, episodes: list[list[dict]]) -> list[float]:
    """The mean return of each training of a task, all in the same worlds."""
    limits = references.step_limits(task_id, [episode["seed"] for episode in episodes[0]])
    means = []
    for own in episodes:
        success, steps = (np.array([episode[name] for episode in own]) for name in ("success", "steps"))
        means.append(round(float(references.episode_returns(success, steps, limits).mean()), 4))
    return means


def worlds_of(trainings: list[Training], episodes: list[list[dict]]) -> pd.DataFrame:
    """Which of the fixed worlds each training solves: bits of a hexadecimal number, the first world's first."""
    rows = []
    for training, own in zip(trainings, episodes, strict=True):
        solved = np.packbits([episode["success"] for episode in own]).tobytes().hex()
        named = (training.task_id, training.setting, training.seed, len(own), solved)
        rows.append(dict(zip((*OF_A_TRAINING, "num_episodes", "solved"), named, strict=True)))
    return pd.DataFrame(rows)


def solved_worlds(worlds: pd.DataFrame) -> np.ndarray:
    """The successes of K rows of tasks_worlds.csv in their W worlds, (K, W) float64 of 0 and 1."""
    count = int(worlds["num_episodes"].iloc[0])
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)) for text in worlds["solved"]]
    if not (worlds["num_episodes"] == max(count, 1)).all() or any(not 0 <= len(own) - count < 8 for own in bits):
        raise InputError("its rows of a task are not all of the same number of worlds")
    return np.array([own[:count] for own in bits], float)


# --- what it says ---------------------------------------------------------------------------------------------------


def success_over_seeds(success: np.ndarray) -> tuple[float, float, float]:
    """Mean success of K seeds in W worlds (K, W) and its 95 % interval.

    Each end is the farther one of two intervals: Student's t over the seeds, and Wilson's over W worlds. The seeds are
    evaluated in the same worlds, so three of them are no three samples of worlds.
    """
    over = mean_over_seeds(list(success.mean(1)), (0.0, 1.0))
    low, high = interval_of_rate(over.mean, success.shape[1])
    return over.mean, float(np.fmin(over.low, low)), float(np.fmax(over.high, high))


def difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Mean difference of the success of two policies, K seeds in W worlds each (K, W), and its 95 % interval.

    Seeds and worlds are paired. Each end is the farther one of Student's t over the K differences of seeds, of that
    over the W differences of worlds, and of 3 / W: the rule of three, where hardly a world tells the two apart.
    """
    apart = first - second
    over = mean_over_seeds(list(apart.mean(1)), (-1.0, 1.0))
    mean, half = interval_of_mean(apart.mean(0))
    half = max(float(half), 3 / apart.shape[1])
    low, high = np.clip([mean - half, mean + half], -1, 1)
    return over.mean, float(np.fmin(over.low, low)), float(np.fmax(over.high, high))


def interval(numbers: tuple[float, float, float], sign: str = "") -> str:
    """Mean and interval in percent; sign: "+" of differences."""
    mean, low, high = (format(round(100 * number, 1) + 0.0, f"{sign}.1f") for number in numbers)
    return f"{mean} ({low} to {high})"


class OfTask(NamedTuple):
    """What is published of some settings in a task."""

    task_id: str
    rows: dict[str, pd.DataFrame]  # setting -> its trainings by seed
    success: dict[str, np.ndarray]  # setting that has any -> successes of K seeds in W worlds (K, W)

    @property
    def is_paired(self) -> bool:
        """Whether all settings have the same seeds."""
        return len({tuple(own["seed"]) for own in self.rows.values()}) == 1

    @property
    def intervals(self) -> list[str]:
        """Success with each setting, a dash where it has no training."""
        found = {name: interval(success_over_seeds(success)) for name, success in self.success.items()}
        return [found.get(name, "–") for name in self.rows]


def of_tasks(table: pd.DataFrame, worlds: pd.DataFrame, settings: tuple[str, ...]) -> Iterator[OfTask]:
    """The tasks in which some of these settings have trainings."""
    for task_id, of_task in table.groupby("task_id", sort=False):
        rows = {name: of_task[of_task["setting"] == name].sort_values("seed") for name in settings}
        own = worlds[worlds["task_id"] == task_id].sort_values("seed")
        success = {name: solved_worlds(own[own["setting"] == name]) for name in settings if len(rows[name])}
        if success:
            yield OfTask(str(task_id), rows, success)


def as_table(table: pd.DataFrame, worlds: pd.DataFrame) -> str:
    """A line for each task: the mixture, the GRU, and what is between them where both have the same seeds."""
    lines = []
    for task in of_tasks(table, worlds, RIVALS):
        own = task.rows.values()
        name, counts = task_name(task.task_id), sorted({len(rows) for rows in own} - {0})
        cells = [name, f"{pd.concat(own)['env_steps'].iloc[0]:,.0f}", " and ".join(map(str, counts)), *task.intervals]
        cells += [interval(difference(*task.success.values()), "+") if task.is_paired else "–"]
        cells += [", ".join(map(experiments.ratio, own))]
        cells += [", ".join(_shown((rows["seconds"] / 60).median(), ".1f") for rows in own)]
        cells += [_shown(task.rows["mixture"]["mean_lpc"].mean(), ",.0f"), references.BABYAI.get(name, "")]
        lines.append(cells)
    head = "task | steps | seeds | mixture: success, % | GRU: success, % | mixture minus GRU, points | path ratio, "
    head += "mixture and GRU | minutes, mixture and GRU | mean LPC of the mixture | BabyAI, %"
    return markdown_table(head.split(" | "), lines)


def as_cost_table(table: pd.DataFrame, worlds: pd.DataFrame) -> str:
    """A line for each task with the same seeds of the mixture with a cost and without one, and what their LPC tells.

    "" where there is no such task.
    """
    lines = []
    for task in (task for task in of_tasks(table, worlds, COSTS) if task.is_paired):
        free, paid = task.rows.values()
        left = 100 * paid["mean_lpc"].to_numpy() / free["mean_lpc"].to_numpy()
        cells = [task_name(task.task_id), str(len(free)), *task.intervals]
        cells += [interval(difference(task.success[COSTS[1]], task.success[COSTS[0]]), "+")]
        cells += [", ".join(map(experiments.ratio, (free, paid)))]
        lines.append([*cells, *map(experiments.spread, (free["mean_lpc"], paid["mean_lpc"], pd.Series(left)))])
    names = ("lpc_alpha 0", COSTS[1])
    head = ["task", "seeds", *(f"{name}: success, %" for name in names), "difference, points", "path ratio of both"]
    head += [*(f"{name}: mean LPC" for name in names), "LPC that is left, %"]
    parts = [markdown_table(head, lines), what_lpc_tells(table)] if lines else []
    return "\n".join(part for part in parts if part)


def as_reading_table(table: pd.DataFrame, worlds: pd.DataFrame) -> str:
    """A line for each task: the mixture, the same without its mission, random actions; and the returns of JAT."""
    lines = []
    by_chance = {row["task_id"]: row for row in references.load_random()}
    for task in of_tasks(table, worlds, READERS):
        if READERS[0] not in task.success or task.task_id not in by_chance:
            continue
        name, chance = task_name(task.task_id), by_chance[task.task_id]
        rate = (chance["success_rate"], *interval_of_rate(chance["success_rate"], chance["num_episodes"]))
        own, theirs = task.rows[READERS[0]]["mean_return"].mean(), references.JAT.get(name)
        cells = [name, *task.intervals, interval(rate), f"{own:.3f}, {chance['mean_return']:.3f}"]
        lines.append([*cells, "{1:.3f}, {0:.3f}".format(*theirs) if theirs else ""])
    head = ["task", "mixture: success, %", "without the mission: success, %", "random actions: success, %"]
    return markdown_table([*head, "mean return: mixture, random actions", "JAT: bot, random actions"], lines)


def by_cost(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of each of COSTS, its rows by task and seed: those of the tasks that have the same seeds of both."""
    free, paid = (table[table["setting"] == setting].set_index(["task_id", "seed"]).sort_index() for setting in COSTS)
    unpaired = free.index.symmetric_difference(paid.index).get_level_values("task_id")
    return {
        name: of.drop(unpaired, level="task_id", errors="ignore") for name, of in zip(COSTS, (free, paid), strict=True)
    }


def what_lpc_tells(table: pd.DataFrame) -> str:
    """A table: how much of the mean LPC is of the task, with a cost and without one; "" for fewer than four tasks."""
    names = {"env_steps": "steps of training", "accuracy": "accuracy"}
    lines = [["share of the variance of log LPC that is between tasks, not between seeds"]]
    lines += [[f"rank correlation of LPC over the tasks with {name}"] for name in names.values()]
    for rows in by_cost(table).values():
        means = rows.groupby("task_id").mean(numeric_only=True)
        if len(means) < 4:
            return ""
        found = [intraclass_correlation(np.log(rows["mean_lpc"].unstack("seed").to_numpy()))]
        found += [rank_correlation(means["mean_lpc"], means[name]) for name in names]
        for line, (value, low, high) in zip(lines, found, strict=True):
            line.append("–" if math.isnan(value) else interval_text(value, low, high, ".2f"))
    return markdown_table([f"over {len(means)} tasks", "lpc_alpha 0", COSTS[1]], lines)


def where_they_differ(table: pd.DataFrame, worlds: pd.DataFrame) -> str:
    """Lines: the tasks where one policy solves more beyond chance, and those where all its seeds take shorter paths.

    "" where no task has the same seeds of both.
    """
    paired = [task for task in of_tasks(table, worlds, RIVALS) if task.is_paired]
    if not paired:
        return ""
    lines = [f"Of {len(paired)} tasks with the same seeds of both policies:"]
    words = {"solves more, beyond chance": _solves_more, "takes shorter paths, each seed": _is_shorter}
    for says, is_ahead in words.items():
        for setting, other in (RIVALS, RIVALS[::-1]):
            names = [task_name(task.task_id) for task in paired if is_ahead(task, setting, other)]
            lines.append(f"- the {setting} {says}, in {len(names)}{': ' * bool(names)}{', '.join(names)}")
    return "\n".join(lines) + "\n"


def _solves_more(task: OfTask, setting: str, other: str) -> bool:
    _, low, _ = difference(task.success[setting], task.success[other])
    return low > 0


def _is_shorter(task: OfTask, setting: str, other: str) -> bool:
    longest = task.rows[setting]["path_ratio"].max(skipna=False)  # NaN where a seed solves no world: nothing is claimed
    return bool(longest < task.rows[other]["path_ratio"].min(skipna=False))


def _shown(number: float, form: str) -> str:
    return "–" if math.isnan(number) else format(number, form)


def write_report() -> str:
    """Write table and figure of what is published; returns the text."""
    worlds, _, table = load_published()
    if table.empty:
        raise InputError("nothing is published yet; leave --report out")
    parts = as_table(table, worlds), where_they_differ(table, worlds)
    text, costs = "\n".join(part for part in parts if part), as_cost_table(table, worlds)
    write_atomic(experiments.RESULTS / "tasks.md", lambda file: file.write(text.encode()))
    if costs:
        write_atomic(experiments.RESULTS / "tasks_cost.md", lambda file: file.write(costs.encode()))
        draw_costs(table)
    reading = as_reading_table(table, worlds)
    write_atomic(experiments.RESULTS / "tasks_reading.md", lambda file: file.write(reading.encode()))
    rivals = table[table["setting"].isin(RIVALS)]
    if len(rivals):
        title = "Failures in 1,000 worlds that training never saw: a dot for each seed, and their mean"
        write_figure(experiments.RESULTS / "tasks.png", plot_by_task(rivals, title=title))
    return f"{text}\n{costs}" if costs else text


def draw_costs(table: pd.DataFrame) -> None:
    """Draw the mean LPC with the cost and without it, the task that keeps most first."""
    kept = by_cost(table)[COSTS[1]]["mean_lpc"].groupby("task_id").mean()
    tasks = kept.sort_values(ascending=False, kind="stable").index.tolist()
    shown = table[table["setting"].isin(COSTS) & table["task_id"].isin(tasks)]
    names = dict(zip(COSTS, ("lpc_alpha 0", COSTS[1]), strict=True))
    title = "What a task is worth computing: mean LPC without a cost and with one, a dot for each seed, and their mean"
    figure = plot_by_task(shown.assign(policy=shown["setting"]), "mean LPC", title, names, tasks)
    write_figure(experiments.RESULTS / "tasks_cost.png", figure)


# --- the zoo --------------------------------------------------------------------------------------------------------


def median_seed(rows: pd.DataFrame) -> int:
    """The seed in the middle by success, then by path ratio; of an even number, the worse of the two."""
    order = rows.sort_values(["success_rate", "path_ratio"], ascending=[True, False], na_position="first")
    return int(order["seed"].iloc[(len(order) - 1) // 2])


def add_medians_to_zoo(trainings: list[Training], table: pd.DataFrame) -> None:
    """Write the mixture of the median seed of each task of these trainings, as far as it is on this machine."""
    mixtures = [training for training in trainings if training.setting == "mixture"]
    for task_id in dict.fromkeys(training.task_id for training in mixtures):
        seed = median_seed(table[(table["task_id"] == task_id) & (table["setting"] == "mixture")])
        chosen = [training for training in mixtures if (training.task_id, training.seed) == (task_id, seed)]
        if chosen:
            add_to_zoo(chosen[0])
        else:
            print(f"zoo: the median seed of {task_id}, {seed}, is not one of those that were trained now")


def add_to_zoo(training: Training) -> None:
    """Write a policy without its optimiser to results/zoo/, in place of another seed's of the same task and trial."""
    path = training.key.checkpoint(experiments.RESULTS / "zoo")
    checkpoint = load_checkpoint(training.folder / "checkpoint_final.pt")
    shutil.rmtree(path.parent.parent, ignore_errors=True)
    save_checkpoint(path, {name: value for name, value in checkpoint.items() if name != "optimizer_state_dict"})


# --- running it -----------------------------------------------------------------------------------------------------


def finish(trainings: list[Training], jobs: int) -> None:
    """Train and evaluate those of one task that are not published, and publish them."""
    experiments.train_missing(trainings, jobs)
    experiments.check_commands(trainings)
    publish(trainings, experiments.evaluate("tasks", jobs, "--task", trainings[0].task_id))


def modal_commands(trainings: list[Training]) -> list[str]:
    """The same trainings on Modal: a command for those that differ in their task alone, or in their seed."""
    by_command: dict[tuple, dict[str, list[str]]] = {}
    for training in trainings:
        script = "train_mop.py" if training.policy == "mop" else "train.py"
        extra = shlex.join(as_flags({"lang_encoder": "vocab", **training.flags}))
        command = (script, str(training.trial), extra)
        by_command.setdefault(command, {}).setdefault(training.task_id, []).append(str(training.seed))
    lines = []
    for (script, trial, extra), seeds_of_task in by_command.items():
        for seeds in dict.fromkeys(map(tuple, seeds_of_task.values())):
            tasks = [task_id for task_id, own in seeds_of_task.items() if tuple(own) == seeds]
            words = ["--task-ids", ",".join(tasks), "--trials", trial, "--seeds", ",".join(seeds)]
            words += ["--script", script, "--gpu", "none", "--extra-args", extra]
            lines.append(shlex.join(["modal", "run", "--detach", "modal_app.py::main", *words]))
    return lines


@dataclass(frozen=True)
class Settings:
    """The flags."""

    tasks: tuple[str, ...] = cli.setting(tuple(TASKS), "with commas (default: all)", choices=TASKS, commas=True)
    settings: tuple[str, ...] = cli.setting(
        tuple(POLICIES), "with commas (default: all)", choices=POLICIES, commas=True
    )
    seeds: tuple[int, ...] = cli.setting(SEEDS, "with commas (default: all)", choices=SEEDS, commas=True)
    jobs: int = cli.setting(1, "trainings at a time", low=1)
    dry_run: bool = cli.setting(False, "print the commands of what is not published")
    modal: bool = cli.setting(False, "with --dry_run: those for Modal")
    report: bool = cli.setting(False, "train nothing: write table and figure anew")

    def __post_init__(self):
        if (self.report and self.dry_run) or (self.modal and not self.dry_run):
            raise InputError("give --report alone, and --modal with --dry_run")


def main() -> int:
    """Train what is not published, task after task; publish; tell."""
    args = cli.parse(Settings, __doc__)
    published = set(load_published()[-1]["command"])
    asked = [t for t in task_table() if t.task_id in args.tasks and t.setting in args.settings and t.seed in args.seeds]
    missing = [training for training in asked if training.text not in published]
    if args.dry_run:
        print("\n".join(modal_commands(missing) if args.modal else [training.text for training in missing]))
        return 0
    by_task = itertools.groupby([] if args.report else missing, lambda training: (training.task_id, training.seed))
    for (task_id, seed), group in by_task:
        print(f"{task_id}, seed {seed}", flush=True)
        finish(list(group), args.jobs)
        write_report()
    print(write_report())
    return 0


if __name__ == "__main__":
    run_script(main)
