"""The colours of experts: which expert has which, and how far apart they are for different eyes."""

import re
from itertools import combinations

import numpy as np
import pytest
from checks import refusal
from matplotlib.colors import to_rgb
from scripts import REPOSITORY

from mop.analysis.cells import compute_confidence
from mop.common.files import figure_bytes
from mop.plotting.style import (
    BASELINE_HUE,
    SIZE_HUES,
    SKIP_HUE,
    UNVISITED_COLOR,
    WALL_COLOR,
    Figure,
    expert_cmap,
    expert_hues,
    expert_names,
    size_hue,
)

# Machado, Oliveira and Fernandes 2009, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# severity 1.0, as in table 1 and on https://www.inf.ufrgs.br/~oliveira/pubs_files/CVD_Simulation/CVD_Simulation.html
SIGHTS = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
LAYERS = (  # of config.yaml, its help texts, documented.yaml, and larger ones
    *((0, size) for size in (8, 16, 64)),
    *((0, 8, 16), (0, 16, 32), (0, 16, 64), (0, 32, 64), (32, 64, 128), (64, 128, 256)),
    *((0, 16, 32, 64), (0, 8, 16, 32), (0, 8, 16, 32, 64), (0, 16, 32, 64, 128), (0, 8, 16, 32, 64, 128)),
)


def seen(colors, sight: str) -> np.ndarray:
    """CIELAB (..., 3), under D65, of sRGB colours (..., 3) as seen with one kind of sight."""
    rgb = np.asarray(colors)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ np.array(SIGHTS[sight]).T
    to_xyz = [[0.4124564, 0.2126729, 0.0193339], [0.3575761, 0.7151522, 0.1191920], [0.1804375, 0.0721750, 0.9503041]]
    xyz = np.clip(linear, 0, 1) @ np.array(to_xyz) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def difference(first, second) -> float:
    """CIEDE2000 of two CIELAB colours, in the steps of Sharma, Wu and Dalal 2005 (Color Research & Application 30)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    chroma_7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(chroma_7 / (chroma_7 + 25.0**7))
    c1, c2 = np.hypot(a1 * stretch, b1), np.hypot(a2 * stretch, b2)
    h1, h2 = np.degrees(np.arctan2((b1, b2), (a1 * stretch, a2 * stretch))) % 360
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    mean_hue = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    waves = ((1, -30, -0.17), (2, 0, 0.24), (3, 6, 0.32), (4, -63, -0.20))
    t = 1 + sum(size * np.cos(np.radians(times * mean_hue + shift)) for times, shift, size in waves)
    l_weight = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    lightness = (l2 - l1) / l_weight
    chroma = (c2 - c1) / (1 + 0.045 * mean_c)
    hue = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2)) / (1 + 0.015 * mean_c * t)
    rotation = -2 * np.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))
    rotation *= np.sin(np.radians(60 * np.exp(-(((mean_hue - 275) / 25) ** 2))))
    return float(np.sqrt(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue))


def test_colour_difference_of_published_pairs():
    pairs = (  # of table 1 of Sharma, Wu and Dalal 2005
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((50, 2.5, 0), (56, -27, -3), 31.9030),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    )
    for first, second, expected in pairs:
        assert difference(first, second) == pytest.approx(expected, abs=1e-4)
        assert difference(second, first) == pytest.approx(expected, abs=1e-4)


def colors_at(sizes, weight: float) -> dict[str, np.ndarray]:
    """RGB of each expert of a layer where its mean weight is the largest."""
    confidence = compute_confidence(weight, len(sizes))
    return {str(size): np.array(expert_cmap(size_hue(size))(confidence)[:3]) for size in sizes}


@pytest.mark.parametrize("sight", SIGHTS)
def test_experts_of_a_layer_can_be_told_apart_also_from_walls_and_the_page(sight):
    num_pairs, others = 0, {"not visited": to_rgb(UNVISITED_COLOR), "wall": to_rgb(WALL_COLOR)}
    for sizes in LAYERS:
        for weight in (0.5, 0.75, 1.0):
            lab = {name: seen(color, sight) for name, color in (colors_at(sizes, weight) | others).items()}
            for first, second in combinations(lab, 2):
                found = difference(lab[first], lab[second])
                assert found >= 15, (sizes, weight, first, second, round(found, 1))
                num_pairs += 1
    assert num_pairs == 3 * sum((len(sizes) + 2) * (len(sizes) + 1) // 2 for sizes in LAYERS)


@pytest.mark.parametrize("sight", SIGHTS)
def test_all_hues_differ_the_baselines_too(sight):
    hues = [SKIP_HUE, *SIZE_HUES.values(), BASELINE_HUE]
    pairs = list(combinations([seen(to_rgb(hue), sight) for hue in hues], 2))
    assert len(pairs) == 28 and min(difference(*pair) for pair in pairs) >= 12


def test_ramps_use_their_range_and_fall_most_at_low_weights():
    for hue in (SKIP_HUE, *SIZE_HUES.values(), BASELINE_HUE):
        ramp = expert_cmap(hue)
        lightness = seen(ramp(np.linspace(0, 1, 11))[:, :3], "normal")[:, 0]
        assert (np.diff(lightness) < 0).all() and lightness[0] - lightness[5] > lightness[5] - lightness[10]
        assert lightness[0] - lightness[-1] > 10
        np.testing.assert_allclose(ramp(1.0)[:3], to_rgb(hue), atol=1e-9)


def of_sizes(*sizes):
    return {"expert_hidden_sizes": [list(of_layer) for of_layer in sizes]}, [np.zeros((1, len(s))) for s in sizes]


def test_a_size_has_one_hue_in_every_layer_and_policy():
    first, second = expert_hues(*of_sizes((0, 16, 32), (64, 32)))
    assert first[2] == second[1] == size_hue(32) and first[0] == SKIP_HUE and second[0] == size_hue(64)
    sizes = {*range(65), *range(72, 1025, 8)}
    assert len({size_hue(size) for size in sizes}) == len(sizes) == 185
    assert size_hue(48) == size_hue(48)


def test_the_baseline_has_a_hue_and_a_name_of_its_own():
    header, layers = of_sizes((64,))
    for known in ({}, {"policy": "gru"}):
        assert expert_hues(header | known, layers) == [[BASELINE_HUE]]
        assert expert_names(header | known, layers) == [["baseline GRU 64"]]
    mixture = header | {"policy": "mop"}
    assert expert_hues(mixture, layers) == [[size_hue(64)]] and expert_names(mixture, layers) == [["GRU 64"]]


def test_experts_of_one_size_are_letters_and_ever_darker():
    header, layers = of_sizes((0, 32, 32, 32))
    assert expert_names(header, layers) == [["skip (size 0)", "GRU 32a", "GRU 32b", "GRU 32c"]]
    (hues,) = expert_hues(header, layers)
    assert hues[:2] == [SKIP_HUE, size_hue(32)] and len(set(hues)) == 4
    assert (np.diff([sum(to_rgb(hue)) for hue in hues[1:]]) < 0).all()


def test_experts_without_sizes_have_hues_however_many_they_are():
    layers = [np.zeros((1, 2)), np.zeros((1, 20))]
    two, twenty = expert_hues({}, layers)
    assert two == list(SIZE_HUES.values())[:2] == twenty[:2] and len(set(twenty)) == 20
    assert expert_names({}, layers)[1][19] == "expert 19"


def test_sizes_that_do_not_fit_are_one_clear_sentence():
    header, _ = of_sizes((0, 16))
    for function in (expert_hues, expert_names):
        refusal(function, header, [np.zeros((1, 3))])


@pytest.mark.parametrize("name", ["a$^$b", r"$\foo{$ x", "$x$", r"a\$b"])
def test_no_name_begins_a_formula(name):
    figure = Figure(layout="constrained")
    ax = figure.subplots()
    figure.suptitle(name)
    ax.set_title(name)
    ax.set_xticks([0.5], [name])
    ax.plot([0, 1], label=name)
    ax.legend()
    ax.text(0, 0, name)
    assert figure_bytes(figure, "svg").decode().count(name) == 5


def test_every_figure_is_one_without_formulas():
    """Whoever makes a figure takes the class of mop/plotting/style.py, not that of matplotlib."""
    makers = [
        path
        for folder in ("mop", "lmc_rl", "generative", "studies", "benchmarks", "docs")
        for path in (REPOSITORY / folder).rglob("*.py")
        if re.search(r"\bFigure\(|\(Figure\)|pyplot", path.read_text().split('"""', 2)[-1]) and path.name != "style.py"
    ]
    assert len(makers) >= 10
    assert [path for path in makers if "from matplotlib.figure import Figure" in path.read_text()] == []
    assert [path for path in makers if "pyplot" in path.read_text()] == []
