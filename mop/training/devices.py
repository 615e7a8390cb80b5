"""Where the arithmetic runs."""

import warnings

import torch

from mop.common.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device `auto` (cuda if there is one), `cpu`, `cuda:1`, ...; on the CPU, torch is set to one thread.

    `mps`, the GPU of Apple's computers, is the CPU with a warning where torch cannot use one.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("only cpu, cuda and mps are supported")
        if device.type == "mps" and not torch.backends.mps.is_available():
            warnings.warn("torch finds no mps on this machine; the CPU is used", stacklevel=2)
            device = torch.device("cpu")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    if device.type == "cpu":
        torch.set_num_threads(1)  # matrices are small: a second thread costs more than it saves, and workers need it
    return device
