"""The grid as an array of codes, directions, and the agent's view: layout and rules, by NumPy.

A cell is one integer: object type + 2^8 x colour + 2^16 x state (Minigrid's own indices) + 2^20 x the number of the
object in its world (0 for walls and empty cells), so that an object is recognised when it is carried elsewhere.
`mop.fast.grid` has the compiled form of `observe`; `mop.envs.babyai` chooses.
"""

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import Wall

from mop.common.conventions import DIRECTIONS

VIEW_SIZE = 7
IMAGE_SIZE = 3 * VIEW_SIZE * VIEW_SIZE
CATEGORIES = (len(OBJECT_TO_IDX), len(COLOR_TO_IDX), len(STATE_TO_IDX))  # of each channel of an image
EMPTY = OBJECT_TO_IDX["empty"]
WALL = OBJECT_TO_IDX["wall"]
DOOR = OBJECT_TO_IDX["door"]
OPEN = STATE_TO_IDX["open"]
GREY_WALL = WALL + 256 * COLOR_TO_IDX["grey"]
HALF = VIEW_SIZE // 2  # the agent stands at [HALF, LAST] of its view and looks at smaller j
LAST = VIEW_SIZE - 1


def code_kind(code):
    """Minigrid's index of the object type, of one code or an array."""
    return code & 255


def code_color(code):
    """Minigrid's index of the colour."""
    return (code >> 8) & 255


def code_state(code):
    """State of a door: 0 open, 1 closed, 2 locked."""
    return (code >> 16) & 15


def code_number(code):
    """Number of the object, 0 for a cell without one."""
    return code >> 20


def cell_code(cell) -> int:
    """The code of one cell of a Minigrid grid: a `WorldObj`, or None for an empty cell."""
    if cell is None:
        return EMPTY
    type_index, color_index, state = cell.encode()
    return type_index + (color_index << 8) + (state << 16) + (getattr(cell, "number", 0) << 20)


def grid_codes(grid) -> np.ndarray:
    """The codes (height, width) int32 of a Minigrid `Grid`; numbers its objects."""
    codes = []
    for index, cell in enumerate(grid.grid):
        if cell is None:
            codes.append(EMPTY)
        elif type(cell) is Wall and cell.color == "grey":
            codes.append(GREY_WALL)
        else:
            if not hasattr(cell, "number") and cell.type != "wall":
                cell.number = index + 1
            codes.append(cell_code(cell))
    return np.array(codes, np.int32).reshape(grid.height, grid.width)


def one_hot_edges() -> np.ndarray:
    """First one-hot column of each integer of an image (147,), then their number, 980: (148,) int64.

    Integer k of value v is a one in column edges[k] + v; the same as `mixture_of_experts.category_edges`.
    """
    return np.cumsum([0, *np.repeat(CATEGORIES, VIEW_SIZE * VIEW_SIZE)])


def cells_of_view(x, y, direction) -> tuple[np.ndarray, np.ndarray]:
    """Where in the grid the cells [i, j] of views lie, for agents at x, y (...) that face `direction` (...).

    Returns x and y (..., 49) int, row by row of i.
    """
    i, j = np.indices((VIEW_SIZE, VIEW_SIZE)).reshape(2, -1)  # i to the right, j towards the agent
    ahead, right = LAST - j, i - HALF
    dx, dy = np.moveaxis(np.array(DIRECTIONS)[direction], -1, 0)[..., None]
    x, y = np.asarray(x)[..., None], np.asarray(y)[..., None]
    return x + dx * ahead - dy * right, y + dy * ahead + dx * right


def observe(
    codes: np.ndarray, x: int, y: int, direction: int, carried: int, image: np.ndarray, seen: np.ndarray
) -> None:
    """Write the agent's view, as Minigrid's `gen_obs` makes it, and mark the cells it shows.

    codes (height, width) int32; the agent at (x, y) faces `direction` (0 right, 1 down, 2 left, 3 up) and carries an
    object of code `carried`, or `EMPTY`. Writes image (147,): channels first, (3, 7, 7) flattened, Minigrid's indices;
    sets seen (width, height) bool to True for every visible cell.
    """
    height, width = codes.shape
    cell_x, cell_y = (cells.reshape(VIEW_SIZE, VIEW_SIZE) for cells in cells_of_view(x, y, direction))
    is_inside = (cell_x >= 0) & (cell_x < width) & (cell_y >= 0) & (cell_y < height)
    view = np.full((VIEW_SIZE, VIEW_SIZE), GREY_WALL, np.int32)
    view[is_inside] = codes[cell_y[is_inside], cell_x[is_inside]]
    visible = _visible_cells(view)
    view[HALF, LAST] = carried
    shown = np.where(visible, view, 0)
    image[:IMAGE_SIZE] = np.stack([code_kind(shown), code_color(shown), code_state(shown)]).reshape(-1)
    seen[cell_x[visible & is_inside], cell_y[visible & is_inside]] = True


def _visible_cells(view: np.ndarray) -> np.ndarray:
    """Cells (7, 7) bool that light reaches: row by row away from the agent, to the right, then to the left."""
    kind = code_kind(view)
    is_clear = (kind != WALL) & ((kind != DOOR) | (code_state(view) == OPEN))
    visible = np.zeros(view.shape, bool)
    visible[HALF, LAST] = True
    for j in range(LAST, -1, -1):
        for cells, step in ((range(LAST), 1), (range(LAST, 0, -1), -1)):
            for i in cells:
                if visible[i, j] and is_clear[i, j]:
                    visible[i + step, j] = True
                    if j > 0:
                        visible[i + step, j - 1] = True
                        visible[i, j - 1] = True
    return visible
