"""Maps of the grid: means over the steps in each cell, the rectangle to draw, walls and walking distances.

Axis letters: S steps, C grid cells that were visited, L layers, E experts; B worlds (one for each episode), H, W height
and width of the grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mop.analysis.routing import mean_by
from mop.analysis.routing_data import StepFilter, checked_positions, checked_weights, step_mask, whole_of
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.common.errors import InputError
from mop.statistics.bootstrap import ratio, sum_by

FULL_STEPS = 10  # from so many steps on, a mean counts fully
CLOSE = 0.05  # mean weights that differ by less do not say which expert is the first


@dataclass(frozen=True, eq=False)
class CellIndex:
    """Which of the visited cells each step is in; cells are in reading order (by y, then x)."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps in the cell
    index: np.ndarray  # (S,) int64, cell of each step

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Average values (S,) over the steps in each cell, (C,) float64; values that are not finite are left out."""
        is_known = np.isfinite(values)
        of_cells = np.column_stack([np.where(is_known, values, 0), is_known])
        return ratio(*sum_by(self.index, of_cells, len(self.cells)).T)


def index_cells(positions: np.ndarray) -> CellIndex:
    """Find the visited cells of positions (S, 2) int."""
    positions = checked_positions(positions)
    x_min, y_min = positions.min(0)
    width = positions[:, 0].max() - x_min + 1
    flat = (positions[:, 1] - y_min) * width + (positions[:, 0] - x_min)
    flat, index, counts = np.unique(flat, return_inverse=True, return_counts=True)
    return CellIndex(np.stack([flat % width + x_min, flat // width + y_min], axis=1), counts, index)


def index_filtered_cells(steps: Steps, filter_fn: StepFilter = None) -> tuple[np.ndarray, CellIndex]:
    """Apply a filter: the mask (S,) bool of the steps that it leaves, and the cells that these visit."""
    positions = checked_positions(steps.position)
    mask = step_mask(steps, filter_fn, len(positions))
    return mask, index_cells(positions[mask])


@dataclass(frozen=True, eq=False)
class RoutingByPosition:
    """Means over the steps in each visited cell, in reading order (by y, then x)."""

    cells: np.ndarray  # (C, 2) int64, x and y
    counts: np.ndarray  # (C,) int64, steps in the cell
    routing: list[np.ndarray] | None  # L arrays (C, E_l) float64, mean weights; None if the steps have none
    lpc: np.ndarray | None  # (C,) float64, mean over the steps whose LPC is known; NaN where none is

    @property
    def num_steps(self) -> int:
        return int(self.counts.sum())

    def with_steps(self, min_steps: int) -> "RoutingByPosition":
        """Leave out the cells that have fewer steps."""
        kept = enough_steps(self.counts, min_steps)
        routing = None if self.routing is None else [weights[kept] for weights in self.routing]
        return RoutingByPosition(
            self.cells[kept], self.counts[kept], routing, None if self.lpc is None else self.lpc[kept]
        )


def aggregate_routing_by_position(steps: Steps, filter_fn: StepFilter = None) -> RoutingByPosition:
    """Average router weights and LPC in each cell that the agent stood on.

    filter_fn: the steps that count, as a mask (S,) bool or a function from the steps to one; None counts all. Raises
    ValueError if the mask is not (S,) bool.
    """
    mask, cells = index_filtered_cells(steps, filter_fn)
    routing = None
    if steps.layer_routing is not None:
        routing = [mean_by(cells.index, weights[mask], cells.counts) for weights in checked_weights(steps)]
    lpc = None if steps.lpc is None else cells.mean(np.asarray(steps.lpc, np.float64)[mask])
    return RoutingByPosition(cells.cells, cells.counts, routing, lpc)


def enough_steps(counts: np.ndarray, min_steps: int) -> np.ndarray:
    """Mark (C,) bool which of counts (C,) are at least `min_steps`."""
    kept = counts >= min_steps
    if not kept.any():
        most = int(counts.max(initial=0))
        raise InputError(f"no cell has {min_steps} steps, the most are {most}: lower the least number of steps")
    return kept


def visit_strength(counts: np.ndarray) -> np.ndarray:
    """Compute the colour strength of a cell with counts (...) steps: sqrt(min(1, n / FULL_STEPS)), float64 (...).

    The inverse of the standard error of its mean, relative to that of FULL_STEPS steps.
    """
    return np.sqrt(np.minimum(np.asarray(counts, np.float64) / FULL_STEPS, 1))


def rank_experts(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank mean weights (C, E): the first expert and the runner-up, (C,) int64 each, and the margin (C,) between them.

    Of equal weights the first one counts. A single expert has no runner-up: it is -1, and the margin is NaN.
    """
    order = np.argsort(-weights, axis=1, kind="stable")
    first = order[:, 0]
    if weights.shape[1] == 1:
        return first, np.full(len(weights), -1), np.full(len(weights), np.nan)
    margin = np.diff(np.take_along_axis(weights, order[:, 1::-1], 1))[:, 0]
    return first, order[:, 1], margin


def compute_grid_bounds(positions: np.ndarray, grid_size: Sequence[int] | None = None) -> dict[str, int]:
    """Compute the rectangle to draw: `x_min, x_max, y_min, y_max` (all inclusive), `grid_width, grid_height`.

    positions: (S, 2) int. With `grid_size` (width, height) it is the whole world, walls included; without, the smallest
    rectangle that holds every position.
    """
    positions = checked_positions(positions)
    if grid_size is None:
        (x_min, y_min), (x_max, y_max) = positions.min(0).tolist(), positions.max(0).tolist()
    else:
        x_min, y_min, x_max, y_max = 0, 0, int(grid_size[0]) - 1, int(grid_size[1]) - 1
    size = {"grid_width": x_max - x_min + 1, "grid_height": y_max - y_min + 1}
    grid_info = {"x_min": x_min, "x_max": x_max, "y_min": y_min, "y_max": y_max, **size}
    check_inside(positions, grid_info)
    return grid_info


def compute_confidence(weight: np.ndarray, num_experts: int) -> np.ndarray:
    """Rescale the largest weight (...) to float64 (...): 0 where all experts have 1/E, 1 where one has all.

    Of a single expert it is always 1.
    """
    weight = np.asarray(weight, np.float64)
    if num_experts == 1:
        return np.ones_like(weight)
    return np.clip((weight - 1 / num_experts) / (1 - 1 / num_experts), 0, 1)


def check_inside(cells: np.ndarray, grid_info: dict[str, int]) -> None:
    """Check that all cells (C, 2) lie inside: an index below 0 would paint the opposite side."""
    low, high = (grid_info["x_min"], grid_info["y_min"]), (grid_info["x_max"], grid_info["y_max"])
    is_outside = ((cells < low) | (cells > high)).any(1)
    if is_outside.any():
        x, y = cells[is_outside][0].tolist()
        raise InputError(
            f"a step at x {x}, y {y} is outside the grid of x {low[0]} to {high[0]}, y {low[1]} to {high[1]}"
        )


# --- walls and walking distances --------------------------------------------------------------------------------------


# What distances are measured to: kind -> its cells [x, y, ...] at the start of an episode.
OBJECT_KINDS = {
    "door": lambda episode: episode["doors"],
    "key": lambda episode: episode["keys"],
    "target": lambda episode: [] if episode["target_pos"] is None else [episode["target_pos"]],
}


WORLD_FIELDS = ("position", "grid_size", "room_bounds", "doors")  # what tells walls: of the steps, of the episodes


def free_cells(routing_data: RoutingData) -> np.ndarray:
    """Find the cells (B, H, W) bool that are no wall, in the world of each episode.

    The inside of each room is free, and so are doors, as a locked one can be unlocked. In some tasks (KeyCorridor,
    PutNext, MoveTwoAcross) a wall between two rooms is missing, and the episodes do not say so. Minigrid removes such a
    wall whole, at the same place in every world; so one step of any episode where this wall would be, and no door is,
    shows that it is missing. Objects move, and do not count as obstacles.
    """
    for field in WORLD_FIELDS:
        routing_data.require(field)
    return _free_cells(routing_data.steps, routing_data.episodes)


def wall_cells(steps: Steps, episodes: Sequence[Mapping]) -> np.ndarray | None:
    """Find the cells (H, W) bool that are walls in the worlds of all episodes, as `free_cells`; None where unknown.

    The data do not tell if they lack a field of WORLD_FIELDS or the worlds differ in size or rooms.
    """
    if steps.position is None or not all(field in episode for episode in episodes for field in WORLD_FIELDS[1:]):
        return None
    try:
        walls = np.logical_not(_free_cells(steps, episodes).any(0))
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
    """Count the steps (B, H, W) int64 from each cell to the nearest source of its world, -1 where there is no path.

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
    """Measure walking distances (S,) float64 to the nearest object of each of OBJECT_KINDS, where it was at the start.

    NaN where the world has none or it cannot be reached; a kind that no world has is left out.
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
    """List rows and columns of each wall that two rooms (R, 4) [x_min, y_min, x_max, y_max] share, without corners."""
    walls = []
    for x_min, y_min, x_max, y_max in rooms.tolist():
        if ((rooms[:, 0] == x_max) & (rooms[:, 1] == y_min)).any():
            walls.append((slice(y_min + 1, y_max), slice(x_max, x_max + 1)))
        if ((rooms[:, 1] == y_max) & (rooms[:, 0] == x_min)).any():
            walls.append((slice(y_max, y_max + 1), slice(x_min + 1, x_max)))
    return walls


def _cells(episodes, cells_of) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List world, x, y of every object, one array each."""
    found = [(world, cell[0], cell[1]) for world, episode in enumerate(episodes) for cell in cells_of(episode)]
    world, x, y = np.array(found, np.int64).reshape(-1, 3).T
    return world, x, y
