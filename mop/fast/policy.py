"""Policies of `mixture_of_experts`: sequences with gradients, single steps, a copy without torch.

They are compiled on a CPU, and `packed` on other devices. A policy is read through the attributes of its modules; the
names of its parameters are made of these, and are spelt nowhere else. Other equations are refused (`refusal`). Axis
letters as in `mixture_of_experts`.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mixture_of_experts import Expert, GRUPolicy, MixtureOfExpertsPolicy, MoELayer, RecurrentPolicy, Router
from mop.fast import autograd, packed
from mop.fast.policy_step import CompiledPolicy, GRUPlaces, LinearPlaces, PolicyPlaces, PolicyShape, lay_out, zeros
from mop.fast.sequence import are_categories

# What is compiled: the names of the equations, and the classes that they are made of.
KNOWN_EQUATIONS = (MixtureOfExpertsPolicy.equations, GRUPolicy.equations)
KNOWN_CLASSES = {
    *(nn.GRU, nn.LayerNorm, nn.Linear, nn.ModuleList),
    *(Expert, GRUPolicy, MixtureOfExpertsPolicy, MoELayer, Router),
}


def refusal(policy: RecurrentPolicy) -> str | None:
    """Reason why the equations of a policy are not compiled; None if they are."""
    if policy.equations not in KNOWN_EQUATIONS:
        return f"the equations of this policy, {policy.equations!r}, are not among those that are compiled"
    for module in policy.modules():
        if type(module) not in KNOWN_CLASSES:
            return f"{type(module).__qualname__} is no class whose equations are compiled"
    return None


class _Layer(NamedTuple):
    """The modules of one layer of a policy; the baseline's layer has one GRU and nothing else."""

    grus: list[nn.GRU]  # the router's, then those of the experts that are no skips
    sizes: Sequence[int] = ()  # of the experts, 0 = skip
    router: nn.Linear | None = None
    projections: Sequence[nn.Linear] = ()  # of the experts that are no skips
    norm: nn.LayerNorm | None = None
    dropout: Callable[[Tensor], Tensor] | None = None  # of experts, while learning


def _modules_of(layer: nn.Module) -> _Layer:
    """layer: a `MoELayer`, or the GRU of the baseline."""
    if isinstance(layer, nn.GRU):
        return _Layer([layer])
    experts = [expert for expert in layer.experts if expert.hidden_size > 0]
    return _Layer(
        grus=[layer.router.gru, *(expert.gru for expert in experts)],
        sizes=layer.expert_sizes,
        router=layer.router.fc,
        projections=[expert.projection for expert in experts],
        norm=layer.norm,
        dropout=layer.dropout if layer.training else None,
    )


def _layers(policy: RecurrentPolicy) -> list[_Layer]:
    return [_modules_of(layer) for layer in policy.layers]


def is_on_cpu(policy: RecurrentPolicy) -> bool:
    """Whether a policy runs by compiled kernels; elsewhere it is packed."""
    return policy.head.weight.device.type == "cpu"


# --- sequences, with gradients ----------------------------------------------------------------------------------------


def run(
    policy: RecurrentPolicy,
    obs: Tensor,
    lang: Tensor,
    hidden: Tensor,
    keep: Tensor | None = None,
    weights: Tensor | None = None,
    is_packed: bool | None = None,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """`RecurrentPolicy.get_routing_info` of a sequence, or of one step.

    weights: those of `FlatWeights`, which then have the gradient; is_packed: None to choose by the device. There are no
    second derivatives; compiled, the gradients by the categories of one-hot observations are zero.
    """
    if obs.dim() == 2:
        logits, routing, hidden = run(policy, obs[None], lang[None], hidden, keep, weights, is_packed)
        return logits[0], [of_layer[0] for of_layer in routing], hidden
    if not is_on_cpu(policy) if is_packed is None else is_packed:
        x = policy.input_projection(policy.encode(obs, lang))
        logits, routing, states = _run_packed(policy, x, hidden, keep)
        return logits, routing, states[-1]
    if not are_categories(policy.edges.numpy(), obs.detach().numpy()):
        policy.check_categories(obs)
    logits, routing, states = _run(policy, obs, lang, None, hidden, keep, 1, weights)
    return logits, routing, states[-1]


def run_projected(policy: RecurrentPolicy, x: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """A sequence from the output of the input projection on, with the hidden state after every step.

    x (T, N, D), hidden (N, S) before the first step. Returns logits (T, N, A), router weights L x (T, N, E_l), hidden
    (T, N, S).
    """
    if not is_on_cpu(policy):
        return _run_packed(policy, x, hidden, None)
    return _run(policy, None, None, x, hidden, None, len(x))


def _run_packed(policy: RecurrentPolicy, x: Tensor, hidden: Tensor, keep: Tensor | None):
    """`run_projected` on any device, where single steps may start afresh; keep (T, N)."""
    x, routing, states = packed.run([packed.pack(layer) for layer in _layers(policy)], x, hidden, keep)
    return policy.head(x), routing, states


def _run(policy, obs, lang, x, hidden: Tensor, keep: Tensor | None, num_states: int, weights=None):
    """`run_projected` of either obs (T, N, I) and lang (T, N, G), or x (T, N, D), with the last `num_states` states.

    keep: (T, N); weights: as in `run`.
    """
    num_steps_and_envs = (obs if x is None else x).shape[:2]
    layers = _layers(policy)
    if keep is None:
        keep = torch.ones(num_steps_and_envs, dtype=torch.bool)
    shape = _shape_of(policy, layers, 0)
    dropouts = []
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
    """The weights of a policy that learns as one tensor, which an optimiser steps much faster than many.

    The policy's parameters become views of it, so that they hold the same numbers; their gradients are its alone.
    """

    def __init__(self, policy: RecurrentPolicy):
        layers = _layers(policy)
        shape = _shape_of(policy, layers, 0)
        place_of = {id(parameter): place for place, parameter in _placed(lay_out(shape).places, policy, layers)}
        self._places = [place_of[id(parameter)] for parameter in policy.parameters()]
        self.weights = torch.from_numpy(zeros(shape.num_weights, _dtype_of(policy)))  # (shape.num_weights,)
        for parameter, view in zip(policy.parameters(), self.views(self.weights), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.weights.requires_grad_()

    @property
    def num_parameters(self) -> int:
        """Number of the policy's parameters."""
        return len(self._places)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The part of each of the policy's parameters, in its shape; flat (shape.num_weights,)."""
        return autograd.views_of(self._places, flat)


# --- a copy that steps without torch ----------------------------------------------------------------------------------


def stepper(policy: RecurrentPolicy) -> Callable[..., tuple[Tensor, list[Tensor], Tensor]]:
    """`mop.training.execution.stepper`; compiled, `intervene` is called with arrays."""
    if not is_on_cpu(policy):
        return _packed_stepper(policy)
    compiled = compile_policy(policy)

    def step(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
        given = (tensor.detach().numpy() for tensor in (obs, lang, hidden))
        logits, routing, after = compiled.step(*given, intervene)
        return torch.from_numpy(logits), [torch.from_numpy(weights) for weights in routing], torch.from_numpy(after)

    return step


@torch.no_grad()
def _packed_stepper(policy: RecurrentPolicy) -> Callable[..., tuple[Tensor, list[Tensor], Tensor]]:
    own = deepcopy(policy).eval()
    layers = [packed.pack(layer) for layer in _layers(own)]

    @torch.no_grad()
    def step(obs: Tensor, lang: Tensor, hidden: Tensor, intervene: Callable | None = None):
        if intervene is not None:
            return own.get_routing_info(obs, lang, hidden, intervene=intervene)
        x = own.input_projection(own.encode(obs, lang))[None]
        x, routing, states = packed.run(layers, x, hidden, None)
        return own.head(x)[0], [weights[0] for weights in routing], states[0]

    return step


def shape_of(policy: RecurrentPolicy, mission_dim: int = 0) -> PolicyShape:
    """The architecture in plain numbers; mission_dim: with a mission projection from so many numbers."""
    return _shape_of(policy, _layers(policy), mission_dim)


def _shape_of(policy: RecurrentPolicy, layers: Sequence[_Layer], mission_dim: int) -> PolicyShape:
    sizes = tuple((layer.grus[0].hidden_size, *layer.sizes) for layer in layers)
    dims = (policy.input_dim, policy.lang_dim, policy.input_projection.out_features, policy.num_actions)
    return PolicyShape(*dims, sizes, layers[0].norm is not None, mission_dim, policy.obs_encoding)


def compile_policy(policy: RecurrentPolicy, lang_proj: nn.Linear | None = None) -> CompiledPolicy:
    """A copy of the policy, and of its mission projection, that steps without torch; see `refresh`."""
    shape = shape_of(policy, 0 if lang_proj is None else lang_proj.in_features)
    compiled = CompiledPolicy(shape, zeros(shape.num_weights, _dtype_of(policy)))
    refresh(compiled, policy, lang_proj)
    return compiled


def refresh(compiled: CompiledPolicy, policy: RecurrentPolicy, lang_proj: nn.Linear | None = None) -> None:
    """Copy the present weights into a compiled policy."""
    for view, parameter in _placed(compiled.parameters, policy, _layers(policy), lang_proj):
        view[...] = parameter.detach().cpu().numpy()


def _dtype_of(policy: RecurrentPolicy):
    return torch.empty(0, dtype=policy.head.weight.dtype).numpy().dtype


def _placed(
    places: PolicyPlaces, policy: RecurrentPolicy, layers: Sequence[_Layer], lang_proj: nn.Linear | None = None
) -> Iterator[tuple[Any, nn.Parameter]]:
    """The place, or the view that stands for it, of each parameter."""
    yield from _of_module(places.input_projection, policy.input_projection)
    for place, layer in zip(places.layers, layers, strict=True):
        for gru_place, gru in zip(place.grus, layer.grus, strict=True):
            yield from _of_module(gru_place, gru, "_l0")
        if layer.router is not None:
            yield from _of_module(place.router, layer.router)
            for projection_place, projection in zip(place.projections, layer.projections, strict=True):
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
