"""What routing data may lack, which is said in one clear sentence, and parts of it, of which titles tell."""

from functools import partial

import numpy as np
import pytest
from checks import refusal
from routing_data import make_data, make_steps, random_data, two_episodes, two_episodes_in_a_corridor

from mop.analysis.actions import compute_action_shares, hold_action
from mop.analysis.cells import distances_to_objects
from mop.analysis.groups import group_routing_data
from mop.analysis.routing import compute_pathways, mean_weights_by_progress, select_episode
from mop.analysis.routing_data import index_episodes, whole_of
from mop.artifacts.routing_cache import RoutingData, cache_files
from mop.artifacts.run_paths import RunKey
from mop.plotting.bars import (
    plot_action_frequency,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_specialisation,
)
from mop.plotting.curves import plot_episode_routing, plot_routing_over_progress
from mop.plotting.maps import plot_map
from mop.plotting.measures import MEASURES
from mop.plotting.style import describe


def num_named(data: RoutingData, users: dict[str, tuple]) -> int:
    """How many functions of routing data raise one clear sentence about each column, once it is missing."""
    count = 0
    for column, functions in users.items():
        kept = getattr(data.steps, column)
        setattr(data.steps, column, None)
        for function in functions:
            assert column in refusal(function, data)
            count += 1
        setattr(data.steps, column, kept)
    return count


def test_numbers_name_a_missing_column():
    data = two_episodes()
    groups = group_routing_data(data, "overall")
    users = {
        "t_step": (mean_weights_by_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "layer_routing": (mean_weights_by_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "action": (lambda data: compute_action_shares(data, groups, 7),),
    }
    assert num_named(data, users) == 7
    empty = make_data(make_steps([], np.empty((0, 2)), t_step=[]), [])
    for compute in (mean_weights_by_progress, compute_pathways):
        assert "no steps" in refusal(compute, empty)


def test_figures_name_a_missing_column():
    of_weights = (plot_routing_over_progress, plot_routing_distributions, plot_pathways, plot_specialisation)
    users = {
        "layer_routing": of_weights,
        "t_step": (plot_routing_over_progress, plot_pathways, lambda data: plot_episode_routing(data, 0)),
        "action": (plot_action_frequency,),
        "position": (plot_routing_near_objects,),
    }
    assert num_named(two_episodes_in_a_corridor(), users) == 9
    for plot in of_weights:
        assert "no steps" in refusal(plot, make_data(make_steps([], np.empty((0, 2)), t_step=[]), []))


def test_a_part_of_the_steps_says_so_and_keeps_the_whole():
    data = two_episodes()
    part = data.where(np.array([True, False, True, True, False, True]), "odd ones")
    assert part.steps.t_step.tolist() == [0, 2, 3, 1] and part.steps.episode.tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(part.steps.layer_routing[0][:, 0], [0, 0.2, 0.3, 1], atol=1e-6)
    assert part.steps.columns().keys() == data.steps.columns().keys() and part.episodes is data.episodes
    assert whole_of(part) is data is whole_of(data) and part.rows.tolist() == [0, 2, 3, 5]
    smaller = part.where(part.steps.t_step > 0, "later")
    assert smaller.rows.tolist() == [2, 3, 5] and whole_of(smaller) is data
    title = "BabyAI-UnlockPickup-v0, odd ones, later, 3 steps of 2 episodes"
    assert describe(smaller.header, smaller.steps.episode) == title
    assert "restricted_to" not in data.header and len(data.steps) == 6
    refusal(part.where, np.zeros(4, bool), "nothing at all")
    with pytest.raises(ValueError, match="a part of a cache is not written"):
        cache_files("nowhere", RunKey("BabyAI-UnlockPickup-v0", 0, None, None), part)
    for wrong in (np.arange(4), np.ones(6, bool)):
        with pytest.raises(ValueError, match=r"a boolean mask \(4,\)"):
            part.where(wrong, "wrong")


def test_what_depends_on_whole_episodes_is_found_from_them():
    """Phases, distances, progress, episodes: of a part of the steps they are what they are among all."""
    data = random_data()
    part = hold_action(data, "forward")
    rows = np.flatnonzero(data.steps.action == 2)
    assert part.rows.tolist() == rows.tolist() and len(rows) < len(data.steps) / 4
    every, chosen = (group_routing_data(of, "by_key_phase") for of in (data, part))
    assert every.labels == chosen.labels
    np.testing.assert_array_equal(chosen.index, every.index[rows])
    every, chosen = (distances_to_objects(of) for of in (data, part))
    assert every.keys() == chosen.keys() == {"door", "key", "target"}
    for kind in every:
        np.testing.assert_array_equal(chosen[kind], every[kind][rows])
    np.testing.assert_array_equal(index_episodes(part), index_episodes(data)[rows])
    assert select_episode(part, 3).t_step.tolist() == select_episode(data, 3).t_step.tolist()

    length, means = np.bincount(data.steps.episode), mean_weights_by_progress(part, 4)[2]
    bins = part.steps.t_step * 4 // length[part.steps.episode]
    for bin_number in range(4):
        expected = part.steps.layer_routing[2][bins == bin_number].mean(0)
        np.testing.assert_allclose(means.mean[bin_number], expected, atol=1e-6)


def test_a_wall_that_other_steps_show_to_be_missing_is_missing():
    """A corridor of two rooms without a door: only the step in between shows that one can pass."""
    world = {"grid_size": [7, 3], "room_bounds": [[0, 0, 3, 2], [3, 0, 6, 2]], "doors": [], "keys": []}
    steps = make_steps([[2, 1], [3, 1], [4, 1]], np.ones((3, 1)), t_step=[0, 1, 2], action=[2, 2, 0])
    data = make_data(steps, [world | {"target_pos": [5, 1]}])
    held = data.where(np.array([True, False, True]), "not in between")
    assert distances_to_objects(held)["target"].tolist() == [3, 1]


def test_transitions_are_those_between_neighbours():
    data = random_data()
    part = hold_action(data, 2)
    pathways, expected = compute_pathways(part), 0
    transitions = np.zeros_like(pathways.transitions)
    for k in range(len(part.rows) - 1):
        one, next_one = part.rows[k], part.rows[k + 1]
        if next_one == one + 1 and data.steps.episode[one] == data.steps.episode[next_one]:
            transitions[pathways.index[k], pathways.index[k + 1]] += 1
            expected += 1
    np.testing.assert_array_equal(pathways.transitions, transitions)
    assert 0 < expected < len(part.rows) / 2
    # before v4, two episodes in a row may have one number; what is between them may be left out
    steps = make_steps(np.ones((4, 2)), np.eye(2)[[0, 1, 1, 0]], t_step=[0, 1, 0, 1])
    part = make_data(steps).where(np.array([True, False, False, True]), "first and last")
    assert compute_pathways(part).transitions.sum() == 0 and index_episodes(part).tolist() == [0, 1]


def test_every_figure_of_a_part_says_of_what():
    data = hold_action(random_data(), "forward")
    plots = (plot_routing_over_progress, plot_pathways, plot_specialisation, plot_routing_distributions)
    plots += (plot_action_frequency, *(partial(plot_map, measure=measure) for measure in MEASURES))
    count = 0
    for plot in (*plots, lambda data: plot_routing_near_objects(data, min_steps=3)):
        assert "action: forward" in plot(data).get_suptitle().replace("\n", " ")
        count += 1
    assert count == 14
