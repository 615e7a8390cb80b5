"""The routing heatmaps of batch_eval.py --plots: one picture of each evaluated checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from mop.artifacts.checkpoints import FoundCheckpoint
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import cache_path
from mop.common.errors import InputError
from mop.common.files import write_figure


def print_heatmaps(evaluated: Sequence[FoundCheckpoint], cache_dir: str, plots_dir: str) -> None:
    """Draw each heatmap that is not drawn yet and print where it is, or why it cannot be drawn."""
    for found in evaluated:
        try:
            print(f"heatmap: {write_heatmap(found, cache_dir, plots_dir)}")
        except (InputError, OSError) as error:
            print(f"no heatmap of {found.key.label}: {error}")


def write_heatmap(found: FoundCheckpoint, cache_dir: str, plots_dir: str) -> Path:
    """Draw the routing of every layer beside the first world, unless the picture is newer than the cache; its path.

    Raises InputError where the cache cannot be read or drawn.
    """
    path, cached = found.key.artefacts(plots_dir) / "routing_heatmap.png", cache_path(cache_dir, found.key)
    if path.exists() and cached.exists() and path.stat().st_mtime_ns > cached.stat().st_mtime_ns:
        return path
    from mop.envs.render import render_world
    from mop.plotting.maps import plot_overall_routing

    cache = load_cache(cached)
    for field in ("position", "layer_routing", "seed", "mission"):
        cache.require(field)
    first = cache.episodes[0]
    figure = plot_overall_routing(cache, render_world(found.key.task_id, first["seed"]), first["mission"])
    return write_figure(path, figure)
