"""What fails in the larger tasks: the first key of Unlock, where failing policies of GoTo and Pickup stand, and how
often a policy matches the bot by itself and while the bot acts in its place.

    python batch_eval.py --checkpoint_dir results/zoo --task BabyAI-Unlock-v0     and the same for GoTo and Pickup
    python studies/failures.py
    python studies/failures.py --checkpoint FILE

The first two read the routing caches of these evaluations. docs/learning_speed.md has the figures.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mop.artifacts.checkpoints import load_checkpoint
from mop.artifacts.routing_cache import load_cache
from mop.common.cli import parse, setting
from mop.common.conventions import SUBGOALS
from mop.common.errors import run_script
from mop.common.tables import markdown_table
from mop.envs.babyai import World
from mop.envs.teacher import TeacherFailure
from mop.evaluation.evaluate import encoder_for, prepare
from mop.training.execution import stepper

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


def matches(checkpoint: dict, bot_share: float, num_worlds: int) -> tuple[float, dict[str, list[bool]]]:
    """Share of worlds solved, and at each step, by the bot's sub-goal, whether the likeliest action is the bot's.

    bot_share: of the steps in which the bot acts in the policy's place.
    """
    config, rng = checkpoint["config"], np.random.default_rng(0)
    policy, missions = prepare(checkpoint, encoder_for(checkpoint))
    step, world = stepper(policy), World(config["task_id"], config["max_steps"])
    found, num_solved = defaultdict(list), 0
    for seed in range(num_worlds):
        world.reset(seed)
        hidden, lang = policy.initial_hidden(1), missions.lang([world.mission])
        while True:
            try:
                label = world.label()
            except TeacherFailure:
                break
            logits, _, hidden = step(torch.from_numpy(world.obs[None].copy()), lang, hidden)
            action = int(logits.argmax())
            assert world.teacher is not None  # which gave the label
            found[SUBGOALS[world.teacher.phase[0]]].append(action == label)
            reward, *ended = world.step(label if rng.random() < bot_share else action)
            if any(ended):
                num_solved += reward > 0
                break
    return num_solved / num_worlds, found


def print_matches(checkpoint: dict, num_worlds: int) -> None:
    """Print a table: a row for each share of the bot."""
    head, rows = ["the bot acts", "worlds solved, %", *SUBGOALS], []
    for bot_share in (1.0, 0.5, 0.0):
        solved, found = matches(checkpoint, bot_share, num_worlds)
        shares = [
            f"{100 * np.mean(found[name]):.1f} of {len(found[name]):,}" if found[name] else "" for name in SUBGOALS
        ]
        rows.append([f"{100 * bot_share:.0f} %", f"{100 * solved:.0f}", *shares])
    print(f"Actions that are the bot's, in % of the steps of each sub-goal, {num_worlds} worlds:")
    print(markdown_table(head, rows))


@dataclass(frozen=True)
class Settings:
    """The flags."""

    checkpoint: Path | None = setting(None, "a policy: how often it matches the bot; else the zoo's failures")
    num_worlds: int = setting(100, "with --checkpoint: worlds", low=1)


def main() -> int:
    """Print a line for each task, or a table of a policy."""
    args = parse(Settings, __doc__)
    if args.checkpoint is not None:
        print_matches(load_checkpoint(args.checkpoint), args.num_worlds)
        return 0
    right, by_chance = first_keys(load_cache(CACHE.format("Unlock", 1)))
    print(f"Unlock: {np.mean(right):.3f} of {len(right)} first keys, by chance {np.mean(by_chance):.3f}")
    for task, seed in (("GoTo", 1), ("Pickup", 2)):
        rooms, is_beside = failures(load_cache(CACHE.format(task, seed)))
        print(f"{task}: {len(rooms)} fail, {np.mean(rooms):.1f} rooms, beside it in {np.mean(is_beside):.2f}")
    return 0


if __name__ == "__main__":
    run_script(main)
