"""Seconds from opening the page of routing_viz to its first figure, in Chromium, on a routing cache of 100,000 steps.

    python benchmarks/first_figure.py

The cache is of 1,500 worlds of KeyCorridorS3R3 and the policy of results/zoo; to make it takes about a minute. Each
server has two visitors, one after the other, whose browsers have nothing of the page in store; the first finds a server
that has just started, and reads the cache. Then the same where the arrays beside the JSON are missing.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from browser import CHROMIUM, CHROMIUM_FLAGS, FIGURE, served
from playwright.sync_api import sync_playwright

from benchmarks.throughput import spread
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

ROOT = Path(__file__).parent.parent
KEY = RunKey("BabyAI-KeyCorridorS3R3-v0", 0, 0)
REST_S = 2  # between a server's start and its first visitor


def make_cache(folder: Path, num_episodes: int) -> Path:
    """The routing cache of the zoo's policy, below `folder`."""
    cache_dir = folder / "evaluation_cache"
    where = ("--checkpoint_dir", ROOT / "results" / "zoo", "--cache_dir", cache_dir, "--results_path", folder / "r.csv")
    which = ("--task", KEY.task_id, "--trial", KEY.trial, "--seed", KEY.seed, "--num_episodes", num_episodes)
    subprocess.run([sys.executable, ROOT / "batch_eval.py", *map(str, (*where, *which))], cwd=folder, check=True)
    return cache_path(cache_dir, KEY)


def visit(browser, address: str) -> float:
    """Seconds until the figure is painted."""
    context = browser.new_context(viewport={"width": 1440, "height": 1400})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    figure = page.locator(FIGURE).first
    figure.wait_for(timeout=120_000)
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=figure.element_handle())
    seconds = time.perf_counter() - start
    context.close()
    return seconds


def measure(browser, folder: Path, repeats: int) -> None:
    """Print the times of the first and the second visitor of each of some servers."""
    times = []
    for _ in range(repeats):
        with served(ROOT / "routing_viz.py", folder) as address:
            time.sleep(REST_S)
            times.append((visit(browser, address), visit(browser, address)))
    for name, seconds in zip(("first visitor", "second"), zip(*times, strict=True), strict=True):
        print(f"  {name:<15}{spread(seconds, 2)} s")


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--episodes", default=1500, help="worlds in the cache (default: %(default)s)")
    parser.add_argument("--repeats", default=5, help="servers started (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, episodes=integer(1), repeats=integer(1))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        path = make_cache(Path(name), args.episodes)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
        print(f"{len(load_cache(path).steps)} steps; medians of {args.repeats} servers (min to max)")
        print("as batch_eval.py leaves the cache")
        measure(browser, Path(name), args.repeats)
        print("without its arrays")
        path.with_suffix(".npz").unlink()
        measure(browser, Path(name), args.repeats)
        browser.close()
    return 0


if __name__ == "__main__":
    run_script(main)
