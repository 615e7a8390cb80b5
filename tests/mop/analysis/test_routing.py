"""Router weights, pathways and progress, as numbers and as figures: by hand and against plain loops."""

import numpy as np
import pytest
import torch
from checks import refusal
from figure_contents import legend_of, matrix_texts, texts
from matplotlib.colors import to_hex
from routing_data import (
    FIRST_WEIGHTS,
    make_data,
    make_steps,
    random_data,
    two_episodes,
    two_episodes_in_a_corridor,
)

from mixture_of_experts import compute_lpc, routing_measures
from mop.analysis.groups import group_routing_data
from mop.analysis.routing import (
    compute_layer_lpc,
    compute_pathways,
    mean_weights_by_distance,
    mean_weights_by_group,
    mean_weights_by_progress,
    select_episode,
    undecided_experts,
)
from mop.plotting.bars import plot_pathways, plot_routing_distributions, plot_routing_near_objects, plot_specialisation
from mop.plotting.curves import plot_episode_routing, plot_routing_over_progress
from mop.plotting.hover import values_of
from mop.plotting.style import size_hue
from mop.statistics.information import entropy_nats


@pytest.fixture
def data():
    return two_episodes_in_a_corridor()


def test_pathways_counts_and_transitions_by_hand():
    first, second = np.eye(2)[[1, 1, 0, 1, 0, 0]], np.eye(3)[[2, 2, 0, 2, 0, 1]]
    steps = make_steps(np.ones((6, 2)), first, second, episode=[0, 0, 0, 1, 1, 1], t_step=[0, 1, 2, 0, 1, 2])
    pathways = compute_pathways(make_data(steps, [{}, {}]))
    assert pathways.experts.tolist() == [[1, 2], [0, 0], [0, 1]] and pathways.counts.tolist() == [3, 2, 1]
    assert pathways.index.tolist() == [0, 0, 1, 0, 1, 2]
    # 0 -> 0 and 0 -> 1 in the first episode, 0 -> 1 and 1 -> 2 in the second; none from the first into the second
    assert pathways.transitions.tolist() == [[1, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_a_plain_loop_over_steps_agrees():
    data = random_data()
    steps, pathways = data.steps, compute_pathways(data)
    experts = np.stack([weights.argmax(1) for weights in steps.layer_routing], axis=1)
    np.testing.assert_array_equal(pathways.experts[pathways.index], experts)
    expected = np.zeros_like(pathways.transitions)
    for k in range(len(steps) - 1):
        if steps.episode[k] == steps.episode[k + 1]:
            expected[pathways.index[k], pathways.index[k + 1]] += 1
    np.testing.assert_array_equal(pathways.transitions, expected)


def test_pathways_are_named_by_sizes(data):
    bars, matrix = plot_pathways(data).axes
    # the first layer takes 16 in steps 0 to 3 and skip in 4 and 5; the second always skip
    assert texts(bars.get_yticklabels()) == ["16 › skip", "skip › skip"]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [4 / 6, 2 / 6])
    assert texts(bars.texts) == [" 66.7% (4)", " 33.3% (2)"]
    assert matrix_texts(matrix) == [["100", ""], ["", "100"]]
    assert bars.get_title() == "2 of 2 pathways, 100.0% of the steps"
    assert plot_pathways(data, max_pathways=1).axes[0].get_title() == "1 of 2 pathways, 66.7% of the steps"


def test_shares_of_pathways_have_intervals():
    data = random_data()
    figure = plot_pathways(data, max_pathways=3)
    rows = values_of(figure)
    pathways = compute_pathways(data)
    shares = [row for row in rows if "pathway" in row]
    np.testing.assert_allclose([row["share"] for row in shares], pathways.counts[:3] / len(data.steps))
    assert all(row["low"] < row["share"] < row["high"] and row["episodes"] == 30 for row in shares)
    (whiskers,) = figure.axes[0].containers[1].lines[2]
    np.testing.assert_allclose(
        [segment[:, 0] for segment in whiskers.get_segments()], [[row["low"], row["high"]] for row in shares]
    )
    follows = [row for row in rows if "from" in row]
    assert [row["steps"] for row in follows] == pathways.transitions[:3, :3].ravel().tolist()


def test_weights_against_progress_by_hand():
    data = two_episodes()
    (means,) = mean_weights_by_progress(data, 2)
    shown = values_of(plot_routing_over_progress(data, 2))
    assert [row["progress"] for row in shown] == [0.25, 0.75] and means.steps.tolist() == [3, 3]
    assert means.episodes.tolist() == [2, 2] and np.isnan(means.low).all()  # too few for an interval
    np.testing.assert_allclose(means.mean[:, 0], [(0 + 0.1 + 0.6) / 3, (0.2 + 0.3 + 1) / 3], atol=1e-6)
    (means,) = mean_weights_by_progress(data, 8)  # more parts than steps
    assert means.steps.tolist() == [2, 0, 1, 0, 2, 0, 1, 0]
    assert np.isnan(means.mean[1]).all() and np.isfinite(means.mean[0]).all()


def test_two_episodes_under_one_number_are_two():
    steps = make_steps(np.ones((4, 2)), np.eye(2)[[0, 1, 1, 0]], t_step=[0, 1, 0, 1])
    data = make_data(steps, schema_version=3)
    np.testing.assert_allclose(mean_weights_by_progress(data, 2)[0].mean, [[0.5, 0.5], [0.5, 0.5]])
    assert compute_pathways(data).transitions.tolist() == [[0, 1], [1, 0]]


def test_one_episode_and_its_events():
    data = two_episodes()
    chosen = select_episode(data, 1)
    assert chosen.t_step.tolist() == [0, 1] and chosen.events == {"opened": 1}
    np.testing.assert_allclose(chosen.routing[0], [[0.6, 0.4], [1, 0]], atol=1e-6)
    assert "episode 2" in refusal(select_episode, data, 2)


def test_weights_over_an_episode_are_stacked_with_its_events(data):
    figure = plot_episode_routing(data, 0)
    assert figure.get_suptitle().replace("\n", " ") == "episode 0: open the door, 4 steps, success"
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["layer 0", "layer 1"]
    lower, upper = figure.axes[0].collections
    assert [to_hex(area.get_facecolor()[0]) for area in (lower, upper)] == [
        size_hue(0),
        size_hue(16),
    ]
    edge = lower.get_paths()[0].vertices
    for step, weight in enumerate(FIRST_WEIGHTS[:4]):  # each weight from its step to the next
        on_step = edge[np.isclose(edge[:, 0], step) | np.isclose(edge[:, 0], step + 1)]
        assert np.isclose(on_step[:, 1], weight, atol=1e-6).sum() >= 2
    assert figure.axes[0].get_xlim() == (0, 4) and figure.axes[0].get_ylim() == (0, 1)
    assert legend_of(figure) == [
        "skip (size 0)",
        "GRU 16",
        "picked up (step 2)",
        "opened, unlocked (step 3)",
    ]
    assert [line.get_xdata()[0] for line in figure.axes[1].lines] == [2, 3]
    assert "failure" in plot_episode_routing(data, 1).get_suptitle()


def test_lines_against_progress(data):
    figure = plot_routing_over_progress(data, num_bins=2)
    skip, gru = figure.axes[0].lines
    assert skip.get_markevery() == [False, False], "no dots on a line that shows all"
    np.testing.assert_allclose(skip.get_xdata(), [0.25, 0.75])
    np.testing.assert_allclose(skip.get_ydata(), [0.7 / 3, 1.5 / 3], atol=1e-6)
    np.testing.assert_allclose(gru.get_ydata(), [2.3 / 3, 1.5 / 3], atol=1e-6)
    assert skip.get_linestyle() != gru.get_linestyle() and legend_of(figure) == ["skip (size 0)", "GRU 16"]
    assert figure.get_suptitle().replace("\n", " ") == "BabyAI-UnlockPickup-v0, 6 steps of 2 episodes"


def test_bands_hold_the_means():
    data = random_data()
    figure = plot_routing_over_progress(data, num_bins=4)
    rows = [row for row in values_of(figure) if row["layer"] == 1]
    assert [row["progress"] for row in rows] == [0.125, 0.375, 0.625, 0.875]
    band = figure.axes[1].collections[0].get_paths()[0].vertices
    for row in rows:
        edges = np.unique(band[np.isclose(band[:, 0], row["progress"]), 1])
        assert (
            edges.tolist() == [row["skip low"], row["skip high"]] and row["skip low"] < row["skip"] < row["skip high"]
        )
    assert len(rows) == 4 and rows[0]["episodes"] == 30
    assert figure.get_suptitle().replace("\n", " ").endswith("bands: 95 % over episodes")


def test_weights_of_groups():
    data = two_episodes()
    groups = group_routing_data(data, "by_outcome")
    (means,) = mean_weights_by_group(data, groups)
    np.testing.assert_allclose(means.mean, [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)


def test_weights_at_distances():
    data = make_data(make_steps(np.ones((4, 2)), [[0.2, 0.8], [0.4, 0.6], [1.0, 0.0], [0.5, 0.5]]))
    (means,) = mean_weights_by_distance(data, np.array([2, 2, 0, np.nan]))
    assert means.steps.tolist() == [1, 0, 2]
    np.testing.assert_allclose(means.mean, [[1, 0], [np.nan, np.nan], [0.3, 0.7]], atol=1e-6)
    assert "distance" in refusal(mean_weights_by_distance, data, np.full(4, np.nan))


def test_experts_that_may_be_the_largest():
    """Twenty episodes of one step for each action; in the first, two experts lead by turns."""
    leads_by_turns = [[0.5, 0.4, 0.1], [0.4, 0.5, 0.1]] * 10
    clear, few = [[0.5, 0.4, 0.1], [0.6, 0.3, 0.1]] * 10, [[0.4, 0.3, 0.3]] * 4
    steps = make_steps(
        np.ones((44, 2)),
        leads_by_turns + clear + few,
        episode=[*range(20), *range(20), *range(4)],
        action=[0] * 20 + [1] * 20 + [2] * 4,
    )
    data = make_data(steps, [{}] * 20)
    (undecided,) = undecided_experts(data, group_routing_data(data, "by_action"))
    assert undecided.tolist() == [[True, True, False], [False] * 3, [False] * 3]
    figure = plot_specialisation(data, ["by_action"])
    shown = [["≈0.45", "≈0.45", "0.10"], ["0.55", "0.35", "0.10"], ["0.40?", "0.30?", "0.30?"]]
    assert matrix_texts(figure.axes[0]) == shown
    assert [row["undecided"] for row in values_of(figure)][:4] == [True, True, False, False]


def test_cost_and_entropy_are_those_of_training():
    """The same numbers as torch computes while it trains, on random weights of layers of different experts."""
    sizes, rng = [[0, 16, 32], [8], [24, 0]], np.random.default_rng(0)
    routing = [rng.dirichlet(np.full(len(of_layer), 0.3), (50, 4)) for of_layer in sizes]  # (T, N, E_l)
    tensors = [torch.from_numpy(weights) for weights in routing]
    layer_lpc = [compute_layer_lpc(weights, of_layer) for weights, of_layer in zip(routing, sizes, strict=True)]
    assert [values.shape for values in layer_lpc] == [(50, 4)] * 3
    np.testing.assert_allclose(sum(layer_lpc), compute_lpc(tensors, sizes), rtol=1e-12)
    measures = routing_measures(tensors, sizes)
    entropies = {f"router_entropy_{layer}": entropy_nats(routing[layer]).mean() for layer in (0, 2)}
    assert entropies == pytest.approx({name: measures[name] for name in measures if "entropy" in name}, rel=1e-12)


def test_distributions_are_shares_of_the_steps(data):
    figure = plot_routing_distributions(data, num_bins=2)
    weights, _, entropy, certain = figure.axes
    values, edges, _ = weights.patches[0].get_data()
    np.testing.assert_allclose(values, [4 / 6, 2 / 6])  # below 0.5: 0, 0.1, 0.2, 0.3
    np.testing.assert_allclose(edges, [0, 0.5, 1])
    values, edges, _ = entropy.patches[0].get_data()
    np.testing.assert_allclose(edges, [0, np.log(2) / 2, np.log(2)])
    np.testing.assert_allclose(values, [3 / 6, 3 / 6])  # 0, 0.325, 0.500, 0.611, 0.673, 0 nats, the middle being 0.347
    np.testing.assert_allclose(certain.patches[0].get_data().values, [1, 0])
    assert certain.get_title(loc="left") == "layer 1: mean 0.00, at most 0.69"


def test_weights_against_the_walking_distance(data):
    figure = plot_routing_near_objects(data, min_steps=1)
    first, second, counts = figure.axes
    skip, gru = first.lines
    # cells 1 to 4 are 4 to 1 steps from the target at 5; in cell 1 are three steps, of weights 0, 0.6, 1
    assert skip.get_xdata().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(skip.get_ydata(), [0.3, 0.2, 0.1, 1.6 / 3], atol=1e-6)
    np.testing.assert_allclose(gru.get_ydata(), 1 - skip.get_ydata(), atol=1e-6)
    np.testing.assert_allclose(second.lines[0].get_ydata(), 1)
    assert [bar.get_height() for bar in counts.patches] == [1, 1, 1, 3] and counts.get_xlabel() == "cells to the target"
    assert plot_routing_near_objects(data, min_steps=2).axes[0].lines[0].get_xdata().tolist() == [4]
    assert "4 steps" in refusal(plot_routing_near_objects, data, min_steps=4)


def test_specialisation_is_a_matrix_with_counts(data):
    figure = plot_specialisation(data, ["by_action", "by_outcome"])
    actions, certain, outcomes, _ = figure.axes[:4]
    # forward: steps 0, 1, 2, 5; toggle: 3; left: 4
    assert texts(actions.get_yticklabels()) == ["turn left  (1)", "forward  (4)", "toggle  (1)"]
    np.testing.assert_allclose(actions.images[0].get_array(), [[0.6, 0.4], [0.325, 0.675], [0.3, 0.7]], atol=1e-6)
    assert matrix_texts(actions)[0] == ["0.60?", "0.40?"] and matrix_texts(certain) == [["1.00?", "0.00?"]] * 3
    assert texts(outcomes.get_yticklabels()) == ["success  (4)", "failure  (2)"]
    np.testing.assert_allclose(outcomes.images[0].get_array(), [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)
    assert texts(outcomes.get_xticklabels()) == ["skip", "GRU 16"]
    assert all(image.get_clim() == (0, 1) for ax in figure.axes[:4] for image in ax.images)
    assert len(plot_specialisation(data).axes) == 2 * 3 + 1  # by action, carrying, outcome: no keys, no key phases
    assert "by_moon" in refusal(plot_specialisation, data, ["by_moon"])


def test_figures_give_their_numbers():
    """What is saved beside a figure are the means that it draws, with their intervals."""
    data = random_data()
    groups = group_routing_data(data, "by_action")
    (row,) = [
        row
        for row in values_of(plot_specialisation(data))
        if (row["group"], row["layer"], row["expert"]) == ("forward", 1, "GRU 16")
    ]
    means = mean_weights_by_group(data, groups)[1]
    assert row["weight"] == means.mean[2, 1] == pytest.approx(data.steps.layer_routing[1][groups.mask(2), 1].mean())
    assert (row["low"], row["high"]) == (means.low[2, 1], means.high[2, 1]) and row["low"] < row["weight"] < row["high"]
    assert row["steps"] == groups.counts[2] and row["episodes"] == groups.num_episodes[2]
    rows = [row for row in values_of(plot_routing_distributions(data)) if row["layer"] == 2]
    assert sum(row["skip"] for row in rows if "weight from" in row) == pytest.approx(1)
    assert sum(row["share"] for row in rows if "entropy from" in row) == pytest.approx(1)
