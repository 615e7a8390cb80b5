"""An episode to watch, or several side by side: one HTML document with a player, or an animated GIF.

Everything is in the document: it makes no request, and a file of it opens by double click. What it shows lies in it as
JSON; `player.html` holds the page that reads it. A GIF is what slides, issues and READMEs play without a click.
"""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
from matplotlib import colormaps
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.image import imsave
from PIL import Image, ImageDraw

from mop.apps.episode_records import EpisodeRecord, episode_record
from mop.artifacts.routing_cache import RoutingData
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError
from mop.plotting.curves import plot_episode_routing
from mop.plotting.film import LINE_PX, draw_bar, font, gif_bytes, mark_part, rasterise
from mop.plotting.heatmaps import LPC_CMAP

_COLUMNS = 16  # tiles in a row of the picture that holds them all


def player_document(record: EpisodeRecord) -> str:
    """The HTML of the player. A text of the episode, such as its mission, is never markup or script in it."""
    subtitle = " · ".join(filter(None, [record.mission, record.outcome]))
    return _document(record.title, subtitle=subtitle, episodes=[player_content(record)], difference=[], mark=None)


def pair_document(
    title: str,
    subtitle: str,
    records: Mapping[str, EpisodeRecord],
    difference: Sequence[tuple[int, str]],
    mark: int | None = None,
) -> str:
    """The HTML of a player of several episodes side by side, at one step; records: each by its name.

    difference: what to say of them from a step on, until the next, in the order of steps; mark: a step to be marked.
    """
    costs = [record.lpc[np.isfinite(record.lpc)] for record in records.values() if record.lpc is not None]
    most = max((float(cost.max(initial=0)) for cost in costs), default=0.0)
    episodes = [player_content(record, name, most) for name, record in records.items()]
    return _document(title, subtitle=subtitle, episodes=episodes, difference=difference, mark=mark)


def _document(title: str, **content) -> str:
    """content: what `player.html` reads as `page`, beside the title."""
    template = Path(__file__).with_name("player.html").read_text(encoding="utf-8")
    written = orjson.dumps({"title": title, **content}, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    written = written.replace("<", "\\u003c")  # else "</script>" in a text would end the JSON
    values = {"title": html.escape(title), "episode": written}
    return re.sub("%(title|episode)%", lambda place: values[place[1]], template)


def player_content(record: EpisodeRecord, name: str = "", most_lpc: float | None = None) -> dict:
    """What the player shows of an episode: plain values, for states 0 to T and steps 0 to T - 1.

    name: what it is called beside others; most_lpc: where the colours of LPC end, None: at its own maximum.
    """
    layers = [
        {"title": f"layer {number}", "names": names, "hues": hues, "weights": np.round(weights, 4).tolist()}
        for number, names, hues, weights in zip(
            record.layer_numbers, record.names, record.hues, record.weights, strict=True
        )
    ]
    return {
        "number": record.number,
        "name": name,
        "num_steps": record.num_steps,
        "captions": [record.caption(t_step) for t_step in range(record.num_steps + 1)],
        "events": record.events,
        "action_names": ACTION_NAMES,
        "action": None if record.action is None else record.action.tolist(),
        "probabilities": None if record.probabilities is None else np.round(record.probabilities, 4).tolist(),
        "lpc": None if record.lpc is None else _known(record.lpc),
        "carrying": record.carrying,
        "layers": layers,
        "overlays": [] if record.world is None else _overlays(record, most_lpc),
        "world": None if record.world is None else _world(record.world),
        "no_world": record.no_world,
    }


def _overlays(record: EpisodeRecord, most_lpc: float | None) -> list[dict]:
    """What can be drawn over the world: a name, the colour of each step, and colours from low to high, if any."""
    overlays = []
    for number, hues, weights in zip(record.layer_numbers, record.hues, record.weights, strict=True):
        colors = [hues[expert] for expert in weights.argmax(1).tolist()]
        overlays.append({"name": f"dominant expert of layer {number}", "colors": colors, "ramp": []})
    if record.lpc is not None and np.isfinite(record.lpc).any():
        values = np.nan_to_num(record.lpc, posinf=0.0, neginf=0.0)
        most = float(values.max()) if most_lpc is None else most_lpc
        cmap, scale = colormaps[LPC_CMAP], Normalize(0, max(most, 1e-9))
        colors, ramp = ([to_hex(color) for color in cmap(places)] for places in (scale(values), np.linspace(0, 1, 9)))
        overlays.append({"name": f"LPC, 0 to {most:,.0f}", "colors": colors, "ramp": ramp})
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
    changed = [np.arange(flat.shape[1]), *(np.flatnonzero(new != old) for old, new in pairwise(flat))]
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


STEPS_PER_SECOND = 4
_WORLD_PX, _MARGIN_PX = 300, 10


def episode_gif(
    data: RoutingData, episode: int, steps_per_second: float = STEPS_PER_SECOND, first: int = 0, last: int | None = None
) -> bytes:
    """A GIF of one episode, a frame for the state before each action and one for the state after the last.

    steps_per_second: how fast it plays, to a hundredth of a second; first, last: the states to show, if not all.
    """
    record = episode_record(data, episode)
    if record.world is None:
        raise InputError(f"no film of episode {episode}: {record.no_world}")
    last = record.num_steps if last is None else last
    if not 0 <= first <= last <= record.num_steps:
        raise InputError(f"episode {episode} has the states 0 to {record.num_steps}, not {first} to {last}")
    frames = draw_frames(record, plot_episode_routing(data, episode), range(first, last + 1))
    tiles = Image.fromarray(record.world.tiles.reshape(-1, record.world.tiles.shape[1], 3))
    return gif_bytes(frames, steps_per_second, [tiles])


def draw_frames(record: EpisodeRecord, figure: Figure, states: Sequence[int]) -> list[Image.Image]:
    """The pictures of a film, one for each state; figure: `plot_episode_routing` of the episode."""
    strips, panels = rasterise(figure, _WORLD_PX + 2 * _MARGIN_PX)
    lines = max(len(_lines(record, t_step)) for t_step in range(record.num_steps + 1))
    left_height = _MARGIN_PX * 3 + _world_size(record)[1] + LINE_PX * (lines + len(record.weights)) + LINE_PX
    page = Image.new("RGB", (_WORLD_PX + 2 * _MARGIN_PX + strips.width, max(left_height, strips.height)), "white")
    page.paste(strips, (_WORLD_PX + 2 * _MARGIN_PX, 0))
    frames = []
    for t_step in states:
        frame = page.copy()
        _draw_state(frame, record, t_step)
        for panel in panels:
            mark_part(frame, panel, t_step / record.num_steps, min(t_step + 1, record.num_steps) / record.num_steps)
        frames.append(frame)
    return frames


def _draw_state(frame: Image.Image, record: EpisodeRecord, t_step: int) -> None:
    """The world, the caption, and a bar of the weights of each layer, in the left column."""
    pen, y = ImageDraw.Draw(frame), _MARGIN_PX
    assert record.world is not None, "a film needs the world"
    picture = Image.fromarray(record.world.picture(t_step)).resize(_world_size(record), Image.Resampling.LANCZOS)
    frame.paste(picture, (_MARGIN_PX, y))
    y += picture.height + _MARGIN_PX
    for line in _lines(record, t_step):
        pen.text((_MARGIN_PX, y), line, fill="black", font=font())
        y += LINE_PX
    y = frame.height - _MARGIN_PX - LINE_PX * len(record.weights)
    for number, hues, weights in zip(record.layer_numbers, record.hues, record.weights, strict=True):
        pen.text((_MARGIN_PX, y - 2), f"layer {number}", fill="black", font=font())
        if t_step < record.num_steps:
            draw_bar(pen, _MARGIN_PX + 60, y, _WORLD_PX - 60, weights[t_step], hues)
        y += LINE_PX


def _lines(record: EpisodeRecord, t_step: int) -> list[str]:
    """The caption of a state, and what has just happened."""
    happened = [text for time, text in record.events if time == t_step]
    return record.caption(t_step).split(" · ") + ([", ".join(happened)] if happened else [])


def _world_size(record: EpisodeRecord) -> tuple[int, int]:
    """Width and height of the world in pixels: as wide as its column."""
    assert record.world is not None, "a film needs the world"
    _, height, width = record.world.frames.shape
    return _WORLD_PX, round(_WORLD_PX * height / width)
