"""A tiny agent of CoinRun and a recording of it for the tests of generative/, through the real commands."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from generative import record, train_agent
from generative.games import check_playable
from mop.base.errors import InputError, exit_code

TINY = (
    *("--num_envs", "4", "--num_val_envs", "2", "--num_steps", "64", "--num_features", "8", "--hidden_size", "8"),
    *("--num_epochs", "1", "--num_batches", "2", "--num_threads", "1", "--exp_name", "tiny", "--num_levels", "20"),
)
RECORDING = {"num_steps": 960, "max_steps": 70, "num_levels": 60, "num_envs": 5}


def skip_without_games() -> None:
    """Skip a test, with the reason, where the games cannot be had."""
    try:
        check_playable("coinrun", "easy")
    except InputError as error:
        pytest.skip(str(error))


def call(module: ModuleType, *words) -> int:
    """The exit code of a command with these arguments, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, words)])
        return exit_code(module.main)


def told(capsys) -> str:
    """The error that a command has printed, which must be one line."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def flags(**values) -> list[str]:
    """Arguments of a command."""
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


def tiny_agent(root: Path, num_checkpoints: int = 1, *words) -> Path:
    """Train an agent for four updates; its last checkpoint."""
    run = ("--num_timesteps", 1024, "--num_checkpoints", num_checkpoints, "--output_dir", root)
    assert call(train_agent, *TINY, *run, *words) == 0
    return root / "procgen" / "coinrun" / "tiny" / "seed_0" / "model_1024.pt"


def record_agent(model: Path, data_dir: Path, *switches: str, **values) -> Path:
    """Record some episodes; the folder."""
    chosen = {"model_file": model, "data_dir": data_dir, **RECORDING, **values}
    assert call(record, *flags(**chosen), *switches) == 0
    return data_dir
