"""What figures of forks show: room for early forks and little losses, and why something is missing."""

from dataclasses import replace

import numpy as np
from figure_contents import texts
from lmc_files import write_experiment

from lmc_rl.analysis.lost_figures import NONE_LEARNED, beside, fork_axis, lost_axis, plot_instability
from lmc_rl.analysis.results import load_experiment, pooled_groups
from mop.plotting.style import Figure


def shares(axis_values, transform, column):
    """Where values lie on an axis, as shares of it."""
    points = np.zeros((len(axis_values), 2))
    points[:, column] = axis_values
    return transform.transform(points)[:, column]


def test_early_forks_and_little_losses_have_room():
    ax = Figure().subplots()
    fork_axis(ax)
    lost_axis(ax, 1.5)
    to_axes = ax.transData + ax.transAxes.inverted()
    zero, two, five, ten, half, end = shares([0, 0.02, 0.05, 0.1, 0.5, 1], to_axes, 0)
    assert 0 < zero < 0.1 and two - zero > 0.1 and five - two > 0.1 and ten - five > 0.1 and end - half < 0.2
    assert end <= 1 and [label.get_text() for label in ax.get_xticklabels()][:3] == ["0", "2", "5"]
    none, tolerance, all_of_it = shares([0, 0.05, 1], to_axes, 1)
    assert 0 < none < 0.1 and tolerance - none > 0.2 and all_of_it < 1


def test_markers_beside_a_fork_are_as_far_from_it_everywhere():
    ax = Figure().subplots()
    fork_axis(ax)
    to_axes = ax.transData + ax.transAxes.inverted()
    for fraction in (0.0, 0.05, 0.9):
        place, left, right = shares([fraction, beside(fraction, -0.02), beside(fraction, 0.02)], to_axes, 0)
        np.testing.assert_allclose([place - left, right - place], 0.02 / 1.04, atol=1e-3)


def test_forks_that_did_not_learn_are_said_to_be_missing(tmp_path):
    """In the legend where some are, in the picture where all are."""
    whole = load_experiment(write_experiment(tmp_path))

    def drawn(*unlearned: str):
        lines = [better_by_chance(line) if line.origin in unlearned else line for line in whole.lines]
        figure = plot_instability(pooled_groups([replace(whole, lines=tuple(lines))]))
        return texts(figure.legends[0].get_texts()), " ".join(texts(figure.axes[0].texts)).replace("\n", " ")

    legend, said = drawn("0")
    assert "chord barrier B; 3 of 4 forks learned" in legend and said == ""
    legend, said = drawn("0", "1", "2", "3", "independent", "self")
    assert "instability I; 0 of 4 forks learned" in legend and said == NONE_LEARNED


def better_by_chance(line):
    """The line with ends that are worse than a policy that acts at random."""
    return replace(line, profiles={name: replace(own, chance=1e6) for name, own in line.profiles.items()})
