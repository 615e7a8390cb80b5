"""Worlds as free cells, and how many steps a cell is from an object, around the walls.

Axis letters: B worlds (one for each episode), H, W height and width of the grid, S steps.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from mop.analysis.routing_data import RoutingData, Steps, whole_of
from mop.common.errors import InputError

# What distances are measured to: kind -> its cells [x, y, ...] at the start of an episode.
OBJECT_KINDS = {
    "door": lambda episode: episode["doors"],
    "key": lambda episode: episode["keys"],
    "target": lambda episode: [] if episode["target_pos"] is None else [episode["target_pos"]],
}
WORLD_FIELDS = ("position", "grid_size", "room_bounds", "doors")  # what tells walls: of the steps, of the episodes


def free_cells(routing_data: RoutingData) -> np.ndarray:
    """The cells (B, H, W) bool that are no wall, in the world of each episode.

    The inside of each room is free, and so are doors, as a locked one can be unlocked. In some tasks (KeyCorridor,
    PutNext, MoveTwoAcross) a wall between two rooms is missing, and the episodes do not say so. Minigrid removes such a
    wall whole, at the same place in every world; so one step of any episode where this wall would be, and no door is,
    shows that it is missing. Objects move, and do not count as obstacles.
    Raises InputError if the episodes lack a field, or their grids differ in size.
    """
    for field in WORLD_FIELDS:
        routing_data.require(field)
    return _free_cells(routing_data.steps, routing_data.episodes)


def wall_cells(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray | None:
    """The cells (H, W) bool that are a wall in the world of every episode, as `free_cells`; None where none can tell.

    The data do not tell if they lack a field of WORLD_FIELDS or the worlds differ in size or rooms.
    """
    if steps.position is None or not all(field in episode for episode in episodes for field in WORLD_FIELDS[1:]):
        return None
    try:
        walls = ~_free_cells(steps, episodes).any(0)
    except InputError:
        return None
    x, y = np.asarray(steps.position).T
    walls[y, x] = False  # whoever stood there was not in a wall
    return walls


def _free_cells(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray:
    if len({(tuple(e["grid_size"]), str(e["room_bounds"])) for e in episodes}) != 1:
        raise InputError("distances need episodes whose worlds have one size and one grid of rooms")
    (width, height), rooms = episodes[0]["grid_size"], np.array(episodes[0]["room_bounds"]).reshape(-1, 4)

    free = np.zeros((len(episodes), height, width), bool)
    for x_min, y_min, x_max, y_max in rooms.tolist():
        free[:, y_min + 1 : y_max, x_min + 1 : x_max] = True
    world, x, y = _cells(episodes, lambda episode: episode["doors"])
    free[world, y, x] = True

    x, y = np.asarray(steps.position).T
    is_opening = ~free[np.asarray(steps.episode), y, x]
    opened = np.zeros((height, width), bool)
    opened[y[is_opening], x[is_opening]] = True
    for wall in _walls_between(rooms):
        if opened[wall].any():
            free[(slice(None), *wall)] = True
    return free


def walking_distances(free: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Steps (B, H, W) int64 from each cell to the nearest source of its world, -1 where none can be reached.

    free, sources: (B, H, W) bool. A breadth-first search in all worlds at once, over the four neighbours of a cell; a
    source counts as free. Raises ValueError if an outermost cell of a grid is free or a source: from there the search
    would run on into the next row or world.
    """
    num_worlds, height, width = free.shape
    inner = np.zeros_like(free)
    inner[:, 1:-1, 1:-1] = True
    if ((free | sources) & ~inner).any():
        raise ValueError("a cell on the edge of the grid is free")
    distance = np.full(free.size, -1, np.int64)
    is_open = (free & ~sources).ravel()
    frontier = np.flatnonzero(sources)
    distance[frontier] = 0
    for steps in range(1, free.size):
        neighbours = (frontier[:, None] + [-1, 1, -width, width]).ravel()
        frontier = np.unique(neighbours[is_open[neighbours]])
        if not len(frontier):
            break
        is_open[frontier] = False
        distance[frontier] = steps
    return distance.reshape(num_worlds, height, width)


def distances_to_objects(routing_data: RoutingData) -> dict[str, np.ndarray]:
    """Kind of OBJECT_KINDS -> walking distance (S,) float64 from each step to where the nearest one was at the start.

    NaN where the world has none or it cannot be reached; a kind that no world has is left out.
    Raises InputError as `free_cells`, or if the episodes lack 'keys' or 'target_pos'.
    """
    for field in ("keys", "target_pos"):
        routing_data.require(field)
    free = free_cells(whole_of(routing_data))
    x, y = np.asarray(routing_data.steps.position).T
    distances = {}
    for kind, cells_of in OBJECT_KINDS.items():
        world, source_x, source_y = _cells(routing_data.episodes, cells_of)
        if not len(world):
            continue
        sources = np.zeros_like(free)
        sources[world, source_y, source_x] = True
        distance = walking_distances(free, sources)[np.asarray(routing_data.steps.episode), y, x].astype(np.float64)
        distances[kind] = np.where(distance < 0, np.nan, distance)
    return distances


def _walls_between(rooms: np.ndarray) -> list[tuple[slice, slice]]:
    """Rows and columns of each wall that two of the rooms (R, 4) [x_min, y_min, x_max, y_max] share; no corners."""
    walls = []
    for x_min, y_min, x_max, y_max in rooms.tolist():
        if ((rooms[:, 0] == x_max) & (rooms[:, 1] == y_min)).any():
            walls.append((slice(y_min + 1, y_max), slice(x_max, x_max + 1)))
        if ((rooms[:, 1] == y_max) & (rooms[:, 0] == x_min)).any():
            walls.append((slice(y_max, y_max + 1), slice(x_min + 1, x_max)))
    return walls


def _cells(episodes, cells_of) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World, x, y of every object, one array each."""
    found = [(world, cell[0], cell[1]) for world, episode in enumerate(episodes) for cell in cells_of(episode)]
    return tuple(np.array(found, np.int64).reshape(-1, 3).T)
