"""A policy's sequence as one torch function whose gradient is compiled (`sequence`), for learning on a CPU.

What is computed is what `mixture_of_experts` says; `fast` chooses when it is computed here. Environments are computed
in up to eight parts, which run in threads where the process may use several cores. How many parts there are depends on
the number of environments alone, and their gradients are added in one order: so results do not depend on the number of
threads, to the last bit. There are no second derivatives. Axis letters as in `policy`.
"""

import contextlib
import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mop.common.speed import num_threads
from mop.fast import sequence
from mop.fast.policy_step import PolicyShape
from mop.fast.weights import ViewSpec, zeros

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
with contextlib.suppress(AttributeError, OSError, TypeError):  # elsewhere memory is handled in other ways
    # The tapes of a step lie where those of the last one lay. Memory that is given back and asked for again costs a
    # fifth of learning, as threads wait for each other while it is mapped.
    _mallopt = ctypes.CDLL(None).mallopt
    _mallopt(_M_TRIM_THRESHOLD, 512 << 20)
    _mallopt(_M_MMAP_THRESHOLD, 32 << 20)

_ENVS_OF_A_PART = 8  # at least: below it, a thread saves less than it takes
_MOST_PARTS = 8


def parts_of(num_envs: int) -> list[slice]:
    """The environments in parts of one size, give or take one: a power of two of them."""
    num_parts = 1
    while 2 * num_parts <= min(_MOST_PARTS, num_envs // _ENVS_OF_A_PART):
        num_parts *= 2
    bounds = [num_envs * part // num_parts for part in range(num_parts + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds)]


@functools.cache
def _pool(process: int, size: int) -> ThreadPoolExecutor:
    """process: the number of this one; threads do not live on in a forked process."""
    return ThreadPoolExecutor(size, "part of a sequence")


def _in_threads(function: Callable, items: Sequence) -> list:
    """[function(item) for item in items]; this thread takes its share."""
    count = min(num_threads(), len(items))
    others = [
        _pool(os.getpid(), count - 1).submit(lambda share: [function(item) for item in share], items[i::count])
        for i in range(1, count)
    ]
    shares = [[function(item) for item in items[::count]], *(future.result() for future in others)]
    return [shares[i % count][i // count] for i in range(len(items))]


class Call(NamedTuple):
    """What a sequence is computed of beside tensors that have gradients."""

    shape: PolicyShape
    specs: Sequence[ViewSpec]  # of each parameter in the flat array
    keep: Tensor  # (T, N) bool
    dropouts: list[tuple[Tensor, float, float] | None]  # of each layer, as `sequence.Dropout`
    num_states: int  # of the last so many steps the states are returned


def views_of(specs: Sequence[ViewSpec], flat: Tensor) -> list[Tensor]:
    """Views of a flat tensor, in the shapes that torch gives its parameters."""
    return [flat.as_strided(spec.shape, spec.strides, spec.start) for spec in specs]


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def _of_part(tensor: Tensor | None, part: slice) -> np.ndarray | None:
    return None if tensor is None else _numpy(tensor)[:, part]


class CompiledSequence(torch.autograd.Function):
    """`sequence.forward`: either obs (T, N, I) and lang (T, N, G), or x (T, N, D); hidden (N, S); all parameters.

    Returns logits (T, N, A), states (num_states, N, S), router weights L x (T, N, E_l). The categories of one-hot
    observations have no gradient.
    """

    @staticmethod
    def forward(ctx, call, obs, lang, x, hidden, *parameters):
        (num_steps, num_envs), shape = call.keep.shape, call.shape
        flat = torch.from_numpy(zeros(shape.num_weights, _numpy(hidden).dtype))
        torch._foreach_copy_(views_of(call.specs, flat), parameters)
        ctx.save_for_backward(flat)  # which notices a change in between
        ctx.call, ctx.parts, weights = call, parts_of(num_envs), _numpy(flat)
        hidden, keep = _numpy(hidden), _numpy(call.keep)
        sizes = [(num_steps, shape.num_actions), (call.num_states, shape.hidden_size)]
        sizes += [(num_steps, num_experts) for num_experts in shape.num_routes]
        results = [np.empty((steps, num_envs, width), weights.dtype) for steps, width in sizes]

        def run(part: slice) -> sequence.Tape:
            dropouts = [d and (_numpy(d[0])[:, part], *d[1:]) for d in call.dropouts]
            inputs = [_of_part(tensor, part) for tensor in (obs, lang, x)]
            given = (*inputs, hidden[part], keep[:, part], dropouts)
            found, tape = sequence.forward(shape, weights, *given, call.num_states)
            for result, own in zip(results, (found.logits, found.states, *found.routing), strict=True):
                result[:, part] = own
            return tape

        ctx.tapes = _in_threads(run, ctx.parts)
        ctx.set_materialize_grads(False)
        return tuple(map(torch.from_numpy, results))

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        (shape, specs, *_), weights = ctx.call, _numpy(*ctx.saved_tensors)

        def run(work: tuple[slice, sequence.Tape]) -> tuple[np.ndarray, ...]:
            part, tape = work
            logits, states, *routing = (_of_part(grad, part) for grad in grads)
            return sequence.backward(shape, weights, tape, sequence.Results(logits, states, routing))

        of_parts = _in_threads(run, list(zip(ctx.parts, ctx.tapes, strict=True)))
        (flat, *others), by_given, by_hidden = zip(*of_parts, strict=True)
        for other in others:
            flat += other
        flat, by_given, by_hidden = map(
            torch.from_numpy, (flat, np.concatenate(by_given, 1), np.concatenate(by_hidden))
        )
        by_parameters = views_of(specs, flat)
        if ctx.tapes[0].obs is None:
            return None, None, None, by_given, by_hidden, *by_parameters
        by_obs, by_lang = by_given.split([by_given.shape[-1] - shape.lang_dim, shape.lang_dim], -1)
        if ctx.needs_input_grad[1]:
            by_obs = torch.nn.functional.pad(by_obs, (shape.input_dim - by_obs.shape[-1], 0))
        return None, by_obs if ctx.needs_input_grad[1] else None, by_lang, None, by_hidden, *by_parameters
