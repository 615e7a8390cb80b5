"""For the tests of evaluation: checkpoints of policies that do something, and the scripts' command lines."""

from pathlib import Path

import numpy as np
import torch
from bare_minigrid import bare_bot, bare_env, bare_reset, bounded_label, observation_vector
from torch import nn
from torch.nn import functional as F

from mop.artifacts.checkpoints import save_checkpoint
from mop.artifacts.results import result_file
from mop.artifacts.run_paths import RunKey
from mop.common.files import write_together
from mop.common.train_config import complete
from mop.envs.missions import load_encoder
from mop.training.policies import build_policy

GOTO, UNLOCK = "BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0"


def write_result(cache_dir: str | Path, key: RunKey, row: dict) -> None:
    """Write the result row of an evaluation."""
    write_together([result_file(cache_dir, key, row)])


def toy_config(task_id: str = GOTO, **changes) -> dict:
    """The config of a small policy; `policy` "mop" or "gru"."""
    config = {"task_id": task_id, "trial": 0, "seed": 0, "policy": "mop", "max_steps": None, "lang_encoder": "vocab"}
    config |= {"input_dim": 152, "num_actions": 7, "lang_dim": 8, "intermediate_dim": 24, "router_hidden_size": 6}
    config |= {"expert_hidden_sizes": [[0, 8, 16], [24, 0]], "gru_hidden_size": 32, "residual": False}
    config |= {"num_updates": 20, "num_envs": 16, "unroll_len": 16, "lr": 0.01, "lpc_alpha": 0.0}
    return complete(config | changes)


def as_checkpoint(policy: nn.Module, lang_proj: nn.Module, config: dict) -> dict:
    return {
        "policy_state_dict": policy.state_dict(),
        "lang_proj_state_dict": lang_proj.state_dict(),
        "optimizer_state_dict": {},
        "update": config["num_updates"],
        "config": config,
    }


def random_checkpoint(weights_seed: int = 0, task_id: str = GOTO, encoder_dim: int = 512, **changes) -> dict:
    """An untrained policy."""
    config = toy_config(task_id, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights_seed)
        return as_checkpoint(build_policy(config), nn.Linear(encoder_dim, config["lang_dim"]), config)


def bot_demonstrations(task_id: str, seeds) -> list[tuple[str, np.ndarray, list[int]]]:
    """Mission, observations (T, 152) and actions of the bot's episode in each bare world."""
    env, demonstrations = bare_env(task_id), []
    for seed in seeds:
        obs = bare_reset(env, seed)
        bot, action, vectors, actions, is_over = bare_bot(env), None, [], [], False
        while not is_over:
            action = bounded_label(bot, action)
            vectors.append(observation_vector(obs, env))
            actions.append(action)
            obs, _, terminated, truncated, _ = env.step(action)
            is_over = terminated or truncated
        demonstrations.append((obs["mission"], np.stack(vectors), actions))
    return demonstrations


def taught_checkpoint(task_id: str = GOTO, num_worlds: int = 20, num_fits: int = 60, **changes) -> dict:
    """A policy that knows the bot's episodes in most of the worlds 0, 1, ... by heart, and so succeeds in them."""
    config, encoder = toy_config(task_id, **changes), load_encoder("vocab")
    demonstrations = bot_demonstrations(task_id, range(num_worlds))
    num_steps = max(len(actions) for *_, actions in demonstrations)
    obs, labels = torch.zeros(num_steps, num_worlds, 152), torch.full((num_steps, num_worlds), -1)
    for i, (_, vectors, actions) in enumerate(demonstrations):
        obs[: len(actions), i], labels[: len(actions), i] = torch.from_numpy(vectors), torch.tensor(actions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy, lang_proj = build_policy(config), nn.Linear(encoder.dim, config["lang_dim"])
    embedding = encoder.embed([mission for mission, *_ in demonstrations])
    optimizer = torch.optim.Adam([*policy.parameters(), *lang_proj.parameters()], lr=0.01)
    for _ in range(num_fits):
        lang = lang_proj(embedding).expand(num_steps, -1, -1)
        logits, _, _ = policy.get_routing_info(obs, lang, policy.initial_hidden(num_worlds))
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return as_checkpoint(policy, lang_proj, config)


def put(root: Path, checkpoint: dict, trial: int = 0, seed: int | None = None, update: int | None = None) -> Path:
    """Save a checkpoint at the place of its key; the path."""
    path = RunKey(checkpoint["config"]["task_id"], trial, seed, update).checkpoint(root)
    save_checkpoint(path, checkpoint)
    return path
