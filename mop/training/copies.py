"""Copies of what a run keeps changing: of the states of optimisers, above all, as Adam changes its own in place."""

import torch
from torch import Tensor


def copied_to_cpu(value):
    """Nested dictionaries, lists and tuples, the latter as lists, with a copy of every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {key: copied_to_cpu(item) for key, item in value.items()}
    return [copied_to_cpu(item) for item in value] if isinstance(value, list | tuple) else value
