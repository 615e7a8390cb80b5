"""Seconds of the processor for one attribution: every thing of a world, k steps before the target, by path.

    python benchmarks/attribution_speed.py                                     UnlockPickup, the exact simulator
    python benchmarks/attribution_speed.py --task_id BabyAI-GoToLocal-v0 --num_points 8

An untrained policy of the default size; integrated gradients of one target through the recorded actions, split into
paths, for each lag. On one core.
"""

import statistics
import time

import torch

from generative.attribution.integrated_gradients import NUM_POINTS, ClosedLoopRollout, predict_effects
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.scenes import ExactScenes
from generative.domains.babyai.targets import parse_target
from mixture_of_experts import MixtureOfExpertsPolicy
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer
from mop.envs.babyai import World

LAGS = (0, 1, 2, 4, 8)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--task_id", default="BabyAI-UnlockPickup-v0", help="BabyAI task (default: %(default)s)")
    parser.add_argument("--num_points", default=NUM_POINTS, help="of the integral (default: %(default)s)")
    parser.add_argument("--repeats", default=5, help="attributions that are timed (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, num_points=integer(1), repeats=integer(1))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    world = World(args.task_id)
    world.reset(0)
    policy = FrozenPolicy(MixtureOfExpertsPolicy(), None, None)
    scenes = ExactScenes(world.codes.shape)
    scene, target = scenes.at_world(world), parse_target("lpc", policy)
    changed, lang = scene.without(scene.things), torch.zeros(1, policy.policy.lang_dim)
    print(f"{args.task_id}: {len(scene.things)} things, {args.num_points} points; median of {args.repeats} (range)")
    for lag in LAGS:
        actions = torch.arange(lag + 1)[None] % 3  # turns, and steps ahead
        loop = ClosedLoopRollout(policy, scenes.simulator, scene.begin, lang, policy.initial_hidden(1), lag, actions)
        times = []
        for _ in range(args.repeats + 1):
            start = time.process_time()
            predict_effects(loop, scene.inputs, changed, [target], num_points=args.num_points)
            times.append(time.process_time() - start)
        times = times[1:]
        print(f"{lag} steps earlier  {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")
    return 0


if __name__ == "__main__":
    run_script(main)
