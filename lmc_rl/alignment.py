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
    cells    the units of a `FilmProjection`'s embedding e, by a permutation and two scales of each: any t != 0 of e,
             s / t of 1 + gamma, s > 0 of beta, 1 / s of the features' columns, as relu(s a) = s relu(a).
    features of a `FilmProjection`, by a permutation and a scale r > 0 of each; their columns of the output by 1 / r.
    words    the basis of a `WordProjection`'s words and places; its units `near`, as features are; its heads' order.

Weight matching (Ainsworth et al. 2023, arXiv 2209.04836; signs as in docs/lmc.md): the inner product with the other
policy's weights is linear in each of these but the units, where W_hh has them on both sides; so its gradient by one of
them is what a linear assignment, or Procrustes for a basis, maximises. Cells and features change norms too: ratios of
norms give the scales of each pair in closed form, and an assignment takes the nearest pairs. A step of the ascent that
does not lower the distance is undone. Two starts, the identity and a match from the inputs onwards, give two results,
of which the nearer one is taken. A constant added to a router's read-out would be a symmetry too, and one moved between
the embeddings of types, colours and states; they change nothing on a line and are left alone.
Axis letters: D width, H units of a GRU, E experts of a layer, G numbers of a mission, C of a cell's embedding, F of its
features; N units of a part of the film, K blocks of their weights, S scales.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lmc_rl.interpolation import Weights, check_same_shapes, distance
from mixture_of_experts import NUM_CELLS

MISSION = "lang_proj."  # of the names of the mission projection's weights, next to those of the policy
_MAX_ROUNDS = 50  # of the coordinate ascent; it stops earlier, when nothing gets nearer
_GAIN = 1e-7  # a step must gain this share of the nearness
_INPUT = "input_projection"
_POWERS = {  # (K, S): exponents of a unit's scales in each block of its weights, as `_front_blocks` has them
    "cells": [[1, 0], [-1, 1], [0, 1], [0, -1]],  # t, s / t, s, 1 / s
    "features": [[1], [-1]],  # r, 1 / r
    "near": [[1], [-1]],
    "heads": [[0], [0]],
}
_OF_WORDS = ("near", "heads")  # parts of a `WordProjection`; the others are of a `FilmProjection`
_GRU_WEIGHTS = ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0", "weight_hh_l0")


Blocks = Sequence[Tensor | int]  # of a block-diagonal matrix; a number is the size of an identity


class PolicyStructure:
    """The structure of a policy, from names and shapes of its weights: front, GRUs, experts, and tied streams."""

    def __init__(self, weights: Weights):
        is_film = f"{_INPUT}.cells.weight" in weights
        self.has_words = f"{MISSION}words.weight" in weights
        parts = {"cells": f"{_INPUT}.cells", "features": f"{_INPUT}.features"} if is_film else {}
        parts |= {"near": f"{MISSION}near", "heads": f"{MISSION}ask"} if self.has_words else {}
        self.front = {part: len(weights[f"{name}.weight"]) for part, name in parts.items()}  # number of units of each
        self.mission = f"{MISSION}output" if self.has_words else MISSION.removesuffix(".")  # the map that gives `lang`
        self.word_dim = weights[f"{MISSION}words.weight"].shape[1] if self.has_words else 0
        self.reader = f"{_INPUT}.output" if is_film else _INPUT  # the linear map that gives the first stream
        self.width, inputs = weights[f"{self.reader}.weight"].shape
        self.lang_dim = len(weights[f"{self.mission}.weight"])
        self.num_others = inputs - self.lang_dim - NUM_CELLS * self.front.get("features", 0)
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
    front: dict[str, tuple[Tensor, ...]]  # cells -> t P, s P; features, near -> r P; heads -> P; of what is there
    words: Tensor  # (W, W), or (0, 0)

    @classmethod
    def identity(cls, structure: PolicyStructure) -> "Symmetry":
        """The one that changes nothing."""
        return cls(
            _eye(structure.lang_dim),
            [_eye(structure.width) for _ in range(structure.stream_of[-1] + 1)],
            {gru: (_eye(size), _eye(size)) for gru, size in structure.units.items()},
            [list(range(len(sizes))) for sizes in structure.sizes],
            {part: (_eye(size),) * len(_POWERS[part][0]) for part, size in structure.front.items()},
            _eye(structure.word_dim),
        )


def _eye(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64)


def transformed(weights: Weights, symmetry: Symmetry, structure: PolicyStructure) -> dict[str, Tensor]:
    """The weights (float64) after a symmetry; the policy computes what it did."""
    streams, out = [symmetry.streams[number] for number in structure.stream_of], {}

    def move(to: str, source: str, rows: Blocks, columns: Blocks = (), kind: str = "") -> None:
        weight, bias = (_by_blocks(rows, weights[f"{source}.{name}{kind}"]) for name in ("weight", "bias"))
        out[f"{to}.weight{kind}"] = _by_blocks(columns, weight.T).T if columns else weight
        out[f"{to}.bias{kind}"] = bias

    def move_gru(to: str, source: str, stream: Tensor) -> Tensor:
        permutation, signed = symmetry.units[to]
        for kind, column in (("_ih_l0", stream), ("_hh_l0", signed)):
            move(to, source, [permutation, permutation, signed], [column], kind)
        return signed

    of_features, of_heads = [], []
    if "cells" in structure.front:
        embedding, shift = symmetry.front["cells"]
        (features,) = symmetry.front["features"]
        gain = shift * _dual(embedding)
        out[f"{_INPUT}.cells.weight"] = embedding @ weights[f"{_INPUT}.cells.weight"]
        move(f"{_INPUT}.film", f"{_INPUT}.film", [gain, shift], [symmetry.mission])
        out[f"{_INPUT}.film.bias"][: len(gain)] += gain.sum(1) - 1  # 1 + gamma is what is scaled
        move(f"{_INPUT}.features", f"{_INPUT}.features", [features], [_dual(shift)])
        of_features = [_dual(features)] * NUM_CELLS
    columns = [*of_features, structure.num_others, symmetry.mission]
    move(structure.reader, structure.reader, [streams[0]], columns)
    if structure.has_words:
        (near,), (heads,) = symmetry.front["near"], symmetry.front["heads"]
        for name in ("words", "places"):
            out[f"{MISSION}{name}.weight"] = weights[f"{MISSION}{name}.weight"] @ symmetry.words.T
        move(f"{MISSION}near", f"{MISSION}near", [near], [symmetry.words] * 3)
        out[f"{MISSION}ask.weight"] = heads @ weights[f"{MISSION}ask.weight"] @ _dual(near).T
        of_heads = [torch.kron(heads, _dual(near))]
    move(structure.mission, structure.mission, [symmetry.mission], of_heads)
    for layer, order in enumerate(symmetry.experts):
        router = f"moe_layers.{layer}.router"
        signed = move_gru(f"{router}.gru", f"{router}.gru", streams[layer])
        move(f"{router}.fc", f"{router}.fc", [_eye(len(order))[order]], [signed])
        for place, own in enumerate(order):
            if structure.sizes[layer][place] > 0:
                to, source = structure.expert(layer, place), structure.expert(layer, own)
                signed = move_gru(f"{to}.gru", f"{source}.gru", streams[layer])
                move(f"{to}.projection", f"{source}.projection", [streams[layer + 1]], [signed])
        if structure.has_norm:
            move(f"moe_layers.{layer}.norm", f"moe_layers.{layer}.norm", [streams[layer + 1]])
    read = streams[-1] if structure.sizes else move_gru("gru", "gru", streams[0])
    move("head", "head", (), [read])
    return out


def _by_blocks(blocks: Blocks, value: Tensor) -> Tensor:
    """The product of a block-diagonal matrix and a matrix or vector; without blocks the latter as it is."""
    if not blocks:
        return value
    parts = value.split([block if isinstance(block, int) else len(block) for block in blocks])
    moved = [part if isinstance(b, int) else b @ part for b, part in zip(blocks, parts, strict=True)]
    return torch.cat(moved) if len(moved) > 1 else moved[0]


def _dual(scaled: Tensor) -> Tensor:
    """The inverse, transposed, of a permutation with scales: the permutation with their inverses."""
    return scaled / scaled.square().sum(1, keepdim=True)


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

        A rotation is the root mean square of what a basis does to a unit vector along an axis, from 0 to 2. With a
        `FilmProjection` also the share of its units that moved, and the root mean square of their scales' logarithms.
        """
        kept = torch.cat([signed.diagonal() == 1 for _, signed in self.symmetry.units.values()])
        found = {
            "distance_before": self.distance_before,
            "distance_after": self.distance_after,
            "moved_units": 1 - kept.double().mean().item(),
            "moved_experts": sum(own != place for order in self.symmetry.experts for place, own in enumerate(order)),
            "stream_turn": max(map(_rotation_angle, self.symmetry.streams)),
            "mission_turn": _rotation_angle(self.symmetry.mission),
        }
        if front := self.symmetry.front:
            kept = torch.cat([first.diagonal() > 0 for first, *_ in front.values()])
            scales = torch.cat([matrix.sum(1).abs() for matrices in front.values() for matrix in matrices])
            found["moved_front_units"] = 1 - kept.double().mean().item()
            found["front_scales"] = scales.log().square().mean().sqrt().item()
        return found


def _rotation_angle(basis: Tensor) -> float:
    return float(torch.linalg.matrix_norm(basis - _eye(len(basis))) / len(basis) ** 0.5)


def align(first: Weights, second: Weights) -> Alignment:
    """Find a symmetry of the second policy that brings its weights near to the first.

    first, second: of `learners.imitation.load_pathways`.
    """
    check_same_shapes(first, second)
    match = _Match(first, second)
    best = match.matched_from_inputs()
    if not match.is_perfect(best):  # else it is a transformed copy, and nothing is nearer
        starts = (Symmetry.identity(match.structure), best)
        best = max(map(match.coordinate_ascent, starts), key=match.nearness)
    moved = transformed(match.second, best, match.structure)
    weights = {name: moved[name].to(value.dtype) for name, value in second.items()}
    return Alignment(weights, best, distance(first, second), distance(match.first, moved))


class _Match:
    """Two policies, and how near a symmetry of the second brings it to the first."""

    def __init__(self, first: Weights, second: Weights):
        self.structure = PolicyStructure(first)
        self.first = {name: value.double() for name, value in first.items()}
        self.second = {name: value.double() for name, value in second.items()}
        self.is_frozen = all(torch.equal(first[name], second[name]) for name in first if name.startswith(MISSION))

    def inner_product(self, symmetry: Symmetry, names: Collection[str] | None = None) -> Tensor:
        """Of the first policy's weights with the transformed ones of the second; names: only of these weights."""
        return _inner_product(self.first, transformed(self.second, symmetry, self.structure), names)

    def nearness(self, symmetry: Symmetry, names: Collection[str] | None = None) -> Tensor:
        """The inner product, less half of what scales add to the squared norm: the nearer, the larger."""
        moved = transformed(self.second, symmetry, self.structure)
        grown = _inner_product(moved, moved, names) - _inner_product(self.second, self.second, names)
        return _inner_product(self.first, moved, names) - grown / 2

    def is_perfect(self, symmetry: Symmetry) -> bool:
        """Whether nothing could be nearer: the distance is zero but for rounding."""
        squares = _inner_product(self.first, self.first) + _inner_product(self.second, self.second)
        return bool(self.nearness(symmetry) > (1 - 1e-12) * squares / 2)

    def coordinate_ascent(self, symmetry: Symmetry) -> Symmetry:
        """Better one basis or part of the film, then the units of one GRU after the other, until none gets nearer."""
        for _ in range(_MAX_ROUNDS):
            before = symmetry
            for basis in ("words", "mission"):
                symmetry = self.better_basis(symmetry, basis)
            for part in symmetry.front:
                symmetry = self._nearer(symmetry, self._match_front(symmetry, part))
            for number in range(len(symmetry.streams)):
                symmetry = self.better_stream(symmetry, number)
            for gru in symmetry.units:
                symmetry = self.better_units(symmetry, gru)
            if symmetry is before:
                break
        return symmetry

    def matched_from_inputs(self) -> Symmetry:
        """Match layer by layer from the inputs: each part by its connections to parts already matched."""
        symmetry, structure = Symmetry.identity(self.structure), self.structure
        symmetry = self.better_basis(symmetry, "words", [f"{MISSION}words.weight", f"{MISSION}places.weight"])
        for part in [part for part in structure.front if part in _OF_WORDS]:
            symmetry = self._match_front(symmetry, part, by_inputs=True)
        symmetry = self.better_basis(
            symmetry, "mission", [f"{structure.mission}.{kind}" for kind in ("weight", "bias")]
        )
        for part in [part for part in structure.front if part not in _OF_WORDS]:
            symmetry = self._match_front(symmetry, part, by_inputs=True)
        symmetry = self.better_stream(symmetry, 0, [f"{structure.reader}.weight", f"{structure.reader}.bias"])
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

    def _match_front(self, symmetry: Symmetry, part: str, by_inputs: bool = False) -> Symmetry:
        """Match a part of what reads cells and words; by_inputs: not by the outgoing weights."""
        if self.is_frozen and part in _OF_WORDS:
            return symmetry
        plain = replace(symmetry, front=symmetry.front | {part: Symmetry.identity(self.structure).front[part]})
        ours = _front_blocks(self.first, part)
        theirs = _front_blocks(transformed(self.second, plain, self.structure), part)
        if by_inputs:
            ours, theirs = ours[:-1], theirs[:-1]
        return replace(plain, front=plain.front | {part: _scaled_permutation(ours, theirs, part)})

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

    def better_basis(self, symmetry: Symmetry, basis: str, names: Collection[str] | None = None) -> Symmetry:
        """With a better basis of the words or of the mission, if there is one."""
        matrix = getattr(symmetry, basis)
        if self.is_frozen or not len(matrix):
            return symmetry
        (slope,) = self._slopes(symmetry, [matrix], names)
        return self._nearer(symmetry, replace(symmetry, **{basis: _rotation(slope)}), names)

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

    def _nearer(self, old: Symmetry, new: Symmetry, names: Collection[str] | None = None) -> Symmetry:
        before, after = self.nearness(old, names), self.nearness(new, names)
        return new if after > before + _GAIN * before.abs() else old


def _inner_product(first: Weights, second: Weights, names: Collection[str] | None = None) -> Tensor:
    return reduce(torch.add, [(first[name] * second[name]).sum() for name in (second if names is None else names)])


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


def _front_blocks(weights: Weights, part: str) -> list[Tensor]:
    """The weights of a part of what reads cells and words, K blocks (N, ...): incoming ones, then outgoing."""
    if part in _OF_WORDS:
        ask, near, bias = (weights[f"{MISSION}{name}"] for name in ("ask.weight", "near.weight", "near.bias"))
        by_head = weights[f"{MISSION}output.weight"].unflatten(1, (len(ask), -1))  # (G, heads, N)
        if part == "heads":
            return [ask, by_head.transpose(0, 1).flatten(1)]
        return [torch.cat([near, bias[:, None]], 1), torch.cat([ask, by_head.flatten(0, 1)]).T]
    of = {name.removeprefix(f"{_INPUT}."): value for name, value in weights.items() if name.startswith(_INPUT)}
    if part == "features":
        to_cells = of["output.weight"][:, : NUM_CELLS * len(of["features.bias"])].unflatten(1, (NUM_CELLS, -1))
        return [torch.cat([of["features.weight"], of["features.bias"][:, None]], 1), to_cells.flatten(0, 1).T]
    gain, shift = torch.cat([of["film.weight"], of["film.bias"][:, None]], 1).chunk(2)
    gain[:, -1] += 1
    return [of["cells.weight"], gain, shift, of["features.weight"].T]


def _scaled_permutation(ours: list[Tensor], theirs: list[Tensor], part: str) -> tuple[Tensor, ...]:
    """The nearest permutation of units with scales; blocks of `_front_blocks`, the last of which may be missing.

    Scales bring the norms of the blocks of each pair of units together (least squares of logarithms); only a cell's
    first scale may be negative.
    """
    powers = torch.tensor(_POWERS[part], dtype=torch.float64)[: len(ours)]
    norms = [torch.stack([block.norm(dim=1) for block in blocks]) for blocks in (ours, theirs)]  # (K, N)
    ratios = (norms[0][:, :, None] / norms[1][:, None]).log().nan_to_num(0.0, 0.0, 0.0)  # a dead unit keeps its scales
    logs = torch.tensordot(torch.linalg.pinv(powers), ratios, 1)  # (S, N, N)
    factors = torch.tensordot(powers, logs, 1).exp()  # (K, N, N)
    products = factors * torch.stack([our @ their.T for our, their in zip(ours, theirs, strict=True)])
    is_signed = (powers[:, 0] != 0) & (part == "cells")
    signed, grown = products[is_signed].sum(0), (factors * norms[1][:, None]).square().sum(0)
    permutation = _permutation(signed.abs() + products[~is_signed].sum(0) - grown / 2)
    first, *others = logs.exp() * permutation
    return (torch.where((signed < 0) & (part == "cells"), -first, first), *others)
