"""Figures of maps, against inputs that were averaged by hand."""

import numpy as np
import pytest
from checks import refusal
from figure_contents import cell_color, faded, has_wall, hover_text, texts
from matplotlib import colormaps
from matplotlib.colors import to_rgba
from routing_data import make_data, make_steps, random_data, three_visits

from mop.analysis.many_runs import SeedCells
from mop.plotting.alphas import plot_phase_maps
from mop.plotting.heatmaps import LPC_CMAP
from mop.plotting.hover import notes_of, values_of
from mop.plotting.maps import (
    lpc_scale,
    plot_grouped_routing,
    plot_map,
    plot_overall_routing,
    plot_routing_side_by_side,
)
from mop.plotting.measures import MEASURES, experts_of
from mop.plotting.resize import fit_to_width, smallest_text_pt
from mop.plotting.style import UNVISITED_COLOR, expert_cmap, size_hue
from mop.statistics.information import entropy_nats

SIZES = [[0, 16, 32], [0, 8]]


def ramp(size):
    return expert_cmap(size_hue(size))


WORLD = {"grid_size": [11, 6]}


@pytest.fixture
def steps():
    return three_visits()


def test_a_map_for_each_layer_then_lpc_then_what_the_colours_mean(steps):
    figure = plot_overall_routing(make_data(steps, [WORLD], SIZES, trial=0))
    *maps, first_legend, second_legend, lpc_bar, _ = figure.axes
    assert figure.get_suptitle() == "BabyAI-UnlockPickup-v0 trial 0, 3 steps of 1 episode"
    assert [ax.get_title() for ax in maps] == ["layer 0", "layer 1", "mean LPC"]
    assert all(ax.get_xlim() == (-0.5, 10.5) and ax.get_ylim() == (5.5, -0.5) for ax in maps)
    np.testing.assert_allclose(cell_color(maps[0], 4, 1), faded(ramp(0)(0.55), 2), atol=0.005)
    np.testing.assert_allclose(cell_color(maps[1], 2, 3), faded(ramp(8)(0.5), 1), atol=0.005)
    np.testing.assert_allclose(cell_color(maps[2], 2, 3), faded(colormaps[LPC_CMAP](1.0), 1))
    assert lpc_bar.get_xlim() == (150, 700)
    assert texts(first_legend.get_yticklabels()) == ["skip (size 0)", "GRU 16", "GRU 32"]
    strips = first_legend.images[0].get_array()
    for strip, size in zip(strips, SIZES[0], strict=False):
        np.testing.assert_allclose(strip[[0, -1]], ramp(size)([0.0, 1.0]))
    assert texts(second_legend.get_yticklabels()) == ["skip (size 0)", "GRU 8"]  # sizes of its own


def test_picture_of_the_world_comes_first_under_its_mission_and_the_same_coordinates(steps):
    env_image = np.random.default_rng(0).integers(0, 256, (6 * 32, 11 * 32, 3), dtype=np.uint8)
    mission = "open the purple door on your left, then pick up the red ball and put it next to the grey box"
    data = make_data(steps, [WORLD | {"mission": mission}], SIZES)
    for measure in ("dominant expert", "LPC"):
        image_ax, map_ax = plot_map(data, measure, env_images={"all steps": env_image}).axes[:2]
        np.testing.assert_array_equal(image_ax.images[0].get_array(), env_image)
        assert image_ax.get_title().replace("\n", " ") == mission and "\n" in image_ax.get_title()
        assert image_ax.get_xlim() == map_ax.get_xlim() and image_ax.get_ylim() == map_ax.get_ylim()
    unknown_world = plot_overall_routing(make_data(steps, sizes=SIZES), env_image, mission).axes[0]
    assert not unknown_world.axison


def test_a_filter_leaves_out_steps_of_the_map_and_of_the_title(steps):
    figure = plot_overall_routing(make_data(steps, [WORLD], SIZES), filter_fn=np.array([False, True, False]))
    np.testing.assert_allclose(cell_color(figure.axes[0], 4, 1), to_rgba(UNVISITED_COLOR))
    assert "1 step of 1 episode" in figure.get_suptitle()


def test_lpc_in_total_and_of_each_layer(steps):
    figure = plot_map(make_data(steps, [WORLD], SIZES), "LPC")
    total, first, second, total_bar, layer_bar, _ = figure.axes
    assert [ax.get_title() for ax in (total, first, second)] == ["all layers", "layer 0", "layer 1"]
    # layer 0, mean weights (4, 1): 0.2 x 256 + 0.1 x 1024 = 153.6, (2, 3): 0.1 x 256 + 0.8 x 1024 = 844.8;
    # layer 1: 0.5 x 64 = 32 and 0.75 x 64 = 48
    assert total_bar.get_xlim() == (150, 700)
    np.testing.assert_allclose(layer_bar.get_xlim(), (32, 844.8), rtol=1e-5)
    np.testing.assert_allclose(
        cell_color(first, 4, 1), faded(colormaps[LPC_CMAP]((153.6 - 32) / (844.8 - 32)), 2), atol=0.01
    )
    assert hover_text(first, 2, 3) == "x 2, y 3: mean LPC of a layer 845, 1 step"
    assert hover_text(second, 4, 1) == "x 4, y 1: mean LPC of a layer 32, 2 steps"
    assert "expert_hidden_sizes" in refusal(plot_map, make_data(steps), "LPC")
    steps.lpc = None
    assert "lpc" in refusal(plot_map, make_data(steps, sizes=SIZES), "LPC")


def test_entropy_of_the_action_in_each_cell():
    even, certain = np.zeros(7), np.eye(7)[0] * 1000
    steps = make_steps([[1, 1], [1, 1], [2, 1]], action_logits=[even, certain, certain])
    data = make_data(steps, [{"grid_size": [4, 3]}])
    for is_absolute, end in ((True, np.log(7)), (False, np.log(7) / 2)):
        map_ax, bar, _ = plot_map(data, "action entropy", is_absolute=is_absolute).axes
        assert hover_text(map_ax, 1, 1).startswith("x 1, y 1: entropy of the action")
        assert [row["entropy_nats"] for row in values_of(map_ax.figure)] == pytest.approx([np.log(7) / 2, 0])
        np.testing.assert_allclose(bar.get_xlim(), (0, end))
    assert [ax.get_title() for ax in plot_map(data, "action probabilities").axes[:2]] == ["turn left", "turn right"]
    steps.action_logits = None
    assert "--force" in refusal(plot_map, data, "action entropy")


def test_weight_of_an_expert_and_how_it_differs_from_its_mean(steps):
    data = make_data(steps, [WORLD], SIZES)
    assert experts_of(data) == ["skip", "GRU 16 / GRU 8", "GRU 32"]
    weights, is_there = steps.layer_routing[0][:, 2], steps.position[:, 0] == 4
    for measure, middle in (("weight of an expert", 0.0), ("difference from the mean", weights.mean())):
        figure = plot_map(data, measure, expert=2)
        first, bar = figure.axes[:2]
        assert first.get_title() == "layer 0: GRU 32", "the other layer has no third expert"
        by_cell = {(row["x"], row["y"]): row[MEASURES[measure].column] for row in values_of(figure)}
        means = {(4, 1): weights[is_there].mean() - middle, (2, 3): weights[~is_there].mean() - middle}
        assert by_cell == pytest.approx(means, abs=1e-6)
        low, high = bar.get_xlim()
        assert middle == 0 or low == pytest.approx(-high), "white is the mean"
        absolute = plot_map(data, measure, expert=2, is_absolute=True).axes[1]
        assert absolute.get_xlim() == ((0, 1) if middle == 0 else (-1, 1))
    assert "expert" in refusal(plot_map, data, "weight of an expert", expert=3)


def test_router_entropy_and_visits(steps):
    data = make_data(steps, [WORLD], SIZES)
    figure = plot_map(data, "router entropy", is_absolute=True)
    assert figure.axes[2].get_xlim() == pytest.approx((0, np.log(3)))
    of_cell = {(row["layer"], row["x"]): row["entropy_nats"] for row in values_of(figure)}
    (alone,) = np.flatnonzero(steps.position[:, 0] == 2)
    assert of_cell[0, 2] == pytest.approx(entropy_nats(steps.layer_routing[0][alone]), abs=1e-6)
    visits = plot_map(data, "visits")
    assert sorted(row["visits"] for row in values_of(visits)) == [1, 2]


def titles(figure):
    return " ".join(" ".join(ax.get_title().split()) for ax in figure.axes)


def test_a_map_of_one_colour_says_why():
    data = random_data()
    assert "leads" not in titles(plot_overall_routing(data))
    data.steps.layer_routing[1][:] = np.eye(data.steps.layer_routing[1].shape[1])[1]
    told = titles(plot_overall_routing(data))
    assert told.count("leads in every cell") == 1 and "layer 1: " in told


@pytest.fixture
def carried():
    """The three visits, the last of them with something in the hands, in two episodes."""
    steps = three_visits(carrying=[False, False, True], episode=[0, 0, 1])
    return make_data(steps, [WORLD, WORLD], SIZES)


def test_narrow_maps_are_laid_out_anew_with_legible_text(carried):
    for figure in (plot_overall_routing(carried), plot_grouped_routing(carried, "by_carrying")):
        values, num_axes = values_of(figure), len(figure.axes)
        for width_in in (6.75, 3.35):
            fit_to_width(figure, width_in)
            assert figure.get_figwidth() == pytest.approx(width_in)
            assert smallest_text_pt(figure) >= (4.9 if width_in > 6 else 3.5)
            assert values_of(figure) == values and len(figure.axes) == num_axes
    tops = [ax.get_position().y1 for ax in plot_overall_routing(carried).axes[:3]]
    narrow = plot_overall_routing(carried)
    fit_to_width(narrow, 3.35)
    assert len({f"{top:.3f}" for top in tops}) == 1, "beside each other on a page"
    assert len({f"{ax.get_position().y1:.3f}" for ax in narrow.axes[:3]}) == 2, "in two rows of a column"


def test_a_row_for_each_group_on_one_scale(carried):
    images = {"carrying": np.zeros((60, 110, 3), np.uint8)}
    figure = plot_grouped_routing(carried, "by_carrying", images)
    assert figure.get_suptitle().replace("\n", " ").endswith("3 steps of 2 episodes, by carrying phase")
    assert texts(figure.texts[1:]) == ["hands empty\n2 steps\n1 episode", "carrying\n1 step\n1 episode"]
    empty, (picture, *holding) = figure.axes[:3], figure.axes[3:7]
    assert [ax.get_title() for ax in empty] == ["layer 0", "layer 1", "mean LPC"]
    rows = ("hands empty 2 steps 1 episode", "carrying 1 step 1 episode")
    panels = {f"{row}, {column}" for row in rows for column in ("layer 0", "layer 1", "mean LPC")}
    assert {values["panel"] for values in values_of(figure)} == panels  # also of rows without titles
    assert picture.images[0].get_array().shape == (60, 110, 3)
    np.testing.assert_allclose(cell_color(empty[0], 2, 3), faded(ramp(32)(0.7), 1), atol=0.005)
    np.testing.assert_allclose(cell_color(holding[0], 2, 3), to_rgba(UNVISITED_COLOR))
    np.testing.assert_allclose(cell_color(holding[0], 4, 1), faded(ramp(0)(0.25), 1), atol=0.005)
    for ax, value in ((empty[2], 0.0), (holding[2], 100 / 600)):  # LPC 100 and 200 of 100 to 700
        np.testing.assert_allclose(cell_color(ax, 4, 1), faded(colormaps[LPC_CMAP](value), 1), atol=0.01)


def test_every_column_of_maps_by_phase_is_named():
    """Also that of an lpc_alpha at which no run was in the first phase."""
    cells = SeedCells(np.array([[1, 1], [2, 1]]), np.array([5, 9]), np.array([1, 1]), np.array([100.0, 200.0]))
    figure = plot_phase_maps({"first": {1e-5: cells}, "second": {0.0: cells, 1e-5: cells}}, "lpc")
    titles = {(notes[0].values["phase"], ax.get_title()) for ax in figure.axes if (notes := notes_of(ax))}
    assert titles == {("first", "lpc_alpha 1e-05"), ("second", "lpc_alpha 0"), ("second", "")}


def test_cells_with_few_steps_can_be_left_out_of_every_figure():
    data = random_data(12)
    figures = {
        "routing": lambda n: plot_overall_routing(data, min_steps=n),
        "grouped routing": lambda n: plot_grouped_routing(data, "by_carrying", min_steps=n),
        "lpc": lambda n: plot_map(data, "LPC", min_steps=n),
        "grouped lpc": lambda n: plot_map(data, "LPC", "by_carrying", min_steps=n),
        "entropy": lambda n: plot_map(data, "action entropy", min_steps=n),
        "side by side": lambda n: plot_routing_side_by_side({"a": data}, min_steps=n),
    }
    for name, plot in figures.items():
        everything, some = (values_of(plot(n)) for n in (1, 5))
        assert [row["steps"] for row in some] == [row["steps"] for row in everything if row["steps"] >= 5], name
        assert "fewer than 5 steps" in texts(plot(5).axes[-1].texts), name
        assert some and len(some) < len(everything), name
        assert "1000 steps" in refusal(plot, 1000)
    assert len(figures) == 6


def test_walls_are_those_of_the_rooms_unless_a_step_was_there():
    data = random_data()  # two rooms beside each other, doors at x 5 in every row
    ax = plot_overall_routing(data).axes[0]
    free = {(x, y) for x in range(1, 10) for y in range(1, 5)}
    assert {(x, y) for x in range(11) for y in range(6) if not has_wall(ax, x, y)} == free
    for episode in data.episodes:
        del episode["room_bounds"]
    figure = plot_overall_routing(data)
    assert not any(has_wall(figure.axes[0], x, 0) for x in range(11)) and "wall" not in texts(figure.axes[-1].texts)


def test_walls_of_a_part_are_those_of_the_whole():
    data = random_data()
    for episode in data.episodes:
        episode["doors"] = [[5, 1, "red", False, True]]
    data.steps.position[0] = (5, 3)  # through a wall: it is missing
    part = data.where(np.arange(len(data.steps)) > 0, "but the first step")
    for shown in (data, part):
        ax = plot_overall_routing(shown).axes[0]
        assert not has_wall(ax, 5, 3) and has_wall(ax, 5, 0)


def test_figures_that_are_compared_share_a_scale():
    low, high = random_data(seed=0), random_data(seed=1)
    high.steps.lpc = high.steps.lpc + 5000
    scale = lpc_scale([low, high])
    own = [lpc_scale([data]) for data in (low, high)]
    assert scale == (own[0][0], own[1][1]) and own[0] != own[1]
    for data in (low, high):
        for figure, bar in (
            (plot_overall_routing(data, scale=scale), -2),
            (plot_map(data, "LPC", scale=scale), -3),
            (plot_routing_side_by_side({"a": data}, scale=scale), -2),
        ):
            assert figure.axes[bar].get_xlim() == pytest.approx(scale)
    assert "no run" in refusal(lpc_scale, [])
