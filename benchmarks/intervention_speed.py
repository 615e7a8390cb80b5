"""Steps a second with the memory moved after each step, beside those of a plain evaluation, as ratios of neighbours.

    python benchmarks/intervention_speed.py                   one task, five rounds: a minute
    python benchmarks/intervention_speed.py --rounds 1 --num_worlds 100

All are of the same trained policy, in the same worlds, with the same number of episodes side by side. The evaluation
keeps the routing of every step; the others count events, actions by phase and weights.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

HERE = Path(__file__).parent

CHECKPOINT = HERE.parent / "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"


def seconds_of(run: Callable[[], object]) -> float:
    """Seconds that a run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", default=str(CHECKPOINT), help="a trained policy (default: of UnlockPickup)")
    parser.add_argument("--rounds", default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--num_worlds", default=500, help="episodes of each run (default: %(default)s)")
    return parser


def main() -> int:
    args = parser().parse_args()
    check_flags(args, rounds=integer(1), num_worlds=integer(1))
    import torch

    from generative.domains.babyai.policy import FrozenPolicy
    from generative.domains.babyai.rollouts import play_moved
    from generative.representations.steering import Move, Reading
    from mop.envs.bot_paths import BotPaths
    from mop.evaluation.evaluate import encoder_for, evaluate, load_for_evaluation
    from mop.training.devices import use_device

    use_device("cpu")
    checkpoint = load_for_evaluation(args.checkpoint)
    encoder, task_id = encoder_for(checkpoint), checkpoint["config"]["task_id"]
    policy, _ = FrozenPolicy.load(args.checkpoint)
    bot_paths = BotPaths(task_id, None, None)
    seeds = list(bot_paths.solvable(0, args.num_worlds)[0])
    nowhere = torch.zeros(policy.policy.hidden_size)  # a move of no length: the same episodes
    still = Move(Reading(nowhere, nowhere, 0.0), nowhere)
    runs = {
        "evaluation": lambda: evaluate(checkpoint, encoder, bot_paths, args.num_worlds),
        "counted": lambda: play_moved(policy, task_id, None, seeds),
        "moved": lambda: play_moved(policy, task_id, None, seeds, still),
    }
    num_steps = play_moved(policy, task_id, None, seeds).table["steps"].sum()
    rounds = []
    for _ in range(args.rounds):
        rounds.append({name: seconds_of(run) for name, run in runs.items()})
        print(", ".join(f"{name} {num_steps / s:,.0f} steps/s" for name, s in rounds[-1].items()), flush=True)
    for name in ("counted", "moved"):
        ratios = [seconds[name] / seconds["evaluation"] for seconds in rounds]
        print(
            f"{task_id}: a step takes {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) "
            f"times as long as in an evaluation where it is {name}"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
