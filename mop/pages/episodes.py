"""Single episodes: their names, pictures and captions."""

import math

import numpy as np

from mop.base.errors import InputError
from mop.measures.groups import group_routing_data
from mop.measures.routing_data import ACTION_NAMES, whole_of
from mop.store.routing_cache import RoutingCache


def episode_labels(data: RoutingCache) -> dict[str, int]:
    """The episodes that have a step in the data: a line that describes each -> its index."""
    counts = np.bincount(data.steps.episode, minlength=len(data.episodes))
    labels = {}
    for index, (episode, count) in enumerate(zip(data.episodes, counts.tolist(), strict=True)):
        outcome = {True: "success", False: "failure"}.get(episode.get("success"), "")
        parts = [f"{index}", episode.get("mission", ""), outcome, f"{count} steps"]
        if count:
            labels[" · ".join(filter(None, parts))] = index
    return labels


def episode_frame(data: RoutingCache, episode: int, t_step: int, tile_size: int = 32) -> np.ndarray:
    """A picture (height, width, 3) uint8 of an episode's world before action `t_step`, from its seed and its actions.

    Raises InputError if the cache lacks what is needed, or this machine's Minigrid makes another world of the seed.
    """
    from mop.worlds.pictures import replay_world

    _require_pictures(data)
    steps = whole_of(data).steps
    rows = np.flatnonzero(steps.episode == episode)
    rows = rows[np.argsort(steps.t_step[rows], kind="stable")]
    seed = data.episodes[episode]["seed"]
    world = replay_world(data.header["task_id"], seed, steps.action[rows[:t_step]].tolist())
    if t_step < len(rows) and list(map(int, world.agent_pos)) != steps.position[rows[t_step]].tolist():
        made_with = data.header.get("minigrid_version")
        raise InputError(f"world {seed} is another one here than where the cache was made (with Minigrid {made_with})")
    return world.get_frame(tile_size=tile_size)


def example_images(data: RoutingCache, group_by: str, max_groups: int = 16) -> dict[str, np.ndarray]:
    """A picture of the first step of each group, of the largest if there are more: label -> (height, width, 3) uint8.

    Empty if the cache lacks what is needed, as figures can do without. Raises InputError as `group_routing_data`.
    """
    groups = group_routing_data(data, group_by)
    try:
        _require_pictures(data)
        first = {groups.labels[group]: groups.first_steps[group] for group in groups.largest(max_groups)}
        return {
            label: episode_frame(data, data.steps.episode[step], data.steps.t_step[step], tile_size=16)
            for label, step in first.items()
        }
    except InputError:
        return {}


def step_caption(data: RoutingCache, episode: int, t_step: int) -> str:
    """What the agent does at a step of an episode and what that costs, as far as the data tells.

    Raises InputError if the episode has no such step.
    """
    steps = data.steps
    rows = np.flatnonzero((steps.episode == episode) & (steps.t_step == t_step))
    if not len(rows):
        raise InputError(f"episode {episode} has no step {t_step}")
    row = rows[0]
    parts = [f"step {t_step}"]
    if steps.action is not None:
        parts.append(f"next action: {ACTION_NAMES[steps.action[row]]}")
    if steps.carrying is not None:
        parts.append("carrying" if steps.carrying[row] else "hands empty")
    if steps.lpc is not None and math.isfinite(steps.lpc[row]):
        parts.append(f"LPC {steps.lpc[row]:,.0f}")
    return " · ".join(parts)


def _require_pictures(data: RoutingCache) -> None:
    """Raises InputError if the data lacks what a picture of a world at some step is made from."""
    for field in ("seed", "action", "t_step", "position"):
        data.require(field)
