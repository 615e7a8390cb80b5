"""What is shown in films, and how it is played."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mop.common.cli import setting

OF_GAMES = "of agents of games"  # a group of flags


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """Settings of films of what a policy plays now."""

    checkpoint: str | None = setting(
        None, "the policy that plays (of a recording: its own)", also=["model_file"], metavar="FILE"
    )
    lang_encoder: Path | None = setting(None, "where the checkpoint's mission encoder lies on this machine")
    task_id: str | None = setting(None, "the task that it plays (default: its training's)", also=["env_name"])
    world_seed: int = setting(0, "the first world that it plays", low=0)
    policy: str = setting("argmax", "how it acts", choices=("argmax", "sampled"))
    seed: int = setting(0, "of the actions that are sampled", low=0, high=2**63 - 1)
    max_steps: int | None = setting(
        None, "actions until an episode is cut short (default: the task's limit)", low=1, high=10**6
    )
    num_eps: int = setting(1, "how many, one file each", low=1, high=1000)
    distribution_mode: str | None = setting(
        None, "levels (default: the training's)", choices=("easy", "hard"), group=OF_GAMES
    )
    param_name: str | None = setting(
        None, "preset of generative.train_agent, to make sure (default: the agent's own)", group=OF_GAMES
    )


class Span(NamedTuple):
    """The states of an episode that a simulation is shown of."""

    first: int  # its step
    num_states: int
    is_own: bool  # the policy acts in the simulation; else the recorded actions are executed
    how: str  # which simulation it is, in words
