"""The contents of numbers and figures, against inputs that were averaged by hand."""

import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from errors import InputError
from plotting_utils import (
    EXPERT_CMAPS,
    LPC_CMAP,
    PHASES,
    UNVISITED_COLOR,
    aggregate_routing_by_position,
    compute_confidence,
    compute_grid_bounds,
    key_phases,
    plot_curves_by,
    plot_lpc_by_phase,
    plot_routing_heatmap,
    plot_success_against_lpc,
    plot_training_curve,
    render_routing_heatmap,
)

SIZES = [[0, 16, 32], [0, 8]]


def make_steps(position, *layers, lpc=None):
    """Steps with these columns only: what plotting_utils asks for."""
    return SimpleNamespace(
        position=np.array(position, np.int32).reshape(-1, 2),
        layer_routing=[np.array(weights, np.float32) for weights in layers],
        lpc=None if lpc is None else np.array(lpc, np.float32),
    )


@pytest.fixture
def steps():
    """Three visits of two cells: (4, 1) at first and last, (2, 3) in between; two layers of 3 and 2 experts."""
    return make_steps(
        [[4, 1], [2, 3], [4, 1]],
        [[0.9, 0.1, 0.0], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]],
        [[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]],
        lpc=[100.0, 700.0, 200.0],
    )


def new_axes():
    return Figure().subplots()


def cell_color(ax, x, y):
    """RGBA that is drawn at grid cell (x, y), found through the extent of the picture."""
    (image,) = ax.images
    left, _, _, top = image.get_extent()
    return image.get_array()[round(y - top - 0.5), round(x - left - 0.5)]


def texts(axis_labels):
    return [label.get_text() for label in axis_labels]


# --- numbers --------------------------------------------------------------------------------------------------------


def test_means_and_counts_of_two_cells_in_three_visits(steps):
    averaged = aggregate_routing_by_position(steps)
    assert averaged.cells.tolist() == [[4, 1], [2, 3]]  # reading order
    assert averaged.counts.tolist() == [2, 1] and averaged.num_steps == 3
    assert [weights.shape for weights in averaged.routing] == [(2, 3), (2, 2)]
    np.testing.assert_allclose(averaged.routing[0], [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], atol=1e-6)
    np.testing.assert_allclose(averaged.routing[1], [[0.5, 0.5], [0.25, 0.75]], atol=1e-6)
    np.testing.assert_allclose(averaged.lpc, [150, 700])


@pytest.mark.parametrize("as_function", [True, False])
def test_a_filter_is_a_mask_or_a_function_that_makes_one(steps, as_function):
    mask = np.array([True, False, False])
    averaged = aggregate_routing_by_position(steps, (lambda s: s.lpc < 150) if as_function else mask)
    assert averaged.cells.tolist() == [[4, 1]] and averaged.counts.tolist() == [1]
    np.testing.assert_allclose(averaged.routing[0], [[0.9, 0.1, 0.0]], atol=1e-6)
    np.testing.assert_allclose(averaged.lpc, [100])


@pytest.mark.parametrize("mask", [[0, 1, 1], [True, False], [[True], [True], [True]]])
def test_a_filter_that_is_no_boolean_mask_is_a_bug(steps, mask):
    with pytest.raises(ValueError, match=r"boolean mask \(3,\)"):
        aggregate_routing_by_position(steps, np.array(mask))


def test_equals_a_plain_loop_on_many_steps_and_takes_well_under_a_second():
    rng = np.random.default_rng(0)
    position = rng.integers(-3, 19, size=(100_000, 2))
    weights = rng.dirichlet(np.ones(3), size=100_000)
    many = make_steps(position, weights, weights[:, ::-1], lpc=weights[:, 0])
    start = time.perf_counter()
    averaged = aggregate_routing_by_position(many)
    assert time.perf_counter() - start < 0.8
    assert len(averaged.cells) == 22 * 22 and averaged.num_steps == 100_000
    for index in range(0, 22 * 22, 50):
        here = (position == averaged.cells[index]).all(1)
        assert averaged.counts[index] == here.sum()
        np.testing.assert_allclose(averaged.routing[0][index], weights[here].mean(0), atol=1e-6)
        np.testing.assert_allclose(averaged.routing[1][index], weights[here].mean(0)[::-1], atol=1e-6)
        np.testing.assert_allclose(averaged.lpc[index], weights[here, 0].mean(), atol=1e-6)


def test_unknown_lpc_is_left_out_of_the_mean(steps):
    steps.lpc[:2] = np.nan
    np.testing.assert_array_equal(aggregate_routing_by_position(steps).lpc, [200, np.nan])


def test_columns_that_the_data_lacks(steps):
    steps.lpc = None
    assert aggregate_routing_by_position(steps).lpc is None
    steps.layer_routing = None
    with pytest.raises(InputError, match="no 'layer_routing'"):
        plot_routing_heatmap(steps, 0, SIZES)
    steps.position = None
    with pytest.raises(InputError, match="no 'position'"):
        aggregate_routing_by_position(steps)


def test_empty_steps_are_one_clear_sentence(steps):
    empty = make_steps([], np.empty((0, 3)), lpc=[])
    for call in (
        lambda: aggregate_routing_by_position(empty),
        lambda: compute_grid_bounds(empty.position),
        lambda: plot_routing_heatmap(empty, 0, SIZES, grid_size=(5, 5)),
    ):
        with pytest.raises(InputError, match=r"^there are no steps: the routing data is empty$"):
            call()
    with pytest.raises(InputError, match="the filter leaves none"):
        aggregate_routing_by_position(steps, np.zeros(3, bool))


def test_weights_of_a_diverged_policy_name_the_layer(steps):
    steps.layer_routing[1][2] = np.nan
    with pytest.raises(InputError, match="layer 1 has router weights that are not finite"):
        aggregate_routing_by_position(steps)


def test_grid_bounds_of_positions_and_of_a_known_world(steps):
    visited = {"x_min": 2, "x_max": 4, "y_min": 1, "y_max": 3, "grid_width": 3, "grid_height": 3}
    assert compute_grid_bounds(steps.position) == visited
    world = {"x_min": 0, "x_max": 10, "y_min": 0, "y_max": 5, "grid_width": 11, "grid_height": 6}
    assert compute_grid_bounds(steps.position, (11, 6)) == world
    with pytest.raises(InputError, match="x 4, y 1 is outside the grid of x 0 to 3, y 0 to 5"):
        compute_grid_bounds(steps.position, (4, 6))


def test_confidence_runs_from_one_in_e_to_one():
    np.testing.assert_allclose(compute_confidence([1 / 3, 2 / 3, 1], 3), [0, 0.5, 1])
    np.testing.assert_allclose(compute_confidence([0.5, 0.49999], 2), [0, 0])  # a rounded cache may be just below
    assert compute_confidence([1.0], 1).tolist() == [1]


# --- colours --------------------------------------------------------------------------------------------------------

DEUTAN = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
PROTAN = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
SIGHTS = {"normal": np.eye(3), "deutan": np.array(DEUTAN), "protan": np.array(PROTAN)}  # Machado et al. 2009


def lab(rgb, sight):
    """CIELAB (..., 3) of sRGB colours as seen with one kind of sight."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ SIGHTS[sight].T
    xyz = np.clip(linear, 0, 1) @ np.array(
        [[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]]
    )
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


@pytest.mark.parametrize("sight", SIGHTS)
def test_experts_and_unvisited_cells_can_be_told_apart(sight):
    assert len(EXPERT_CMAPS) >= 6
    levels = np.linspace(0, 1, 11)
    ramps = np.stack([lab(cmap(levels)[:, :3], sight) for cmap in EXPERT_CMAPS])  # (E, levels, 3)
    lightness = ramps[..., 0]
    assert (lightness[:, 0] > 85).all() and (np.diff(lightness) < 0).all()  # from nearly white, ever darker
    unvisited = lab(np.array(to_rgba(UNVISITED_COLOR)[:3]), sight)
    assert np.linalg.norm(ramps - unvisited, axis=-1).min() > 20
    distances = np.linalg.norm(ramps[:, None] - ramps[None], axis=-1)[..., 5]  # at confidence 0.5
    for num_experts, least in ((3, 25), (6, 9)):
        pairs = distances[:num_experts, :num_experts][np.triu_indices(num_experts, 1)]
        assert pairs.min() > least


# --- the heatmap ----------------------------------------------------------------------------------------------------


def test_hue_is_the_dominant_expert_and_intensity_its_confidence(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (6, 5)), 0)
    # (4, 1): expert 0 with mean 0.7, (0.7 - 1/3) / (2/3) = 0.55; (2, 3): expert 2 with 0.8, (0.8 - 1/3) / (2/3) = 0.7
    visited = {(4, 1): EXPERT_CMAPS[0](0.55), (2, 3): EXPERT_CMAPS[2](0.7)}
    for x in range(6):
        for y in range(5):
            expected = visited.get((x, y), to_rgba(UNVISITED_COLOR))
            np.testing.assert_allclose(cell_color(ax, x, y), expected, atol=0.005)
    assert ax.images[0].get_array().shape == (5, 6, 4)


def test_equal_weights_are_palest_and_other_layers_have_their_own_scale(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position), 1)
    np.testing.assert_allclose(cell_color(ax, 4, 1), EXPERT_CMAPS[0](0.0), atol=0.005)  # 0.5 of 2 experts: a tie
    np.testing.assert_allclose(cell_color(ax, 2, 3), EXPERT_CMAPS[1](0.5), atol=0.005)  # (0.75 - 1/2) / (1/2)


def test_axes_show_absolute_grid_coordinates_with_y_downwards(steps):
    averaged = aggregate_routing_by_position(steps)
    ax = new_axes()
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (11, 6)), 0)
    assert ax.get_xlim() == (-0.5, 10.5) and ax.get_ylim() == (5.5, -0.5)
    assert ax.get_xticks().tolist() == list(range(11)) and ax.get_yticks().tolist() == list(range(6))
    assert ax.get_aspect() == 1
    ax = new_axes()
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position), 0)
    assert ax.get_xlim() == (1.5, 4.5) and ax.get_ylim() == (3.5, 0.5)
    assert ax.get_xticks().tolist() == [2, 3, 4] and ax.get_yticks().tolist() == [1, 2, 3]


def test_large_worlds_have_few_round_ticks(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (22, 100)), 0)
    assert ax.get_xticks().tolist() == list(range(0, 22, 2))
    assert ax.get_yticks().tolist() == list(range(0, 100, 10))


def test_text_under_the_mouse_names_expert_weight_and_visits(steps):
    ax = new_axes()
    averaged = aggregate_routing_by_position(steps)
    render_routing_heatmap(ax, averaged, compute_grid_bounds(steps.position, (6, 5)), 0)
    assert ax.format_coord(4.3, 0.8) == "x 4, y 1: expert 0, mean weight 0.70, 2 steps"
    assert ax.format_coord(2.0, 3.0) == "x 2, y 3: expert 2, mean weight 0.80, 1 step"
    assert ax.format_coord(0.2, 0.2) == "x 0, y 0: not visited"


def test_cells_off_the_grid_are_not_painted_somewhere_else(steps):
    averaged = aggregate_routing_by_position(steps)
    with pytest.raises(InputError, match="x 2, y 3 is outside"):
        render_routing_heatmap(new_axes(), averaged, compute_grid_bounds(np.array([[3, 0], [5, 4]])), 0)


@pytest.mark.parametrize("layer", [2, -1])
def test_a_layer_that_is_not_there_names_the_number_of_layers(steps, layer):
    with pytest.raises(InputError, match=f"no layer {layer}: the policy has 2 layers, counted from 0"):
        plot_routing_heatmap(steps, layer, SIZES)


def test_more_experts_than_hues_is_one_clear_sentence():
    num_experts = len(EXPERT_CMAPS) + 1
    with pytest.raises(InputError, match=f"layer 0 has {num_experts} experts, and EXPERT_CMAPS has colours for"):
        plot_routing_heatmap(make_steps([[0, 0]], np.eye(num_experts)[:1]), 0, [[4] * num_experts])


@pytest.mark.parametrize("sizes", [SIZES, SIZES[0]])
def test_figure_names_experts_scale_steps_and_title(steps, sizes):
    figure = plot_routing_heatmap(steps, 0, sizes, grid_size=(11, 6), title="BabyAI-GoToObj-v0 trial 0")
    map_ax, legend_ax = figure.axes
    assert figure.get_suptitle() == "BabyAI-GoToObj-v0 trial 0" and map_ax.get_title() == "layer 0, 3 steps"
    assert map_ax.get_xlim() == (-0.5, 10.5)
    assert texts(legend_ax.get_yticklabels()) == ["skip (size 0)", "GRU 16", "GRU 32", "not visited"]
    assert texts(legend_ax.get_xticklabels()) == ["0.33", "1"] and legend_ax.get_xticks().tolist() == [0, 1]
    strips = legend_ax.images[0].get_array()
    for expert in range(3):
        np.testing.assert_allclose(strips[expert, [0, -1]], EXPERT_CMAPS[expert]([0.0, 1.0]))
    assert (strips[3] == to_rgba(UNVISITED_COLOR)).all()


def test_second_layer_takes_its_own_sizes(steps):
    figure = plot_routing_heatmap(steps, 1, SIZES)
    assert texts(figure.axes[1].get_yticklabels()) == ["skip (size 0)", "GRU 8", "not visited"]
    assert texts(figure.axes[1].get_xticklabels()) == ["0.50", "1"]


@pytest.mark.parametrize("sizes", [[[0, 16], [0, 8]], [0, 16, 32, 64], []])
def test_sizes_of_another_policy_are_one_clear_sentence(steps, sizes):
    with pytest.raises(InputError, match=r"layer 0 has 3 experts, and \d sizes are given"):
        plot_routing_heatmap(steps, 0, sizes)


def test_picture_of_the_world_comes_first_under_its_mission(steps):
    env_image = np.random.default_rng(0).integers(0, 256, (6 * 32, 11 * 32, 3), dtype=np.uint8)
    mission = "open the purple door on your left, then pick up the red ball and put it next to the grey box"
    figure = plot_routing_heatmap(steps, 0, SIZES, grid_size=(11, 6), env_image=env_image, mission=mission)
    image_ax, map_ax, _ = figure.axes
    np.testing.assert_array_equal(image_ax.images[0].get_array(), env_image)
    assert image_ax.get_title().replace("\n", " ") == mission and "\n" in image_ax.get_title()
    assert map_ax.get_title() == "layer 0, 3 steps"


def test_single_step_of_a_policy_with_one_expert():
    figure = plot_routing_heatmap(make_steps([[3, 4]], [[1.0]]), 0, [[64]])
    map_ax, legend_ax = figure.axes
    np.testing.assert_allclose(cell_color(map_ax, 3, 4), EXPERT_CMAPS[0](1.0))
    assert map_ax.get_title() == "layer 0, 1 step"
    assert map_ax.get_xticks().tolist() == [3] and map_ax.get_yticks().tolist() == [4]
    assert texts(legend_ax.get_yticklabels()) == ["GRU 64", "not visited"]


def test_labels_stay_inside_the_figure_and_apart(steps, tmp_path):
    env_image = np.zeros((192, 352, 3), np.uint8)
    many = make_steps(steps.position, np.full((3, 6), 1 / 6))
    figures = [
        plot_routing_heatmap(steps, 0, SIZES, (11, 6), "BabyAI-UnlockPickup-v0 trial 0 seed 1 update 200"),
        plot_routing_heatmap(steps, 0, SIZES, (11, 6), "a title", env_image, "pick up the red box " * 6),
        plot_routing_heatmap(many, 0, [[0, 4, 8, 16, 32, 64]], (22, 22), "a title"),
        plot_routing_heatmap(steps, 0, SIZES, (30, 5)),
    ]
    for figure in figures:
        figure.savefig(tmp_path / "figure.png")  # settles the layout
        boxes = [ax.get_tightbbox() for ax in figure.axes]
        assert all(box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 for box in boxes)
        assert all(box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1 for box in boxes)
        assert all(left.x1 <= right.x0 for left, right in pairwise(boxes))
        legend_ax = figure.axes[-1]
        rows = sorted((label.get_window_extent() for label in legend_ax.get_yticklabels()), key=lambda box: box.y0)
        assert all(low.y1 <= high.y0 for low, high in pairwise(rows))


def test_figures_need_no_pyplot():
    program = (
        "import sys, numpy as np, types, plotting_utils as p;"
        "s = types.SimpleNamespace(position=np.zeros((1, 2), int), layer_routing=[np.ones((1, 1))], lpc=None);"
        "p.plot_routing_heatmap(s, 0, [4]).savefig('/dev/null', format='png');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[1], timeout=60).returncode == 0


# --- phases of the task, success against cost -----------------------------------------------------------------------

EPISODES = [  # picked up after 1 action, opened after 2, dropped after 3; a pick-up alone; none
    {"t_pick": 1, "t_opened": 2, "t_drop": 3},
    {"t_pick": 1, "t_opened": None, "t_drop": None},
    {"t_pick": None, "t_opened": None, "t_drop": None},
]


@pytest.fixture
def phased():
    """Four steps of the first episode and two of each other; the LPC of step k is 10 k."""
    episode, t_step = np.array([0, 0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 2, 3, 0, 1, 0, 1])
    steps = make_steps([[1, 1], [2, 1], [1, 1], [3, 1], [1, 1], [2, 1], [1, 1], [1, 1]], lpc=np.arange(8) * 10.0)
    steps.episode, steps.t_step = episode, t_step
    return steps


def test_phases_by_hand(phased):
    assert key_phases(phased, EPISODES).tolist() == [0, 1, 2, 3, 0, 1, 0, 0]
    opened_first = [EPISODES[2] | {"t_opened": 1}] * 3  # a door that needs no key
    assert key_phases(phased, opened_first).tolist() == [0, 2, 2, 2, 0, 2, 0, 2]


def test_lpc_of_each_phase_is_drawn_on_one_scale(phased, tmp_path):
    figure = plot_lpc_by_phase(phased, EPISODES, grid_size=(5, 3), title="UnlockPickup")
    *panels, colorbar = figure.axes
    assert [ax.get_title().split("\n")[0] for ax in panels] == list(PHASES)
    # before the key: cell (1, 1) in steps 0, 4, 6, 7; carrying: (2, 1) in 1 and 5; opened: (1, 1); dropped: (3, 1)
    means = [(1, 1, (0 + 40 + 60 + 70) / 4), (2, 1, 30.0), (1, 1, 20.0), (3, 1, 30.0)]
    for ax, (x, y, mean) in zip(panels, means, strict=True):
        expected = colormaps[LPC_CMAP]((mean - 20.0) / (42.5 - 20.0))
        np.testing.assert_allclose(cell_color(ax, x, y), expected, atol=1e-6)
        np.testing.assert_allclose(cell_color(ax, 4, 2), to_rgba(UNVISITED_COLOR))
        assert f"mean LPC {mean:.0f}" in ax.format_coord(x, y)
    assert "mean 42, 4 steps" in panels[0].get_title() and "1 step" in panels[2].get_title()
    assert colorbar.get_ylim() == (20.0, 42.5)
    figure.savefig(tmp_path / "phases.png")
    only_start = plot_lpc_by_phase(phased, [EPISODES[2]] * 3)
    assert len(only_start.axes) == 2  # phases without steps have no panel


def test_phases_need_events_and_lpc(phased):
    with pytest.raises(InputError, match="t_pick"):
        plot_lpc_by_phase(phased, [{}] * 3)
    phased.lpc = None
    with pytest.raises(InputError, match="'lpc'"):
        plot_lpc_by_phase(phased, EPISODES)
    phased.t_step = None
    with pytest.raises(InputError, match="'t_step'"):
        key_phases(phased, EPISODES)


def test_success_against_lpc_shows_each_row_with_its_interval():
    table = pd.DataFrame(
        {"success_rate": [0.9, 1.0, 0.5], "success_low": [0.8, 0.9, 0.4], "success_high": [0.95, 1.0, 0.7]}
        | {"mean_lpc": [100.0, 2000.0, 10.0], "lpc_alpha": [1e-5, 0.0, 1e-5]}
    )
    figure = plot_success_against_lpc(table, "lpc_alpha", "alpha")
    (ax,) = figure.axes
    points = [np.column_stack(container.lines[0].get_data()).tolist() for container in ax.containers]
    assert points == [[[100.0, 90.0], [10.0, 50.0]], [[2000.0, 100.0]]]
    (bars,) = ax.containers[0].lines[2]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[80, 95], [40, 70]])
    assert texts(ax.get_legend().get_texts()) == ["1e-05", "0"] and ax.get_legend().get_title().get_text() == "alpha"
    with pytest.raises(InputError, match="task_id"):
        plot_success_against_lpc(table, "task_id")
    with pytest.raises(InputError, match="no rows"):
        plot_success_against_lpc(table.iloc[:0], "lpc_alpha")


def test_curves_of_settings_lie_over_those_of_the_first():
    rows = [
        {"setting": setting, "seed": seed, "env_steps": step, "accuracy": step / 10 + seed}
        for setting in ("base", "other")
        for seed in (0, 1)
        for step in (1, 2, 3)
    ]
    figure = plot_curves_by(pd.DataFrame(rows), "setting", "accuracy", "title")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["base", "other"]
    for ax in figure.axes:
        grey, blue = ax.lines[:2], ax.lines[2:]
        assert len(grey) == len(blue) == 2 and grey[0].get_color() != blue[0].get_color()
        np.testing.assert_allclose([line.get_ydata() for line in blue], [[0.1, 0.2, 0.3], [1.1, 1.2, 1.3]])
    with pytest.raises(InputError, match="no loss"):
        plot_curves_by(pd.DataFrame(rows), "setting", "loss")
    with pytest.raises(InputError, match="no rows"):
        plot_curves_by(pd.DataFrame(rows).iloc[:0], "setting", "accuracy")


# --- the training curve ---------------------------------------------------------------------------------------------


@pytest.fixture
def log():
    return pd.DataFrame(
        {
            "update": [1, 2, 3, 4],
            "env_steps": [100, 200, 300, 400],
            "loss": [2.0, 1.5, 1.2, 1.0],
            "cross_entropy": [1.9, 1.4, 1.1, 0.9],
            "accuracy": [0.3, 0.5, 0.6, 0.7],
            "success_rate": [np.nan, 0.0, 0.5, 1.0],
            "path_ratio": [np.nan, np.nan, 0.5, 0.8],
            "lpc": [1280.0, 1200.0, 1100.0, 1000.0],
            "steps_per_s": [900.0, 1000.0, 1000.0, 950.0],
        }
    )


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_every_measure_has_a_panel_with_the_numbers_of_the_log(log):
    figure = plot_training_curve(log, title="BabyAI-GoToObj-v0 trial 0")
    assert figure.get_suptitle() == "BabyAI-GoToObj-v0 trial 0"
    speed = "speed (environment steps per second)"
    assert titles(figure) == ["loss", "accuracy", "recent success rate", "path ratio", "LPC", speed]
    columns = [["loss", "cross_entropy"], ["accuracy"], ["success_rate"], ["path_ratio"], ["lpc"], ["steps_per_s"]]
    for ax, names in zip(figure.axes, columns, strict=True):
        for line, name in zip(ax.lines, names, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), log["env_steps"])
            np.testing.assert_array_equal(line.get_ydata(), log[name])  # NaN included: the gap
    assert texts(figure.axes[0].get_legend().get_texts()) == ["loss", "cross entropy"]
    np.testing.assert_allclose(figure.axes[2].get_ylim(), (0, 1), atol=0.05)
    assert [ax.get_xlabel() for ax in figure.axes] == [""] * 3 + ["environment steps"] * 3


def test_routing_has_a_line_for_each_layer(log):
    layers = {f"{name}_{layer}": [0.1 * layer] * 4 for name in ("router_entropy", "skip_share") for layer in range(3)}
    figure = plot_training_curve(log.assign(**layers))
    by_title = {ax.get_title(loc="left"): ax for ax in figure.axes}
    for title in ("router entropy (nats)", "weight of the skip experts"):
        lines = by_title[title].lines
        assert [float(line.get_ydata()[0]) for line in lines] == pytest.approx([0.0, 0.1, 0.2])
        assert len({line.get_color() for line in lines}) == 3
        assert texts(by_title[title].get_legend().get_texts()) == ["layer 0", "layer 1", "layer 2"]


def test_panels_of_missing_or_empty_columns_are_left_out(log):
    figure = plot_training_curve(log.drop(columns=["cross_entropy", "lpc"]).assign(path_ratio=None))
    assert titles(figure)[:3] == ["loss", "accuracy", "recent success rate"] and len(figure.axes) == 4
    assert figure.axes[0].get_legend() is None and len(figure.axes[0].lines) == 1
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, True, True, True]  # the lowest of each column


def test_values_without_neighbours_are_dots(log):
    log["lpc"] = [1.0, np.nan, np.inf, 2.0]
    ax = next(ax for ax in plot_training_curve(log).axes if ax.get_title(loc="left") == "LPC")
    (line,) = ax.lines
    assert line.get_marker() == "o" and line.get_markevery() == [True, False, False, True]
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, np.nan, 2])


def test_log_of_one_row(log, tmp_path):
    figure = plot_training_curve(log.iloc[:1])
    assert len(figure.axes) == 4  # success and path ratio are not known yet
    for ax in figure.axes:
        assert all(line.get_markevery() == [True] for line in ax.lines)
        assert ax.get_xlim() == (0, pytest.approx(103))
    figure.savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 0


def test_log_as_read_from_a_csv_file_draws_the_same(log, tmp_path):
    log.to_csv(tmp_path / "log.csv", index=False)
    figure = plot_training_curve(pd.read_csv(tmp_path / "log.csv").convert_dtypes())  # with pandas' own missing value
    np.testing.assert_array_equal(figure.axes[2].lines[0].get_ydata(), log["success_rate"])


def test_logs_without_anything_to_draw_say_so(log):
    with pytest.raises(InputError, match="no column 'env_steps'"):
        plot_training_curve(log.drop(columns="env_steps"))
    for nothing in (log.iloc[:0], log[["update", "env_steps"]], log.assign(env_steps=np.nan)):
        with pytest.raises(InputError, match="nothing to draw"):
            plot_training_curve(nothing)
