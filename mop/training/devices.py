"""Where the arithmetic runs."""

import torch

from mop.common.errors import InputError
from mop.common.speed import IS_FAST


def use_device(name: str) -> torch.device:
    """`choose_device`, for what compiles: announces the compilation of a new installation."""
    device = choose_device(name)
    if IS_FAST:
        from mop.fast.compile_cache import announce_compilation  # here: numba takes a while to load

        announce_compilation()
    return device


def choose_device(name: str) -> torch.device:
    """The device `auto` (cuda if there is one), `cpu`, `cuda:1`, ...; on the CPU, torch is set to one thread."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda are supported")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        torch.set_num_threads(1)  # matrices are small: a second thread costs more than it saves, and workers need it
    return device
