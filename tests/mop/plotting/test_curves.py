"""The contents of figures about runs, against tables made by hand."""

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from figure_contents import texts

from mop.plotting.curves import plot_curves_by, plot_training_curve


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
    assert "no loss" in refusal(plot_curves_by, pd.DataFrame(rows), "setting", "loss")
    assert "no rows" in refusal(plot_curves_by, pd.DataFrame(rows).iloc[:0], "setting", "accuracy")


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


def test_legends_cover_no_line(log):
    """Legends stand above the axes and below the title, inside the figure, whatever the number of layers."""
    count = 0
    for num_layers in (4, 7):
        layers = {f"skip_share_{layer}": np.linspace(0, 1, 4) for layer in range(num_layers)}
        figure = plot_training_curve(log.assign(**layers), title="title")
        figure.draw_without_rendering()
        for ax in figure.axes:
            if (legend := ax.get_legend()) is None:
                continue
            box, title = legend.get_window_extent(), ax._left_title.get_window_extent()
            assert box.y0 >= ax.get_window_extent().y1 - 1 and title.y0 >= box.y1 - 1
            assert box.x1 <= figure.bbox.x1 and title.y1 <= figure.bbox.y1
            count += 1
            if "skip" in ax.get_title(loc="left"):
                assert sorted(texts(legend.get_texts())) == [f"layer {layer}" for layer in range(num_layers)]
    assert count == 2 * 2


def test_the_log_of_any_run_has_a_panel_for_each_column_beside_its_held_out_namesake():
    columns = {"update": [1, 2], "seconds": [1.0, 2.0], "val_loss": [9.5, 5.0], "loss": [9.0, 4.0], "val_exact": [0, 1]}
    figure = plot_training_curve(pd.DataFrame(columns))
    assert titles(figure) == ["loss", "val exact"] and figure.axes[0].get_xlabel() == "update"
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["val loss"].get_ydata().tolist() == [9.5, 5.0] and lines["loss"].get_xdata().tolist() == [1, 2]
    assert titles(plot_training_curve(pd.DataFrame(columns), only=["loss"])) == ["loss"]
    of_agent = plot_training_curve(pd.DataFrame({"timesteps": [8, 16], "update": [1, 2], "kl": [0.5, 0.25]}))
    assert titles(of_agent) == ["kl"] and of_agent.axes[0].lines[0].get_xdata().tolist() == [8, 16]


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


def test_logs_without_anything_to_draw_say_so(log):
    assert "env_steps" in refusal(plot_training_curve, log.drop(columns=["env_steps", "update"]))
    for nothing in (log.iloc[:0], log[["update", "env_steps"]], log.assign(env_steps=np.nan)):
        refusal(plot_training_curve, nothing)
