"""What fails in the larger tasks: the first key of Unlock, and where failing policies of GoTo and Pickup stand.

    python batch_eval.py --checkpoint_dir results/zoo --task BabyAI-Unlock-v0     and the same for GoTo and Pickup
    python studies/failures.py

Reads the routing caches of these evaluations. docs/learning_speed.md has the figures.
"""

from dataclasses import dataclass

import numpy as np

from mop.artifacts.routing_cache import load_cache
from mop.common.cli import parse
from mop.common.errors import run_script

AHEAD = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # by direction
PLURAL = {"key": "keys", "ball": "balls", "box": "boxes"}
CACHE = "evaluation_cache/BabyAI-{}-v0/trial_10/seed_{}/routing_data.json"


def first_keys(cache) -> tuple[list[bool], list[float]]:
    """Of each episode of Unlock that picks up a key: is the first of the mission's colour? By chance?"""
    steps, right, by_chance = cache.steps, [], []
    for number, episode in enumerate(cache.episodes):
        path = np.flatnonzero(steps.episode == number)
        picks = path[:-1][np.diff(steps.carrying[path].astype(int)) == 1]
        if len(picks) == 0:
            continue
        colors = {tuple(key[:2]): key[2] for key in episode["keys"]}
        taken = tuple((steps.position[picks[0]] + AHEAD[steps.direction[picks[0]]]).tolist())
        if taken in colors:
            color = episode["mission"].split()[2]
            right.append(colors[taken] == color)
            by_chance.append(np.mean([other == color for other in colors.values()]))
    return right, by_chance


def failures(cache) -> tuple[list[int], list[bool]]:
    """Of each failed episode: rooms entered, and whether it ever stood beside an object that its mission names."""
    rooms, is_beside = [], []
    for number, episode in enumerate(cache.episodes):
        if episode["success"]:
            continue
        path = cache.steps.position[cache.steps.episode == number]
        *_, color, kind = episode["mission"].split()
        things = [thing[:2] for thing in episode[PLURAL[kind]] if thing[2] == color]
        rooms.append(len({(x // 7, y // 7) for x, y in path.tolist()}))
        is_beside.append(any((np.abs(path - place).sum(1) <= 1).any() for place in things))
    return rooms, is_beside


@dataclass(frozen=True)
class Settings:
    """No flags but --help."""


def main() -> int:
    """Print a line for each task."""
    parse(Settings, __doc__)
    right, by_chance = first_keys(load_cache(CACHE.format("Unlock", 1)))
    print(f"Unlock: {np.mean(right):.3f} of {len(right)} first keys, by chance {np.mean(by_chance):.3f}")
    for task, seed in (("GoTo", 1), ("Pickup", 2)):
        rooms, is_beside = failures(load_cache(CACHE.format(task, seed)))
        print(f"{task}: {len(rooms)} fail, {np.mean(rooms):.1f} rooms, beside it in {np.mean(is_beside):.2f}")
    return 0


if __name__ == "__main__":
    run_script(main)
