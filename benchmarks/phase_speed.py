"""Steps of an evaluation for each second of the processor, with the bot following the policy and without.

    python benchmarks/phase_speed.py                          four tasks, 15 pairs of each: some minutes
    python benchmarks/phase_speed.py --pairs 3 --num_worlds 100 --tasks BabyAI-UnlockPickup-v0

Each pair is of the same trained policy of the zoo in the same worlds, one run right after the other, in turn in either
order. Both keep the routing of every step in memory.
"""

import gc
import statistics
import time
from pathlib import Path

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

HERE = Path(__file__).parent

TASKS = "BabyAI-UnlockPickup-v0,BabyAI-GoToLocal-v0,BabyAI-OpenTwoDoors-v0,BabyAI-KeyCorridorS3R3-v0"


def speed_of(with_phases: bool, *arguments) -> float:
    """Steps a second of the processor of an evaluation; arguments: of `evaluate`."""
    from mop.evaluation.evaluate import evaluate

    gc.collect()  # what the last run left behind is not this one's to clear away
    start = time.process_time()
    result = evaluate(*arguments, with_phases=with_phases)
    return len(result.steps) / (time.process_time() - start)


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--tasks", default=TASKS, help="policies of results/zoo (default: %(default)s)")
    parser.add_argument("--pairs", default=15, help="pairs of runs of each task (default: %(default)s)")
    parser.add_argument("--num_worlds", default=300, help="episodes of each run (default: %(default)s)")
    return parser


def main() -> int:
    args = parser().parse_args()
    check_flags(args, pairs=integer(1), num_worlds=integer(1))
    from mop.envs.bot_paths import BotPaths
    from mop.evaluation.evaluate import encoder_for, load_for_evaluation
    from mop.training.devices import use_device

    use_device("cpu")
    for task_id in args.tasks.split(","):
        checkpoint = load_for_evaluation(HERE.parent / f"results/zoo/{task_id}/trial_0/seed_0/checkpoint_final.pt")
        bot_paths = BotPaths(task_id, checkpoint["config"]["max_steps"], None)
        run = (checkpoint, encoder_for(checkpoint), bot_paths, args.num_worlds)
        speed_of(True, *run)  # kernels are loaded, and the bot's own paths known
        pairs = []
        for number in range(args.pairs):
            order = (False, True) if number % 2 else (True, False)
            speeds = {with_phases: speed_of(with_phases, *run) for with_phases in order}
            pairs.append((speeds[False], speeds[True]))
        ratios = [phased / plain for plain, phased in pairs]
        quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(
            f"{task_id}: {statistics.median(plain for plain, _ in pairs):,.0f} steps/s without, "
            f"{statistics.median(phased for _, phased in pairs):,.0f} with phases; "
            f"ratio {quartiles[1]:.2f} (quartiles {quartiles[0]:.2f} to {quartiles[2]:.2f})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    run_script(main)
