"""Symmetries of pathways policies: they keep the function, and alignment finds them again."""

import pytest
import torch
from torch import nn

from lmc_rl.alignment import MISSION, PolicyStructure, Symmetry, align, transformed
from lmc_rl.learners.imitation import as_checkpoint
from mixture_of_experts import Film, GRUPolicy, MixtureOfExpertsPolicy, WordProjection

FILM = dict(obs_encoding="one_hot", film=Film(cell_dim=12, num_features=5))
POLICIES = {
    "skips": lambda: MixtureOfExpertsPolicy(intermediate_dim=24, lang_dim=6, router_hidden_size=16),
    "norm": lambda: MixtureOfExpertsPolicy(intermediate_dim=24, lang_dim=6, router_hidden_size=16, residual=True),
    "equal experts, no skip between": lambda: MixtureOfExpertsPolicy(
        intermediate_dim=24, lang_dim=6, router_hidden_size=16, expert_hidden_sizes=[[8, 8, 0, 0], [12, 12], [0, 4, 4]]
    ),
    "baseline": lambda: GRUPolicy(intermediate_dim=24, lang_dim=6, gru_hidden_size=16),
    "film": lambda: MixtureOfExpertsPolicy(
        intermediate_dim=24, lang_dim=6, router_hidden_size=16, expert_hidden_sizes=[[0, 8, 8], [12, 4]], **FILM
    ),
    "film, norm": lambda: MixtureOfExpertsPolicy(
        intermediate_dim=24, lang_dim=6, router_hidden_size=16, residual=True, **FILM
    ),
    "film, words": lambda: MixtureOfExpertsPolicy(intermediate_dim=24, lang_dim=6, router_hidden_size=16, **FILM),
    "film, baseline": lambda: GRUPolicy(intermediate_dim=24, lang_dim=6, gru_hidden_size=16, **FILM),
}


def random_policy(name: str, seed: int = 0) -> tuple[nn.Module, nn.Linear, dict]:
    """An untrained policy, its mission projection, and a copy of their weights, float64."""
    torch.manual_seed(seed)
    policy = POLICIES[name]().double()
    mission = (WordProjection(33, 20, 6, width=12, num_heads=3) if "words" in name else nn.Linear(20, 6)).double()
    named = {**policy.state_dict(), **{f"{MISSION}{key}": value for key, value in mission.state_dict().items()}}
    return policy, mission, {key: value.clone() for key, value in named.items()}


@torch.no_grad()
def logits(name: str, weights: dict) -> torch.Tensor:
    """What the plain equations answer to a fixed sequence, (T, N, A)."""
    policy, mission, _ = random_policy(name)
    checkpoint = as_checkpoint({}, weights)
    policy.load_state_dict(checkpoint["policy_state_dict"])
    mission.load_state_dict(checkpoint["lang_proj_state_dict"])
    torch.manual_seed(1)
    obs, missions = torch.randn(10, 4, 152).double(), torch.randn(10, 4, 20).double()
    if "words" in name:
        missions = torch.randint(1, 34, (10, 4, 20)) * (torch.arange(20) < torch.randint(4, 20, (10, 4, 1)))
    lang = mission(missions.flatten(0, 1)).unflatten(0, (10, 4))
    if policy.obs_encoding == "one_hot":
        obs[..., :147] = torch.randint(3, (10, 4, 147)).double()
    return policy.forward_encoded(policy.encode(obs, lang), policy.initial_hidden(4).double())[0]


def middle(first: dict, second: dict) -> dict:
    return {key: torch.lerp(value, second[key], 0.5) for key, value in first.items()}


def random_symmetry(structure: PolicyStructure, seed: int) -> Symmetry:
    """One drawn at random: any units, signs, scales, experts of equal size, and bases."""
    rng = torch.Generator().manual_seed(seed)

    def permutation(size: int) -> torch.Tensor:
        return torch.eye(size, dtype=torch.float64)[torch.randperm(size, generator=rng)]

    def basis(size: int) -> torch.Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=rng, dtype=torch.float64))[0]

    found = Symmetry.identity(structure)
    found.mission = basis(structure.lang_dim)
    found.words = basis(structure.word_dim)
    found.streams = [(permutation if structure.has_norm else basis)(structure.width) for _ in found.streams]
    for gru, size in structure.units.items():
        signs = torch.randint(2, (size, 1), generator=rng) * 2.0 - 1.0
        found.units[gru] = (p := permutation(size), signs * p)
    for order, sizes in zip(found.experts, structure.sizes, strict=True):
        for size in set(sizes):
            places = [e for e, other in enumerate(sizes) if other == size]
            for place, k in zip(places, torch.randperm(len(places), generator=rng).tolist(), strict=True):
                order[place] = places[k]
    for part, size in structure.front.items():
        p = permutation(size)
        scales = [torch.randn(size, 1, generator=rng, dtype=torch.float64).div(2).exp() for _ in found.front[part]]
        if part == "cells":
            scales[0] *= torch.randint(2, (size, 1), generator=rng) * 2 - 1
        if part == "heads":
            scales = [torch.ones(1)]
        found.front[part] = tuple(scale * p for scale in scales)
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_a_symmetry_keeps_the_function_and_alignment_undoes_it(name):
    """The line to a transformed copy leaves the function; the line to the aligned copy does not."""
    _, _, weights = random_policy(name)
    expected = logits(name, weights)
    symmetry = random_symmetry(PolicyStructure(weights), seed=3)
    other = transformed(weights, symmetry, PolicyStructure(weights))
    assert other.keys() == weights.keys()
    assert (logits(name, other) - expected).abs().max() < 1e-10
    assert (logits(name, middle(weights, other)) - expected).abs().max() > 0.01
    found = align(weights, other)
    assert found.distance_before > 5 and found.distance_after < 1e-4
    for place in (middle(weights, found.weights), found.weights):
        assert (logits(name, place) - expected).abs().max() < 1e-10
    if name.startswith("equal"):
        assert found.summary()["moved_experts"] > 0


def test_signs_move_candidates_and_states_alone():
    """One unit with the other sign, by hand: gates keep their rows, candidate, state and read-out change sign."""
    _, _, weights = random_policy("skips")
    symmetry, gru = Symmetry.identity(PolicyStructure(weights)), "moe_layers.0.router.gru"
    sign = torch.eye(16, dtype=torch.float64)
    sign[2, 2] = -1
    symmetry.units[gru] = (torch.eye(16, dtype=torch.float64), sign)
    moved = transformed(weights, symmetry, PolicyStructure(weights))
    rows = [16 * 2 + 2]  # of the candidate gate
    kept = [row for row in range(48) if row not in rows]
    for key in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
        assert torch.equal(moved[f"{gru}.{key}"][kept], weights[f"{gru}.{key}"][kept])
        assert torch.equal(moved[f"{gru}.{key}"][rows], -weights[f"{gru}.{key}"][rows])
    fc = "moe_layers.0.router.fc.weight"
    assert torch.equal(moved[fc][:, 2], -weights[fc][:, 2]) and torch.equal(moved[fc][:, 3], weights[fc][:, 3])
    changed = {key for key, value in moved.items() if not torch.equal(value, weights[key])}
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    assert changed == {fc, *(f"{gru}.{key}" for key in names)}


def test_a_copy_is_aligned_as_it_is_and_a_frozen_mission_stays():
    for name in ("film", "skips"):
        _, _, weights = random_policy(name)
        found = align(weights, {key: value.clone() for key, value in weights.items()}).summary()
        assert found == {name: 0 for name in found}
    _, _, other = random_policy("skips", seed=1)
    other |= {key: weights[key].clone() for key in weights if key.startswith(MISSION)}
    found = align(weights, other)
    assert found.summary()["mission_turn"] == 0 and 0 < found.distance_after < found.distance_before
    assert (logits("skips", found.weights) - logits("skips", other)).abs().max() < 1e-10


@pytest.mark.parametrize("name", ["film", "film, baseline"])
def test_different_film_policies_come_nearer_and_stay_what_they_are(name):
    """Also where the second has other scales of its features, which its distance then does not show."""
    _, _, weights = random_policy(name)
    _, _, other = random_policy(name, seed=1)
    near = align(weights, other)
    assert near.distance_after < near.distance_before - 1 and near.summary()["moved_front_units"] > 0
    symmetry = Symmetry.identity(PolicyStructure(other))
    symmetry.front["features"] = (0.2 * symmetry.front["features"][0],)
    found = align(weights, transformed(other, symmetry, PolicyStructure(other)))
    assert found.distance_before > near.distance_before + 5 > found.distance_after + 5
    for aligned in (near, found):
        assert (logits(name, aligned.weights) - logits(name, other)).abs().max() < 1e-10


def test_a_cell_of_a_film_policy_has_two_scales_and_one_sign():
    """By hand: the embedding by t, 1 + gamma by s / t, beta by s, the features' column by 1 / s, and nothing else."""
    _, _, weights = random_policy("film")
    symmetry, inputs = Symmetry.identity(PolicyStructure(weights)), "input_projection"
    embedding, shift = (matrix.clone() for matrix in symmetry.front["cells"])
    embedding[2, 2], shift[2, 2] = -4, 2
    symmetry.front["cells"] = (embedding, shift)
    moved = transformed(weights, symmetry, PolicyStructure(weights))
    expected = {key: value.clone() for key, value in weights.items()}
    expected[f"{inputs}.cells.weight"][2] *= -4
    expected[f"{inputs}.film.weight"][2] *= -0.5
    expected[f"{inputs}.film.bias"][2] = -0.5 * (1 + weights[f"{inputs}.film.bias"][2]) - 1
    expected[f"{inputs}.film.weight"][12 + 2] *= 2
    expected[f"{inputs}.film.bias"][12 + 2] *= 2
    expected[f"{inputs}.features.weight"][:, 2] /= 2
    for key, value in expected.items():
        assert (moved[key] - value).abs().max() < 1e-15, key
