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

from mixture_of_experts import (
    Expert,
    ExpertDropout,
    FilmProjection,
    GRUPolicy,
    MixtureOfExpertsPolicy,
    MoELayer,
    RecurrentPolicy,
    Router,
)
from mop.fast import autograd, packed
from mop.fast.policy_step import CompiledPolicy, PolicyShape
from mop.fast.sequence_kernels import are_categories
from mop.fast.weights import CellViews, FilmViews, GRUViews, LinearViews, PolicyViews, lay_out, zeros

_MOMENTS = ("exp_avg", "exp_avg_sq")

# What is compiled: the names of the equations, and the classes that they are made of.
KNOWN_EQUATIONS = (MixtureOfExpertsPolicy.equations, GRUPolicy.equations)
KNOWN_CLASSES = {
    *(nn.GRU, nn.LayerNorm, nn.Linear, nn.ModuleList),
    *(Expert, FilmProjection, GRUPolicy, MixtureOfExpertsPolicy, MoELayer, Router),
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
    dropout: ExpertDropout | None = None  # while learning


def _modules_of(layer: nn.Module) -> _Layer:
    """layer: a `MoELayer`, or the GRU of the baseline."""
    if isinstance(layer, nn.GRU):
        return _Layer([layer])
    assert isinstance(layer, MoELayer)
    experts = [expert for expert in layer.experts if isinstance(expert, Expert) and expert.hidden_size > 0]
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
    shape = _shape_of(policy, layers)
    dropouts = []
    for layer in layers:
        if layer.dropout is None:
            dropouts.append(None)
        else:
            uniform = torch.rand(*num_steps_and_envs, len(layer.sizes), dtype=hidden.dtype)
            dropouts.append((uniform, *layer.dropout))
    if weights is None:
        specs, parameters = zip(*_placed(lay_out(shape).specs, policy, layers), strict=True)
    else:
        specs, parameters = None, (weights,)
    call = autograd.Call(shape, specs, keep, dropouts, num_states)
    logits, states, *routing = autograd.CompiledSequence.apply(call, obs, lang, x, hidden, *parameters)
    return logits, routing, states


class FlatWeights:
    """The weights of a policy that learns as one tensor, which an optimiser steps much faster than many.

    The policy's parameters become views of it, so that they hold the same numbers; their gradients are its alone.
    """

    def __init__(self, policy: RecurrentPolicy):
        layers = _layers(policy)
        shape = _shape_of(policy, layers)
        spec_of = {id(parameter): spec for spec, parameter in _placed(lay_out(shape).specs, policy, layers)}
        self._specs = [spec_of[id(parameter)] for parameter in policy.parameters()]
        self.weights = torch.from_numpy(zeros(shape.num_weights, _dtype_of(policy)))  # (shape.num_weights,)
        for parameter, view in zip(policy.parameters(), self.views(self.weights), strict=True):
            view.copy_(parameter.detach())
            parameter.data = view
        self.weights.requires_grad_()

    @property
    def num_parameters(self) -> int:
        """Number of the policy's parameters."""
        return len(self._specs)

    def views(self, flat: Tensor) -> list[Tensor]:
        """The part of each of the policy's parameters, in its shape; flat (shape.num_weights,)."""
        return autograd.views_of(self._specs, flat)


class FlatAdam(torch.optim.Adam):
    """`torch.optim.Adam` on the weights of a policy and on other parameters.

    Its state is that of Adam on the policy's parameters and then the others: it does not tell how weights lie in
    memory.
    """

    def __init__(self, flat: FlatWeights, others: Sequence[Tensor], lr: float):
        """others: parameters that are not the policy's."""
        super().__init__([flat.weights, *others], lr=lr, fused=True)
        self.flat = flat

    def state_dict(self) -> dict:
        """As of one parameter each; moments are views."""
        own, last = super().state_dict(), self.flat.num_parameters - 1
        state = {}
        for number, moments in own["state"].items():
            if number == 0:
                parts = zip(*(self.flat.views(moments[name]) for name in _MOMENTS), strict=True)
                for i, part in enumerate(parts):
                    state[i] = {"step": moments["step"], **dict(zip(_MOMENTS, part, strict=True))}
            else:
                # under the same names, not equal ones of a loaded file: pickle tells these apart
                state[number + last] = {name: moments[name] for name in ("step", *_MOMENTS)}
        (group,) = own["param_groups"]
        return {"state": state, "param_groups": [group | {"params": list(range(len(group["params"]) + last))}]}

    def load_state_dict(self, state_dict: dict) -> None:
        """A state as of one parameter each."""
        given, last = state_dict["state"], self.flat.num_parameters - 1
        state = {}
        if 0 in given:
            state[0] = {"step": given[0]["step"]}
            for name in _MOMENTS:
                state[0][name] = torch.zeros_like(self.flat.weights.detach())
                for number, view in enumerate(self.flat.views(state[0][name])):
                    view.copy_(given[number][name])
        state |= {
            number - last: moments for number, moments in given.items() if number > last
        }  # in order, as files are
        (group,) = state_dict["param_groups"]
        own = group | {"params": list(range(len(group["params"]) - last))}
        super().load_state_dict({"state": state, "param_groups": [own]})


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


def shape_of(policy: RecurrentPolicy) -> PolicyShape:
    """The architecture in plain numbers."""
    return _shape_of(policy, _layers(policy))


def _shape_of(policy: RecurrentPolicy, layers: Sequence[_Layer]) -> PolicyShape:
    sizes = tuple((layer.grus[0].hidden_size, *layer.sizes) for layer in layers)
    dims = (policy.input_dim, policy.lang_dim, policy.width, policy.num_actions)
    return PolicyShape(*dims, sizes, layers[0].norm is not None, policy.obs_encoding, policy.film)


def compile_policy(policy: RecurrentPolicy) -> CompiledPolicy:
    """A copy of the policy that steps without torch; see `refresh`."""
    shape = shape_of(policy)
    compiled = CompiledPolicy(shape, zeros(shape.num_weights, _dtype_of(policy)))
    refresh(compiled, policy)
    return compiled


def refresh(compiled: CompiledPolicy, policy: RecurrentPolicy) -> None:
    """Copy the present weights into a compiled policy."""
    for view, parameter in _placed(compiled.parameters, policy, _layers(policy)):
        view[...] = parameter.detach().cpu().numpy()


def _dtype_of(policy: RecurrentPolicy):
    return torch.empty(0, dtype=policy.head.weight.dtype).numpy().dtype


def _placed(
    specs: PolicyViews, policy: RecurrentPolicy, layers: Sequence[_Layer]
) -> Iterator[tuple[Any, nn.Parameter]]:
    """The spec, or the view that stands for it, of each parameter."""
    if isinstance(specs.input_projection, FilmViews):
        for name, spec in specs.input_projection._asdict().items():
            yield from _of_module(spec, getattr(policy.input_projection, name))
    else:
        yield from _of_module(specs.input_projection, policy.input_projection)
    for spec, layer in zip(specs.layers, layers, strict=True):
        for gru_spec, gru in zip(spec.grus, layer.grus, strict=True):
            yield from _of_module(gru_spec, gru, "_l0")
        yield from _of_module(spec.router, layer.router)
        for projection_spec, projection in zip(spec.projections, layer.projections, strict=True):
            yield from _of_module(projection_spec, projection)
        yield from _of_module(spec.norm, layer.norm)
    yield from _of_module(specs.head, policy.head)


def _of_module(
    specs: CellViews | LinearViews | GRUViews | None, module: nn.Module | None, suffix: str = ""
) -> Iterator:
    """Pair the fields of specs, which have torch's names, with the parameters; nothing where either is not there."""
    if specs is not None and module is not None:
        for name, spec in specs._asdict().items():
            yield spec, getattr(module, f"{name}{suffix}")
