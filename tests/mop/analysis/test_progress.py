"""Routing in the course of an episode, as numbers and as figures, by hand."""

import numpy as np
import pytest
from figure_contents import legend_of
from matplotlib.colors import to_hex
from routing_data import (
    FIRST_WEIGHTS,
    make_data,
    make_steps,
    random_data,
    two_episodes,
    two_episodes_in_a_corridor,
)

from mop.analysis.routing import compute_pathways, compute_routing_over_progress, select_episode
from mop.common.errors import InputError
from mop.plotting.curves import plot_episode_routing, plot_routing_over_progress
from mop.plotting.hover import values_of
from mop.plotting.style import size_hue


@pytest.fixture
def data():
    return two_episodes_in_a_corridor()


# --- numbers --------------------------------------------------------------------------------------------------------


def test_weights_against_progress_by_hand():
    data = two_episodes()
    over = compute_routing_over_progress(data, 2)
    (means,) = over.layers
    assert over.progress.tolist() == [0.25, 0.75] and means.steps.tolist() == [3, 3]
    assert means.episodes.tolist() == [2, 2] and np.isnan(means.low).all()  # too few for an interval
    np.testing.assert_allclose(means.mean[:, 0], [(0 + 0.1 + 0.6) / 3, (0.2 + 0.3 + 1) / 3], atol=1e-6)
    (means,) = compute_routing_over_progress(data, 8).layers  # more parts than steps
    assert means.steps.tolist() == [2, 0, 1, 0, 2, 0, 1, 0]
    assert np.isnan(means.mean[1]).all() and np.isfinite(means.mean[0]).all()


def test_two_episodes_under_one_number_are_two():
    steps = make_steps(np.ones((4, 2)), np.eye(2)[[0, 1, 1, 0]], t_step=[0, 1, 0, 1])
    data = make_data(steps, schema_version=3)
    np.testing.assert_allclose(compute_routing_over_progress(data, 2).layers[0].mean, [[0.5, 0.5], [0.5, 0.5]])
    assert compute_pathways(data).transitions.tolist() == [[0, 1], [1, 0]]


def test_one_episode_and_its_events():
    data = two_episodes()
    chosen = select_episode(data, 1)
    assert chosen.t_step.tolist() == [0, 1] and chosen.events == {"opened": 1}
    np.testing.assert_allclose(chosen.routing[0], [[0.6, 0.4], [1, 0]], atol=1e-6)
    with pytest.raises(InputError, match="episode 2"):
        select_episode(data, 2)


def test_a_plain_loop_over_parts_agrees():
    data = random_data()
    steps = data.steps
    over = compute_routing_over_progress(data, 5)
    lengths = np.bincount(steps.episode)
    for part in range(5):
        chosen = [k for k in range(len(steps)) if steps.t_step[k] * 5 // lengths[steps.episode[k]] == part]
        np.testing.assert_allclose(over.layers[1].mean[part], steps.layer_routing[1][chosen].mean(0), atol=1e-6)


# --- figures --------------------------------------------------------------------------------------------------------


def test_weights_over_an_episode_are_stacked_with_its_events(data):
    figure = plot_episode_routing(data, 0, mark_step=1)
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
        "shown step",
    ]
    assert [line.get_xdata()[0] for line in figure.axes[1].lines] == [2, 3]
    assert "failure" in plot_episode_routing(data, 1).get_suptitle()


def test_lines_against_progress(data):
    figure = plot_routing_over_progress(data, num_bins=2)
    skip, no_dots, gru, _ = figure.axes[0].lines
    assert len(no_dots.get_xdata()) == 0
    np.testing.assert_allclose(skip.get_xdata(), [0.25, 0.75])
    np.testing.assert_allclose(skip.get_ydata(), [0.7 / 3, 1.5 / 3], atol=1e-6)
    np.testing.assert_allclose(gru.get_ydata(), [2.3 / 3, 1.5 / 3], atol=1e-6)
    assert skip.get_linestyle() != gru.get_linestyle() and legend_of(figure) == ["skip (size 0)", "GRU 16"]
    assert figure.get_suptitle().replace("\n", " ") == "BabyAI-UnlockPickup-v0, 6 steps of 2 episodes"


def test_short_episodes_are_dots_against_progress(data):
    figure = plot_routing_over_progress(data, num_bins=20)  # of 4 and 2 steps
    _, dots, *_ = figure.axes[0].lines
    assert len(dots.get_xdata()) == 4 and dots.get_marker() == "o" and np.isfinite(dots.get_ydata()).all()


def test_layers_of_different_experts_have_legends_of_their_own():
    steps = make_steps([[1, 1]], [[0.5, 0.5]], [[0.2, 0.3, 0.5]], t_step=[0])
    figure = plot_routing_over_progress(make_data(steps, sizes=[[0, 8], [0, 8, 16]]))
    assert not figure.legends
    assert [len(ax.get_legend().get_texts()) for ax in figure.axes] == [2, 3]


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
