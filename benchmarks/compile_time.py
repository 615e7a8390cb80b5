"""How long the first update of training takes where the kernels have to be compiled, and where they were before.

python benchmarks/compile_time.py
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.throughput import spread
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

FIRST_UPDATE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from benchmarks.throughput import make_run
start = time.perf_counter()
make_run("BabyAI-GoToObj-v0", 0, 16).step_update()
print("seconds", time.perf_counter() - start)
"""


def first_update(cache: str) -> float:
    """Seconds of the first update in a new process whose compiled kernels are kept in the folder `cache`."""
    command = [sys.executable, "-c", FIRST_UPDATE, str(Path(__file__).parent.parent)]
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(re.search(r"seconds ([\d.]+)", result.stdout)[1])


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--repeats", default=3, help="runs of each (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, repeats=integer(1))
    pairs = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append((first_update(cache), first_update(cache)))
    for name, seconds in zip(("to be compiled", "compiled before"), zip(*pairs, strict=True), strict=True):
        print(f"{name:<16}{spread(seconds)} s")
    return 0


if __name__ == "__main__":
    run_script(main)
