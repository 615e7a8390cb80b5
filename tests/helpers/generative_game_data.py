"""A tiny agent of a game and a recording of it for the tests of generative/, through the real recorder."""

from pathlib import Path

import pytest
import torch
from scripts import in_process

from generative import record
from generative.agents.config import IN_CONFIG, Settings, make_config
from generative.agents.networks import make_agent
from generative.domains.coinrun.games import RIGHT, RIGHT_AND_JUMP, check_playable
from mop.artifacts.checkpoints import save_checkpoint
from mop.common.cli import as_flags
from mop.common.errors import InputError

RECORDING = {"num_steps": 960, "max_steps": 60, "num_levels": 60, "num_envs": 5}


def skip_without_games() -> None:
    """Skip a test, with the reason, where the games cannot be had."""
    try:
        check_playable("coinrun", "easy")
    except InputError as error:
        pytest.skip(str(error))


def flags(**values) -> list[str]:
    """Arguments of a command."""
    return as_flags(values)


def tiny_agent(folder: Path, env_name: str = "coinrun", seed: int = 0) -> Path:
    """A checkpoint of an untrained agent with eight features and units, as generative.train_agent writes them."""
    settings = Settings(env_name=env_name, num_levels=20, num_features=8, hidden_size=8, seed=seed)
    config = make_config({name: getattr(settings, name) for name in IN_CONFIG}, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        agent = make_agent(config["shape"])
    with torch.no_grad():
        agent.actor.weight.mul_(100)  # so that it has preferences, and goes to the right, where episodes end
        agent.actor.bias[[RIGHT, RIGHT_AND_JUMP]] = 3.0
    path = folder / f"{env_name}_{seed}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"policy_state_dict": agent.state_dict(), "update": 0, "config": config})
    return path


def record_agent(model: Path, data_dir: Path, *switches: str, **values) -> Path:
    """Record some episodes; the folder."""
    chosen = {"model_file": model, "data_dir": data_dir, **RECORDING, **values}
    assert in_process(record.main, *flags(**chosen), *switches) == 0
    return data_dir
