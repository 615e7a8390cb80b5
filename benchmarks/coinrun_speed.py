"""Steps of an agent's training on CoinRun beside those of envpool alone with random actions, and where the time goes.

    python benchmarks/coinrun_speed.py                       small-rec, three rounds: a minute or two
    python benchmarks/coinrun_speed.py --param_name hard-rec --num_updates 1 --rounds 1

Both in turn, with the same number of environments and one thread each. Steps/s of the processor count the processor's
time, so that other work on the machine counts less. Needs `make coinrun`.
"""

import statistics
import time
from functools import partial

import numpy as np

from benchmarks.throughput import spread
from generative.agents.agent_training import AgentRun
from generative.domains.coinrun.games import NUM_ACTIONS, GameEnvs, check_playable
from generative.train_agent import PRESETS, make_config, make_envs
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import choice, integer
from mop.training.devices import choose_device

WORLD = {"env_name": "coinrun", "distribution_mode": "easy", "num_levels": 0, "start_level": 0}


def random_steps(settings: dict, num_steps: int) -> float:
    """Steps/s of the processor of envpool with random actions."""
    game = GameEnvs(
        "coinrun", "easy", settings["num_envs"], num_levels=0, start_level=0, seed=0,
        has_backgrounds=settings["use_backgrounds"],
    )  # fmt: skip
    game.begin()
    rng, start = np.random.default_rng(0), time.process_time()
    for _ in range(num_steps):
        game.step(rng.integers(0, NUM_ACTIONS, settings["num_envs"]))
    speed = num_steps * settings["num_envs"] / (time.process_time() - start)
    game.close()
    return speed


def train(settings: dict, num_updates: int) -> tuple[float, float, dict[str, float]]:
    """Steps/s of a training, of the processor and of the clock, and the share of each part in the latter."""
    run = AgentRun(make_config(settings, None), num_updates + 1, partial(make_envs, settings, 1), choose_device("cpu"))
    run.step_update()  # the environments begin
    before = dict(run.seconds)
    start = time.process_time(), time.perf_counter()
    for _ in range(num_updates):
        run.step_update()
    seconds = time.process_time() - start[0], time.perf_counter() - start[1]
    run.close()
    num_steps = num_updates * settings["num_envs"] * settings["num_steps"]
    shares = {part: (total - before[part]) / seconds[1] for part, total in run.seconds.items()}
    return num_steps / seconds[0], num_steps / seconds[1], shares


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--param_name", default="small-rec", help="preset of generative.train_agent (%(default)s)")
    parser.add_argument("--num_updates", default=4, help="updates of each round (default: %(default)s)")
    parser.add_argument("--rounds", default=3, help="how often both are measured (default: %(default)s)")
    return parser


def main() -> int:
    """Measure, and print the ratios."""
    args = parser().parse_args()
    check_flags(args, param_name=choice(*PRESETS), num_updates=integer(1), rounds=integer(1))
    check_playable("coinrun", "easy")
    settings = PRESETS[args.param_name] | WORLD | {"seed": 0, "num_timesteps": 1, "param_name": args.param_name}
    alone, speeds, clocks, shares = [], [], [], []
    for _ in range(args.rounds):
        alone.append(random_steps(settings, 100))
        for kept, value in zip((speeds, clocks, shares), train(settings, args.num_updates), strict=True):
            kept.append(value)
    print(f"{args.param_name}: training {np.median(speeds):.0f} steps/s of the processor ", end="")
    print(f"({np.median(clocks):.0f} of the clock), envpool alone {np.median(alone):.0f}")
    print(f"training takes {spread([a / s for a, s in zip(alone, speeds, strict=True)], 1)} times as long per step")
    for part in shares[0]:
        print(f"{part:>15}  {statistics.median(share[part] for share in shares):.0%} of the time")
    return 0


if __name__ == "__main__":
    run_script(main)
