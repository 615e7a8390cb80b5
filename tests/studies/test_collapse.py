"""The measurement of routing collapse: its first weights, its summary, and that it goes on where it stopped."""

import sys

import pandas as pd
import pytest
import torch

from mixture_of_experts import MixtureOfExpertsPolicy, compute_lpc
from studies import collapse, experiments


@pytest.fixture
def few_updates(tmp_path, monkeypatch):
    for module in (collapse, experiments):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(collapse, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(collapse, "NUM_UPDATES", 3)
    monkeypatch.setattr(collapse, "INTERVAL", 1)
    monkeypatch.setattr(collapse, "SEEDS", (0,))
    names = ("none", "residual block", "first router biases against skips")
    monkeypatch.setattr(collapse, "CHANGES", {name: collapse.CHANGES[name] for name in names})
    return tmp_path


def test_a_skip_hands_on_a_third_of_the_signal(few_updates, monkeypatch):
    for name in collapse.CHANGES:
        collapse.train(name, 0)
    monkeypatch.setattr(sys, "argv", ["collapse.py", "--jobs", "0"])
    assert collapse.main() == 0
    table = pd.read_csv(few_updates / "collapse.csv")
    assert table.groupby("change").size().tolist() == [3, 3, 3] and table["env_steps"].max() == 3 * 512
    first = table.groupby("change").first()
    signal = first[["signal_0", "signal_1", "signal_2", "signal_head"]].to_numpy()
    plain, residual = (signal[first.index.get_loc(name)] for name in ("none", "residual block"))
    assert (plain[1:] < 0.5 * plain[:-1]).all() and (residual[1:] > 0.8 * residual[:-1]).all()
    assert 1200 < first.loc["none", "lpc"] < 1350 < first.loc["first router biases against skips", "lpc"]
    assert (few_updates / "collapse.png").stat().st_size > 10_000
    text = (few_updates / "collapse.md").read_text()
    assert text.count("\n") == 5 and all(f"| {name} |" in text for name in collapse.CHANGES)


def test_finished_trainings_are_not_repeated(few_updates, monkeypatch):
    for name in collapse.CHANGES:
        collapse.log_path(name, 0).parent.mkdir(parents=True, exist_ok=True)
        columns = {"change": name, "seed": 0, "env_steps": 1, "success_rate": 0.5, "lpc": 7.0, "accuracy": 0.25}
        pd.DataFrame([columns | dict.fromkeys(collapse.SIGNALS, 1.0)]).to_csv(collapse.log_path(name, 0), index=False)
    monkeypatch.setattr(sys, "argv", ["collapse.py"])
    monkeypatch.setattr(collapse, "train", None)
    assert collapse.main() == 0
    row = "| none | 1.00, 1.00, 1.00, 1.00 | 7 (7 to 7) | 7 (7 to 7) | 0.25 (0.25 to 0.25) | 50 (50 to 50) |"
    assert (few_updates / "collapse.md").read_text().splitlines()[2] == row


def test_first_weights_do_what_their_names_say():
    hidden, obs, lang = torch.zeros(1, 3 * (64 + 48)), torch.randint(0, 10, (1, 152)).float(), torch.zeros(1, 32)
    count = 0
    for _, change in collapse.CHANGES.values():
        if change is None:
            continue
        torch.manual_seed(0)
        policy = MixtureOfExpertsPolicy()
        with torch.no_grad():
            logits, routing, _ = policy.get_routing_info(obs, lang, hidden)
            change(policy)
            changed, routing_after, _ = policy.get_routing_info(obs, lang, hidden)
        assert not torch.equal(logits, changed)
        if change is collapse.bias_against_skips:
            assert all((weights[0, 0] < 0.04).all() for weights in routing_after)
            lpc = [compute_lpc(weights, policy.expert_hidden_sizes).item() for weights in (routing, routing_after)]
            assert lpc[1] > lpc[0] + 400
        count += 1
    assert count == 3
