"""A tiny recording for the tests of generative/: an untrained policy on UnlockPickup, through the real recorder."""

import sys
from pathlib import Path

import pytest
from eval_helpers import UNLOCK, put, random_checkpoint

from generative import record
from generative.recordings.format import Recording, open_recording
from mop.common.cli import as_flags

FLAGS = {"num_steps": 900, "num_envs": 6, "max_steps": 24}


def tiny_checkpoint(folder: Path, task_id: str = UNLOCK, **changes) -> Path:
    """A checkpoint of an untrained policy of two layers, S = 60 hidden units; its path. changes: of its config."""
    return put(folder, random_checkpoint(task_id=task_id, **changes))


def record_command(checkpoint: Path, data_dir: Path, /, *switches: str, **flags) -> list[str]:
    """The arguments of generative.record for a recording of some episodes; flags: that differ from FLAGS."""
    flags = {"checkpoint": checkpoint, "data_dir": data_dir, **FLAGS, **flags}
    return [*as_flags(flags), *switches]


def record_tiny(checkpoint: Path, data_dir: Path, /, *switches: str, **flags) -> Recording:
    """Record some episodes in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["record", *record_command(checkpoint, data_dir, *switches, **flags)])
        assert record.main() == 0
    return open_recording(data_dir)


def tiny_pair(folder: Path) -> tuple[Recording, Path]:
    """A recording of some episodes and the path of its policy."""
    checkpoint = tiny_checkpoint(folder / "checkpoints")
    return record_tiny(checkpoint, folder / "recording"), checkpoint
