"""Settings of the training of an agent: hyperparameters, presets, and the config of its checkpoints."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from generative.agents.networks import KIND, NETWORK, OF_PRESET, WORLD, LevelSettings, NetworkSettings
from generative.domains.coinrun.games import GameEnvs, actions_of
from mop.common.cli import declared, given_values, setting
from mop.common.errors import InputError
from mop.common.files import whole_digest
from mop.common.values import folder_name, shown


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Hyperparameters of PPO. The defaults are those of small-rec."""

    num_envs: int = setting(64, "environments side by side", low=1, high=4096, group=OF_PRESET)
    num_val_envs: int = setting(16, "and in levels of all; 0: no validation", low=0, high=4096, group=OF_PRESET)
    num_steps: int = setting(
        64, "steps of each in a rollout, through which gradients flow back", low=1, high=2**16, group=OF_PRESET
    )
    num_epochs: int = setting(3, "epochs over a rollout", low=1, high=1000, group=OF_PRESET)
    num_batches: int = setting(8, "gradient steps of an epoch", low=1, high=4096, group=OF_PRESET)
    batch_limit: int = setting(2048, "steps whose gradients are computed at once", low=1, group=OF_PRESET)
    gamma: float = setting(0.997, "discount", low=0, high=1, group=OF_PRESET)
    lam: float = setting(0.95, "lambda of generalised advantage estimation", low=0, high=1, group=OF_PRESET)
    lr: float = setting(1e-3, "learning rate of Adam, which falls to 0 at the end", above=0, group=OF_PRESET)
    eps_clip: float = setting(0.2, "clipping of policy and value", above=0, group=OF_PRESET)
    value_coef: float = setting(0.5, "weight of the value's loss", low=0, group=OF_PRESET)
    entropy_coef: float = setting(0.01, "weight of the entropy", low=0, group=OF_PRESET)
    grad_clip_norm: float = setting(0.5, "largest norm of a gradient", above=0, group=OF_PRESET)
    reward_divisor: float = setting(
        10.0, "divides rewards; 0: the running deviation of their discounted sum", low=0, group=OF_PRESET
    )


_NUM_THREADS = min(8, os.cpu_count() or 1)
PPO = tuple(field.name for field in declared(Hyperparameters))
IN_CONFIG = (*PPO, *NETWORK, *WORLD, "seed", "num_timesteps", "param_name")  # settings that a checkpoint carries
_PLAIN: dict[str, Any] = {"encoder": "impala", "use_backgrounds": True, "action_set": "all", "reward_divisor": 0.0}
_HARD = _PLAIN | {"num_envs": 256, "num_val_envs": 256, "num_steps": 256, "gamma": 0.999, "lr": 5e-4}
_WITHOUT_GRU = {"is_recurrent": False, "num_features": 256}
_EASY = {"num_envs": 64, "num_val_envs": 64}
_LOCAL = {"num_envs": 16, "num_val_envs": 16}
PRESETS: dict[str, dict[str, Any]] = {  # in place of the defaults of Hyperparameters, NetworkSettings and LevelSettings
    "small-rec": {},
    "hard-rec": _HARD,
    "hard": _HARD | _WITHOUT_GRU,
    "hard-500": _HARD | _WITHOUT_GRU,
    "hard-500-mem": _HARD | {"num_features": 256},
    "hard-local-dev": _HARD | _LOCAL | _WITHOUT_GRU,
    "hard-local-dev-rec": _HARD | _LOCAL,
    "easy": _HARD | _EASY | _WITHOUT_GRU,
    "easy-200": _HARD | _EASY | _WITHOUT_GRU,
}


@dataclass(frozen=True, kw_only=True)
class Settings(NetworkSettings, Hyperparameters, LevelSettings):
    """The flags; those of a preset's group have its values unless they are given."""

    exp_name: str = setting("test", "name of the experiment", parse=folder_name)
    param_name: str = setting("small-rec", "preset", choices=PRESETS)
    num_timesteps: int = setting(4_000_000, "steps of the whole run, in all environments", low=1)
    num_checkpoints: int = setting(1, "models kept, at even intervals", low=1)
    seed: int = setting(0, "seed of all random numbers", low=0)
    model_file: str | None = setting(None, "an agent whose weights the run begins with", metavar="FILE")
    device: str = setting("cpu", "cpu, gpu, auto, cuda:1, ...")
    gpu_device: int = setting(0, "which one `gpu` is", low=0, high=1023)
    num_threads: int = setting(
        _NUM_THREADS, "of the game; no result depends on it (default: the processors, 8 at most)", low=1, high=1024
    )
    log_level: int = setting(40, "20 or less: print each row of the log", low=0, high=1000)
    output_dir: str = setting("logs", "where logs and models are written")
    resume: bool = setting(False, "go on with the run of this name and seed")


def parse_settings(description: str, words: Sequence[str] | None = None) -> Settings:
    """The settings of a command line (None: of this process) and its preset."""
    given = given_values(Settings, description, words)
    return Settings(**(PRESETS[given.get("param_name", Settings.param_name)] | given))


def check_preset(param_name: str | None, config: Mapping, path: str) -> None:
    """Refuse an agent whose network is not the one of a preset; None: any network."""
    if param_name is None:
        return
    if param_name not in PRESETS:
        raise InputError(f"--param_name must be {' or '.join(PRESETS)}, not {shown(param_name)}")
    network = NetworkSettings(**{name: value for name, value in PRESETS[param_name].items() if name in NETWORK})
    if any(config["shape"][name] != getattr(network, name) for name in NETWORK):
        raise InputError(f"--param_name: {path} has not the network of {param_name}; leave it out")


def warn_without_gpu(param_name: str, device_type: str) -> None:
    """Say of sizes that were made for a GPU that this is none, before anything is begun."""
    if param_name == "hard-rec" and device_type == "cpu":
        print(f"warning: --param_name {param_name} needs a GPU: here it takes days, and minutes until its first update")


def make_config(settings: Mapping, model_file: str | None) -> dict:
    """The config of a run's checkpoints: how to make the agent, and what it was trained in."""
    actions = actions_of(settings["env_name"], settings["action_set"])
    return {
        "kind": KIND,
        "task_id": settings["env_name"],
        "shape": {name: settings[name] for name in NETWORK} | {"actions": list(actions)},
        "world": {name: settings[name] for name in WORLD},
        "settings": {**settings, "begun_from": model_file and whole_digest(model_file)},
        "versions": {"torch": str(torch.__version__)},
    }


def make_envs(settings: Mapping, num_threads: int, kind: str, seed: int) -> GameEnvs:
    """Environments for training, or for validation in levels of all that the game has."""
    is_training = kind == "training"
    return GameEnvs(
        settings["env_name"],
        settings["distribution_mode"],
        settings["num_envs" if is_training else "num_val_envs"],
        num_levels=settings["num_levels"] if is_training else 0,
        start_level=settings["start_level"] if is_training else 0,
        seed=seed,
        num_threads=num_threads,
        has_backgrounds=settings["use_backgrounds"],
    )
