"""Seconds to write and to read a routing cache, and its bytes a step.

    python benchmarks/cache_speed.py                             100,000 steps, three layers of three experts
    python benchmarks/cache_speed.py --steps 1000000 --repeats 3

The steps are random, with every column and the spread of values that evaluations have. Writing includes the flush to
the disk of the system's temporary folder; reading comes right after it, so the file is in memory.
"""

import tempfile
import time

import numpy as np

from benchmarks.throughput import spread
from mop.artifacts.routing_cache import RoutingCache, RoutingSteps, load_cache, write_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer

EPISODE_STEPS = 40
EXPERT_SIZES = (0, 16, 32)  # of each of three layers


def make_cache(num_steps: int) -> RoutingCache:
    """A cache of a 3 x 3 room task with episodes of EPISODE_STEPS steps."""
    rng = np.random.default_rng(0)
    routing = [rng.dirichlet(np.ones(3), num_steps).astype(np.float32) for _ in range(3)]
    steps = RoutingSteps(
        episode=np.arange(num_steps, dtype=np.int32) // EPISODE_STEPS,
        t_step=np.arange(num_steps, dtype=np.int32) % EPISODE_STEPS,
        position=rng.integers(1, 22, (num_steps, 2), dtype=np.int32),
        direction=rng.integers(0, 4, num_steps, dtype=np.int8),
        layer_routing=routing,
        lpc=sum(routing) @ np.square(EXPERT_SIZES).astype(np.float32),
        carrying=rng.random(num_steps) < 0.5,
        door_unlocked=rng.random(num_steps) < 0.5,
        action_logits=rng.normal(0, 8, (num_steps, 7)).astype(np.float32),
        action=rng.integers(0, 7, num_steps, dtype=np.int8),
    )
    bounds = [[7 * x, 7 * y, 7 * x + 7, 7 * y + 7] for y in range(3) for x in range(3)]
    objects = {"doors": [[7, 3, "red", False, True]] * 10, "keys": [], "balls": [[10, 6, "blue"]] * 6, "boxes": []}
    episode = {
        "grid_size": [22, 22],
        "room_bounds": bounds,
        **objects,
        "mission": "go to the blue ball",
        "t_pick": None,
    }
    return RoutingCache({"num_episodes": 1}, [episode] * -(-num_steps // EPISODE_STEPS), steps)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--steps", default=100_000, help="steps in the cache (default: %(default)s)")
    parser.add_argument("--repeats", default=7, help="caches written and read (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, steps=integer(1), repeats=integer(1))
    key, cache, times = RunKey("BabyAI-GoTo-v0", 0), make_cache(args.steps), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.repeats):
            start = time.perf_counter()
            write_cache(folder, key, cache)
            written = time.perf_counter()
            loaded = load_cache(cache_path(folder, key))
            read = time.perf_counter()
            cache_path(folder, key).with_suffix(".npz").unlink()
            from_json = load_cache(cache_path(folder, key))
            read_json = time.perf_counter()
            times.append((written - start, read - written, read - start, read_json - read))
            assert len(loaded.steps) == len(from_json.steps) == args.steps
        size = cache_path(folder, key).stat().st_size
    print(f"{args.steps} steps, {size / args.steps:.0f} bytes a step; medians of {args.repeats} (min to max)")
    for name, values in zip(
        ("write", "read", "together", "read, from its JSON alone"), zip(*times, strict=True), strict=True
    ):
        print(f"{name:<26}{spread(values, 2)} s")
    return 0


if __name__ == "__main__":
    run_script(main)
