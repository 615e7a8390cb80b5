"""eval_mop.py: bad input, checkpoints made elsewhere, encoders, and the step limit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from eval_helpers import GOTO, UNLOCK, put, random_checkpoint
from scripts import check_refused, in_process, start, the_error_line
from tiny_encoder import build_tiny_encoder

import eval_mop
from mop.envs.missions import load_encoder
from mop.evaluation import evaluate as module
from mop.evaluation.evaluate import encoder_for, evaluate

DOCUMENTED_CONFIG = {
    "task_id": GOTO, "trial": 2, "input_dim": 152, "intermediate_dim": 20, "expert_hidden_sizes": [[0, 4], [8, 0, 6]],
    "router_hidden_size": 5, "num_actions": np.int64(7), "lang_dim": 32, "lr": 1e-3, "lpc_alpha": 1e-4,
    "num_updates": 5000, "unroll_len": 32, "max_steps": None,
}  # fmt: skip


def test_the_step_limit_is_the_checkpoints_unless_a_flag_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    limits = []

    def spy(*arguments, **options):
        evaluation = evaluate(*arguments, **options)
        limits.append(max(episode["steps"] for episode in evaluation.episodes))
        return evaluation

    monkeypatch.setattr(module, "evaluate", spy)
    still = random_checkpoint()
    still["policy_state_dict"]["head.bias"][6] = 100.0  # "done", which does nothing: no episode ends early
    own, without = put(tmp_path / "a", still | {"config": still["config"] | {"max_steps": 15}}), put(tmp_path, still)
    cases = {(own,): 15, (own, "--max_steps", 20): 20, (without,): 64, (without, "--max_steps", 20): 20}
    cases |= {(own, "--task_id", UNLOCK, "--max_steps", 30): 30}
    for flags, _ in cases.items():
        assert in_process(eval_mop.main, "--num_episodes", 2, "--checkpoint", *flags) == 0
    assert limits == list(cases.values()) and len(limits) == 5
    assert capsys.readouterr().out.count("success rate       0.0%") == 5


def foreign_checkpoint(encoder_dim: int = 32) -> dict:
    """A checkpoint as earlier programs wrote them: the documented keys and parameter names, nothing of ours."""
    width, weights = 20, {}

    def random(name: str, *shape: int) -> None:
        weights[name] = torch.randn(*shape, generator=generator) * 0.3

    def gru(name: str, size: int) -> None:
        for side, columns in (("ih", width), ("hh", size)):
            random(f"{name}.weight_{side}_l0", 3 * size, columns)
            random(f"{name}.bias_{side}_l0", 3 * size)

    generator = torch.Generator().manual_seed(0)
    random("input_projection.weight", width, 152 + 32)
    random("input_projection.bias", width)
    for layer, sizes in enumerate(DOCUMENTED_CONFIG["expert_hidden_sizes"]):
        gru(f"moe_layers.{layer}.router.gru", 5)
        random(f"moe_layers.{layer}.router.fc.weight", len(sizes), 5)
        random(f"moe_layers.{layer}.router.fc.bias", len(sizes))
        for e, size in enumerate(sizes):
            if size:
                gru(f"moe_layers.{layer}.experts.{e}.gru", size)
                random(f"moe_layers.{layer}.experts.{e}.projection.weight", width, size)
                random(f"moe_layers.{layer}.experts.{e}.projection.bias", width)
    random("head.weight", 7, width)
    random("head.bias", 7)
    return {
        "policy_state_dict": weights,
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "update": 5000,
        "config": dict(DOCUMENTED_CONFIG),
        "lang_proj_state_dict": {"weight": torch.randn(32, encoder_dim, generator=generator), "bias": torch.zeros(32)},
    }


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory) -> Path:
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.mark.slow
def test_a_checkpoint_made_elsewhere_is_evaluated_with_a_named_encoder(tmp_path, tiny_folder):
    path = tmp_path / "made_elsewhere.pt"
    torch.save(foreign_checkpoint(), path)
    assert isinstance(torch.load(path, weights_only=False)["config"]["num_actions"], np.int64)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "nothing")}
    flags = ("--checkpoint", path, "--num_episodes", 3, "--device", "cpu")
    with_folder = start("eval_mop.py", *flags, "--lang_encoder", tiny_folder, cwd=tmp_path, **offline)
    without = start("eval_mop.py", *flags, cwd=tmp_path, **offline)
    out, err = with_folder.communicate()
    assert with_folder.returncode == 0, err
    assert out.startswith(f"{path} on {GOTO}\nsuccess rate ") and "mean LPC" in out and "3 episodes" in out
    out, err = without.communicate()
    assert without.returncode == 2 and out == ""
    line = the_error_line(err)
    assert "distilbert-base-uncased" in line and "HF_HUB_OFFLINE" in line and "--lang_encoder FOLDER" in line


def test_an_encoder_that_does_not_fit_is_one_clear_line(tmp_path, tiny_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(foreign_checkpoint(encoder_dim=768), tmp_path / "wide.pt")
    checkpoint = foreign_checkpoint()
    other = load_encoder(str(build_tiny_encoder(tmp_path / "other", seed=1)))
    checkpoint["config"] |= {"encoder_fingerprint": other.fingerprint(), "lang_encoder": "some/model"}
    torch.save(checkpoint, tmp_path / "recorded.pt")
    cases = {
        ("wide.pt", "--lang_encoder", tiny_folder): ("768", "32", "--lang_encoder"),
        ("recorded.pt", "--lang_encoder", tiny_folder): ("fingerprint", "some/model", "--lang_encoder"),
        ("recorded.pt", "--lang_encoder", tmp_path / "none"): ("none", "--lang_encoder"),
        ("recorded.pt", "--lang_encoder", "vocab"): "vocab",
    }
    check_refused(capsys, eval_mop.main, cases, "--num_episodes", 1, "--checkpoint")
    assert in_process(eval_mop.main, "--num_episodes", 1, "--checkpoint", "recorded.pt", "--lang_encoder", "other") == 0
    assert encoder_for(checkpoint, "other").name == "some/model"


def test_bad_input_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    good = put(tmp_path, checkpoint := random_checkpoint())
    config = checkpoint["config"]
    Path("cut.pt").write_bytes(good.read_bytes()[:-2000])
    torch.save({"update": 3}, "other.pt")
    torch.save(checkpoint | {"config": config | {"intermediate_dim": 25}}, "mismatch.pt")
    torch.save(checkpoint | {"config": {k: v for k, v in config.items() if k != "router_hidden_size"}}, "incomplete.pt")
    torch.save({k: v for k, v in checkpoint.items() if k != "lang_proj_state_dict"}, "no_projection.pt")
    torch.save(random_checkpoint(input_dim=150), "narrow.pt")
    cases = {
        (): ("--checkpoint", "--bot", "--task_id"),
        ("--bot",): "--task_id",
        ("--task_id", GOTO): "--checkpoint",
        ("--bot", "--task_id", GOTO, "--checkpoint", good): ("--checkpoint", "--bot"),
        ("--bot", "--task_id", "BabyAI-GoToObject-v0"): "BabyAI-GoToObj-v0",
        ("--checkpoint", good, "--task_id", "GoToObj"): "GoToObj",
        ("--checkpoint", "missing.pt"): "missing.pt",
        ("--checkpoint", tmp_path): str(tmp_path),
        ("--checkpoint", "cut.pt"): "cut.pt",
        ("--checkpoint", "other.pt"): ("other.pt", "config"),
        ("--checkpoint", "mismatch.pt"): "config",
        ("--checkpoint", "incomplete.pt"): "router_hidden_size",
        ("--checkpoint", "no_projection.pt"): "lang_proj_state_dict",
        ("--checkpoint", "narrow.pt"): ("narrow.pt", "input_dim"),
        ("--checkpoint", good, "--device", "abacus"): "abacus",
    }
    check_refused(capsys, eval_mop.main, cases)


def test_a_run_of_the_bot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert in_process(eval_mop.main, "--bot", "--task_id", GOTO, "--num_episodes", 4) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == f"the BabyAI bot on {GOTO}"
    assert all(part in out for part in ("100.0%", "51.0% to 100.0%, 4 episodes", "1.000"))
