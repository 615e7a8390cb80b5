"""An episode as an animated GIF: the world beside its router weights, with the step and the action in words.

A GIF is what slides, issues and READMEs play without a click. MP4 would need an encoder, which none of the pinned
packages brings; the player is the better document on a page.
"""

import io
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from mop.base.errors import InputError
from mop.pages.episodes import EpisodeRecord, episode_record
from mop.plotting.progress import plot_episode_routing
from mop.store.routing_cache import RoutingCache

STEPS_PER_SECOND = 4
_LAST_MS = 2000  # how long the state after the last action stays
_WORLD_PX, _MARGIN_PX, _LINE_PX, _BAR_PX = 300, 10, 17, 12
_DPI = 72  # of the strips of weights


def episode_gif(
    data: RoutingCache,
    episode: int,
    steps_per_second: float = STEPS_PER_SECOND,
    first: int = 0,
    last: int | None = None,
) -> bytes:
    """A GIF of one episode, a frame for the state before each action and one for the state after the last.

    steps_per_second: how fast it plays, to a hundredth of a second; first, last: the states to show, if not all.
    Raises InputError as `episode_record`, if the world of the episode cannot be made again, or it has no such states.
    """
    record = episode_record(data, episode)
    if record.world is None:
        raise InputError(f"no film of episode {episode}: {record.no_world}")
    last = record.num_steps if last is None else last
    if not 0 <= first <= last <= record.num_steps:
        raise InputError(f"episode {episode} has the states 0 to {record.num_steps}, not {first} to {last}")
    frames = draw_frames(record, plot_episode_routing(data, episode), range(first, last + 1))
    durations = [round(100 / steps_per_second) * 10] * (len(frames) - 1) + [_LAST_MS]
    palette = _shared_palette(record, frames)
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=small[1:], duration=durations, loop=0)
    return file.getvalue()


def draw_frames(record: EpisodeRecord, figure: Figure, states: Sequence[int]) -> list[Image.Image]:
    """The pictures of a film, one for each state; figure: `plot_episode_routing` of the episode."""
    strips, panels = _rasterise(figure)
    lines = max(len(_lines(record, t_step)) for t_step in range(record.num_steps + 1))
    left_height = _MARGIN_PX * 3 + _world_size(record)[1] + _LINE_PX * (lines + len(record.weights)) + _LINE_PX
    page = Image.new("RGB", (_WORLD_PX + 2 * _MARGIN_PX + strips.width, max(left_height, strips.height)), "white")
    page.paste(strips, (_WORLD_PX + 2 * _MARGIN_PX, 0))
    frames = []
    for t_step in states:
        frame = page.copy()
        _draw_state(frame, record, t_step)
        for left, top, right, bottom in panels:
            x = left + (right - left) * np.array([t_step, min(t_step + 1, record.num_steps)]) / record.num_steps
            x += _WORLD_PX + 2 * _MARGIN_PX
            ImageDraw.Draw(frame).rectangle([x[0] - 1, top - 3, x[1] + 1, bottom + 3], outline="black", width=2)
        frames.append(frame)
    return frames


def _draw_state(frame: Image.Image, record: EpisodeRecord, t_step: int) -> None:
    """The world, the caption, and a bar of the weights of each layer, in the left column."""
    pen, y = ImageDraw.Draw(frame), _MARGIN_PX
    picture = Image.fromarray(record.world.picture(t_step)).resize(_world_size(record), Image.Resampling.LANCZOS)
    frame.paste(picture, (_MARGIN_PX, y))
    y += picture.height + _MARGIN_PX
    for line in _lines(record, t_step):
        pen.text((_MARGIN_PX, y), line, fill="black", font=_font())
        y += _LINE_PX
    y = frame.height - _MARGIN_PX - _LINE_PX * len(record.weights)
    for number, hues, weights in zip(record.layer_numbers, record.hues, record.weights, strict=True):
        pen.text((_MARGIN_PX, y - 2), f"layer {number}", fill="black", font=_font())
        if t_step < record.num_steps:
            edges = _MARGIN_PX + 60 + (_WORLD_PX - 60) * np.cumsum([0, *weights[t_step]])
            for (left, right), hue in zip(pairwise(edges), hues, strict=True):
                pen.rectangle([left, y, right, y + _BAR_PX], fill=hue)
        y += _LINE_PX


def _lines(record: EpisodeRecord, t_step: int) -> list[str]:
    """The caption of a state, and what has just happened."""
    happened = [text for time, text in record.events if time == t_step]
    return record.caption(t_step).split(" · ") + ([", ".join(happened)] if happened else [])


def _world_size(record: EpisodeRecord) -> tuple[int, int]:
    """Width and height of the world in pixels: as wide as its column."""
    _, height, width = record.world.frames.shape
    return _WORLD_PX, round(_WORLD_PX * height / width)


def _rasterise(figure: Figure) -> tuple[Image.Image, list[tuple[float, float, float, float]]]:
    """A figure as a picture, and where the data of its panels are in it: left, top, right, bottom in pixels."""
    figure.savefig(file := io.BytesIO(), format="png", dpi=_DPI)
    picture = Image.open(file).convert("RGB")
    boxes = [ax.get_window_extent().transformed(figure.transFigure.inverted()) for ax in figure.axes]
    width, height = picture.size
    return picture, [(b.x0 * width, (1 - b.y1) * height, b.x1 * width, (1 - b.y0) * height) for b in boxes]


def _shared_palette(record: EpisodeRecord, frames: list[Image.Image]) -> Image.Image:
    """256 colours for all frames: those of the first and the last one, and of every tile, as large as the others."""
    tiles = Image.fromarray(record.world.tiles.reshape(-1, record.world.tiles.shape[1], 3))
    tiles = tiles.resize((frames[0].width, frames[0].height))
    sample = Image.new("RGB", (frames[0].width, 3 * frames[0].height))
    for number, picture in enumerate((frames[0], frames[-1], tiles)):
        sample.paste(picture, (0, number * frames[0].height))
    return sample.quantize(256)


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)
