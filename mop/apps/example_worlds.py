"""Pictures of worlds for the figures of a run, made again from the seeds of its episodes."""

import functools

import numpy as np

from mop.analysis.groups import group_routing_data
from mop.analysis.routing_data import whole_of
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError


def episode_frame(data: RoutingData, episode: int, t_step: int, tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of the world of an episode before action `t_step`, made from its seed."""
    from mop.envs.render import replay_world

    _require_pictures(data)
    data = whole_of(data)
    rows, seed = np.flatnonzero(data.steps.episode == episode), data.episodes[episode]["seed"]
    rows = rows[np.argsort(data.column("t_step")[rows], kind="stable")]
    world = replay_world(data.header["task_id"], seed, data.column("action")[rows[:t_step]].tolist())
    if t_step < len(rows) and list(map(int, world.agent_pos)) != data.column("position")[rows[t_step]].tolist():
        made_with = data.header.get("minigrid_version")
        raise InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")
    return world.get_frame(tile_size=tile_size)


@functools.lru_cache(maxsize=4)  # of the runs and analyses that were shown last
def example_images(data: RoutingData, group_by: str, max_groups: int = 16) -> dict[str, np.ndarray]:
    """A picture of the first step of each group, of the largest if there are more: label -> (height, width, 3) uint8.

    Empty if the cache lacks what is needed, as figures can do without.
    """
    try:
        groups = group_routing_data(data, group_by)
        _require_pictures(data)
        first = {groups.labels[group]: groups.first_steps[group] for group in groups.largest(max_groups)}
        return {
            label: episode_frame(data, data.steps.episode[step], data.column("t_step")[step], tile_size=16)
            for label, step in first.items()
        }
    except InputError:
        return {}


def _require_pictures(data: RoutingData) -> None:
    """Refuse data that lacks what a picture of a world at some step is made from."""
    for field in ("seed", "action", "t_step", "position"):
        data.require(field)
