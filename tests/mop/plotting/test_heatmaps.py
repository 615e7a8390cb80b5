"""One map of the grid, against inputs that were averaged by hand."""

import numpy as np
import pytest
from figure_contents import cell_color, faded, has_wall, hover_text, is_hatched, new_axes
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from routing_data import make_steps, three_visits

from mop.analysis.cells import aggregate_routing_by_position, compute_grid_bounds
from mop.plotting.heatmaps import (
    LPC_CMAP,
    render_lpc_heatmap,
    render_routing_heatmap,
    render_walls,
    value_range,
)
from mop.plotting.hover import values_of
from mop.plotting.style import SIZE_HUES, UNVISITED_COLOR, expert_cmap, expert_names

RAMPS = [expert_cmap(hue) for hue in SIZE_HUES.values()]  # of experts whose sizes are not known


@pytest.fixture
def steps():
    return three_visits()


def test_hue_is_the_dominant_expert_and_intensity_its_confidence(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (6, 5)), 0)
    # (4, 1): expert 0 with mean 0.7, (0.7 - 1/3) / (2/3) = 0.55; (2, 3): expert 2 with 0.8, (0.8 - 1/3) / (2/3) = 0.7
    visited = {(4, 1): faded(RAMPS[0](0.55), 2), (2, 3): faded(RAMPS[2](0.7), 1)}
    for x in range(6):
        for y in range(5):
            expected = visited.get((x, y), to_rgba(UNVISITED_COLOR))
            np.testing.assert_allclose(cell_color(ax, x, y), expected, atol=0.005)
    assert ax.images[0].get_array().shape == (5, 6, 4)


def test_equal_weights_are_palest_and_other_layers_have_their_own_scale(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position), 1)
    np.testing.assert_allclose(cell_color(ax, 4, 1), faded(RAMPS[0](0.0), 2), atol=0.005)  # 0.5 of 2 experts: a tie
    np.testing.assert_allclose(cell_color(ax, 2, 3), faded(RAMPS[1](0.5), 1), atol=0.005)  # (0.75 - 1/2) / (1/2)


def test_axes_show_absolute_grid_coordinates_with_y_downwards(steps):
    averaged = aggregate_routing_by_position(steps)
    ax = new_axes()
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (11, 6)), 0)
    assert ax.get_xlim() == (-0.5, 10.5) and ax.get_ylim() == (5.5, -0.5)
    ax = new_axes()
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position), 0)
    assert ax.get_xlim() == (1.5, 4.5) and ax.get_ylim() == (3.5, 0.5)


def test_text_under_the_mouse_names_expert_weight_and_visits(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (6, 5)), 0)
    assert hover_text(ax, 4.3, 0.8) == "x 4, y 1: expert 0 0.70, expert 1 0.20, 2 steps"
    assert hover_text(ax, 2.0, 3.0) == "x 2, y 3: expert 2 0.80, expert 0 0.10, 1 step"
    assert hover_text(ax, 0.2, 0.2) is None


def test_lpc_colours_run_from_low_to_high(steps):
    averaged, grid_info = aggregate_routing_by_position(steps), compute_grid_bounds(steps.position)
    for limits, expected in (((), (0.0, 1.0)), ((0, 1400), (150 / 1400, 0.5))):
        ax = new_axes()
        render_lpc_heatmap(ax, averaged, grid_info, limits or None)
        for cell, value, count in zip([(4, 1), (2, 3)], expected, (2, 1), strict=True):
            np.testing.assert_allclose(cell_color(ax, *cell), faded(colormaps[LPC_CMAP](value), count), atol=0.01)
    assert hover_text(ax, 4, 1) == "x 4, y 1: mean LPC 150, 2 steps"


def many_visits(counts):
    """A row of cells with so many steps each, of two experts with weights 0.52, 0.53, 0.54, ... and an LPC of 100 x."""
    x = np.repeat(np.arange(len(counts)), counts)
    weight = 0.52 + 0.01 * x
    layer = np.stack([weight, 1 - weight], axis=1)
    return aggregate_routing_by_position(make_steps(np.stack([x, 0 * x], axis=1), layer, lpc=100.0 * x))


def test_cells_whose_first_two_experts_are_close_are_hatched():
    averaged, ax = many_visits([10, 10, 10]), new_axes()  # margins 0.04, 0.06, 0.08
    render_routing_heatmap(ax, averaged, compute_grid_bounds(averaged.cells), 0)
    assert [is_hatched(ax, x, 0) for x in range(3)] == [True, False, False]


def test_few_steps_are_pale_and_do_not_stretch_the_scale():
    averaged = many_visits([1, 10, 40, 9])  # LPC 0, 100, 200, 300
    assert value_range([averaged.lpc], [averaged.counts]) == (100, 200)
    ax = new_axes()
    render_lpc_heatmap(ax, averaged, compute_grid_bounds(averaged.cells))
    for x, (value, count) in enumerate([(0.0, 1), (0.0, 10), (1.0, 40), (1.0, 9)]):  # beyond the scale: its ends
        np.testing.assert_allclose(cell_color(ax, x, 0), faded(colormaps[LPC_CMAP](value), count), atol=0.005)
    few = many_visits([1, 9])
    assert value_range([few.lpc], [few.counts]) == (0, 100)  # no cell has enough


def test_walls_are_drawn_where_they_are():
    ax, averaged = new_axes(), many_visits([3, 3])
    render_routing_heatmap(ax, averaged, compute_grid_bounds(averaged.cells, (3, 2)), 0)
    walls = np.array([[False, False, True], [True, False, False]])
    render_walls(ax, None)
    assert not has_wall(ax, 2, 0)
    render_walls(ax, walls)
    assert [[has_wall(ax, x, y) for x in range(3)] for y in range(2)] == walls.tolist()


def test_numbers_of_a_map_are_those_that_it_shows(steps):
    ax = new_axes()
    header = {"expert_hidden_sizes": [[0, 16, 32], [0, 8]]}
    averaged = aggregate_routing_by_position(steps)
    layers = averaged.routing
    render_routing_heatmap(
        ax, averaged, compute_grid_bounds(steps.position), 0, expert_names(header, layers)[0], ["#000000"] * 3
    )
    ax.set_title("layer 0")
    first, second = values_of(ax.figure)
    assert first == pytest.approx(
        {"panel": "layer 0", "x": 4, "y": 1, "steps": 2, "layer": 0, "expert": "skip", "margin": 0.5}
        | {"weight_skip": 0.7, "weight_GRU 16": 0.2, "weight_GRU 32": 0.1}
    )
    assert second["expert"] == "GRU 32" and second["margin"] == pytest.approx(0.7)
