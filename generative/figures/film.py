"""Films: pictures of states side by side, captions, and strips of weights over time below them.

Axis letters: T actions of an episode, which has the states 0 to T; E experts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from mop.common.cli import setting
from mop.plotting.film import LINE_PX, Box, font, gif_bytes, mark_part, mp4_bytes
from mop.plotting.style import expert_hues, expert_names, short_name

OF_GAMES = "of agents of games"  # a group of flags
WRITERS = {"gif": gif_bytes, "mp4": mp4_bytes}
_PICTURE_PX, _MARGIN_PX = 224, 10  # a picture is as high as a view of 7 cells
_STRIP_PX, _STRIP_STEP_PX, _LABEL_PX, _LEAST_PX = 26, 32, 110, 560
_SMOOTH = Image.Resampling.LANCZOS


@dataclass(frozen=True)
class Strip:
    """The weights of one router over time."""

    label: str
    weights: np.ndarray  # (T + 1, E)
    names: list[str]
    hues: list[str]

    def colors(self, height: int) -> np.ndarray:
        """The weights of each state as a column of colours, the first expert on top: (height, T + 1, 3) uint8."""
        ends = np.cumsum(self.weights, 1)[:, :-1]  # where the next expert begins
        heights = (np.arange(height) + 0.5) / height
        expert = (ends[:, None, :] <= heights[:, None]).sum(-1)  # (T + 1, height)
        return np.array([ImageColor.getrgb(hue) for hue in self.hues], np.uint8)[expert.T]


@dataclass(frozen=True)
class Film:
    """What is shown of the states 0 to T."""

    title: list[str]  # lines
    columns: list[tuple[str, Sequence[np.ndarray]]]  # a heading, and the picture (height, width, 3) uint8 of each state
    captions: list[list[str]]  # the lines of each state
    strips: list[Strip]
    height_px: int = _PICTURE_PX  # of the pictures


@dataclass(frozen=True, kw_only=True)
class PlaySettings:
    """Settings of films of what a policy plays now."""

    checkpoint: str | None = setting(
        None, "the policy that plays (of a recording: its own)", also=["model_file"], metavar="FILE"
    )
    lang_encoder: Path | None = setting(None, "where the checkpoint's mission encoder lies on this machine")
    task_id: str | None = setting(None, "the task that it plays (default: its training's)", also=["env_name"])
    world_seed: int = setting(0, "the first world that it plays", low=0)
    policy: str = setting("argmax", "how it acts", choices=("argmax", "sampled"))
    seed: int = setting(0, "of the actions that are sampled", low=0, high=2**63 - 1)
    max_steps: int | None = setting(
        None, "actions until an episode is cut short (default: the task's limit)", low=1, high=10**6
    )
    num_eps: int = setting(1, "how many, one file each", low=1, high=1000)
    distribution_mode: str | None = setting(
        None, "levels (default: the training's)", choices=("easy", "hard"), group=OF_GAMES
    )
    param_name: str | None = setting(
        None, "preset of generative.train_agent, to make sure (default: the agent's own)", group=OF_GAMES
    )


class Span(NamedTuple):
    """The states of an episode that a simulation is shown of."""

    first: int  # its step
    num_states: int
    is_own: bool  # the policy acts in the simulation; else the recorded actions are executed
    how: str  # which simulation it is, in words


def gate_strips(routing: np.ndarray, expert_hidden_sizes: Sequence[Sequence[int]], note: str = "") -> list[Strip]:
    """The strips of all layers with a choice; routing (T + 1, sum of E_l), the layers side by side."""
    layers = np.split(routing, np.cumsum([len(sizes) for sizes in expert_hidden_sizes])[:-1], axis=-1)
    header = {"expert_hidden_sizes": expert_hidden_sizes}
    named = zip(layers, expert_names(header, layers), expert_hues(header, layers), strict=True)
    return [
        Strip(f"layer {layer}{note}", weights, names, hues)
        for layer, (weights, names, hues) in enumerate(named)
        if weights.shape[1] > 1
    ]


def film_bytes(film: Film, file_format: str, steps_per_second: float = 4) -> bytes:
    """A film as a file of a format of WRITERS."""
    return WRITERS[file_format](draw_frames(film), steps_per_second)


def draw_frames(film: Film) -> list[Image.Image]:
    """The pictures of a film, one for each state."""
    page, strips, top = _draw_page(film)
    frames, num_states = [], len(film.captions)
    for t in range(num_states):
        frame = page.copy()
        _draw_state(frame, film, t, top)
        if strips is not None:
            mark_part(frame, strips, t / num_states, (t + 1) / num_states)
        frames.append(frame)
    return frames


def draw_still(film: Film, marked: tuple[int, int]) -> Image.Image:
    """The first state of a film as one picture, with the states from .. to (not with it) marked in the strips."""
    page, strips, top = _draw_page(film)
    _draw_state(page, film, 0, top)
    if strips is not None:
        mark_part(page, strips, marked[0] / len(film.captions), min(1.0, marked[1] / len(film.captions)))
    return page


def _draw_page(film: Film) -> tuple[Image.Image, Box | None, int]:
    """What all frames of a film show, the box of its strips, and where the pictures of a state begin."""
    width = (
        max(_LEAST_PX, sum(_shown(pictures[0], film.height_px).width + _MARGIN_PX for _, pictures in film.columns))
        + _MARGIN_PX
    )
    title = [line for text in film.title for line in _wrapped(text, width - 2 * _MARGIN_PX)]
    top = round(1.6 * _MARGIN_PX) + LINE_PX * len(title)
    strips = top + LINE_PX + film.height_px + 2 * _MARGIN_PX + LINE_PX * max(map(len, film.captions))
    height = strips + _STRIP_STEP_PX * len(film.strips) + LINE_PX * bool(film.strips) + _MARGIN_PX
    page = Image.new("RGB", (width, height), "white")
    _write(page, title, _MARGIN_PX)
    return page, _draw_strips(page, film.strips, strips), top


def _draw_state(frame: Image.Image, film: Film, t: int, top: int) -> None:
    """The pictures of a state below their headings, and its caption."""
    left = _MARGIN_PX
    for heading, pictures in film.columns:
        picture = _shown(pictures[t], film.height_px)
        ImageDraw.Draw(frame).text((left, top), heading, fill="#555555", font=font())
        frame.paste(picture, (left, top + LINE_PX))
        left += picture.width + _MARGIN_PX
    _write(frame, film.captions[t], top + LINE_PX + film.height_px + _MARGIN_PX)


def _shown(picture: np.ndarray, height_px: int) -> Image.Image:
    """A picture as high as all pictures of a frame; a wide grid keeps its shape, in the middle of that height."""
    height, width, _ = picture.shape
    if width <= 2 * height:
        return Image.fromarray(picture).resize((round(height_px * width / height), height_px), _SMOOTH)
    page = Image.new("RGB", (2 * height_px, height_px), "white")
    page.paste(Image.fromarray(picture).resize((2 * height_px, round(2 * height_px * height / width)), _SMOOTH))
    return page


def _draw_strips(page: Image.Image, strips: Sequence[Strip], first: int) -> Box | None:
    """The strips below each other and their legend; returns the box of all of them, None where there are none."""
    if not strips:
        return None
    left, top, width, pen = _MARGIN_PX + _LABEL_PX, first, page.width - 2 * _MARGIN_PX - _LABEL_PX, ImageDraw.Draw(page)
    for strip in strips:
        pen.text((_MARGIN_PX, top + 6), strip.label, fill="black", font=font(11))
        state = np.arange(width) * len(strip.weights) // width
        page.paste(Image.fromarray(strip.colors(_STRIP_PX)[:, state]), (left, top))
        top += _STRIP_STEP_PX
    box = (left, first, left + width, top - _STRIP_STEP_PX + _STRIP_PX)
    legend = {name: hue for strip in strips for name, hue in zip(strip.names, strip.hues, strict=True)}
    for name, hue in legend.items():
        pen.rectangle([left, top + 2, left + 11, top + 13], fill=hue)
        pen.text((left + 16, top), short_name(name), fill="black", font=font())
        left += 30 + round(font().getlength(short_name(name)))
    return box


def _write(page: Image.Image, lines: Sequence[str], top: float) -> None:
    for number, line in enumerate(lines):
        ImageDraw.Draw(page).text((_MARGIN_PX, top + number * LINE_PX), line, fill="black", font=font())


def _wrapped(text: str, width: float) -> list[str]:
    """A text in lines that fit a width in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
