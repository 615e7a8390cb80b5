"""Training of lmc_rl beside stable-baselines3 alone, and walking along a path beside one policy after the other.

    python benchmarks/lmc_speed.py                                    SAC on the double pendulum; a path of 21 places
    python benchmarks/lmc_speed.py --steps 4000 --pairs 5 --jobs 2

Both of a pair do the same work in turn: the same environment, sizes, batch and gradient steps; the same episodes. The
yardstick of the path plays each episode alone with `predict` of stable-baselines3. Training is told in steps for each
second of the processor, so that other work on the machine counts less; the path in seconds that pass.
"""

import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC

from benchmarks.throughput import spread
from lmc_rl.learners.mujoco import EVALUATION_SEEDS
from lmc_rl.learners.rl import Learner
from lmc_rl.paths import alphas, interpolate
from lmc_rl.records import Walk
from lmc_rl.settings import settle
from lmc_rl.stages import Workers
from lmc_rl.walks import play, stretches
from mop.artifacts.checkpoints import save_checkpoint
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer
from mop.training.devices import choose_device
from mop.training.loop import drive

ENV, PATH_ENV, WARM_UP = "InvertedDoublePendulum-v5", "HalfCheetah-v5", 100
PLACES, EPISODES, LIMIT = 21, 24, 200  # of the path


def train_here(num_steps: int) -> float:
    """Steps/s of a `Learner` driven by the loop of this project."""
    flags = {"env": ENV, "seed": 0, "total_steps": num_steps, "learning_starts": WARM_UP, "eval_freq": 0}
    learner = Learner(settle(flags | {"fork_points": "none"})[0], choose_device("cpu"))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        start = time.process_time()
        drive(learner, Path(folder), num_steps // 2, "learner", log_interval=500)
        return num_steps / (time.process_time() - start)


def train_alone(num_steps: int) -> float:
    """Steps/s of stable-baselines3 with the same settings."""
    sizes = {"net_arch": [256, 256]}
    model = SAC(
        "MlpPolicy", gymnasium.make(ENV), ent_coef=0.2, train_freq=2, gradient_steps=1, batch_size=256, seed=0,
        learning_starts=WARM_UP, policy_kwargs=sizes, buffer_size=num_steps, device="cpu",
    )  # fmt: skip
    start = time.process_time()
    model.learn(num_steps)
    return num_steps / (time.process_time() - start)


def policies(folder: Path) -> tuple[Learner, list[Path]]:
    """A learner of the environment of the path, and two policies as files."""
    paths = [folder / "a.pt", folder / "b.pt"]
    for seed, path in enumerate(paths):
        flags = {"env": PATH_ENV, "seed": seed, "fork_points": "none", "max_episode_steps": LIMIT}
        learner = Learner(settle(flags)[0], choose_device("cpu"))
        save_checkpoint(path, learner.checkpoint())
    return learner, paths


def walk_here(paths: list[Path], workers: Workers) -> tuple[float, np.ndarray]:
    """Seconds for the path, all places at once, and the returns (A, E)."""
    start = time.perf_counter()
    parts = list(stretches([Walk("other", None, None, *paths)], PATH_ENV, LIMIT, PLACES, EPISODES))
    returns = np.concatenate([played.returns for played in workers.in_order(play, parts, "path")], axis=1)
    return time.perf_counter() - start, returns


def walk_alone(learner: Learner, paths: list[Path]) -> tuple[float, np.ndarray]:
    """Seconds for the same episodes, one after the other, and their returns (A, E)."""
    start = time.perf_counter()
    ends = [torch.load(path, weights_only=True)["policy_state_dict"] for path in paths]
    line = interpolate(*ends, alphas(PLACES))
    env = gymnasium.make(PATH_ENV, max_episode_steps=LIMIT)
    returns = np.zeros((PLACES, EPISODES))
    for place in range(PLACES):
        learner.policy.load_state_dict({name: value[place] for name, value in line.items()})
        for episode in range(EPISODES):
            obs, _ = env.reset(seed=EVALUATION_SEEDS + episode)
            is_over = False
            while not is_over:
                action, _ = learner.policy.predict(obs.astype(np.float32), deterministic=True)
                obs, reward, is_terminal, is_cut, _ = env.step(action)
                returns[place, episode] += reward
                is_over = is_terminal or is_cut
    return time.perf_counter() - start, returns


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--steps", default=3000, help="environment steps of a training (default: %(default)s)")
    parser.add_argument("--pairs", default=3, help="how often each of a pair runs (default: %(default)s)")
    parser.add_argument("--jobs", default=2, help="processes that walk along the path (default: %(default)s)")
    return parser


def main() -> int:
    """Measure, and print the ratios."""
    args = parser().parse_args()
    check_flags(args, steps=integer(2 * WARM_UP), pairs=integer(1), jobs=integer(1))
    choose_device("cpu")
    speeds = [(train_here(args.steps), train_alone(args.steps)) for _ in range(args.pairs)]
    ours, theirs = np.transpose(speeds)
    print(f"training: {np.median(ours):.0f} steps/s, stable-baselines3 alone {np.median(theirs):.0f}, ", end="")
    print(f"ratio {spread((ours / theirs).tolist(), 2)}")
    with tempfile.TemporaryDirectory() as folder, Workers(args.jobs) as workers:
        learner, paths = policies(Path(folder))
        walk_here(paths, workers)  # the processes begin
        pairs = [(walk_here(paths, workers), walk_alone(learner, paths)) for _ in range(args.pairs)]
    for (_, here), (_, alone) in pairs:
        assert np.allclose(here, alone, rtol=0.05, atol=5), "they do not play the same episodes"
    seconds = np.array([[here[0], alone[0]] for here, alone in pairs])
    print(f"path of {PLACES} places, {EPISODES} episodes of {LIMIT} steps: {np.median(seconds[:, 0]):.1f} s, ", end="")
    print(f"one after the other {np.median(seconds[:, 1]):.1f} s, ratio {spread(seconds[:, 1] / seconds[:, 0])}")
    return 0


if __name__ == "__main__":
    run_script(main)
