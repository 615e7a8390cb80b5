"""What an intervention changed, from episodes made by hand."""

import numpy as np
import pytest
from routing_data import make_data, make_steps

from mop.analysis.intervention_effects import exchange, join, measure_effects


def played(*lengths: int, carrying: list, **outcomes):
    """Episodes of these lengths, with a column of what is carried."""
    episode = np.repeat(np.arange(len(lengths)), lengths)
    weights = np.tile([0.25, 0.75], (len(episode), 1))
    t_step = np.concatenate([np.arange(length) for length in lengths])
    steps = make_steps(np.ones((len(episode), 2)), weights, episode=episode, t_step=t_step, carrying=carrying)
    names = {"success": outcomes["success"], "steps": lengths, "expert_steps": [2] * len(lengths)}
    return make_data(steps, [dict(zip(names, row, strict=True)) for row in zip(*names.values(), strict=True)])


def test_effects_of_hand_made_episodes():
    """Six worlds: one is failed while something is carried, one with empty hands, one is gained, one takes longer."""
    intact = played(2, 2, 2, 2, 2, 2, carrying=[0, 1] * 6, success=[1, 1, 0, 1, 1, 1])
    changed = played(
        *(3, 2, 2, 4, 2, 2), carrying=[0, 1, 1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1], success=[0, 0, 1, 1, 1, 1]
    )
    agrees = np.array([1, 1, 1, 0] + [1, 1] * 4, bool)
    row = measure_effects(intact, changed, agrees, "by_carrying")
    assert (row["worlds_lost"], row["worlds_gained"], row["worlds_both"]) == (2, 1, 3)
    assert row["delta_success"] == pytest.approx(-1 / 6) and row["agreement"] == pytest.approx(11 / 12)
    assert row["delta_path_ratio"] == pytest.approx(1 / 3) and np.isnan(row["delta_path_ratio_low"])
    assert row["delta_success_low"] <= -1 / 6 <= row["delta_success_high"]
    empty, carrying = row["phases"]
    assert (empty["phase"], carrying["phase"]) == ("hands empty", "carrying")
    assert (empty["steps"], carrying["worlds"]) == (6, 6)
    assert empty["delta_success"] == pytest.approx(-1 / 6) and carrying["delta_success"] == pytest.approx(0)
    assert empty["delta_path_ratio"] == carrying["delta_path_ratio"] == pytest.approx(1 / 6)
    assert empty["agreement"] == 1 and carrying["agreement"] == pytest.approx(5 / 6)
    assert empty["use"] == [[0.25, 0.75]]


def test_episodes_are_exchanged_in_their_places():
    data = played(2, 3, 1, carrying=[0] * 6, success=[1, 1, 1])
    part = played(4, 2, carrying=[1] * 6, success=[0, 0])
    mixed = exchange(data, part, np.array([2, 0]))
    assert mixed.steps.episode.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert mixed.steps.carrying.tolist() == [1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert [episode["success"] for episode in mixed.episodes] == [0, 1, 0]
    assert join(data, part).steps.episode.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3, 3, 4, 4]
