"""The frozen policy: a sequence is step after step, in what it says and in its gradients; where it is found."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checks import one_line, refusal
from eval_helpers import put, random_checkpoint
from scripts import REPOSITORY

from generative.domains.babyai.policy import FrozenPolicy
from generative.recordings.format import find_policy
from generative.simulators.relaxation import SOFT_DIM
from mop.common.errors import InputError
from mop.common.files import whole_digest
from mop.training import execution

POLICIES = [
    {"policy": "mop", "obs_encoding": "raw"},
    {"policy": "mop", "obs_encoding": "one_hot", "residual": True},
    {"policy": "gru", "obs_encoding": "one_hot"},
    {"policy": "mop", "obs_encoding": "one_hot", "input_encoder": "film"},
]


@pytest.mark.parametrize("config", POLICIES, ids=lambda config: " ".join(map(str, config.values())))
@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_sequence_is_step_after_step(tmp_path, monkeypatch, config, is_compiled):
    policy, _ = FrozenPolicy.load(put(tmp_path, random_checkpoint(**config)))
    if not is_compiled:
        monkeypatch.setattr(execution, "refusal", lambda policy: "not today")
    rng, inner = np.random.default_rng(0), policy.policy
    soft = torch.from_numpy(rng.random((5, 3, SOFT_DIM), np.float32)).requires_grad_()
    lang, hidden = (torch.from_numpy(rng.normal(size=(3, n)).astype(np.float32)) for n in (8, inner.hidden_size))
    hidden = (0.3 * hidden).requires_grad_()
    whole, memory = policy.run(soft, lang, hidden), hidden
    for t in range(5):
        step = policy.step(soft[t], lang, memory)
        memory = step.hidden
        assert torch.allclose(whole.logits[t], step.logits, atol=1e-5)
        assert torch.allclose(whole.hidden[t], memory, atol=1e-5)
        for weights, of_step in zip(whole.routing, step.routing, strict=True):
            assert torch.allclose(weights[t], of_step, atol=1e-5)
    through = torch.autograd.grad(whole.logits[-1].square().sum() + whole.hidden[2].sum(), (soft, hidden))
    memory, losses = hidden, []
    for t in range(5):
        step = policy.step(soft[t], lang, memory)
        memory = step.hidden
        losses.append((step.logits.square().sum(), memory.sum()))
    expected = torch.autograd.grad(losses[-1][0] + losses[2][1], (soft, hidden))
    for one, other in zip(through, expected, strict=True):
        assert other.abs().max() > 0 and torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_checkpoints_of_no_policy_are_named(tmp_path):
    checkpoint, path = random_checkpoint(), tmp_path / "checkpoint_final.pt"
    config = checkpoint["config"]
    for changed, words in (
        ({**config, "kind": "world_model"}, "is a checkpoint of a world model, not of a policy"),
        ({**config, "intermediate_dim": 8}, "disagree"),
    ):
        torch.save({**checkpoint, "config": changed}, path)
        with pytest.raises(InputError, match=words) as error:
            FrozenPolicy.load(path)
        assert str(path) in one_line(error)


def test_a_recorded_policy_is_found_from_another_directory(tmp_path, monkeypatch):
    zoo = Path("results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt")
    known = {"path": str(zoo), "sha256": whole_digest(REPOSITORY / zoo)}
    recording = SimpleNamespace(folder=tmp_path, config={"checkpoint": known})
    monkeypatch.chdir(tmp_path)
    assert find_policy(recording, None, "--here") == REPOSITORY / zoo
    assert "--here" in refusal(find_policy, recording, "gone.pt", "--here")
    (tmp_path / "other.pt").write_bytes(b"1")
    assert "--here" in refusal(find_policy, recording, "other.pt", "--here")
