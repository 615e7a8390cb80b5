"""Steps of a recording for each second of the processor, beside those of a plain evaluation right before it.

    python benchmarks/recording_speed.py                      one task, five pairs: a minute or two
    python benchmarks/recording_speed.py --pairs 1 --num_steps 5000

Both are of the same trained policy, with the same number of episodes side by side. The evaluation keeps the routing of
every step in memory; the recording asks the bot at every step, too, keeps memory and grid, and writes all to the disk.
A recording by all behaviours begins fewer worlds than an evaluation does, so that of the policy alone is shown as well.
"""

import statistics
import tempfile
import time
from pathlib import Path

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

HERE = Path(__file__).parent

CHECKPOINT = HERE.parent / "results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt"


def evaluation(checkpoint: dict, encoder, bot_paths, num_episodes: int, num_envs: int) -> float:
    """Steps a second of the processor of an evaluation with routing; the bot's own results are known before."""
    from mop.evaluation.evaluate import evaluate

    start = time.process_time()
    result = evaluate(checkpoint, encoder, bot_paths, num_episodes, num_envs=num_envs)
    return len(result.steps) / (time.process_time() - start)


def recording(policy, task_id: str, behaviours: tuple[str, ...], num_steps: int, num_envs: int) -> float:
    """Steps a second of the processor of a recording, from its first world to its index on the disk."""
    from generative.domains.babyai.envs import BabyAIWorlds, PolicyActor
    from generative.recordings.recorder import Plan, Recorder, plan_shards, row_dtype
    from generative.simulators.relaxation import to_simplex

    worlds = BabyAIWorlds(task_id, None, num_envs)
    actor = PolicyActor(policy, worlds, to_simplex)
    num_shards = plan_shards(num_steps, row_dtype(actor, worlds).itemsize)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        recorder = Recorder(actor, worlds, Plan(behaviours, num_steps, num_shards, 0, 0.2), Path(folder))
        recorder.run(lambda steps: None)
        return recorder.num_steps / (time.process_time() - start)


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", default=str(CHECKPOINT), help="a trained policy (default: of UnlockPickup)")
    parser.add_argument("--pairs", default=5, help="runs of each (default: %(default)s)")
    parser.add_argument("--num_steps", default=50_000, help="steps of each recording (default: %(default)s)")
    parser.add_argument("--num_episodes", default=1000, help="episodes of each evaluation (default: %(default)s)")
    parser.add_argument("--num_envs", default=64, help="episodes side by side (default: %(default)s)")
    return parser


def main() -> int:
    args = parser().parse_args()
    count = integer(1)
    check_flags(args, pairs=count, num_steps=count, num_episodes=count, num_envs=count)
    from generative.domains.babyai.policy import FrozenPolicy
    from generative.recordings.format import BEHAVIOURS
    from mop.envs.bot_paths import BotPaths
    from mop.evaluation.evaluate import encoder_for, load_for_evaluation

    checkpoint = load_for_evaluation(args.checkpoint)
    encoder, task_id = encoder_for(checkpoint), checkpoint["config"]["task_id"]
    policy, _ = FrozenPolicy.load(args.checkpoint)
    bot_paths = BotPaths(task_id, None, None)
    bot_paths.solvable(0, args.num_episodes)
    rows = []
    for _ in range(args.pairs):
        plain = evaluation(checkpoint, encoder, bot_paths, args.num_episodes, args.num_envs)
        alone, everyone = (
            recording(policy, task_id, who, args.num_steps, args.num_envs) for who in (("argmax",), BEHAVIOURS)
        )
        rows.append((plain, alone, everyone))
        print(f"evaluation {plain:,.0f} steps/s, recording argmax {alone:,.0f}, all {everyone:,.0f}", flush=True)
    for name, column in (("argmax", 1), ("all behaviours", 2)):
        ratios = [row[0] / row[column] for row in rows]
        print(
            f"{task_id}: a recording by {name} takes {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) times as long a step as an evaluation"
        )
    return 0


if __name__ == "__main__":
    run_script(main)
