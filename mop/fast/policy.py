"""Policies of `mixture_of_experts`: sequences with gradients, single steps, a copy without torch.

They are compiled on a CPU, and `packed` on other devices; other equations are refused (`refusal`). Axis letters as in
`mixture_of_experts`.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from mixture_of_experts import (
    Expert,
    FilmProjection,
    GRUPolicy,
    MixtureOfExpertsPolicy,
    MoELayer,
    RecurrentPolicy,
    Router,
)
from mop.fast import packed
from mop.fast.autograd import Call, CompiledSequence
from mop.fast.policy_step import CompiledPolicy, PolicyShape
from mop.fast.sequence_kernels import are_categories
from mop.fast.weights import ViewSpec, lay_out, zeros

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
    is_packed: bool | None = None,
) -> tuple[Tensor, list[Tensor], Tensor]:
    """`RecurrentPolicy.get_routing_info` of a sequence.

    is_packed: None to choose by the device. There are no second derivatives; compiled, the gradients by the categories
    of one-hot observations are zero.
    """
    if not is_on_cpu(policy) if is_packed is None else is_packed:
        x = policy.input_projection(policy.encode(obs, lang))
        logits, routing, states = _run_packed(policy, x, hidden, keep)
        return logits, routing, states[-1]
    if not are_categories(policy.edges.numpy(), obs.detach().numpy()):
        policy.check_categories(obs)
    logits, routing, states = _run(policy, obs, lang, None, hidden, keep, 1)
    return logits, routing, states[-1]


def run_projected(policy: RecurrentPolicy, x: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """`mop.training.execution.run_projected`."""
    if not is_on_cpu(policy):
        return _run_packed(policy, x, hidden, None)
    return _run(policy, None, None, x, hidden, None, len(x))


def _run_packed(policy: RecurrentPolicy, x: Tensor, hidden: Tensor, keep: Tensor | None):
    """`run_projected` on any device, where single steps may start afresh; keep (T, N)."""
    x, routing, states = packed.run([packed.pack(layer) for layer in policy.layers], x, hidden, keep)
    return policy.head(x), routing, states


def _run(policy, obs, lang, x, hidden: Tensor, keep: Tensor | None, num_states: int):
    """`run_projected` of either obs (T, N, I) and lang (T, N, G), or x (T, N, D), with the last `num_states` states.

    keep: (T, N).
    """
    num_steps_and_envs = (obs if x is None else x).shape[:2]
    if keep is None:
        keep = torch.ones(num_steps_and_envs, dtype=torch.bool)
    shape = shape_of(policy)
    dropouts = []
    for layer in policy.layers:
        if isinstance(layer, MoELayer) and layer.dropout is not None and layer.training:
            uniform = torch.rand(*num_steps_and_envs, len(layer.expert_sizes), dtype=hidden.dtype)
            dropouts.append((uniform, *layer.dropout))
        else:
            dropouts.append(None)
    call = Call(shape, _specs_of(policy), keep, dropouts, num_states)
    logits, states, *routing = CompiledSequence.apply(call, obs, lang, x, hidden, *policy.parameters())
    return logits, routing, states


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
    layers = [packed.pack(layer) for layer in own.layers]

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
    dims = (policy.input_dim, policy.lang_dim, policy.width, policy.num_actions)
    mixtures = [layer for layer in policy.layers if isinstance(layer, MoELayer)]
    sizes = tuple((layer.router.hidden_size, *layer.expert_sizes) for layer in mixtures) or ((policy.hidden_size,),)
    is_residual = bool(mixtures) and mixtures[0].norm is not None
    return PolicyShape(*dims, sizes, is_residual, policy.obs_encoding, policy.film)


def _specs_of(policy: RecurrentPolicy) -> list[ViewSpec]:
    """Where each of the policy's parameters lies in the flat array."""
    specs = lay_out(shape_of(policy)).specs
    return [specs[name] for name, _ in policy.named_parameters()]


def compile_policy(policy: RecurrentPolicy) -> CompiledPolicy:
    """A copy of the policy that steps without torch; see `refresh`."""
    shape = shape_of(policy)
    compiled = CompiledPolicy(shape, zeros(shape.num_weights, _dtype_of(policy)))
    refresh(compiled, policy)
    return compiled


def refresh(compiled: CompiledPolicy, policy: RecurrentPolicy) -> None:
    """Copy the present weights into a compiled policy."""
    for name, parameter in policy.named_parameters():
        compiled.parameters[name][...] = parameter.detach().cpu().numpy()


def _dtype_of(policy: RecurrentPolicy):
    return torch.empty(0, dtype=policy.head.weight.dtype).numpy().dtype
