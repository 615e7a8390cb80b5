"""The claims of the Mixture-of-Pathways paper (arXiv 2506.02813), tested on twelve BabyAI tasks in one policy.

    python studies/claims.py --jobs 2      trains, evaluates and intervenes where something is missing, then measures
    python studies/claims.py --jobs 0      measures what is there
    python studies/claims.py --report      tables and pictures again, from what results/claims/ holds
    python studies/claims.py --dry_run     the commands of the missing trainings

Four kinds of policies, each with five seeds, and a GRU for each task, whose steps to 90 % say how difficult it is.
They read their mission by the FiLM front; results/linear/claims/ has the same of policies with the linear one.
Ctrl-C at any time: the same command goes on. Checkpoints and evaluations stay under results/runs/claims/ (not in git).
Writes results/claims/: values.csv, a row for each number of each policy; pairs.csv, one for each pair of policies;
difficulty.csv; and, from these, summary.csv and summary.md, means over seeds with intervals beside the paper's figures,
and pictures.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from mop.analysis.routing import compute_pathways
from mop.analysis.routing_data import checked_weights
from mop.analysis.specialisation import distinctness, group_means, stacked, step_correlation
from mop.artifacts.checkpoints import load_checkpoint
from mop.artifacts.intervention_rows import load_rows
from mop.artifacts.results import load_result
from mop.artifacts.routing_cache import RoutingData, load_cache
from mop.artifacts.run_paths import cache_path, interventions_path, result_path
from mop.common.cli import parse, read_yaml, setting
from mop.common.conventions import SUBGOALS
from mop.common.errors import InputError, run_script
from mop.common.files import write_together
from mop.common.intervention_grammar import GATE_ONLY
from mop.common.seeding import stream_seed
from mop.common.task_mix import task_name
from mop.envs.babyai import NO_LABEL
from mop.envs.trajectories import Trajectories, bot_trajectories
from mop.evaluation.evaluate import encoder_for
from mop.statistics.information import effective_number
from mop.statistics.permutation import permute_within
from mop.training.policies import build_policy
from mop.training.teacher_forcing import teacher_force
from studies.claims_report import COMMANDS, DIFFICULTY, FOLDER, PAIRS, UNTRAINED, VALUES, write_report
from studies.experiments import OF_THE_STUDIES, ROOT, RUNS, Training, check_commands, load_log, run_stage, train_missing

NAME = "claims"  # of the list of tasks
TASKS_FILE = FOLDER / "tasks.yaml"
SEEDS = (0, 1, 2, 3, 4)
READS = {"input_encoder": "film", "lang_dim": 64}
PLAIN = OF_THE_STUDIES | READS | {"num_envs": 24, "num_updates": 800, "log_interval": 8}
SCALED = {"lpc_alpha": 1e-6, "normalize_lpc": "true"}  # the price of `cost` where the cross-entropy is 0.09 nats
VARIANTS = {  # kind of policy -> its flags
    "plain": PLAIN,
    "cost": PLAIN | {"lpc_alpha": 1e-5},
    "cost, scaled": PLAIN | SCALED,
    "cost, scaled, dropout": PLAIN | SCALED | {"expert_dropout": "paper"},
}
BASELINE_UPDATES = {  # of a GRU that acts alone from the start: enough for 90 % but in KeyCorridorS3R1, BlockedUnlock
    "BabyAI-GoToObj-v0": 150, "BabyAI-OpenRedDoor-v0": 150, "BabyAI-UnlockLocal-v0": 200, "BabyAI-UnlockPickup-v0": 300,
    "BabyAI-OpenTwoDoors-v0": 300, "BabyAI-KeyCorridorS3R1-v0": 300, "BabyAI-GoToDoor-v0": 400,
    "BabyAI-GoToRedBallGrey-v0": 500, "BabyAI-BlockedUnlockPickup-v0": 1000, "BabyAI-GoToLocal-v0": 600,
    "BabyAI-PickupLoc-v0": 600, "BabyAI-PutNextLocal-v0": 1500,
}  # fmt: skip
MASTERED = 0.9  # share of the latest 100 episodes
NUM_EPISODES = 200  # of an evaluation in a task, with and without intervention
NUM_TRAJECTORIES = 40  # of the bot in each task, which all policies are shown
WHAT = ("threshold 0.05", "threshold 0.1", "threshold 0.2", "threshold 0.33", "argmax", "lesion_size 32")
NUM_PERMUTATIONS = 200  # of the tasks of one policy beside another
END = 0.1  # of a training: its first and its last part, between which LPC changes


def policies() -> Iterator[Training]:
    """The policies of several tasks; all kinds of a seed before the next seed."""
    tasks = TASKS_FILE.relative_to(ROOT).as_posix()
    for seed in SEEDS:
        for trial, (variant, flags) in enumerate(VARIANTS.items()):
            yield Training("claims", NAME, variant, trial, seed, flags, tasks=tasks)


def baselines() -> Iterator[Training]:
    """A GRU for each task, alone."""
    for task_id in task_ids():
        own = {"num_updates": BASELINE_UPDATES[task_id], "teacher_mix": 0.0, "log_interval": 2}
        flags = OF_THE_STUDIES | READS | own
        yield Training("claims", task_id, "baseline", 0, 0, flags, policy="gru")


def task_ids() -> list[str]:
    """The tasks, in the order of their file."""
    return list(read_yaml(TASKS_FILE))


# --- evaluations ----------------------------------------------------------------------------------------------------


def evaluate(trainings: list[Training], jobs: int) -> None:
    """Evaluate what is not yet, in every task, intact and with each intervention."""
    folder = RUNS / "claims"
    where = ["--cache_dir", folder / "evaluation", "--num_episodes", NUM_EPISODES]
    table = ["--checkpoint_dir", folder, "--task", NAME, "--final_only", "--results_path", folder / "table.csv"]
    run_stage("batch_eval.py", *table, *where, "--jobs", max(1, jobs))
    for training in tqdm(trainings, desc="interventions", unit="policy"):
        if not all(_has_rows(training, task_id) for task_id in task_ids()):
            places = ["--results_path", folder / "interventions.csv", "--plots_dir", folder / "plots"]
            checkpoint = training.folder / "checkpoint_final.pt"
            run_stage("intervene.py", "--checkpoint", checkpoint, "--what", *WHAT, *where, *places)


def _has_rows(training: Training, task_id: str) -> bool:
    return {row["intervention"] for row in _rows(training, task_id)} >= set(WHAT)


def _rows(training: Training, task_id: str) -> list[dict]:
    """One for each of WHAT that is made, of this very checkpoint in the worlds of its result; memories go on."""
    folder, key = RUNS / "claims" / "evaluation", training.key.on(task_id)
    result = load_result(result_path(folder, key))
    same = {"variant": GATE_ONLY, "num_episodes": NUM_EPISODES}
    same |= {name: result[name] for name in ("checkpoint_sha256", "eval_seed")}
    rows = [row for row in load_rows(interventions_path(folder, key)) if row["intervention"] in WHAT]
    return [row for row in rows if all(row[name] == value for name, value in same.items())]


# --- numbers of single policies -------------------------------------------------------------------------------------


def measure_policy(training: Training) -> list[dict]:
    """Rows `variant, seed, measure, task, value` of one policy; task "" where a number is of all tasks."""
    rows, caches, folder = [], [], RUNS / "claims" / "evaluation"

    def add(measure: str, value: float, task_id: str = "") -> None:
        rows.append(
            {"variant": training.setting, "seed": training.seed, "measure": measure, "task": task_id, "value": value}
        )

    log = load_log(training, *(f"lpc_{task_name(task_id)}" for task_id in task_ids()))
    for task_id in task_ids():
        key = training.key.on(task_id)
        result = load_result(result_path(folder, key))
        add("success", result["success_rate"], task_id)
        add("lpc", result["mean_lpc"], task_id)
        add("lpc change", change_of_lpc(log, task_id), task_id)
        for row in _rows(training, task_id):
            add(f"success, {row['intervention']}", row["success_rate"], task_id)
        caches.append(load_cache(cache_path(folder, key)))
    for measure, value in measure_pathways(caches).items():
        add(measure, value)
    return rows


def change_of_lpc(log: pd.DataFrame, task_id: str) -> float:
    """Mean LPC of a task in the last part of a training minus that in its first part."""
    lpc = log[f"lpc_{task_name(task_id)}"].to_numpy()
    count = max(1, round(END * len(lpc)))
    return float(lpc[-count:].mean() - lpc[:count].mean())


def measure_pathways(caches: list[RoutingData]) -> dict[str, float]:
    """How distinct the pathways of tasks and of sub-goals are, and how evenly the pathways of one policy are used.

    caches: of one policy, a task each. Each task counts alike, whatever its number of steps; of a sub-goal, each step.
    By chance, a task's episodes are those of any task, but sub-goals change between episodes of one task alone: most
    sub-goals occur in some tasks only, so what is particular to a task would be taken for what is to its sub-goals.
    """
    num_experts = [weights.shape[1] for weights in checked_weights(caches[0].steps)]
    found = [compute_pathways(cache) for cache in caches]
    pathway = np.concatenate([np.ravel_multi_index(tuple(p.experts.T), num_experts)[p.index] for p in found])
    task = np.concatenate([np.full(len(p.index), number) for number, p in enumerate(found)])
    starts = np.cumsum([0, *(len(cache.episodes) for cache in caches)])
    episode = np.concatenate([c.steps.episode + start for c, start in zip(caches, starts, strict=False)])
    subgoal = np.concatenate([cache.steps.subgoal for cache in caches])
    known = subgoal >= 0
    measures = {}
    for name, of_steps, kept in (("tasks", task, np.ones_like(known)), ("sub-goals", subgoal, known)):
        within = task[kept] if name == "sub-goals" else None
        result = distinctness(pathway[kept], of_steps[kept].astype(np.int64), episode[kept], name, within)
        measures |= {f"bits, {name}": result.bits, f"bits, {name}, by chance": result.null_bits}
    counts = [np.bincount(pathway[task == number], minlength=int(np.prod(num_experts))) for number in range(len(found))]
    shares = np.mean([count / count.sum() for count in counts], axis=0)
    measures["effective pathways"] = float(effective_number(shares))
    measures |= {f"share of rank {rank}": share for rank, share in enumerate(sorted(shares, reverse=True), 1)}
    return measures


def measure_difficulty(trainings: list[Training], trajectories: Mapping[str, Trajectories]) -> pd.DataFrame:
    """Environment steps until the GRU of each task first solves 90 %, NaN where it never does; the bot's mean steps."""
    rows = []
    for training in trainings:
        log = load_log(training, "episodes")
        reached = log[(log["success_rate"] >= MASTERED) & (log["episodes"] >= 100)]["env_steps"]
        bot_steps = float(trajectories[training.task_id].lengths.mean())
        rows.append(
            {"task": training.task_id, "env_steps": reached.min(), "trained_steps": log["env_steps"].iloc[-1]}
            | {"bot_steps": bot_steps, "command": training.text}
        )
    return pd.DataFrame(rows)


# --- pairs of policies, on the same inputs --------------------------------------------------------------------------


class Inputs(NamedTuple):
    """Episodes of the bot that all policies are shown, with the task and the episode of each step."""

    trajectories: dict[str, Trajectories]  # of each task
    task: np.ndarray  # (S,) int
    episode: np.ndarray  # (S,) int
    phase: np.ndarray  # (S,) int from 0, the task and the sub-goal of the bot


def make_inputs() -> Inputs:
    """The same for every call."""
    asked = tqdm(task_ids(), desc="bot", unit="task")
    seen = {task_id: bot_trajectories(task_id, None, NUM_TRAJECTORIES) for task_id in asked}
    lengths = np.concatenate([of_task.lengths for of_task in seen.values()])
    task = np.repeat(np.repeat(np.arange(len(seen)), NUM_TRAJECTORIES), lengths)
    subgoal = np.concatenate([of_task.subgoals.T[_known(of_task)].numpy() for of_task in seen.values()])
    _, phase = np.unique(task * len(SUBGOALS) + subgoal, return_inverse=True)
    return Inputs(seen, task, np.repeat(np.arange(len(lengths)), lengths), phase)


def _known(of_task: Trajectories) -> torch.Tensor:
    """Which steps there are, (E, T) bool: the steps of an episode are neighbours."""
    return (of_task.labels != NO_LABEL).T


def route(checkpoint: dict, inputs: Inputs) -> np.ndarray:
    """Router weights (S, G) of a policy that is shown the bot's episodes, its memory carried."""
    encoder, parts = encoder_for(checkpoint, None), []
    for of_task in inputs.trajectories.values():
        routing = teacher_force(checkpoint, of_task, encoder).routing
        parts.append(stacked([weights.transpose(0, 1)[_known(of_task)].double().numpy() for weights in routing]))
    return np.concatenate(parts)


def untrained(checkpoint: dict, seed: int) -> dict:
    """A checkpoint of the same config as it is before the first update, with the weights of a seed."""
    config = checkpoint["config"] | {"seed": seed}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "weights"))
        policy, lang_proj = build_policy(config), nn.Linear(config["encoder_dim"], config["lang_dim"])
    return checkpoint | {
        "config": config, "policy_state_dict": policy.state_dict(), "lang_proj_state_dict": lang_proj.state_dict()
    }  # fmt: skip


def measure_pairs(trainings: list[Training], inputs: Inputs) -> pd.DataFrame:
    """Rows `variant, first, second, measure, value`: how alike two seeds of a kind route on the same inputs."""
    weights: dict[str, dict[int, np.ndarray]] = {}
    for training in tqdm(trainings, desc="same inputs", unit="policy"):
        checkpoint = load_checkpoint(training.folder / "checkpoint_final.pt")
        weights.setdefault(training.setting, {})[training.seed] = route(checkpoint, inputs)
        if training.setting == "plain":
            weights.setdefault(UNTRAINED, {})[training.seed] = route(untrained(checkpoint, training.seed), inputs)
    rows, num_experts = [], [len(sizes) for sizes in checkpoint["config"]["expert_hidden_sizes"]]
    for variant, of_seeds in weights.items():
        for first, second in combinations(sorted(of_seeds), 2):
            name = f"{variant} {first} {second}"
            measures = compare(of_seeds[first], of_seeds[second], inputs, name, num_experts)
            rows += [
                {"variant": variant, "first": first, "second": second, "measure": name, "value": value}
                for name, value in measures.items()
            ]
    return pd.DataFrame(rows, columns=["variant", "first", "second", "measure", "value"])  # of one seed, no pair


def compare(
    first: np.ndarray, second: np.ndarray, inputs: Inputs, name: str, num_experts: Sequence[int]
) -> dict[str, float]:
    """Correlations of two policies' weights (S, G), and what chance leaves of them once the second is shuffled.

    `all`: of the mean weights in each task, which also holds what all tasks share. `tasks`: of what is particular to
    each task; `sub-goals`: of what is particular to each sub-goal within its task; by chance with the tasks of the
    second exchanged, or the sub-goals of each task, the mean of NUM_PERMUTATIONS. `steps`: of single steps, each minus
    the mean of its episode, by chance with the steps of each episode exchanged; `steps, layer`: the same in one layer.
    name: of the stream of random numbers. num_experts: of each layer, in the order of the G gates.
    """
    rng = np.random.default_rng(stream_seed(0, f"consistency {name}"))
    found = {}
    task_of_phase = group_means(inputs.task[:, None], inputs.phase)[:, 0].astype(np.int64)
    for measure, of_step in (("tasks", inputs.task), ("sub-goals", inputs.phase)):
        patterns = [group_means(weights, of_step) for weights in (first, second)]
        within = task_of_phase if measure == "sub-goals" else np.zeros(len(patterns[0]), np.int64)
        exchanged = [
            step_correlation(patterns[0], permute_within(patterns[1], within, rng), within)
            for _ in range(NUM_PERMUTATIONS)
        ]
        if measure == "tasks":
            found["all"] = step_correlation(*(pattern.reshape(-1, 1) for pattern in patterns))
        found |= {measure: step_correlation(*patterns, within), f"{measure}, by chance": float(np.mean(exchanged))}
    found["steps"] = step_correlation(first, second, inputs.episode)
    shuffled = permute_within(second, inputs.episode, rng)
    found["steps, by chance"] = step_correlation(first, shuffled, inputs.episode)
    layers = (np.split(weights, np.cumsum(num_experts)[:-1], axis=1) for weights in (first, second))
    for number, of_layer in enumerate(zip(*layers, strict=True)):
        found[f"steps, layer {number}"] = step_correlation(*of_layer, inputs.episode)
    return found


# --- the command ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """The flags."""

    jobs: int = setting(1, "trainings at a time; 0: none", low=0)
    report: bool = setting(False, "measure nothing, write tables and pictures again")
    dry_run: bool = setting(False, "print the commands of the missing trainings")


def main() -> int:
    """Train what is missing, evaluate, measure, write."""
    args = parse(Settings, __doc__)
    if not args.report:
        every = [*baselines(), *policies()]
        if args.dry_run:
            print("\n".join(training.text for training in every if not training.is_finished))
            return 0
        if args.jobs > 0:
            train_missing(every, args.jobs)
        measure([training for training in every if training.is_finished], max(1, args.jobs))
    write_report()
    return 0


def measure(finished: list[Training], jobs: int) -> None:
    """Write the numbers of the finished policies and baselines."""
    check_commands(finished)
    of_tasks, alone = [t for t in finished if t.policy == "mop"], [t for t in finished if t.policy == "gru"]
    if not of_tasks or not alone:
        raise InputError("no policy is trained, or no baseline; give --jobs 1 or more")
    evaluate(of_tasks, jobs)
    inputs = make_inputs()
    tables = {
        COMMANDS: pd.DataFrame([{"variant": t.setting, "seed": t.seed, "command": t.text} for t in of_tasks]),
        PAIRS: measure_pairs(of_tasks, inputs),
        DIFFICULTY: measure_difficulty(alone, inputs.trajectories),
        VALUES: pd.DataFrame([row for training in of_tasks for row in measure_policy(training)]),
    }
    write_together([(FOLDER / name, partial(table.to_csv, index=False)) for name, table in tables.items()])


if __name__ == "__main__":
    run_script(main)
