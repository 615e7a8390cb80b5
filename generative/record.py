"""Record episodes of a trained policy: every step with observation, memory, log-probabilities, and what came of it.

    python -m generative.record --checkpoint checkpoint_final.pt
    python -m generative.record --checkpoint checkpoint_final.pt --num_steps 20000 --policies argmax,random
    python -m generative.record --checkpoint checkpoint_final.pt --resume          after Ctrl-C, a kill, ...
    python -m generative.record --model_file logs/procgen/coinrun/mine/seed_0/model_3002368.pt --num_steps 100000
    python -m generative.record --exp_name recording_exp --env_name coinrun --param_name hard-rec \\
        --num_levels 1000000 --distribution_mode hard --num_checkpoints 200 --model_file model.pt --logdir scratch

Who acts, and what is in the folder: docs/generative.md, docs/coinrun.md. Same flags, same bytes. Stopped or killed, it
keeps the shards that are whole, of 64 MB each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generative.domains.coinrun.games import MODES, UNSEEN_LEVELS
from generative.domains.playing import OF_GAMES
from generative.domains.registry import DOMAINS, domain_of_checkpoint
from generative.recordings.format import BEHAVIOURS
from generative.recordings.recorder import row_dtype
from generative.recordings.session import count_known_starts, open_source, record, table_of
from mop.common.cli import parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.values import MAX_ENVS, folder_name

EVERYONE = "; ".join(f"{','.join(domain.behaviours)} (of {domain.title})" for domain in DOMAINS.values())
_LEVELS: dict[str, Any] = {"low": 0, "high": UNSEEN_LEVELS // 2, "group": OF_GAMES}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a recording."""

    checkpoint: str = required("a policy of BabyAI, an agent of a game", also=["model_file"], metavar="FILE")
    num_steps: int = setting(300_000, "steps in all, at least", low=1)
    policies: tuple[str, ...] | None = setting(
        None, f"who acts, with commas (default: {EVERYONE})", choices=BEHAVIOURS, commas=True, metavar="NAMES"
    )
    data_dir: Path | None = setting(
        None, "folder of the recording (default: data in --logdir, or recordings/<task>_<digest or name>)"
    )
    logdir: Path | None = setting(None, "folder in whose folder data/ the recording is")
    exp_name: str | None = setting(None, "name of the recording, in the default of --data_dir", parse=folder_name)
    seed: int = setting(0, "of the worlds and all random actions", low=0)
    epsilon: float = setting(0.2, "share of random actions in epsilon", low=0, high=1)
    num_envs: int = setting(64, "episodes side by side, of a game 16: speed alone", low=1, high=MAX_ENVS)
    max_steps: int | None = setting(
        None, "step limit of an episode (default: the checkpoint's, else the task's)", low=1
    )
    env_name: str | None = setting(None, "task or game of the policy, to make sure (default: whatever it is)")
    lang_encoder: Path | None = setting(None, "where the recorded mission encoder lies on this machine")
    resume: bool = setting(False, "go on with the recording in the folder")
    num_levels: int | None = setting(
        None, "levels that are drawn from; 0: all that no evaluation plays (default: the training's)", **_LEVELS
    )
    start_level: int | None = setting(None, "the first of them (default: the training's)", **_LEVELS)
    distribution_mode: str | None = setting(None, "levels (default: the training's)", choices=MODES, group=OF_GAMES)
    param_name: str | None = setting(
        None, "preset of generative.train_agent, to make sure (default: the agent's own)", group=OF_GAMES
    )
    num_checkpoints: int = setting(
        0, "accepted, and of no meaning: a recording has no checkpoints", low=0, group=OF_GAMES
    )

    def folder(self, task_id: str, digest: str) -> Path:
        """The folder of the recording."""
        default = Path("recordings", f"{task_id}_{self.exp_name or digest[:8]}")
        return self.data_dir or (self.logdir / "data" if self.logdir else default)


def main() -> int:
    """Record what is missing, and print what there is."""
    settings = parse(Settings, __doc__)
    domain = domain_of_checkpoint(settings.checkpoint)
    names = ("num_levels", "start_level", "distribution_mode", "param_name")
    world = domain.given_flags(settings, names, domain.world_flags)
    source = open_source(
        domain, settings.checkpoint, settings.lang_encoder, settings.num_envs, settings.max_steps, world
    )
    task_id = source.worlds.encoding["task_id"]
    if settings.env_name not in (None, task_id):
        raise InputError(f"--env_name: {settings.checkpoint} is a policy of {task_id}, not of {settings.env_name}")
    folder = settings.folder(task_id, source.digest)
    chosen = {name: getattr(settings, name) for name in ("num_steps", "seed", "epsilon")}
    chosen["policies"] = [name for name in BEHAVIOURS if name in (settings.policies or ())] or list(domain.behaviours)
    recording = record(source, folder, chosen, settings.resume)
    print(table_of(folder, row_dtype(source.actor, source.worlds)).to_string(index=False))
    print(f"{folder}: {len(recording):,} episodes, {len(recording.missions)} missions, {len(recording.shards)} shards")
    if not domain.start_arrays:  # the first frames of many levels are alike: they show little of a level
        print("splits share no level")
        return 0
    num_known, num_test = count_known_starts(recording, domain.start_arrays)
    if num_test:
        share = f"{num_known:,} of {num_test:,} test episodes ({num_known / num_test:.1%})"
        print(f"splits share no seed, but {share} begin in the world and with the mission of a training episode")
    return 0


if __name__ == "__main__":
    run_script(main)
