"""The folder of compiled kernels depends on every file whose text is compiled; that it is filled is announced."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

from numba.core.registry import CPUDispatcher
from scripts import REPOSITORY, script_environment

import mop.fast
from mop.fast.compile_cache import kernel_files


def test_every_file_with_a_kernel_names_the_cache():
    modules = [importlib.import_module(f"mop.fast.{module.name}") for module in pkgutil.iter_modules(mop.fast.__path__)]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)}
    files = {Path(kernel.py_func.__code__.co_filename).resolve() for kernel in kernels}
    assert files <= {path.resolve() for path in kernel_files()}
    assert {path.name for path in files} >= {"bot.py", "inputs.py", "grid.py", "geometry.py", "sequence_kernels.py"}
    assert len(kernels) > 50


def test_the_first_compilation_of_an_installation_is_announced(tmp_path):
    script = tmp_path / "kernels.py"
    script.write_text(
        "from mop.fast.compile_cache import kernel\n@kernel\ndef more(x):\n    return x + 1\nmore(1), more(1.0)"
    )
    environment = script_environment({"PYTHONPATH": str(REPOSITORY), "NUMBA_CACHE_DIR": str(tmp_path / "cache")})
    command = [sys.executable, str(script)]
    told = [subprocess.run(command, env=environment, capture_output=True, text=True).stderr for _ in range(2)]
    assert told[0].startswith("compiling") and told[0].count("\n") == 1 and told[1] == ""
