"""Milliseconds of a step of the exact simulator, with and without gradients, and of an edit's true effect.

    python benchmarks/exact_speed.py                                     64 worlds of UnlockPickup
    python benchmarks/exact_speed.py --task_id BabyAI-BossLevel-v0

A step is an observation and the step that follows, of all worlds at once, on one core; with gradients it is both ways.
An effect is that of one edit five steps later, both with the policy acting and with forced actions, in the real world:
an untrained policy of the default size, every edit of one world in one call.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from generative.attribution.counterfactuals import Case, effects, legal_edits
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.targets import parse_target
from generative.simulators.exact import ExactSimulator
from mixture_of_experts import MixtureOfExpertsPolicy
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer
from mop.envs.babyai import NUM_ACTIONS, World

LAG = 5


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """The processor's time of one call, the median."""
    call()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(1e3 * (time.process_time() - start))
    return statistics.median(times)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--task_id", default="BabyAI-UnlockPickup-v0", help="BabyAI task (default: %(default)s)")
    parser.add_argument("--num_worlds", default=64, help="worlds that are stepped at once (default: %(default)s)")
    parser.add_argument("--repeats", default=50, help="steps that are timed (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, num_worlds=integer(1), repeats=integer(1))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    worlds = [World(args.task_id) for _ in range(args.num_worlds)]
    for seed, world in enumerate(worlds):
        world.reset(seed)
    simulator = ExactSimulator(worlds[0].codes.shape)
    state = simulator.state_of_worlds(worlds)
    action = F.one_hot(torch.randint(NUM_ACTIONS, (args.num_worlds,)), NUM_ACTIONS).float()

    def step(state, action):
        return simulator.view(state), simulator.step(state, action)

    def step_with_gradients():
        leaves = {name: values.clone().requires_grad_() for name, values in state.items()}
        shown, after = step(leaves, action.clone().requires_grad_())
        (shown.sum() + sum(values.sum() for values in after.values())).backward()

    policy = FrozenPolicy(MixtureOfExpertsPolicy(), None, None)
    edits, lang, hidden = legal_edits(worlds[0]), torch.zeros(policy.policy.lang_dim), policy.initial_hidden(1)[0]
    case, targets = Case(worlds[0], hidden, lang, [0] * LAG, edits), [parse_target("lpc", policy)]
    found = {
        "step": milliseconds(torch.no_grad()(lambda: step(state, action)), args.repeats),
        "step with gradients": milliseconds(step_with_gradients, args.repeats),
        "effect of an edit": milliseconds(lambda: effects(policy, [case], targets), 5) / len(edits),
    }
    height, width = simulator.grid_shape
    print(f"{args.task_id}, {width} x {height} cells; steps of {args.num_worlds} worlds, {len(edits)} edits of one")
    for name, value in found.items():
        print(f"{name:<26}{value:.2f} ms")
    return 0


if __name__ == "__main__":
    run_script(main)
