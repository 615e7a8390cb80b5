"""Seconds of a step under interventions on routing, beside those of a plain evaluation, as ratios of neighbours.

    python benchmarks/routing_intervention_speed.py                   one task, five rounds: two minutes
    python benchmarks/routing_intervention_speed.py --rounds 1 --num_worlds 100

All are of the same trained policy, in the same worlds, with the same number of episodes side by side, and keep the
routing of every step. The time is that of the processor, divided by the steps that were played: an intervention that
spoils a policy makes its episodes longer.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.routing_edits import GATE_ONLY, ZEROED, parse
from mop.common.values import integer

HERE = Path(__file__).parent

CHECKPOINT = HERE.parent / "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"
WHAT = (
    *(("threshold 0.0", GATE_ONLY), ("threshold 0.0", ZEROED)),  # changes nothing: the very same episodes
    *(("lesion 1.2", GATE_ONLY), ("threshold 0.1", GATE_ONLY), ("threshold 0.1", ZEROED), ("argmax", GATE_ONLY)),
    *(("clamp 1.2=0.5", GATE_ONLY), ("mean 1", GATE_ONLY), ("shuffle 1", GATE_ONLY)),
)


def seconds_of_a_step(play: Callable) -> float:
    """Seconds of the processor for each step of `play()`, which returns an evaluation with its steps."""
    start = time.process_time()
    played = play()
    return (time.process_time() - start) / len(played.steps)


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
    from mop.envs.bot_paths import BotPaths
    from mop.evaluation.evaluate import encoder_for, evaluate, load_for_evaluation
    from mop.evaluation.intervention_runs import Study
    from mop.training.devices import use_device

    use_device("cpu")
    checkpoint = load_for_evaluation(args.checkpoint)
    encoder, bot_paths = encoder_for(checkpoint), BotPaths(checkpoint["config"]["task_id"], None, None)
    study = Study(checkpoint, encoder, bot_paths, args.num_worlds)
    study.episodes(parse("argmax"))  # compiles
    ratios: dict[str, list[float]] = {}
    for _ in range(args.rounds):
        for text, variant in WHAT:
            plain = seconds_of_a_step(lambda: evaluate(checkpoint, encoder, bot_paths, args.num_worlds))
            changed = seconds_of_a_step(lambda text=text, variant=variant: study.episodes(parse(text), variant))
            ratios.setdefault(f"{text}, {variant}", []).append(changed / plain)
    print(f"{study.intact.header['task_id']}, {args.num_worlds} worlds: times as long as a plain evaluation's step")
    for name, values in ratios.items():
        print(f"{name:<28}{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})", flush=True)
    return 0


if __name__ == "__main__":
    run_script(main)
