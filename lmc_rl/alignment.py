"""Symmetries of a pathways policy: other weights that compute the same, and the nearest of them to another policy.

A barrier between two policies means little if one of them has the other's hidden units in another order. What can
change without any change of the function:

    units    of each GRU, by a permutation P and signs S. tanh is odd, so the state may be S P h: candidate rows,
             columns of the state and read-outs take S P; reset and update gates take P alone, as they are not odd.
    experts  of equal size in a layer, with their rows of the router's read-out.
    streams  the basis of what runs between the layers: W_in -> Q W_in, W_ih -> W_ih Q', projections -> Q W,
             head -> W Q'. A skip ties what enters a layer to what leaves it. Q is orthogonal, so that distances stay
             what they are; with LayerNorm it is a permutation, because the norm sees each number of its own.
    mission  the basis of the projected mission. Where the projection is the same at both ends (frozen), it stays.

Weight matching (Ainsworth et al. 2023, arXiv 2209.04836; signs as in docs/lmc.md): the inner product with the other
policy's weights is linear in each of these but the units, where W_hh has them on both sides; so its gradient by one of
them is what a linear assignment, or Procrustes for a basis, maximises. A step that lowers the inner product is undone.
Two starts, the identity and a match from the inputs onwards, give two results, of which the nearer one is taken.
A constant added to a router's read-out would be a symmetry too; it changes nothing on a line and is left alone.
Axis letters: D width, H units of a GRU, E experts of a layer.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import reduce

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lmc_rl.interpolation import Weights, check_same_shapes, distance

MISSION = "lang_proj."  # of the names of the mission projection's weights, next to those of the policy
_MAX_ROUNDS = 50  # of the coordinate ascent; it stops earlier, when nothing gets nearer
_GAIN = 1e-7  # a step must gain this share of the inner product
_GRU_WEIGHTS = ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0", "weight_hh_l0")


class PolicyStructure:
    """The structure of a policy, from names and shapes of its weights: GRUs, experts, and tied streams."""

    def __init__(self, weights: Weights):
        self.width, inputs = weights["input_projection.weight"].shape
        self.lang_dim = len(weights[f"{MISSION}weight"])
        self.num_obs = inputs - self.lang_dim
        self.units = {  # name of each GRU -> H
            name.removesuffix(".weight_hh_l0"): value.shape[1]
            for name, value in weights.items()
            if name.endswith(".weight_hh_l0")
        }
        self.has_norm = "moe_layers.0.norm.weight" in weights
        self.sizes: list[list[int]] = []  # of each layer's experts, 0 = skip; none of the baseline
        while (name := f"moe_layers.{len(self.sizes)}.router.fc.bias") in weights:
            grus = [self.expert(len(self.sizes), e) + ".gru" for e in range(len(weights[name]))]
            self.sizes.append([self.units.get(gru, 0) for gru in grus])
        self.stream_of = [0]  # number of the stream before each layer, and behind the last
        for sizes in self.sizes:
            is_tied = self.has_norm or 0 in sizes
            self.stream_of.append(self.stream_of[-1] + (not is_tied))

    @staticmethod
    def expert(layer: int, expert: int) -> str:
        """How the names of an expert's weights begin."""
        return f"moe_layers.{layer}.experts.{expert}"


@dataclass
class Symmetry:
    """One symmetry of a policy; all matrices are float64."""

    mission: Tensor  # (G, G)
    streams: list[Tensor]  # (D, D) of each
    units: dict[str, tuple[Tensor, Tensor]]  # name of each GRU -> P and S P (H, H)
    experts: list[list[int]]  # of each layer: number of the expert that takes this place

    @classmethod
    def identity(cls, structure: PolicyStructure) -> "Symmetry":
        """The one that changes nothing."""
        return cls(
            _eye(structure.lang_dim),
            [_eye(structure.width) for _ in range(structure.stream_of[-1] + 1)],
            {gru: (_eye(size), _eye(size)) for gru, size in structure.units.items()},
            [list(range(len(sizes))) for sizes in structure.sizes],
        )

    @classmethod
    def random(cls, structure: PolicyStructure, seed: int) -> "Symmetry":
        """One drawn at random: any units, signs, experts of equal size, and bases."""
        rng = torch.Generator().manual_seed(seed)

        def permutation(size: int) -> Tensor:
            return _eye(size)[torch.randperm(size, generator=rng)]

        def basis(size: int) -> Tensor:
            return torch.linalg.qr(torch.randn(size, size, generator=rng, dtype=torch.float64))[0]

        self = cls.identity(structure)
        self.mission = basis(structure.lang_dim)
        self.streams = [(permutation if structure.has_norm else basis)(structure.width) for _ in self.streams]
        for gru, size in structure.units.items():
            signs = torch.randint(2, (size, 1), generator=rng) * 2.0 - 1.0
            self.units[gru] = (p := permutation(size), signs * p)
        for order, sizes in zip(self.experts, structure.sizes, strict=True):
            for size in set(sizes):
                places = [e for e, other in enumerate(sizes) if other == size]
                for place, k in zip(places, torch.randperm(len(places), generator=rng).tolist(), strict=True):
                    order[place] = places[k]
        return self


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def transformed(weights: Weights, symmetry: Symmetry, structure: PolicyStructure) -> dict[str, Tensor]:
    """The weights (float64) after a symmetry; the policy computes what it did."""
    streams, out = [symmetry.streams[number] for number in structure.stream_of], {}

    def move_gru(to: str, source: str, stream: Tensor) -> Tensor:
        permutation, signed = symmetry.units[to]

        def rows(value: Tensor) -> Tensor:
            gates = zip((permutation, permutation, signed), value.chunk(3), strict=True)
            return torch.cat([matrix @ gate for matrix, gate in gates])

        for name in _GRU_WEIGHTS:
            out[f"{to}.{name}"] = rows(weights[f"{source}.{name}"])
        out[f"{to}.weight_ih_l0"] = out[f"{to}.weight_ih_l0"] @ stream.T
        out[f"{to}.weight_hh_l0"] = out[f"{to}.weight_hh_l0"] @ signed.T
        return signed

    def move_outputs(to: str, source: str, basis: Tensor) -> None:
        for name in ("weight", "bias"):
            out[f"{to}.{name}"] = basis @ weights[f"{source}.{name}"]

    of_obs, of_mission = weights["input_projection.weight"].tensor_split([structure.num_obs], 1)
    move_outputs("input_projection", "input_projection", streams[0])
    out["input_projection.weight"] = streams[0] @ torch.cat([of_obs, of_mission @ symmetry.mission.T], 1)
    move_outputs("lang_proj", "lang_proj", symmetry.mission)
    for layer, order in enumerate(symmetry.experts):
        router = f"moe_layers.{layer}.router"
        signed = move_gru(f"{router}.gru", f"{router}.gru", streams[layer])
        out[f"{router}.fc.weight"] = weights[f"{router}.fc.weight"][order] @ signed.T
        out[f"{router}.fc.bias"] = weights[f"{router}.fc.bias"][order]
        for place, own in enumerate(order):
            if structure.sizes[layer][place] > 0:
                to, source = structure.expert(layer, place), structure.expert(layer, own)
                signed = move_gru(f"{to}.gru", f"{source}.gru", streams[layer])
                move_outputs(f"{to}.projection", f"{source}.projection", streams[layer + 1])
                out[f"{to}.projection.weight"] = out[f"{to}.projection.weight"] @ signed.T
        if structure.has_norm:
            move_outputs(f"moe_layers.{layer}.norm", f"moe_layers.{layer}.norm", streams[layer + 1])
    read = streams[-1] if structure.sizes else move_gru("gru", "gru", streams[0])
    out["head.weight"], out["head.bias"] = weights["head.weight"] @ read.T, weights["head.bias"]
    return out


# --- matching -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alignment:
    """A policy aligned with another."""

    weights: dict[str, Tensor]  # of the second, aligned, in the dtypes that it had
    symmetry: Symmetry
    distance_before: float
    distance_after: float

    def summary(self) -> dict:
        """What moved: share of hidden units at another place or with another sign, experts, rotation of the bases.

        A rotation is the root mean square of what a basis does to a unit vector along an axis, from 0 to 2.
        """
        kept = torch.cat([signed.diagonal() == 1 for _, signed in self.symmetry.units.values()])
        return {
            "distance_before": self.distance_before,
            "distance_after": self.distance_after,
            "moved_units": 1 - kept.double().mean().item(),
            "moved_experts": sum(own != place for order in self.symmetry.experts for place, own in enumerate(order)),
            "stream_turn": max(map(_rotation_angle, self.symmetry.streams)),
            "mission_turn": _rotation_angle(self.symmetry.mission),
        }


def _rotation_angle(basis: Tensor) -> float:
    return float(torch.linalg.matrix_norm(basis - _eye(len(basis))) / len(basis) ** 0.5)


def align(first: Weights, second: Weights) -> Alignment:
    """Find a symmetry of the second policy that brings its weights near to the first.

    first, second: of `learners.imitation.load_pathways`.
    """
    check_same_shapes(first, second)
    match = _Match(first, second)
    best = match.from_inputs()
    if not match.is_perfect(best):  # else it is a transformed copy, and nothing is nearer
        best = max(match.climb(Symmetry.identity(match.structure)), match.climb(best), key=match.inner_product)
    moved = transformed(match.second, best, match.structure)
    weights = {name: moved[name].to(value.dtype) for name, value in second.items()}
    return Alignment(weights, best, distance(first, second), distance(match.first, moved))


class _Match:
    """Two policies, and how near a symmetry of the second brings it to the first."""

    def __init__(self, first: Weights, second: Weights):
        self.structure = PolicyStructure(first)
        self.first = {name: value.double() for name, value in first.items()}
        self.second = {name: value.double() for name, value in second.items()}
        self.is_frozen = torch.equal(first[f"{MISSION}weight"], second[f"{MISSION}weight"])

    def inner_product(self, symmetry: Symmetry, names: Collection[str] | None = None) -> Tensor:
        """Of the first policy's weights with the transformed ones of the second; names: only of these weights."""
        moved = transformed(self.second, symmetry, self.structure)
        names = moved if names is None else names
        return reduce(torch.add, [(self.first[name] * moved[name]).sum() for name in names])

    def is_perfect(self, symmetry: Symmetry) -> bool:
        """Whether the inner product is as large as that of any weights of these norms."""
        norms = (
            reduce(torch.add, [value.square().sum() for value in own.values()]) for own in (self.first, self.second)
        )
        return bool(self.inner_product(symmetry) > (1 - 1e-12) * reduce(torch.mul, norms).sqrt())

    def climb(self, symmetry: Symmetry) -> Symmetry:
        """Better one basis, then the units of one GRU after the other, until nothing gets nearer."""
        for _ in range(_MAX_ROUNDS):
            before = symmetry
            symmetry = self.better_mission(symmetry)
            for number in range(len(symmetry.streams)):
                symmetry = self.better_stream(symmetry, number)
            for gru in symmetry.units:
                symmetry = self.better_units(symmetry, gru)
            if symmetry is before:
                break
        return symmetry

    def from_inputs(self) -> Symmetry:
        """A match made from the inputs onwards: each by what ties it to what is matched already."""
        symmetry, structure = Symmetry.identity(self.structure), self.structure
        symmetry = self.better_mission(symmetry, [f"{MISSION}weight", f"{MISSION}bias"])
        symmetry = self.better_stream(symmetry, 0, ["input_projection.weight", "input_projection.bias"])
        if not structure.sizes:
            return self._match_gru(symmetry, "gru")
        for layer, sizes in enumerate(structure.sizes):
            symmetry = self._match_gru(symmetry, f"moe_layers.{layer}.router.gru")
            symmetry = self._match_experts(symmetry, layer)
            if structure.stream_of[layer + 1] != structure.stream_of[layer]:
                real = [structure.expert(layer, e) for e, size in enumerate(sizes) if size > 0]
                names = [f"{name}.projection.{kind}" for name in real for kind in ("weight", "bias")]
                symmetry = self.better_stream(symmetry, structure.stream_of[layer + 1], names)
        return symmetry

    def _match_gru(self, symmetry: Symmetry, gru: str) -> Symmetry:
        """Match by inputs and biases first, as W_hh is uninformative before units are matched; then by all."""
        names = [f"{gru}.{name}" for name in _GRU_WEIGHTS]
        return self.better_units(self.better_units(symmetry, gru, names[:-1]), gru, names)

    def _match_experts(self, symmetry: Symmetry, layer: int) -> Symmetry:
        """The experts of a layer among those of equal size, then their units."""
        sizes, fc = self.structure.sizes[layer], f"moe_layers.{layer}.router.fc"
        read = transformed(self.second, symmetry, self.structure)
        ours, theirs = (weights[f"{fc}.weight"] for weights in (self.first, read))
        scores = ours @ (theirs - theirs.mean(0)).T  # a constant in all rows changes nothing
        matched = {}
        for place, size in enumerate(sizes):
            gru = self.structure.expert(layer, place) + ".gru"
            for own in (e for e, other in enumerate(sizes) if other == size > 0):
                order = [own if e == place else e for e in range(len(sizes))]
                experts = [order if k == layer else old for k, old in enumerate(symmetry.experts)]
                found = self._match_gru(replace(symmetry, experts=experts), gru)
                matched[place, own] = found.units[gru]
                scores[place, own] += self.inner_product(found, [f"{gru}.{name}" for name in _GRU_WEIGHTS])
        is_equal = torch.tensor([[ours == theirs for theirs in sizes] for ours in sizes])
        _, order = linear_sum_assignment(scores.where(is_equal, -1e9).numpy(), maximize=True)
        experts = [order.tolist() if k == layer else old for k, old in enumerate(symmetry.experts)]
        units = {self.structure.expert(layer, p) + ".gru": matched[p, o] for p, o in enumerate(order) if sizes[p] > 0}
        return replace(symmetry, experts=experts, units=symmetry.units | units)

    def better_mission(self, symmetry: Symmetry, names: Collection[str] | None = None) -> Symmetry:
        """With a better basis of the mission, if there is one."""
        if self.is_frozen:
            return symmetry
        (slope,) = self._slopes(symmetry, [symmetry.mission], names)
        return self._nearer(symmetry, replace(symmetry, mission=_rotation(slope)), names)

    def better_stream(self, symmetry: Symmetry, number: int, names: Collection[str] | None = None) -> Symmetry:
        """With a better basis of a stream, if there is one."""
        (slope,) = self._slopes(symmetry, [symmetry.streams[number]], names)
        stream = _permutation(slope) if self.structure.has_norm else _rotation(slope)
        streams = [stream if k == number else old for k, old in enumerate(symmetry.streams)]
        return self._nearer(symmetry, replace(symmetry, streams=streams), names)

    def better_units(self, symmetry: Symmetry, gru: str, names: Collection[str] | None = None) -> Symmetry:
        """With a better order and better signs of a GRU's units, if there are any."""
        while True:
            plain, signed = self._slopes(symmetry, symmetry.units[gru], names)
            permutation = _permutation(plain + signed.abs())
            signs = torch.where(signed < 0, -1.0, 1.0).double() * permutation
            units = symmetry.units | {gru: (permutation, signs)}
            nearer = self._nearer(symmetry, replace(symmetry, units=units), names)
            if nearer is symmetry:
                return symmetry
            symmetry = nearer

    def _slopes(self, symmetry: Symmetry, matrices, names: Collection[str] | None) -> list[Tensor]:
        """The gradient of the inner product by some of the matrices of a symmetry."""
        for matrix in matrices:
            matrix.requires_grad_()
        slopes = torch.autograd.grad(self.inner_product(symmetry, names), matrices, allow_unused=True)
        for matrix in matrices:
            matrix.requires_grad_(False)
        return [torch.zeros_like(m) if s is None else s for m, s in zip(matrices, slopes, strict=True)]

    def _nearer(self, old: Symmetry, new: Symmetry, names: Collection[str] | None) -> Symmetry:
        before, after = self.inner_product(old, names), self.inner_product(new, names)
        return new if after > before + _GAIN * before.abs() else old


def _rotation(slope: Tensor) -> Tensor:
    """The orthogonal matrix with the largest inner product with `slope` (Procrustes, Schönemann 1966)."""
    left, _, right = torch.linalg.svd(slope)
    return left @ right


def _permutation(scores: Tensor) -> Tensor:
    """The permutation matrix with the largest inner product with `scores`."""
    rows, columns = linear_sum_assignment(scores.numpy(), maximize=True)
    matrix = torch.zeros_like(scores)
    matrix[rows, columns] = 1.0
    return matrix
