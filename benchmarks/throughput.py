"""Environment steps a second beside a plain loop's, as ratios of runs made right after each other.

    python benchmarks/throughput.py                              three tasks, five pairs: some minutes
    python benchmarks/throughput.py --tasks BabyAI-GoToObj-v0 --pairs 1 --updates 5

Each pair runs naive_training.py, the plain loop, and then this project's training and evaluation, on the same task with
the same sizes. Machines are shared and drift, so the ratio of a pair is the figure; the medians over the pairs are
printed with their range. Evaluation is compared with the plain loop's training, the only thing it does. `share` is the
speed of training over that of the policy alone: the same update with the world replaced by stored arrays. Both begin
anew in each pair, because a policy that has learned ends its episodes sooner, and new worlds cost time.
"""

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.train_config import parse_config
from mop.common.values import integer

HERE = Path(__file__).parent

WARM_UP_UPDATES = 3
TASKS = "BabyAI-GoToObj-v0,BabyAI-UnlockPickup-v0,BabyAI-GoTo-v0"


def plain_loop(task_id: str, updates: int, num_envs: int) -> float:
    """Environment steps a second of the plain training loop, in a process of its own."""
    command = [sys.executable, str(HERE / "naive_training.py"), "--task_id", task_id, "--updates", str(updates)]
    command += ["--num_envs", str(num_envs)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(re.search(r"env steps/s (\d+)", result.stdout)[1])


def make_run(task_id: str, num_workers: int, num_envs: int):
    """A run with the default sizes and the encoder that needs no download, learning as the plain loop does."""
    from mop.envs.missions import load_encoder
    from mop.training.devices import use_device
    from mop.training.imitation import ImitationRun

    flags = ["--task_id", task_id, "--num_workers", str(num_workers), "--num_envs", str(num_envs)]
    flags += ["--obs_encoding", "raw", "--residual", "false", "--expert_gain", "1"]
    flags += ["--replay", "0", "--teacher_mix", "0"]
    config, _ = parse_config("", [*flags, "--lang_encoder", "vocab", "--device", "cpu"])
    return ImitationRun(config | {"policy": "mop", "seed": 0}, load_encoder("vocab"), use_device("cpu"))


def training(run, updates: int) -> float:
    """Environment steps a second of whole training updates."""
    start = time.perf_counter()
    for _ in range(updates):
        run.step_update()
    return updates * run.config["unroll_len"] * run.config["num_envs"] / (time.perf_counter() - start)


def policy_alone(run, updates: int) -> float:
    """Environment steps a second of the same updates on one stored unroll: no world, no bot."""
    from mop.fast.dispatch import refresh_student

    unroll, first_hidden = run.act()
    lang = np.zeros((len(first_hidden), run.config["lang_dim"]), np.float32)
    start = time.perf_counter()
    for _ in range(updates):
        refresh_student(run.rollouts.student, run.policy, run.lang_proj)
        hidden = first_hidden.numpy()
        for obs in unroll.steps.obs:
            logits, _, hidden = run.rollouts.student.step(obs, lang, hidden)
            logits.argmax(-1)
        run.learn(unroll, first_hidden)
    return updates * run.config["unroll_len"] * run.config["num_envs"] / (time.perf_counter() - start)


def evaluation(run, bot_paths, num_episodes: int) -> float:
    """Environment steps a second of an evaluation with routing recorded; the bot's own results are known before."""
    from mop.evaluation.evaluate import evaluate

    start = time.perf_counter()
    result = evaluate(run.checkpoint(), run.encoder, bot_paths, num_episodes)
    return len(result.steps) / (time.perf_counter() - start)


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--tasks", default=TASKS, help="task ids, separated by commas (default: %(default)s)")
    parser.add_argument("--pairs", default=5, help="runs of each of the two (default: %(default)s)")
    parser.add_argument("--updates", default=20, help="training updates timed in each run (default: %(default)s)")
    parser.add_argument("--num_episodes", default=200, help="episodes of each evaluation (default: %(default)s)")
    parser.add_argument("--num_envs", default=16, help="environments of both trainings (default: %(default)s)")
    parser.add_argument("--num_workers", default=0, help="processes that step our environments (default: %(default)s)")
    return parser


def main() -> int:
    args = parser().parse_args()
    count = integer(1)
    check_flags(args, pairs=count, updates=count, num_episodes=count, num_envs=count, num_workers=integer(0))
    from mop.envs.bot_paths import BotPaths

    head = f"{'plain loop':>11}{'training':>10}{'ratio':>22}{'share':>22}{'evaluation':>12}{'ratio':>22}"
    print(f"{'task':<26}{head}   (steps/s)")
    for task_id in args.tasks.split(","):
        bot_paths, rows = BotPaths(task_id, None, None), []
        bot_paths.solvable(0, args.num_episodes)
        for _ in range(args.pairs):
            plain = plain_loop(task_id, args.updates, args.num_envs)
            run = make_run(task_id, args.num_workers, args.num_envs)  # as new as the plain loop's
            training(run, WARM_UP_UPDATES)
            trained, evaluated = training(run, args.updates), evaluation(run, bot_paths, args.num_episodes)
            rows.append((plain, trained, policy_alone(run, args.updates), evaluated))
            run.close()
        plain, trained, _, evaluated = (statistics.median(column) for column in zip(*rows, strict=True))
        ratios, shares = spread([r[1] / r[0] for r in rows]), spread([r[1] / r[2] for r in rows], 2)
        speeds = f"{plain:>11.0f}{trained:>10.0f}{ratios:>22}{shares:>22}{evaluated:>12.0f}"
        print(f"{task_id:<26}{speeds}{spread([r[3] / r[0] for r in rows]):>22}", flush=True)
    return 0


def spread(values: list[float], digits: int = 1) -> str:
    """Median and range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


if __name__ == "__main__":
    run_script(main)
