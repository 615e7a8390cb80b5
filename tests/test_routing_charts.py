"""The contents of figures that are no maps, against inputs worked out by hand."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from routing_data import make_data, make_steps, random_data

from mop.base.errors import InputError
from mop.plotting.charts import (
    plot_action_frequency,
    plot_episode_routing,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_routing_over_progress,
    plot_specialisation,
)
from mop.plotting.style import HUES

FIRST = np.array([0.0, 0.1, 0.2, 0.3, 0.6, 1.0])  # weight of expert 0 in layer 0


@pytest.fixture
def data():
    """Episodes of 4 and 2 steps in a corridor; a layer of two experts, and one whose first expert has all."""
    columns = {"episode": [0, 0, 0, 0, 1, 1], "t_step": [0, 1, 2, 3, 0, 1], "action": [2, 2, 2, 5, 0, 2]}
    layers = [np.stack([FIRST, 1 - FIRST], axis=1), np.eye(2)[[0] * 6]]
    position = [[1, 1], [2, 1], [3, 1], [4, 1], [1, 1], [1, 1]]
    steps = make_steps(position, *layers, carrying=[False, False, True, True, False, False], **columns)
    world = {"grid_size": [7, 3], "room_bounds": [[0, 0, 6, 2]], "doors": [], "keys": [], "target_pos": [5, 1]}
    outcomes = [
        world | {"success": True, "mission": "open the door", "t_pick": 2, "t_opened": 3, "t_unlocked": 3},
        world | {"success": False, "mission": "open the door", "t_pick": None, "t_opened": None, "t_unlocked": None},
    ]
    return make_data(steps, outcomes, [[0, 16], [0, 16]])


def texts(artists):
    return [artist.get_text() for artist in artists]


def matrix_texts(ax):
    return np.array(texts(ax.texts)).reshape(ax.images[0].get_array().shape).tolist()


def legend_of(figure):
    (legend,) = figure.legends
    return texts(legend.get_texts())


def test_weights_over_an_episode_are_stacked_with_its_events(data):
    figure = plot_episode_routing(data, 0, mark_step=1)
    assert figure.get_suptitle().replace("\n", " ") == "episode 0: open the door, 4 steps, success"
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["layer 0", "layer 1"]
    lower, upper = figure.axes[0].collections
    assert [to_hex(area.get_facecolor()[0]) for area in (lower, upper)] == [
        hue.lower() for hue in list(HUES.values())[:2]
    ]
    edge = lower.get_paths()[0].vertices
    for step, weight in enumerate(FIRST[:4]):  # each weight from its step to the next
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
    with pytest.raises(InputError, match="no distance to a door, key or target has 4 steps: evaluate more"):
        plot_routing_near_objects(data, min_steps=4)


def test_specialisation_is_a_matrix_with_counts(data):
    figure = plot_specialisation(data, ["by_action", "by_outcome"])
    actions, certain, outcomes, _ = figure.axes[:4]
    # forward: steps 0, 1, 2, 5; toggle: 3; left: 4
    assert texts(actions.get_yticklabels()) == ["turn left  (1)", "forward  (4)", "toggle  (1)"]
    np.testing.assert_allclose(actions.images[0].get_array(), [[0.6, 0.4], [0.325, 0.675], [0.3, 0.7]], atol=1e-6)
    assert matrix_texts(actions)[0] == ["0.60", "0.40"] and matrix_texts(certain) == [["1.00", "0.00"]] * 3
    assert texts(outcomes.get_yticklabels()) == ["success  (4)", "failure  (2)"]
    np.testing.assert_allclose(outcomes.images[0].get_array(), [[0.15, 0.85], [0.8, 0.2]], atol=1e-6)
    assert texts(outcomes.get_xticklabels()) == ["skip", "GRU 16"]
    assert all(image.get_clim() == (0, 1) for ax in figure.axes[:4] for image in ax.images)
    assert len(plot_specialisation(data).axes) == 2 * 3 + 1  # by action, carrying, outcome: no keys, no key phases
    with pytest.raises(InputError, match="no grouping 'by_moon'"):
        plot_specialisation(data, ["by_moon"])


def test_pathways_are_named_by_sizes(data):
    bars, matrix = plot_pathways(data).axes
    # the first layer takes 16 in steps 0 to 3 and skip in 4 and 5; the second always skip
    assert texts(bars.get_yticklabels()) == ["16 › skip", "skip › skip"]
    np.testing.assert_allclose([bar.get_width() for bar in bars.patches], [4 / 6, 2 / 6])
    assert texts(bars.texts) == [" 66.7% (4)", " 33.3% (2)"]
    assert matrix_texts(matrix) == [["100", ""], ["", "100"]]
    assert bars.get_title() == "2 of 2 pathways, 100.0% of the steps"
    assert plot_pathways(data, max_pathways=1).axes[0].get_title() == "1 of 2 pathways, 66.7% of the steps"


def test_action_frequency_by_group(data):
    (ax,) = plot_action_frequency(data).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([1 / 6, 0, 4 / 6, 0, 0, 1 / 6, 0])
    assert texts(ax.get_yticklabels())[2] == "forward" and texts(ax.texts)[2] == " 66.7% (4)"
    empty, holding = plot_action_frequency(data, "by_carrying").axes
    assert [ax.get_title(loc="left") for ax in (empty, holding)] == ["hands empty, 4 steps", "carrying, 2 steps"]
    assert [bar.get_width() for bar in holding.patches] == [0, 0, 0.5, 0, 0, 0.5, 0]
    figure = plot_action_frequency(random_data(), "by_door_location_and_box_row", max_groups=3)
    assert len(figure.axes) == 3 and "the largest 3 of 4 groups" in figure.get_suptitle().replace("\n", " ")


def test_layers_of_different_experts_have_legends_of_their_own():
    steps = make_steps([[1, 1]], [[0.5, 0.5]], [[0.2, 0.3, 0.5]], t_step=[0])
    figure = plot_routing_over_progress(make_data(steps, sizes=[[0, 8], [0, 8, 16]]))
    assert not figure.legends
    assert [len(ax.get_legend().get_texts()) for ax in figure.axes] == [2, 3]


def test_missing_columns_are_one_clear_sentence(data):
    needed, checked = (
        {
            "layer_routing": (
                plot_routing_over_progress,
                plot_routing_distributions,
                plot_pathways,
                plot_specialisation,
            ),
            "t_step": (plot_routing_over_progress, plot_pathways, lambda data: plot_episode_routing(data, 0)),
            "action": (plot_action_frequency,),
            "position": (plot_routing_near_objects,),
        },
        0,
    )
    for column, plots in needed.items():
        kept = getattr(data.steps, column)
        setattr(data.steps, column, None)
        for plot in plots:
            with pytest.raises(InputError, match=f"no '{column}'"):
                plot(data)
            checked += 1
        setattr(data.steps, column, kept)
    assert checked == 9
    for plot in (plot_routing_over_progress, plot_routing_distributions, plot_pathways, plot_specialisation):
        with pytest.raises(InputError, match="there are no steps"):
            plot(make_data(make_steps([], np.empty((0, 2)), t_step=[]), []))
