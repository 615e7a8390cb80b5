"""An episode as files: an animated GIF, which slides, issues and READMEs play without a click, and a still."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from mop.apps.episode_records import EpisodeRecord, episode_record
from mop.artifacts.routing_cache import RoutingData
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_figure
from mop.plotting.curves import plot_episode_routing
from mop.plotting.film import LINE_PX, draw_bar, font, gif_bytes, mark_part, rasterise

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


def write_episode(
    data: RoutingData, episode: int, folder: str | Path, first: int = 0, last: int | None = None
) -> list[Path]:
    """Write `episode_<N>.gif` and `.png`, and return their paths; first, last: the states that the film shows."""
    film, still = (Path(folder) / f"episode_{episode}.{ending}" for ending in ("gif", "png"))
    content = episode_gif(data, episode, first=first, last=last)
    write_atomic(film, lambda file: file.write(content))
    return [film, write_figure(still, plot_episode_routing(data, episode))]


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
