"""Training steps for each second of the processor: one policy on twelve tasks beside policies on one of them each.

    python benchmarks/several_tasks_speed.py                  twelve pairs, some minutes
    python benchmarks/several_tasks_speed.py --pairs 2 --updates 3 --num_envs 12

In each pair both run with the same number of environments, one right after the other, in turn in either order; the
single task is the next of the twelve, as their worlds take different times. Settings are the defaults of config.yaml.
"""

import gc
import statistics
import time

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.task_mix import task_name
from mop.common.train_config import parse_config
from mop.common.values import integer

TASKS = (
    "GoToRedBallGrey", "GoToRedBall", "GoToObj", "GoToLocal", "PickupLoc", "PutNextLocal", "UnlockPickup",
    "UnlockLocal", "OpenRedDoor", "OpenDoor", "FindObjS5", "KeyCorridorS3R1",
)  # fmt: skip
TASKS = tuple(f"BabyAI-{name}-v0" for name in TASKS)
WARM_UP = 2  # updates that do not count: kernels are loaded, worlds begun


def speed_of(task_ids: str, num_updates: int, num_envs: int) -> tuple[float, float]:
    """Environment steps a second of the processor, and seconds of the clock for each update."""
    from mop.envs.missions import load_encoder
    from mop.training.devices import use_device
    from mop.training.imitation import ImitationRun

    gc.collect()  # what the last run left behind is not this one's to clear away
    words = ["--task_id", task_ids, "--num_envs", str(num_envs), "--lang_encoder", "vocab"]
    config = parse_config("", words)[0] | {"policy": "mop", "seed": 0}
    run = ImitationRun(config, load_encoder("vocab"), use_device("cpu"))
    for _ in range(WARM_UP):
        run.step_update()
    start, start_of_clock = time.process_time(), time.perf_counter()
    for _ in range(num_updates):
        run.step_update()
    seconds, of_clock = time.process_time() - start, time.perf_counter() - start_of_clock
    run.close()
    return num_updates * num_envs * config["unroll_len"] / seconds, of_clock / num_updates


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--pairs", default=len(TASKS), help="pairs of runs (default: %(default)s)")
    parser.add_argument("--updates", default=20, help="updates of each run (default: %(default)s)")
    parser.add_argument("--num_envs", default=48, help="environments of each run (default: %(default)s)")
    return parser


def main() -> int:
    args = parser().parse_args()
    check_flags(args, pairs=integer(1), updates=integer(1), num_envs=integer(len(TASKS)))
    together, ratios, of_update = ",".join(TASKS), [], []
    for number in range(args.pairs):
        alone = TASKS[number % len(TASKS)]
        order = (together, alone) if number % 2 else (alone, together)
        speeds = {task_ids: speed_of(task_ids, args.updates, args.num_envs) for task_ids in order}
        ratios.append(speeds[together][0] / speeds[alone][0])
        of_update.append(speeds[together][1])
        print(
            f"{task_name(alone):<16} alone {speeds[alone][0]:>6,.0f} steps/s, twelve together "
            f"{speeds[together][0]:>6,.0f}: ratio {ratios[-1]:.2f}",
            flush=True,
        )
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(
        f"ratio {middle:.2f} ({low:.2f} to {high:.2f}) of {args.pairs} pairs; an update of the twelve took "
        f"{statistics.median(of_update):.2f} s of the clock ({min(of_update):.2f} to {max(of_update):.2f})"
    )
    return 0


if __name__ == "__main__":
    run_script(main)
