"""What a policy's numbers are held against: random actions in the same worlds, and what others published."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mop.common.files import write_csv
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS, World
from studies import experiments

RANDOM = "tasks_random.csv"  # of each task: success and mean return of random actions

# success in %, imitation of a million demonstrations, BabyAI 1.0 / 1.1: one seed, its best moment; at second hand
BABYAI = {
    "GoToObj": "100 / 100", "GoToRedBallGrey": "100", "GoToRedBall": "100", "GoToLocal": "99.8 / 100",
    "PutNextLocal": "99.2 / 100", "PickupLoc": "99.4", "GoToObjMaze": "99.9", "GoTo": "99.4 / 100", "Pickup": "99",
    "UnblockPickup": "99", "Open": "100", "Unlock": "98.4 / 100", "Synth": "97.3 / 100", "SynthLoc": "97.9 / 99",
    "GoToSeq": "95.4 / 96.7", "SynthSeq": "87.7 / 93.9", "GoToImpUnlock": "87.2 / 84.0", "BossLevel": "77 / 90.4",
}  # fmt: skip
# mean returns of random actions and of the bot in JAT: jat/eval/rl/scores_dict.json of github.com/huggingface/jat
JAT = {
    "ActionObjDoor": (0.373, 0.987), "BlockedUnlockPickup": (0.001, 0.947), "BossLevel": (0.062, 0.942),
    "BossLevelNoUnlock": (0.056, 0.943), "FindObjS5": (0.077, 0.945), "GoTo": (0.131, 0.917),
    "GoToDoor": (0.452, 0.989), "GoToImpUnlock": (0.071, 0.829), "GoToLocal": (0.162, 0.925),
    "GoToObj": (0.134, 0.930), "GoToObjDoor": (0.528, 0.991), "GoToRedBall": (0.167, 0.925),
    "GoToRedBallGrey": (0.124, 0.917), "GoToRedBallNoDists": (0.136, 0.930), "GoToRedBlueBall": (0.124, 0.917),
    "GoToSeq": (0.080, 0.939), "KeyCorridor": (0.000, 0.907), "MiniBossLevel": (0.070, 0.893),
    "MoveTwoAcrossS8N9": (0.000, 0.964), "OneRoomS8": (0.075, 0.918), "Open": (0.097, 0.952),
    "OpenDoor": (0.233, 0.988), "OpenDoorsOrderN4": (0.158, 0.987), "OpenRedDoor": (0.078, 0.915),
    "OpenTwoDoors": (0.083, 0.983), "Pickup": (0.076, 0.916), "PickupAbove": (0.017, 0.908),
    "PickupDist": (0.097, 0.856), "PickupLoc": (0.085, 0.915), "PutNextS7N4": (0.002, 0.960),
    "PutNextLocal": (0.004, 0.915), "Synth": (0.107, 0.934), "SynthLoc": (0.130, 0.940), "SynthSeq": (0.066, 0.947),
    "UnblockPickup": (0.077, 0.913), "Unlock": (0.032, 0.866), "UnlockLocal": (0.011, 0.978),
    "UnlockPickup": (0.000, 0.754), "UnlockToUnlock": (0.000, 0.964),
}  # fmt: skip


def random_returns(task_id: str, seeds: Sequence[int]) -> np.ndarray:
    """Play an episode of uniformly random actions in each of W worlds. Returns what each brings, (W,) float64."""
    world, returns = World(task_id), np.zeros(len(seeds))
    for k, seed in enumerate(seeds):
        world.reset(seed)
        rng, ended = np.random.default_rng(stream_seed(seed, "random actions")), (False,)
        while not any(ended):
            returns[k], *ended = world.step(int(rng.integers(NUM_ACTIONS)))
    return returns


def add_random_actions(task_id: str, seeds: list[int]) -> None:
    """Add to RANDOM what random actions bring in these worlds, unless it is there."""
    known = load_random()
    if any((row["task_id"], row["num_episodes"]) == (task_id, len(seeds)) for row in known):
        return
    returns = random_returns(task_id, seeds)
    row = {"task_id": task_id, "num_episodes": len(seeds), "success_rate": (returns > 0).mean()}
    rows = [*(row for row in known if row["task_id"] != task_id), row | {"mean_return": returns.mean().round(4)}]
    write_csv(experiments.RESULTS / RANDOM, pd.DataFrame(rows))


def load_random() -> list[dict]:
    """The rows of RANDOM; none where there is no such file."""
    path = experiments.RESULTS / RANDOM
    if not path.exists():
        return []
    numbers, key = ("num_episodes", "success_rate", "mean_return"), ("task_id",)
    return experiments.read_published(path, texts=key, numbers=numbers, key=key).to_dict("records")


def step_limits(task_id: str, seeds: Sequence[int]) -> np.ndarray:
    """Read the step limit of each of W worlds, which depends on its mission: (W,) int64."""
    world, limits = World(task_id), np.zeros(len(seeds), np.int64)
    for k, seed in enumerate(seeds):
        world.reset(seed)
        limits[k] = world.env.max_steps
    return limits


def episode_returns(success: np.ndarray, steps: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Compute Minigrid's return of W episodes, (W,) float64: 1 - 0.9 * steps / limit of a success, else 0."""
    return np.where(success, 1 - 0.9 * steps / limits, 0.0)
