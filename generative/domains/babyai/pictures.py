"""Pictures of recorded worlds and views, without torch. Axis letters: T actions of an episode."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from mop.common.conventions import ACTION_NAMES
from mop.envs.geometry import IMAGE_SIZE, VIEW_SIZE, cells_of_view, code_color, code_kind, code_state
from mop.envs.render import draw_cells, draw_view

WRONG_HUE = "#ff0000"
DIRECTION_COLUMNS = slice(IMAGE_SIZE, IMAGE_SIZE + 4)  # of an observation

_TILE_PX = 32


def wrong_cells(true_obs: np.ndarray, simulated_obs: np.ndarray) -> np.ndarray:
    """Which cells of views differ in type, colour or state: (T, 7, 7) bool, [j, i] as they are drawn; obs (T, 152)."""
    differ = (true_obs[:, :IMAGE_SIZE] != simulated_obs[:, :IMAGE_SIZE]).reshape(-1, 3, VIEW_SIZE, VIEW_SIZE).any(1)
    return differ.swapaxes(1, 2)


def world_pictures(rows: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The whole grid in each of T + 1 rows of a recording, with the agent; what it sees is brighter."""
    pictures = []
    for codes, (x, y), obs in zip(rows["grid"], rows["position"].tolist(), rows["obs"], strict=True):
        cells = np.stack([code_kind(codes), code_color(codes), code_state(codes)], -1)
        direction = int(obs[DIRECTION_COLUMNS].argmax())
        pictures.append(draw_cells(cells, (x, y, direction), _seen(codes.shape, x, y, direction, obs), _TILE_PX))
    return pictures


def view_pictures(obs: np.ndarray) -> list[np.ndarray]:
    """What the agent sees in each of the observations (T, 152), ahead upwards."""
    return [draw_view(row[:IMAGE_SIZE], _TILE_PX) for row in obs]


def action_names(actions: np.ndarray) -> list[str]:
    """Minigrid's actions in words; -1, where there is none, as a dash."""
    return [ACTION_NAMES[action] if action >= 0 else "-" for action in actions.tolist()]


def _seen(shape: tuple[int, int], x: int, y: int, direction: int, obs: np.ndarray) -> np.ndarray:
    """Which cells of the grid (H, W) the view shows: (H, W) bool."""
    seen = np.zeros(shape, bool)
    columns, rows = cells_of_view(x, y, direction)
    shown = obs[: VIEW_SIZE**2] != 0  # unseen is type 0
    shown &= (columns >= 0) & (columns < shape[1]) & (rows >= 0) & (rows < shape[0])
    seen[rows[shown], columns[shown]] = True
    return seen


def framed(view: np.ndarray, is_wrong: np.ndarray) -> np.ndarray:
    """A view with a frame around the cells that are wrong."""
    picture = Image.fromarray(view)
    for j, i in np.argwhere(is_wrong).tolist():
        corner = (i * _TILE_PX, j * _TILE_PX)
        box = [*corner, corner[0] + _TILE_PX - 1, corner[1] + _TILE_PX - 1]
        ImageDraw.Draw(picture).rectangle(box, outline=WRONG_HUE, width=3)
    return np.asarray(picture)
