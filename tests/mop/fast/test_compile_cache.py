"""The folder of compiled kernels depends on every file whose text is compiled."""

import importlib
import pkgutil
from pathlib import Path

from numba.core.registry import CPUDispatcher

import mop.fast
from mop.fast.compile_cache import kernel_files


def test_every_file_with_a_kernel_names_the_cache():
    modules = [importlib.import_module(f"mop.fast.{module.name}") for module in pkgutil.iter_modules(mop.fast.__path__)]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)}
    files = {Path(kernel.py_func.__code__.co_filename).resolve() for kernel in kernels}
    assert files <= {path.resolve() for path in kernel_files()}
    assert {path.name for path in files} >= {"bot.py", "inputs.py", "grid.py", "geometry.py", "sequence_kernels.py"}
    assert len(kernels) > 50
