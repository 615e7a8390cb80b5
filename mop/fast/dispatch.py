"""How a policy runs fast: the one place where that is chosen. What is computed is what `mixture_of_experts` says.

    learning on a CPU       compiled kernels with gradients by hand (`autograd`)
    stepping on a CPU       one call a step over a flat array of weights, which workers can share (`policy`)
    other devices           the GRUs of a layer side by side in torch (`packed`)
    other equations         refused (`refusal`), and the policy's own plain torch is used in their place

A policy is read through the attributes of its modules; the names of its parameters are made of these, and are spelt
nowhere else. Axis letters as in `mixture_of_experts`.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mop.common.errors import InputError
from mop.common.workers import Layout
from mop.fast import autograd, packed
from mop.fast.grid import obs_edges
from mop.fast.policy_step import CompiledPolicy, GRUPlaces, LinearPlaces, PolicyPlaces, PolicyShape, lay_out, zeros
from mop.fast.sequence import are_categories

# The names of the equations that are known here; what they are is in `mixture_of_experts`.
KNOWN = ("GRU experts mixed by the softmax of a GRU router", "one GRU")


_OF_TORCH = {nn.GRU, nn.LayerNorm, nn.Linear, nn.ModuleList}
_OF_POLICY = {  # the classes of that file, by name: it imports this one
    ("mixture_of_experts", name) for name in ("Expert", "GRUPolicy", "MixtureOfExpertsPolicy", "MoELayer", "Router")
}


class _Layer(NamedTuple):
    """The modules of one layer of a policy; the baseline's layer has one GRU and nothing else."""

    grus: list[nn.GRU]  # the router's, then those of the experts that are no skips
    sizes: Sequence[int] = ()  # of the experts, 0 = skip
    router: nn.Linear | None = None
    projections: Sequence[nn.Linear | None] = ()  # of the experts; None: a skip
    norm: nn.LayerNorm | None = None
    dropout: Callable[[Tensor], Tensor] | None = None  # of experts, while learning

    @property
    def num_units(self) -> int:
        """H, all hidden units of the layer."""
        return sum(gru.hidden_size for gru in self.grus)

    def projection(self) -> Tensor:
        """(D, H - R + E), of `packed.join_projections`."""
        return packed.join_projections(self.projections, self.router.weight.new_zeros(self.grus[0].input_size))


def _modules_of(layer: nn.Module) -> _Layer:
    """layer: a `MoELayer`, or the GRU of the baseline."""
    if isinstance(layer, nn.GRU):
        return _Layer([layer])
    return _Layer(
        grus=[layer.router.gru, *(expert.gru for expert in layer.experts if expert.hidden_size > 0)],
        sizes=layer.expert_sizes,
        router=layer.router.fc,
        projections=[expert.projection if expert.hidden_size > 0 else None for expert in layer.experts],
        norm=layer.norm,
        dropout=layer.dropout if layer.training else None,
    )


def _layers(policy) -> list[_Layer]:
    return [_modules_of(layer) for layer in policy.layers]


def refusal(policy) -> str | None:
    """Why a policy's equations cannot be computed here; None if they can."""
    if policy.equations not in KNOWN:
        return f"the equations of this policy, {policy.equations!r}, are not among those that are compiled"
    for module in policy.modules():
        kind = type(module)
        if kind not in _OF_TORCH and (kind.__module__, kind.__qualname__) not in _OF_POLICY:
            return f"{kind.__qualname__} is no class whose equations are compiled"
    return None


# --- sequences, with gradients ----------------------------------------------------------------------------------------


def run(
    policy,
    obs: Tensor,
    lang: Tensor,
    hidden: Tensor,
    keep: Tensor | None,
    path: str | None = None,
    weights: Tensor | None = None,
):
    """Compute what `RecurrentPolicy.get_routing_info` documents, for a policy that is not refused.

    path: "compiled", for a CPU alone, "packed" for any device, or None to choose. weights: those of `FlatWeights`; the
    gradient is theirs then, and the path compiled. In the compiled path, the gradients
    by the categories of one-hot observations are zero, and there are no second derivatives.
    """
    if obs.dim() == 2:
        logits, routing, hidden = run(policy, obs[None], lang[None], hidden, keep, path, weights)
        return logits[0], [weights[0] for weights in routing], hidden
    if (path or path_for(obs.device)) == "compiled":
        if not are_categories(obs_edges(policy.obs_encoding), obs.detach().numpy()):
            policy.check_categories(obs)
        logits, routing, states = _run_compiled(policy, obs, lang, None, hidden, keep, 1, weights)
    else:
        x = policy.input_projection(policy.encode(obs, lang))
        logits, routing, states = _run_packed(policy, x, hidden, keep)
    return logits, routing, states[-1]


def run_projected(policy, x: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """A sequence from what the input projection gave, for a policy that is not refused, with the memory of every step.

    x (T, N, D), hidden (N, S) before the first step. Returns logits (T, N, A), router weights L x (T, N, E_l), hidden
    (T, N, S) after each step.
    """
    if path_for(x.device) == "compiled":
        return _run_compiled(policy, None, None, x, hidden, None, len(x))
    return _run_packed(policy, x, hidden, None)


def _run_compiled(policy, obs, lang, x, hidden: Tensor, keep: Tensor | None, num_states: int, weights=None):
    """`run_projected` of either obs (T, N, I) and lang (T, N, G), or x (T, N, D), with the last `num_states` states.

    keep: (T, N); weights: as in `run`.
    """
    num_steps_and_envs, layers = (obs if x is None else x).shape[:2], _layers(policy)
    if keep is None:
        keep = torch.ones(num_steps_and_envs, dtype=torch.bool)
    shape, dropouts = _shape_of(policy, layers, 0), []
    for layer in layers:
        rates = layer.dropout and (layer.dropout.rate, layer.dropout.threshold)
        uniform = rates and torch.rand(*num_steps_and_envs, len(layer.sizes), dtype=hidden.dtype)
        dropouts.append(rates and (uniform, *rates))
    if weights is None:
        places, parameters = zip(*_placed(lay_out(shape).places, policy, layers), strict=True)
    else:
        places, parameters = None, (weights,)
    call = autograd.Call(shape, places, keep, dropouts, num_states)
    logits, states, *routing = autograd.CompiledSequence.apply(call, obs, lang, x, hidden, *parameters)
    return logits, routing, states


class FlatWeights:
    """The weights of a policy that learns on a CPU as one tensor, which is much faster to step than many.

    The policy's parameters become views of it, so that they hold the same numbers; their gradients are its alone.
    """

    def __init__(self, policy):
        layers = _layers(policy)
        shape = _shape_of(policy, layers, 0)
        place_of = {id(parameter): place for place, parameter in _placed(lay_out(shape).places, policy, layers)}
        self._places = [place_of[id(parameter)] for parameter in policy.parameters()]
        dtype = torch.empty(0, dtype=policy.head.weight.dtype).numpy().dtype
        self.weights = torch.from_numpy(zeros(shape.num_weights, dtype))  # (shape.num_weights,), `policy.lay_out`
        for parameter, view in zip(policy.parameters(), self.views(self.weights), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.weights.requires_grad_()

    @property
    def num_parameters(self) -> int:
        """How many parameters the policy has."""
        return len(self._places)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The part of each of the policy's parameters, in its shape; flat (shape.num_weights,)."""
        return autograd.views_of(self._places, flat)


def flat_weights(policy) -> FlatWeights | None:
    """None for a policy that does not learn by compiled kernels, which keeps its parameters as they are."""
    is_compiled = refusal(policy) is None and path_for(policy.head.weight.device) == "compiled"
    return FlatWeights(policy) if is_compiled else None


def _run_packed(policy, x: Tensor, hidden: Tensor, keep: Tensor | None):
    """`run_projected`, where single steps may start afresh; keep (T, N)."""
    routing, after, layers = [], [], _layers(policy)
    for layer, before in zip(layers, hidden.split([layer.num_units for layer in layers], -1), strict=True):
        x, weights, states = _run_layer(layer, x, before, keep)
        routing.append(weights)
        after.append(states)
    return policy.head(x), routing, torch.cat(after, -1)


def path_for(device: torch.device) -> str:
    """ "compiled" on a CPU, "packed" elsewhere."""
    return "compiled" if device.type == "cpu" else "packed"


def _run_layer(
    layer: _Layer,
    x: Tensor,
    hidden: Tensor,
    keep: Tensor | None,
    grus: packed.PackedGRUs | None = None,
    mix: packed.PackedMix | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """x (T, N, D), hidden (N, H), keep (T, N) -> output (T, N, D), weights (T, N, E), hidden states (T, N, H).

    grus, mix: of `packed.pack_grus` and `_pack_mix`, where they are packed once for many steps.
    """
    states = packed.run_grus(grus or packed.pack_grus(layer.grus), x, hidden, keep)
    if layer.router is None:
        return states, states.new_ones(*states.shape[:2], 1), states
    y, weights = packed.mix(mix or _pack_mix(layer), x, states, layer.dropout)
    return (y if layer.norm is None else layer.norm(x + y)), weights, states


def _pack_mix(layer: _Layer) -> packed.PackedMix | None:
    if layer.router is None:
        return None
    return packed.pack_mix(layer.router, layer.sizes, layer.projection())


# --- single steps, without gradients ----------------------------------------------------------------------------------


def stepper(policy, path: str | None = None) -> Callable[..., tuple[Tensor, list[Tensor], Tensor]]:
    """`get_routing_info` for many single steps without gradients, with the weights that the policy has now.

    The function takes obs (N, I), lang (N, G), hidden (N, S) and returns logits (N, A), router weights L x (N, E_l) and
    the new hidden (N, S), all on the policy's device; path: as in `run`. The categories of one-hot observations must be
    Minigrid's, which the compiled path does not check. As a fourth argument it takes `intervene`, see
    `mixture_of_experts.Intervention`: in the compiled path from arrays to arrays, elsewhere from tensors to tensors, by
    the policy's own equations.
    """
    own = deepcopy(policy).eval()

    @torch.no_grad()
    def plain(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
        return own.get_routing_info(obs, lang, hidden, intervene=intervene)

    if refusal(policy) is not None:
        return plain
    if (path or path_for(policy.head.weight.device)) == "compiled":
        compiled = compile_policy(policy)

        def step(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
            given = (tensor.detach().numpy() for tensor in (obs, lang, hidden))
            logits, routing, after = compiled.step(*given, intervene)
            return torch.from_numpy(logits), [torch.from_numpy(weights) for weights in routing], torch.from_numpy(after)

        return step
    side_by_side = torch.no_grad()(_packed_stepper(own))

    def step(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
        if intervene is not None:
            return plain(obs, lang, hidden, intervene)
        return side_by_side(obs, lang, hidden)

    return step


@torch.no_grad()
def _packed_stepper(policy) -> Callable:
    layers = [(layer, packed.pack_grus(layer.grus), _pack_mix(layer)) for layer in _layers(policy)]
    columns = [layer.num_units for layer, *_ in layers]

    def step(obs: Tensor, lang: Tensor, hidden: Tensor):
        x, routing, after = policy.input_projection(policy.encode(obs, lang))[None], [], []
        for (layer, grus, mix), before in zip(layers, hidden.split(columns, -1), strict=True):
            x, weights, states = _run_layer(layer, x, before, None, grus, mix)
            routing.append(weights[0])
            after.append(states[0])
        return policy.head(x)[0], routing, torch.cat(after, -1)

    return step


# --- a copy that steps without torch ----------------------------------------------------------------------------------


def shape_of(policy, mission_dim: int = 0) -> PolicyShape:
    """The architecture in plain numbers; mission_dim: with a mission projection from so many numbers.

    Raises InputError where the policy is refused.
    """
    if (reason := refusal(policy)) is not None:
        raise InputError(reason)
    return _shape_of(policy, _layers(policy), mission_dim)


def _shape_of(policy, layers: Sequence[_Layer], mission_dim: int) -> PolicyShape:
    """`shape_of` a policy that is not refused."""
    sizes = tuple((layer.grus[0].hidden_size, *layer.sizes) for layer in layers)
    dims = (policy.input_dim, policy.lang_dim, policy.input_projection.out_features, policy.num_actions)
    return PolicyShape(*dims, sizes, layers[0].norm is not None, mission_dim, policy.obs_encoding)


def compile_policy(policy, lang_proj: nn.Linear | None = None) -> CompiledPolicy:
    """A copy of the policy, and of its mission projection, that steps without torch; see `refresh`."""
    shape = shape_of(policy, 0 if lang_proj is None else lang_proj.in_features)
    dtype = torch.empty(0, dtype=policy.head.weight.dtype).numpy().dtype
    compiled = CompiledPolicy(shape, zeros(shape.num_weights, dtype))
    refresh(compiled, policy, lang_proj)
    return compiled


def refresh(compiled: CompiledPolicy, policy, lang_proj: nn.Linear | None = None) -> None:
    """Bring a compiled copy up to date, after an optimiser's step for instance."""
    for view, parameter in _placed(compiled.parameters, policy, _layers(policy), lang_proj):
        view[...] = parameter.detach().cpu().numpy()


def _placed(
    places: PolicyPlaces, policy, layers: Sequence[_Layer], lang_proj: nn.Linear | None = None
) -> Iterator[tuple[Any, nn.Parameter]]:
    """The place, or the view that stands for it, of each parameter."""
    yield from _of_module(places.input_projection, policy.input_projection)
    for place, layer in zip(places.layers, layers, strict=True):
        for gru_place, gru in zip(place.grus, layer.grus, strict=True):
            yield from _of_module(gru_place, gru, "_l0")
        if layer.router is not None:
            yield from _of_module(place.router, layer.router)
            real = [projection for projection in layer.projections if projection is not None]
            for projection_place, projection in zip(place.projections, real, strict=True):
                yield from _of_module(projection_place, projection)
        if layer.norm is not None:
            yield from _of_module(place.norm, layer.norm)
    yield from _of_module(places.head, policy.head)
    if lang_proj is not None:
        yield from _of_module(places.lang_proj, lang_proj)


def _of_module(places: LinearPlaces | GRUPlaces, module: nn.Module, suffix: str = "") -> Iterator:
    """The fields of places have the names that torch gives the parameters."""
    for name, place in places._asdict().items():
        yield place, getattr(module, f"{name}{suffix}")


# --- a student for rollouts -------------------------------------------------------------------------------------------


class PlainStudent:
    """A policy whose equations are refused here, as a student in this process: slow, and by its own plain torch.

    As `policy.CompiledPolicy`: `step` and `project`, from arrays to arrays. It has no weights of its own, so nothing
    has to be refreshed.
    """

    def __init__(self, policy, lang_proj: nn.Linear):
        self.policy, self.lang_proj, self.hidden_size = policy, lang_proj, policy.hidden_size
        self.layout: Layout = {}  # it shares no memory

    def attach(self, memory: dict[str, np.ndarray]) -> "PlainStudent":
        """The student itself: its weights are in this process already."""
        return self

    @torch.no_grad()
    def step(self, *arrays: np.ndarray) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """obs (N, I), lang (N, G), hidden (N, S) -> logits (N, A), router weights L x (N, E_l), hidden (N, S)."""
        obs, lang, hidden = (self._tensor(array) for array in arrays)
        was_training = self.policy.training
        self.policy.eval()  # experts are dropped while it learns, not while it acts
        logits, routing, hidden = self.policy.get_routing_info(obs, lang, hidden)
        self.policy.train(was_training)
        return logits.cpu().numpy(), [weights.cpu().numpy() for weights in routing], hidden.cpu().numpy()

    @torch.no_grad()
    def project(self, missions: np.ndarray) -> np.ndarray:
        """lang (N, G) of mission embeddings (N, mission_dim)."""
        return self.lang_proj(self._tensor(missions)).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.lang_proj.weight.device)


def student_of(policy, lang_proj: nn.Linear, num_workers: int) -> "PolicyShape | PlainStudent":
    """What `rollout.Rollouts` needs to act with a policy. Raises InputError for workers with a refused policy."""
    reason = refusal(policy)
    if reason is None:
        return shape_of(policy, lang_proj.in_features)
    if num_workers > 0:
        raise InputError(f"{reason}: worker processes cannot step it; leave out --num_workers")
    return PlainStudent(policy, lang_proj)


def refresh_student(student: CompiledPolicy | PlainStudent, policy, lang_proj: nn.Linear) -> None:
    """Bring what acts up to date with the policy that learns."""
    if isinstance(student, CompiledPolicy):
        refresh(student, policy, lang_proj)
