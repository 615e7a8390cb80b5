"""The switch between the compiled code of `mop.fast` and the plain code that it replaces; the number of threads."""

import os
from importlib.util import find_spec
from pathlib import Path

_IS_THERE = (Path(__file__).parents[1] / "fast" / "__init__.py").exists() and find_spec("numba") is not None

# RL_MOP_FAST=0 runs the plain code: the same results, slowly. So does a checkout without mop/fast, or without numba.
IS_FAST: bool = _IS_THERE and os.environ.get("RL_MOP_FAST") != "0"


def num_threads() -> int:
    """Number of cores that this process may use, or OMP_NUM_THREADS if that is fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) > 0 else cores
