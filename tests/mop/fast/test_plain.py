"""The same results without compiled code: RL_MOP_FAST=0, and a checkout without mop/fast."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scripts import PATIENCE_S, REPOSITORY, TINY_FLAGS

FLAGS = (
    *(*TINY_FLAGS, "--task_id", "BabyAI-UnlockPickup-v0", "--num_updates", "4", "--seed", "3"),
    *("--obs_encoding", "one_hot", "--input_encoder", "film", "--lang_encoder", "words"),
    *("--replay", "1", "--teacher_mix", "0.5", "--residual", "true"),
)
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import batch_eval
import train_mop
from mop.common.speed import IS_FAST
from mop.envs.babyai import World
from mop.envs.teacher import TeacherFailure
shown = []
for name in ("UnlockPickup", "GoToSeqS5R2", "PutNextLocal", "KeyInBox", "BlockedUnlockPickup", "OpenTwoDoors"):
    world, rng = World(f"BabyAI-{name}-v0"), np.random.default_rng(0)
    for seed in range(3):
        world.reset(seed)
        for _ in range(30):
            try:
                label, phase = world.label(), world.teacher.phase
            except TeacherFailure as failure:
                shown.append(f"{name} {failure.kind}")
                break
            shown.append(f"{name} {world.obs.tobytes().hex()} {np.flatnonzero(world.seen).sum()} {label} {phase}")
            if any(world.step(label if rng.random() < 0.7 else int(rng.integers(6)))[1:]):
                break
Path("labels.txt").write_text("\\n".join([str(IS_FAST), *shown]))
train_mop.main()
sys.argv[1:] = ["--task", "BabyAI-UnlockPickup-v0", "--final_only", "--num_episodes", "4"]
assert batch_eval.main() == 0
"""


def results_of(folder: Path, repository: Path = REPOSITORY, **env: str) -> tuple[list[str], dict, dict, dict]:
    """Labels in some worlds; the training state, the result and the routing cache of a short run in `folder`."""
    folder.mkdir()
    env = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(repository)} | env
    command = [sys.executable, "-c", SCRIPT, *FLAGS]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr.decode()
    labels = (folder / "labels.txt").read_text().splitlines()
    (state,), (cache,) = folder.glob("checkpoints/**/training_state.pt"), folder.glob("evaluation_cache/**/*.npz")
    with np.load(cache) as arrays:
        steps = {name: arrays[name] for name in arrays.files if arrays[name].dtype.kind in "bif"}
    (result,) = folder.glob("evaluation_cache/**/*result*.json")
    return labels, torch.load(state, weights_only=True), json.loads(result.read_text()), steps


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    labels, *rest = results_of(tmp_path_factory.mktemp("compiled") / "run")
    assert labels[0] == "True" and len(labels) > 200
    return labels[1:], *rest


def assert_same(compiled, plain) -> None:
    """Worlds, labels and counts exactly, numbers of the policy within rounding."""
    labels, state, result, steps = compiled
    plain_labels, plain_state, plain_result, plain_steps = plain
    assert plain_labels[0] == "False" and plain_labels[1:] == labels
    for name in ("env", "replay"):
        for key, value in state[name].items():
            if isinstance(value, torch.Tensor) and not value.is_floating_point():
                assert torch.equal(value, plain_state[name][key]), key
    assert state["counts"] == plain_state["counts"] and state["replay"]["missions"] == plain_state["replay"]["missions"]
    weights = state["policy_state_dict"]
    for name, value in weights.items():
        torch.testing.assert_close(plain_state["policy_state_dict"][name], value, rtol=1e-3, atol=2e-5)
    moved = torch.cat([moments["exp_avg"].flatten() for moments in state["optimizer_state_dict"]["state"].values()])
    assert len(weights) > 20 and (moved != 0).float().mean() > 0.1  # it has learned
    assert steps.keys() == plain_steps.keys() and len(steps) > 5
    for name, value in steps.items():
        np.testing.assert_allclose(plain_steps[name], value, rtol=1e-3, atol=1e-3 * (value.dtype.kind == "f"))
    for name, value in result.items():
        if isinstance(value, float):
            assert plain_result[name] == pytest.approx(value, rel=1e-3, nan_ok=True), name


def test_plain_code_gives_the_same_worlds_labels_and_weights(compiled, tmp_path):
    assert_same(compiled, results_of(tmp_path / "run", RL_MOP_FAST="0"))


@pytest.mark.slow
def test_a_checkout_without_the_folder_gives_the_same(compiled, tmp_path):
    copy = tmp_path / "repository"
    copy.mkdir()
    for path in (*REPOSITORY.glob("*.py"), REPOSITORY / "config.yaml"):
        shutil.copy(path, copy)
    shutil.copytree(REPOSITORY / "mop", copy / "mop", ignore=shutil.ignore_patterns("fast", "__pycache__"))
    assert not (copy / "mop/fast").exists()
    assert_same(compiled, results_of(tmp_path / "run", copy))
