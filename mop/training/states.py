"""Training states as nested dictionaries: copies of what a run keeps changing, and the form of one to continue from."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mop.common.errors import InputError


def copied_to_cpu(value: Any) -> Any:
    """Copy nested dictionaries, lists and tuples, the latter as lists, with every tensor on the CPU.

    Above all the states of optimisers, as Adam changes its own in place.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, dict):
        return {key: copied_to_cpu(item) for key, item in value.items()}
    return [copied_to_cpu(item) for item in value] if isinstance(value, list | tuple) else value


def adam_form(parameters: Iterable[Tensor], state: Any) -> dict:
    """Make what a state of Adam over these parameters must look like, for `check_form`; it is empty before a step."""
    if not state["state"]:
        return {"state": {}, "param_groups": [{"lr": 0.0}]}
    moments = (parameter.detach().cpu() for parameter in parameters)
    of_each = ({"step": torch.zeros(()), "exp_avg": like, "exp_avg_sq": like} for like in moments)
    return {"state": dict(enumerate(of_each)), "param_groups": [{"lr": 0.0}]}


def check_form(value: Any, like: Any, name: str) -> None:
    """Refuse a value that differs from `like` in type, in dtype or shape, or in the keys that `like` has.

    Each item of a list is compared with the first of `like`, which has one; an int may stand in the place of a float.
    """
    if isinstance(like, Tensor):
        fits = isinstance(value, Tensor) and value.dtype == like.dtype and value.shape == like.shape
    elif isinstance(like, dict):
        fits = isinstance(value, dict) and value.keys() >= like.keys()
    else:
        fits = type(value) is type(like) or (type(like) is float and type(value) is int)
    if not fits:
        form = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"'{name}' has another form than in this run and version: {form}")
    if isinstance(like, dict):
        for key, item in like.items():
            check_form(value[key], item, f"{name}.{key}")
    elif isinstance(like, list):
        for item in value:
            check_form(item, like[0], name)
