"""The colours of experts, as different eyes see them."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from mop.plotting.style import EXPERT_CMAPS, UNVISITED_COLOR

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
