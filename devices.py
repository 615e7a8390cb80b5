"""Where the arithmetic runs."""

import sys
from pathlib import Path

import torch

from bot_kernels import replan
from errors import InputError
from policy_kernels import scan_backward


def use_device(name: str) -> torch.device:
    """The device `auto` (cuda if there is one), `cpu`, `cuda`, `cuda:1`, ...; on the CPU, torch is set to one thread.

    Says so where this installation has no compiled kernels yet. Raises InputError for a device that this machine lacks.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        torch.set_num_threads(1)  # matrices are small: a second thread costs more than it does, and workers need it
    if not _are_kernels_compiled():
        print("compiling for this machine: about a minute, once for this installation", file=sys.stderr)
    return device


def _are_kernels_compiled() -> bool:
    """Whether an earlier run left the largest of them where numba looks."""
    for kernel in (replan, scan_backward):
        code = kernel.py_func.__code__
        index = f"{kernel.py_func.__module__}.{code.co_name}-{code.co_firstlineno}.*.nbi"
        if not any(Path(kernel.stats.cache_path).glob(index)):
            return False
    return True
