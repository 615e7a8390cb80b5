"""What is measured of one run in each phase: against plain loops; what the data lacks is said."""

import numpy as np
import pytest
from checks import refusal
from routing_data import make_data, make_steps, random_data, two_episodes

from mop.analysis.actions import compute_policy_entropy, hold_action
from mop.analysis.cells import distances_to_objects
from mop.analysis.groups import group_routing_data
from mop.analysis.many_runs import (
    ALL_STEPS,
    ANY_ACTION,
    CORRELATIONS,
    Part,
    available_phases,
    mean_cells,
    measure_run,
)
from mop.common.conventions import ACTION_NAMES


@pytest.fixture(scope="module")
def data():
    """Random episodes with everything there is, also directions and the bot's path."""
    data = random_data(20)
    data.steps.direction = np.random.default_rng(1).integers(0, 4, len(data.steps))
    lengths = np.bincount(data.steps.episode)
    for number, episode in enumerate(data.episodes):
        episode |= {"steps": int(lengths[number]), "expert_steps": 10 + number % 3}
    return data


def by_place(parts: list[Part]) -> dict[tuple[str, str], Part]:
    return {(part.phase, part.action): part for part in parts}


def value(part: Part, name: str) -> float:
    return part.measures[name].value


def test_measures_of_each_phase_are_those_of_its_steps(data):
    parts, reasons = measure_run(data, "by_key_phase", ("cell",))
    assert reasons == []
    found, groups = by_place(parts), group_routing_data(data, "by_key_phase")
    entropy, distances = compute_policy_entropy(data.steps.action_logits), distances_to_objects(data)
    masks = {ALL_STEPS: np.ones(len(data.steps), bool)} | {
        label: groups.mask(group) for group, label in enumerate(groups.labels)
    }
    assert [part.phase for part in parts if part.action == ANY_ACTION] == list(masks) and len(masks) == 5
    for phase, mask in masks.items():
        part = found[phase, ANY_ACTION]
        assert (part.num_steps, part.num_episodes) == (mask.sum(), len(np.unique(data.steps.episode[mask])))
        assert value(part, "lpc") == pytest.approx(data.steps.lpc[mask].mean(dtype=float))
        assert value(part, "entropy_nats") == pytest.approx(entropy[mask].mean())
        r = np.corrcoef(data.steps.lpc[mask], entropy[mask])[0, 1]
        assert value(part, "r_entropy") == pytest.approx(r, abs=1e-6)
        r = np.corrcoef(data.steps.lpc[mask], distances["key"][mask])[0, 1]
        assert value(part, "r_distance_key") == pytest.approx(r, abs=1e-6)
        assert set(CORRELATIONS) <= set(part.measures)
        complexity = part.measures["complexity_plug_in_nats"]
        assert part.measures["complexity_nats"] <= complexity <= part.measures["action_entropy_nats"]
    assert value(found[ALL_STEPS, ANY_ACTION], "success") == np.mean([e["success"] for e in data.episodes])


def test_the_parts_of_the_path_ratio_add_up(data):
    found = by_place(measure_run(data, "by_key_phase")[0])
    whole = np.mean([e["steps"] / e["expert_steps"] for e in data.episodes if e["success"]])
    parts = [value(part, "path_ratio") for (phase, action), part in found.items() if action == ANY_ACTION]
    assert parts[0] == pytest.approx(whole) and sum(parts[1:]) == pytest.approx(whole) and len(parts) == 5


def test_a_phase_changes_what_it_does_with_the_action_held(data):
    """LPC that is a function of the action, and of the phase of one action: found there and nowhere else."""
    groups = group_routing_data(data, "by_carrying")
    lpc = 100.0 * data.steps.action + np.where((data.steps.action == 2) & (groups.index == 1), 7, 0)
    planted = make_data(
        make_steps(data.steps.position, lpc=lpc, **{n: getattr(data.steps, n) for n in COLUMNS}), data.episodes
    )
    parts, _ = measure_run(planted, "by_carrying")
    found = by_place(parts)
    effects = {place: value(part, "lpc_difference") for place, part in found.items() if place[0] != ALL_STEPS
               and place[1] != ANY_ACTION}  # fmt: skip
    assert len(effects) == 2 * 7
    for (phase, action), effect in effects.items():
        expected = 0 if action != "forward" else 7 if phase == "carrying" else -7
        assert effect == pytest.approx(expected, abs=1e-9)
    assert all("lpc_difference" not in part.measures for (phase, _), part in found.items() if phase == ALL_STEPS)
    assert sum(part.num_steps for (phase, action), part in found.items() if phase == ALL_STEPS) == 2 * len(data.steps)


COLUMNS = ("episode", "t_step", "carrying", "door_unlocked", "action_logits", "action", "direction")


def test_one_action_alone_has_no_whole_episodes(data):
    parts, _ = measure_run(hold_action(data, "forward"), "by_key_phase")
    names = {name for part in parts for name in part.measures}
    assert {"lpc", "entropy_nats", "r_entropy"} <= names
    assert not names & {"success", "path_ratio", "complexity_nats"}
    assert {part.action for part in parts} == {ANY_ACTION, "forward"}
    num = (data.steps.action == ACTION_NAMES.index("forward")).sum()
    assert parts[0].num_steps == num


def test_what_the_data_lacks_is_said():
    parts, reasons = measure_run(two_episodes(), "by_key_phase")
    assert [part.phase for part in parts if part.action == ANY_ACTION] == [ALL_STEPS]
    text = "; ".join(reasons)
    for words in ("no phases: ", "no entropy and no complexity", "no walking distances: ", "no success and no path"):
        assert words in text
    assert len(reasons) == 4


def test_phases_are_those_that_suit(data):
    assert "by_action" not in available_phases(data) and "by_key_phase" in available_phases(data)


def test_cells_are_means_of_runs_not_of_steps():
    def part(positions, lpc):
        data = make_data(make_steps(positions, lpc=lpc), [{}])
        return measure_run(data)[0][0]

    found = mean_cells([part([[1, 1], [1, 1], [1, 1], [2, 1]], [10, 20, 30, 5]), part([[1, 1]], [100])], "lpc")
    assert found.cells.tolist() == [[1, 1], [2, 1]] and found.values.tolist() == [60, 5]
    assert found.counts.tolist() == [4, 1] and found.num_runs.tolist() == [2, 1]
    assert "entropy_nats" in refusal(mean_cells, [part([[1, 1]], [100])], "entropy_nats")
