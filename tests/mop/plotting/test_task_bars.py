"""Figures of results tables, against tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from figure_contents import hover_text, legend_of, texts

from mop.plotting.hover import values_of
from mop.plotting.task_bars import MEASURES, plot_by_task, plot_success_against_lpc


def row(task, policy, success, low, high, seed=0, **more):
    row = {"task_id": f"BabyAI-{task}-v0", "policy": policy, "trial": 0, "seed": seed, "success_rate": success}
    return (
        row
        | {"success_low": low, "success_high": high, "path_ratio": 1.5, "mean_lpc": 4096.0, "num_episodes": 100}
        | more
    )


@pytest.fixture
def table():
    rows = [row("Easy", "mop", 1.0, 0.963, 1.0, path_ratio=1.1), row("Easy", "gru", 0.98, 0.93, 0.994)]
    rows += [
        row("Hard", "mop", 0.7, 0.6, 0.8),
        row("Hard", "mop", 0.9, 0.8, 0.95, seed=1),
        row("Hard", "gru", 0.5, 0.4, 0.6),
    ]
    return pd.DataFrame(rows)


def points(ax, marker):
    """The places of the points of a policy that are drawn in full, and those of its single seeds."""
    drawn = {True: [], False: []}
    for line in ax.lines:
        if line.get_marker() == marker:
            drawn[line.get_alpha() is None] += line.get_xydata()[:, 0].tolist()
    return drawn[True], drawn[False]


def test_failures_are_drawn_on_a_log_axis_with_a_place_for_none(table):
    figure = plot_by_task(table, "failures", "a title")
    (ax,) = figure.axes
    assert texts(ax.get_yticklabels()) == ["Hard", "Easy"] and figure.get_suptitle() == "a title"
    assert ax.get_xscale() == "symlog" and ax.get_xlabel().startswith("failures, %")
    mixture, seeds = points(ax, "o")
    np.testing.assert_allclose(mixture[0], 20)  # the mean of 30 and 10 % failures
    np.testing.assert_allclose(sorted(seeds), [10, 30])
    zero = mixture[1]
    assert zero == ax.get_xticks()[0] == 0 and texts(ax.get_xticklabels())[0] == "0" and ax.get_xlim()[0] < 0
    place = ax.transAxes.inverted().transform(ax.transData.transform([[0, 0], [0.6, 0], [6, 0]]))[:, 0]
    assert 0 < place[0] < place[1] < place[2] < 1, "0 has room beside the least number above it"
    np.testing.assert_allclose(points(ax, "s")[0], [50, 2])
    lines = [part.get_segments()[0][:, 0].tolist() for part in ax.collections]
    assert any(np.allclose(line, [zero, 3.7]) for line in lines), "from none to the end of the interval"
    assert any(np.allclose(line, [0.6, 7.0]) for line in lines)
    assert hover_text(ax, zero, 0.83) == (
        "Easy mixture trial 0 seed 0: success 100.0 % (96.3 to 100.0) of 100 episodes, path ratio 1.10, mean LPC 4,096"
    )
    assert "mean of 2 runs 20" in hover_text(ax, 20, -0.17)
    assert legend_of(figure) == ["mixture", "GRU baseline", "one run of several"]
    values = values_of(figure)
    assert [value["success_rate"] for value in values if "seed" in value] == [0.7, 0.9, 0.5, 1.0, 0.98]
    assert [value["runs"] for value in values if "runs" in value] == [2]


def test_other_measures_have_axes_of_their_own(table):
    for measure, easy in (("success", [100, 98]), ("path ratio", [1.1, 1.5]), ("mean LPC", [4096, 4096])):
        (ax,) = plot_by_task(table, measure).axes
        assert (
            ax.get_xscale() == ("symlog" if measure == "mean LPC" else "linear")
            and ax.get_xlabel() == MEASURES[measure].label
        )
        assert [points(ax, marker)[0][-1] for marker in "os"] == pytest.approx(easy)
    table.loc[table["policy"] == "gru", "path_ratio"] = np.nan
    assert legend_of(plot_by_task(table, "path ratio")) == ["mixture", "one run of several"]


def test_one_policy_and_one_row_are_enough(table):
    figure = plot_by_task(table[:1].drop(columns="policy"))
    assert legend_of(figure) == ["mixture"] and texts(figure.axes[0].get_yticklabels()) == ["Easy"]
    no_failure_at_all = table[table["success_rate"] == 1]
    assert "0" in texts(plot_by_task(no_failure_at_all).axes[0].get_xticklabels())
    all_fail = table[:1].assign(success_rate=0.0, success_low=0.0, success_high=0.04)
    assert points(plot_by_task(all_fail).axes[0], "o")[0] == [100.0]


def test_tables_that_cannot_be_drawn_are_one_clear_sentence(table):
    assert "speed" in refusal(plot_by_task, table, "speed")
    assert "task_id" in refusal(plot_by_task, table.drop(columns="task_id"))
    refusal(plot_by_task, table[:0])
    refusal(plot_by_task, table.assign(path_ratio=None), "path ratio")


def test_success_against_lpc_shows_each_row_with_its_interval():
    table = pd.DataFrame(
        {"success_rate": [0.9, 1.0, 0.5], "success_low": [0.8, 0.9, 0.4], "success_high": [0.95, 1.0, 0.7]}
        | {"mean_lpc": [100.0, 2000.0, 10.0], "lpc_alpha": [1e-5, 0.0, 1e-5]}
    )
    figure = plot_success_against_lpc(table, "lpc_alpha", "alpha")
    (ax,), (legend,) = figure.axes, figure.legends
    points = [np.column_stack(container.lines[0].get_data()).tolist() for container in ax.containers]
    assert points == [[[100.0, 90.0], [10.0, 50.0]], [[2000.0, 100.0]]] and ax.get_xscale() == "symlog"
    (frontier,) = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert frontier.get_xydata().tolist() == [[10.0, 50.0], [100.0, 90.0], [2000.0, 100.0]]
    (bars,) = ax.containers[0].lines[2]
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[80, 95], [40, 70]])
    assert texts(legend.get_texts()) == ["1e-05", "0"] and legend.get_title().get_text() == "alpha"
    figure = plot_success_against_lpc(table.assign(policy=["mop", "mop", "gru"]), "lpc_alpha")
    faces = [container.lines[0].get_markerfacecolor() for container in figure.axes[0].containers]
    assert [face == "white" for face in faces] == [False, True, False] and "hollow" in figure.axes[0].get_title("left")
    assert texts(figure.legends[0].get_texts()) == ["1e-05", "0"]
    assert "task_id" in refusal(plot_success_against_lpc, table, "task_id")
    assert "no rows" in refusal(plot_success_against_lpc, table.iloc[:0], "lpc_alpha")


def test_failures_against_lpc_have_few_at_the_top(table):
    figure = plot_success_against_lpc(table, "task_id", measure="failures")
    (ax,) = figure.axes
    assert ax.get_yscale() == "symlog" and ax.yaxis_inverted() and texts(ax.get_yticklabels())[0] == "0"
    drawn = [value for container in ax.containers for value in container.lines[0].get_ydata()]
    assert sorted(drawn)[1:] == pytest.approx([2, 10, 30, 50]) and min(drawn) == ax.get_yticks()[0]


def test_a_row_without_an_interval_is_drawn_as_its_value(table):
    """Tables made elsewhere have rates alone; one such row is among others here."""
    table.loc[0, ["success_low", "success_high"]] = np.nan
    for rows in (table, table.assign(success_low=None, success_high=None)):
        by_task = plot_by_task(rows, "failures")
        (ax,) = plot_success_against_lpc(rows, "task_id", measure="failures").axes
        assert by_task.axes[0].get_xlim()[1] > 50 and ax.get_ylim()[0] > 50
        lines = [part.get_segments()[0][:, 0].tolist() for part in by_task.axes[0].collections]
        assert [0, 0] in lines and len(lines) == 4
        assert hover_text(by_task.axes[0], 0, 0.83).startswith("Easy mixture trial 0 seed 0: success 100.0 % of 100")
        y = [value for container in ax.containers for value in container.lines[0].get_ydata()]
        assert sorted(y) == pytest.approx([0, 2, 10, 30, 50])


def test_many_tasks_have_a_panel_each_and_nothing_is_cut(table):
    """More tasks than hues: what they are called is written above their points, within the figure."""
    many = pd.concat(
        [
            table.assign(task_id=f"BabyAI-{name}-v0", mean_lpc=lpc)
            for name, lpc in zip("ABCDEFGHIJKLM", range(20, 20000, 1600), strict=False)
        ]
    )
    figure = plot_success_against_lpc(many, "task_id", measure="failures")
    assert [ax.get_title("left") for ax in figure.axes] == list("ABCDEFGHIJKLM")
    assert all(ax.get_xscale() == "symlog" and ax.yaxis_inverted() for ax in figure.axes)
    assert legend_of(figure) == ["mixture", "GRU baseline"]
    figure.draw_without_rendering()
    inside = figure.bbox.padded(1)
    for text in [*(ax.title for ax in figure.axes), *figure.legends[0].get_texts()]:
        assert inside.contains(*text.get_window_extent().p0) and inside.contains(*text.get_window_extent().p1)
    assert len([value for value in values_of(figure) if "seed" in value]) == len(many) == 65


def test_policies_of_several_tasks_are_no_seeds_of_those_of_one(table):
    """They have a row of their own, and no mean with the others."""
    several = table[table["task_id"] == "BabyAI-Hard-v0"].assign(trained_on="three", success_rate=0.1)
    figure = plot_by_task(pd.concat([table, several]), "success")
    assert texts(figure.axes[0].get_yticklabels()) == ["Hard, by three", "Hard", "Easy"]
    means = [value["mean"] for value in values_of(figure) if "mean" in value]
    assert means == pytest.approx([10, 80])
