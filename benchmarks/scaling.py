"""What an environment step of training costs with more environments, and how much worker processes save.

    python benchmarks/scaling.py                                        two tables: some minutes
    python benchmarks/scaling.py --tasks BabyAI-GoToObj-v0 --repeats 3

Settings take turns, so that a drifting machine meets them alike; medians over the turns, with their range. What two
unrelated processes gain is the most that the machine allows two workers.
"""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.throughput import TASKS, WARM_UP_UPDATES, make_run, spread
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

NUM_ENVS = (1, 16, 64, 256)
NUM_WORKERS = (0, 1, 2)


def microseconds(run, updates: int) -> tuple[float, float]:
    """Microseconds of an environment step: of the student's acting alone, and of whole updates."""
    acting, start = 0.0, time.perf_counter()
    for _ in range(updates):
        began = time.perf_counter()
        acted = run.act()
        acting += time.perf_counter() - began
        run.learn(*acted)
    steps = updates * run.config["unroll_len"] * run.config["num_envs"] / 1e6
    return acting / steps, (time.perf_counter() - start) / steps


def compare(task_id: str, settings: list[tuple[int, int]], repeats: int) -> list[list[tuple[float, float]]]:
    """The microseconds of each setting (num_envs, num_workers), for each turn."""
    made = [make_run(task_id, num_workers, num_envs) for num_envs, num_workers in settings]
    rows: list[list[tuple[float, float]]] = [[] for _ in settings]
    for turn in range(repeats + 1):
        for run, row in zip(made, rows, strict=True):
            timed = microseconds(run, max(WARM_UP_UPDATES, 320 // run.config["num_envs"]))
            if turn > 0:  # the first is a warm-up
                row.append(timed)
    for run in made:
        run.close()
    return rows


STEPPING = """
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from mop.envs.vector_env import BabyAIVectorEnv
env, rng = BabyAIVectorEnv(sys.argv[2], 8, 0), np.random.default_rng(0)
env.reset()
for count in (100, 1200):
    start = time.perf_counter()
    for _ in range(count):
        env.step(rng.integers(0, 3, 8))
print(time.perf_counter() - start)
"""


def two_at_once(task_id: str) -> float:
    """How many times as many steps as one process two unrelated ones take in the same time."""
    command = [sys.executable, "-c", STEPPING, str(Path(__file__).parent.parent), task_id]

    def seconds(count: int) -> float:
        started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        return max(float(process.communicate()[0]) for process in started)

    return 2 * seconds(1) / seconds(2)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--tasks", default=TASKS, help="task ids, separated by commas (default: %(default)s)")
    parser.add_argument("--repeats", default=5, help="turns of each setting (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, repeats=integer(1))
    print(f"{'task':<26}{'environments':>13}{'microseconds a step':>28}")
    for task_id in args.tasks.split(","):
        rows = compare(task_id, [(num_envs, 0) for num_envs in NUM_ENVS], args.repeats)
        for num_envs, row in zip(NUM_ENVS, rows, strict=True):
            print(f"{task_id:<26}{num_envs:>13}{spread([whole for _, whole in row]):>28}", flush=True)
    print(f"\n{'task':<26}{'workers':>13}{'microseconds a step':>28}{'speed-up':>22}{'of acting alone':>22}")
    for task_id in args.tasks.split(","):
        rows = compare(task_id, [(16, num_workers) for num_workers in NUM_WORKERS], args.repeats)
        for num_workers, row in zip(NUM_WORKERS, rows, strict=True):
            gains = [spread([a[k] / b[k] for a, b in zip(rows[0], row, strict=True)], 2) for k in (1, 0)]
            cost = spread([whole for _, whole in row])
            print(f"{task_id:<26}{num_workers:>13}{cost:>28}{gains[0]:>22}{gains[1]:>22}", flush=True)
        most = spread([two_at_once(task_id) for _ in range(args.repeats)], 2)
        print(f"{task_id:<26}{'two unrelated processes of this machine':>63}{most:>22}", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
