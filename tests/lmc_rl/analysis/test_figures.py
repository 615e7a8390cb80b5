"""What figures of forks show: room for early forks and little losses, and why something is missing."""

import numpy as np
from figure_contents import texts

from lmc_rl.analysis.lost_figures import beside, fork_axis, lost_axis
from mop.plotting.panels import explain
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


def test_what_is_missing_is_said():
    ax = Figure().subplots()
    explain(ax, "5 of 6 not shown")
    assert texts(ax.texts) == ["5 of 6 not shown"]
