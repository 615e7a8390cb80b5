"""The player of an episode: one HTML document with everything in it, for a page of an app or as a file.

The document makes no request, and a file of it opens by double click. What it shows lies in it as JSON; `player.html`
holds the page that reads it.
"""

import base64
import html
import io
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.image import imsave

from mop.measures.routing_data import ACTION_NAMES
from mop.pages.episodes import EpisodeRecord
from mop.plotting.heatmaps import LPC_CMAP

_COLUMNS = 16  # tiles in a row of the picture that holds them all


def player_document(record: EpisodeRecord) -> str:
    """The HTML of the player. A text of the episode, such as its mission, is never markup or script in it."""
    template = Path(__file__).with_name("player.html").read_text(encoding="utf-8")
    content = orjson.dumps(player_content(record), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    content = content.replace("<", "\\u003c")  # else "</script>" in a text would end the JSON
    values = {"title": html.escape(record.title), "episode": content}
    return re.sub("%(title|episode)%", lambda place: values[place[1]], template)


def player_content(record: EpisodeRecord) -> dict:
    """What the player shows: plain values, for states 0 to T and steps 0 to T - 1 of the episode."""
    layers = [
        {"title": f"layer {number}", "names": names, "hues": hues, "weights": np.round(weights, 4).tolist()}
        for number, names, hues, weights in zip(
            record.layer_numbers, record.names, record.hues, record.weights, strict=True
        )
    ]
    return {
        "number": record.number,
        "title": record.title,
        "mission": record.mission,
        "outcome": record.outcome,
        "num_steps": record.num_steps,
        "captions": [record.caption(t_step) for t_step in range(record.num_steps + 1)],
        "events": record.events,
        "action_names": ACTION_NAMES,
        "action": None if record.action is None else record.action.tolist(),
        "probabilities": None if record.probabilities is None else np.round(record.probabilities, 4).tolist(),
        "lpc": None if record.lpc is None else _known(record.lpc),
        "carrying": record.carrying,
        "layers": layers,
        "overlays": [] if record.world is None else _overlays(record),
        "world": None if record.world is None else _world(record.world),
        "no_world": record.no_world,
    }


def _overlays(record: EpisodeRecord) -> list[dict]:
    """What can be drawn over the world: a name, the colour of each step, and colours from low to high, if any."""
    overlays = []
    for number, hues, weights in zip(record.layer_numbers, record.hues, record.weights, strict=True):
        colors = [hues[expert] for expert in weights.argmax(1).tolist()]
        overlays.append({"name": f"dominant expert of layer {number}", "colors": colors, "ramp": []})
    if record.lpc is not None and np.isfinite(record.lpc).any():
        values = np.nan_to_num(record.lpc, posinf=0.0, neginf=0.0)
        cmap, scale = colormaps[LPC_CMAP], Normalize(0, max(values.max(), 1e-9))
        colors, ramp = ([to_hex(color) for color in cmap(places)] for places in (scale(values), np.linspace(0, 1, 9)))
        overlays.append({"name": f"LPC, 0 to {values.max():,.0f}", "colors": colors, "ramp": ramp})
    return overlays


def _world(world) -> dict:
    """A `Replay` for the player: its distinct tiles as one PNG, and the cells that change with each action."""
    num_states, height, width = world.frames.shape
    num_tiles, side = len(world.tiles), world.tiles.shape[1]
    num_rows = -(-num_tiles // _COLUMNS)
    sheet = np.zeros((num_rows, _COLUMNS, side, side, 3), np.uint8)
    sheet.reshape(-1, side, side, 3)[:num_tiles] = world.tiles
    imsave(file := io.BytesIO(), sheet.swapaxes(1, 2).reshape(num_rows * side, _COLUMNS * side, 3), format="png")
    flat = world.frames.reshape(num_states, -1)
    changed = [
        np.arange(flat.shape[1]),
        *(np.flatnonzero(new != old) for old, new in pairwise(flat)),
    ]
    changes = [np.stack([cells, tiles[cells]], 1).ravel().tolist() for cells, tiles in zip(changed, flat, strict=True)]
    return {
        "width": width,
        "height": height,
        "tile_size": side,
        "columns": _COLUMNS,
        "tiles": f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}",
        "changes": changes,
        "path": world.position.tolist(),
    }


def _known(values: np.ndarray) -> list[float | None]:
    """Finite values with one decimal, None for the others."""
    return [round(value, 1) if np.isfinite(value) else None for value in values.tolist()]
