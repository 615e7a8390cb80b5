"""Where a policy fails: how often it matches the bot by itself, and while the bot acts in its place.

    python studies/failures.py --checkpoint FILE

A row for each share of the steps in which the bot acts, a column for each of the bot's sub-goals.
docs/learning_speed.md has the figures of a policy of Unlock.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mop.artifacts.checkpoints import load_checkpoint
from mop.common.cli import parse, required, setting
from mop.common.conventions import SUBGOALS
from mop.common.errors import run_script
from mop.common.tables import markdown_table
from mop.envs.babyai import World
from mop.envs.teacher import TeacherFailure
from mop.evaluation.evaluate import encoder_for, prepare
from mop.training.execution import stepper


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


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    checkpoint: Path = required("a policy")
    num_worlds: int = setting(100, "worlds", low=1)


def main() -> int:
    """Print the table of a policy."""
    args = parse(Settings, __doc__)
    print_matches(load_checkpoint(args.checkpoint), args.num_worlds)
    return 0


if __name__ == "__main__":
    run_script(main)
