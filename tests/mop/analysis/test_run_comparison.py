"""Two evaluations beside each other: numbers by hand, intervals against known answers, and what the maps show."""

import numpy as np
import pytest
from checks import refusal
from figure_contents import cell_color, hover_text, texts
from matplotlib.colors import to_rgba
from old_caches import CACHE, TASK
from routing_data import make_data, make_steps, random_data

from mop.analysis.cells import visit_strength
from mop.analysis.run_comparison import common_sizes, compare_cells, compare_metrics, pair_worlds, weights_by_size
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.plotting.compared_runs import DIFFERENCE_CMAP, ONE_SIDED_COLOR, difference_measures, plot_difference
from mop.plotting.hover import notes_of, values_of
from mop.statistics.intervals import Sums, compare_means, correlation_of_outcomes, difference_of_rates

SIZES = [[0, 16, 32]]


def evaluation(position, weights, lpc, episode, seeds=(0, 1), sizes=SIZES, **header):
    """One layer; two episodes in a grid of 5 x 3."""
    steps = make_steps(position, weights, lpc=lpc, episode=episode, t_step=np.arange(len(position)))
    episodes = [
        {"grid_size": [5, 3], "seed": seed, "success": True, "steps": 4, "expert_steps": 2 + index}
        for index, seed in enumerate(seeds)
    ]
    return make_data(steps, episodes, sizes, **header)


@pytest.fixture
def left():
    """World 0: twice at (1, 1), once at (2, 1); world 1: once at (1, 1)."""
    weights = [[0.5, 0.5, 0.0], [0.7, 0.1, 0.2], [1.0, 0.0, 0.0], [0.3, 0.3, 0.4]]
    return evaluation([[1, 1], [1, 1], [2, 1], [1, 1]], weights, [100, 200, 10, 600], [0, 0, 0, 1])


@pytest.fixture
def right():
    """World 0: at (1, 1), then (3, 1); world 1: twice at (1, 1)."""
    weights = [[0.1, 0.1, 0.8], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]]
    return evaluation([[1, 1], [3, 1], [1, 1], [1, 1]], weights, [400, 50, 500, 900], [0, 0, 1, 1])


def test_worlds_are_paired_where_one_side_has_all_of_the_other(left, right):
    assert pair_worlds(left, right).is_paired and pair_worlds(left, right).notes() == []
    swapped = evaluation([[1, 1]] * 3, np.eye(3), [1, 2, 3], [0, 1, 2], seeds=(1, 5, 0))
    pair = pair_worlds(left, swapped)
    assert pair.is_paired and pair.right_world.tolist() == [1, -1, 0] and pair.num_worlds == (2, 2)
    assert pair.masks()[1].tolist() == [True, False, True]
    assert len(pair.notes()) == 1


@pytest.mark.parametrize(
    "change", [{"seeds": (1, 2)}, {"task_id": "BabyAI-GoToObj-v0"}, {"seeds": (None, None)}, {"seeds": (0, 0)}]
)
def test_other_worlds_are_not_paired_and_it_is_said(left, change):
    pair = pair_worlds(left, evaluation([[1, 1]] * 2, np.eye(3)[:2], [1, 2], [0, 1], **change))
    assert not pair.is_paired and pair.num_worlds == (2, 2) and pair.notes()


def test_what_of_the_architectures_cannot_be_compared_is_said(left):
    def notes(sizes):
        num_layers, weights = len(sizes), [np.full((1, len(of_layer)), 1 / len(of_layer)) for of_layer in sizes]
        other = make_data(make_steps([[1, 1]], *weights, lpc=[1]), [{"seed": 0}], sizes)
        assert len(difference_measures(left, other)) == (2 if num_layers == 1 else 1)
        return pair_worlds(left, other).notes()[-1]

    assert "0, 32, 64" in notes([[64, 16]]) and "1 and 2 layers" in notes([[0, 16], [0, 8]])
    unknown = make_data(make_steps([[1, 1]], [[1.0]], lpc=[1]))
    assert difference_measures(left, unknown) == ["LPC"]


def test_cells_by_hand(left, right):
    pair = pair_worlds(left, right)
    compared = compare_cells(pair, left.steps.lpc, right.steps.lpc, *pair.masks())
    assert compared.cells.tolist() == [[1, 1], [2, 1], [3, 1]]
    assert compared.left_steps.tolist() == [3, 1, 0] and compared.right_steps.tolist() == [3, 0, 1]
    means = compared.means
    # (1, 1): (100 + 200 + 600) / 3 = 300, and (400 + 500 + 900) / 3 = 600
    np.testing.assert_allclose(means.left, [300, 10, np.nan])
    np.testing.assert_allclose(means.right, [600, np.nan, 50])
    np.testing.assert_allclose(means.difference, [300, np.nan, np.nan])
    # residuals of the worlds, (total - mean x count) / 3: left (300 - 600) / 3 = -100 and 100; right (400 - 600) / 3
    # and its opposite; their difference is 33.3 and -33.3, its variance 2 x 2 x 33.3^2, t with 1 degree of freedom
    assert means.half[0] / np.sqrt(4 * (100 / 3) ** 2) == pytest.approx(12.706, rel=1e-4)
    assert np.isinf(means.half[1:]).all() and not means.is_clear(1).any()
    skip = [weights_by_size(data, 0)[0] for data in (left, right)]
    weights = compare_cells(pair, *skip, *pair.masks())
    np.testing.assert_allclose(weights.means.difference[0], (0.1 + 0.2 + 0.0) / 3 - (0.5 + 0.7 + 0.3) / 3, atol=1e-6)


def test_a_run_against_itself_is_zero_everywhere():
    data = load_cache(cache_path(CACHE, RunKey(TASK, 0, 0)))
    pair = pair_worlds(data, data)
    columns = [data.steps.lpc, *(column for layer in range(3) for column in weights_by_size(data, layer).values())]
    for values in columns:
        means = compare_cells(pair, values, values, *pair.masks()).means
        assert (means.difference == 0).all() and not means.is_clear(1).any()
        assert (means.half[means.left_worlds > 1] == 0).all()
    assert len(columns) == 10
    success, ratio, lpc = compare_metrics(pair)
    metrics = data.header["metrics"]
    assert success.difference.value == ratio.difference.value == lpc.difference.value == 0
    assert (success.left.value, success.left.low) == (metrics["success_rate"], metrics["success_low"])
    np.testing.assert_allclose(
        [ratio.left.value, lpc.left.value], [metrics["path_ratio"], metrics["mean_lpc"]], rtol=1e-6
    )
    figure = plot_difference(data, data)
    assert {row["difference"] for row in values_of(figure) if "difference" in row} == {0.0}


def test_intervals_of_shares_are_those_of_newcombe():
    # 1998, p. 873, table II, example (a): 56/70 and 48/80, method 10
    np.testing.assert_allclose(difference_of_rates((48, 80), (56, 70)), [0.2, 0.0524, 0.3339], atol=5e-5)
    value, low, high = difference_of_rates((100, 100), (100, 100))
    assert value == 0 and low == pytest.approx(-0.037, abs=1e-3) and high == -low, "of width even where all succeed"
    outcomes = np.array([True] * 30 + [False] * 10)
    assert correlation_of_outcomes(outcomes, outcomes) == pytest.approx((300 - 20) / 300)
    assert (
        correlation_of_outcomes(outcomes, ~outcomes) == -1.0 and correlation_of_outcomes(outcomes, outcomes | True) == 0
    )
    independent, paired = (difference_of_rates((60, 100), (70, 100), phi) for phi in (0.0, 0.5))
    assert paired.high - paired.low < independent.high - independent.low


def test_intervals_of_means_agree_with_a_bootstrap_over_worlds():
    rng = np.random.default_rng(0)
    count = rng.integers(5, 40, 400).astype(float)
    cost = 100 + 20 * rng.normal(size=400)  # of the world, for both sides
    left = Sums(count * (cost + rng.normal(size=400)), count)
    more = np.round(count * 1.2)
    right = Sums(more * (cost + 3 + rng.normal(size=400)), more)
    times = rng.multinomial(400, np.full(400, 1 / 400), 4000)
    means = [times @ total / (times @ number) for total, number in (left, right)]
    for is_paired, samples in ((True, means[1] - means[0]), (False, rng.permutation(means[1]) - means[0])):
        contrast = compare_means(left, right, is_paired)
        low, high = np.quantile(samples, (0.025, 0.975))
        assert contrast.half == pytest.approx((high - low) / 2, rel=0.06)
    assert compare_means(left, right, True).half < 0.3 * compare_means(left, right, False).half


def test_metrics_by_hand(left, right):
    success, ratio, lpc = compare_metrics(pair_worlds(left, right))
    assert [row.name for row in (success, ratio, lpc)] == ["success_rate", "path_ratio", "mean_lpc"]
    assert ratio.left.value == pytest.approx((4 / 2 + 4 / 3) / 2) and success.right.value == 1
    assert lpc.left.value == 910 / 4 and lpc.right.value == 1850 / 4 and lpc.difference.value == 940 / 4
    right.episodes[0]["success"] = False
    success, ratio, _ = compare_metrics(pair_worlds(left, right))
    assert success.difference.value == -0.5 and (ratio.left_episodes, ratio.left.value) == (1, 4 / 3)
    del left.episodes[0]["success"]
    right.steps.lpc = None
    assert compare_metrics(pair_worlds(left, right)) == []


def test_experts_of_one_size_are_added():
    data = make_data(make_steps([[1, 1]], [[0.2, 0.3, 0.5]]), sizes=[[8, 0, 8]])
    found = weights_by_size(data, 0)
    assert list(found) == [0, 8] and found[8] == pytest.approx(0.7)
    assert common_sizes(data.header, {"expert_hidden_sizes": [[0, 4, 8]]}) == [[0, 8]]
    assert "expert_hidden_sizes" in refusal(weights_by_size, make_data(make_steps([[1, 1]], [[1.0]])), 0)


def pale(color, num_steps):
    """A colour as it is drawn in a cell with so many steps, on a white page."""
    return 1 - visit_strength(num_steps) * (1 - np.asarray(color))


def test_the_difference_map_shows_each_cell(left, right):
    figure = plot_difference(left, right, ("mixture trial 1", "mixture trial 2"))
    shown = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert {"mixture trial 1", "mixture trial 2", "LPC, difference"} < set(shown)
    assert {f"{name}, difference" for name in ("skip", "GRU 16", "GRU 32")} < set(shown)
    ax = shown["LPC, difference"]
    np.testing.assert_allclose(cell_color(ax, 1, 1), pale(DIFFERENCE_CMAP(1.0), 6), atol=1e-6)  # 300 is the largest
    for x, words in ((2, "only mixture trial 1 was here"), (3, "only mixture trial 2 was here")):
        np.testing.assert_allclose(cell_color(ax, x, 1), pale(to_rgba(ONE_SIDED_COLOR), 1))
        assert hover_text(ax, x, 1) == f"x {x}, y 1: {words}, 1 step"
    assert hover_text(ax, 1, 1).startswith("x 1, y 1: LPC 300 → 600, +300 (95 % interval ")
    assert hover_text(ax, 1, 1).endswith(", not clear), 3 + 3, 6 steps")
    values = notes_of(ax)[0].values
    assert (values["left_mean"], values["right_mean"], values["difference"]) == (300, 600, 300)


def test_groups_that_both_have_are_rows(left, right):
    data, other = random_data(), random_data(seed=1)
    figure = plot_difference(data, other, group_by="by_carrying", measure="layer 1")
    assert [text.split("\n")[0] for text in texts(figure.texts) if "steps" in text] == ["hands empty", "carrying"]
    assert figure.get_suptitle().startswith(f"{TASK}, paired in 30 worlds, by carrying phase")
    steps = [row["left_steps"] for row in values_of(figure) if row.get("expert") == "skip" and "left_steps" in row]
    assert sum(steps) == len(data.steps), "every step is in one group"
    assert "grouping" in refusal(plot_difference, data, other, group_by="by_nothing", measure="LPC")
    assert "layer 7" in refusal(plot_difference, data, other, measure="layer 7")


def test_other_layers_leave_lpc_and_other_grids_nothing(left, right):
    baseline = evaluation([[1, 1]] * 2, [[1.0]] * 2, [4096, 4096], [0, 1], sizes=[[64]])
    figure = plot_difference(left, baseline)
    assert [ax.get_title() for ax in figure.axes if "difference" in ax.get_title()] == ["LPC, difference"]
    for episode in right.episodes:
        episode["grid_size"] = [6, 3]
    refusal(plot_difference, left, right)
    left.steps.lpc = None
    assert "compared" in refusal(plot_difference, left, baseline)
