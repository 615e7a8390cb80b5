"""Films of episodes and simulations: the world and what the agent sees, the router's gates over time below.

Axis letters: T actions of an episode, which has the states 0 to T; L layers, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from generative.domains.babyai.causes import code_of, thing_name
from mop.analysis.routing_data import ACTION_NAMES
from mop.apps.episode_records import EpisodeRecord
from mop.envs.render import draw_cells, draw_view
from mop.fast.grid import EMPTY
from mop.plotting.film import LINE_PX, Box, font, gif_bytes, mark_part, mp4_bytes
from mop.plotting.style import expert_hues, expert_names, short_name

STEPS_PER_SECOND = 4
WRITERS = {"gif": gif_bytes, "mp4": mp4_bytes}
WRONG_HUE = "#ff0000"
_TILE_PX, _PICTURE_PX, _MARGIN_PX = 32, 224, 10  # a picture is as high as a view of 7 cells
_STRIP_PX, _STRIP_STEP_PX, _LABEL_PX, _LEAST_PX = 26, 32, 110, 560


@dataclass(frozen=True)
class Strip:
    """The weights of one router over time."""

    label: str
    weights: np.ndarray  # (T + 1, E)
    names: list[str]
    hues: list[str]


@dataclass(frozen=True)
class Film:
    """What is shown of the states 0 to T."""

    title: list[str]  # lines
    columns: list[tuple[str, Sequence[np.ndarray]]]  # a heading, and the picture (height, width, 3) uint8 of each state
    captions: list[list[str]]  # the lines of each state
    strips: list[Strip]
    height_px: int = _PICTURE_PX  # of the pictures


def episode_film(rows: Mapping[str, np.ndarray], title: Sequence[str], expert_hidden_sizes, outcome: str = "") -> Film:
    """The film of an episode; rows: its T + 1 rows, arrays as a recording has them."""
    record = _record(rows, expert_hidden_sizes, outcome)
    return Film(
        title=list(title),
        columns=[("the world", world_pictures(rows)), ("what the agent sees", view_pictures(rows["obs"]))],
        captions=[record.caption(t).split(" · ") for t in range(record.num_steps + 1)],
        strips=gate_strips(rows["routing"], expert_hidden_sizes),
    )


def comparison_film(
    truth: Mapping[str, np.ndarray],
    simulated: Mapping[str, np.ndarray],
    title: Sequence[str],
    expert_hidden_sizes,
    first: int,
) -> Film:
    """Simulation beside truth, state by state; rows: of both, obs, routing and action; of truth all of a recording.

    Of the simulated view, the cells that differ from the true one have a red frame. first: the step of the first state.
    """
    is_wrong = wrong_cells(truth["obs"], simulated["obs"])
    names = action_names(truth["action"]), action_names(simulated["action"])
    captions = []
    for t, (wrong, *chosen) in enumerate(zip(is_wrong, *names, strict=True)):
        captions.append(
            [
                f"step {first + t}, {t} after the simulation began",
                f"action in truth: {chosen[0]}, in the simulation: {chosen[1]}",
                f"{wrong.sum()} of {wrong.size} cells are wrong (red)",
            ]
        )
    views = view_pictures(simulated["obs"])
    columns = [
        ("the world", world_pictures(truth)),
        ("what the agent sees", view_pictures(truth["obs"])),
        ("what it sees in the simulation", [_framed(view, wrong) for view, wrong in zip(views, is_wrong, strict=True)]),
    ]
    strips = zip(
        gate_strips(truth["routing"], expert_hidden_sizes, ", truth"),
        gate_strips(simulated["routing"], expert_hidden_sizes, ", simulation"),
        strict=True,
    )
    return Film(list(title), columns, captions, [strip for pair in strips for strip in pair])


def outcome_of(rows) -> str:
    """How an episode ended, for its last caption."""
    if rows["reward"].max() > 0:
        return "success"
    return "failure" + (": out of steps" if rows["truncated"].any() else "")


def wrong_cells(true_obs: np.ndarray, simulated_obs: np.ndarray) -> np.ndarray:
    """Which cells of views differ in type, colour or state: (T, 7, 7) bool, [j, i] as they are drawn; obs (T, 152)."""
    differ = (true_obs[:, :147] != simulated_obs[:, :147]).reshape(-1, 3, 7, 7).any(1)
    return differ.swapaxes(1, 2)


def gate_strips(routing: np.ndarray, expert_hidden_sizes: Sequence[Sequence[int]], note: str = "") -> list[Strip]:
    """The strips of all layers with a choice; routing (T + 1, sum of E_l), the layers side by side."""
    layers = split_layers(routing, expert_hidden_sizes)
    header = {"expert_hidden_sizes": expert_hidden_sizes}
    named = zip(layers, expert_names(header, layers), expert_hues(header, layers), strict=True)
    return [
        Strip(f"layer {layer}{note}", weights, names, hues)
        for layer, (weights, names, hues) in enumerate(named)
        if weights.shape[1] > 1
    ]


def split_layers(routing: np.ndarray, expert_hidden_sizes: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """L arrays (..., E_l) of (..., sum of E_l)."""
    return np.split(routing, np.cumsum([len(sizes) for sizes in expert_hidden_sizes])[:-1], axis=-1)


def film_bytes(film: Film, file_format: str, steps_per_second: float = STEPS_PER_SECOND) -> bytes:
    """A film as a file of a format of WRITERS. Raises InputError where there is no encoder for it."""
    frames = draw_frames(film)
    return WRITERS[file_format](frames, steps_per_second)


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


def world_pictures(rows: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The whole grid in each of T + 1 rows of a recording, with the agent; what it sees is brighter."""
    pictures = []
    for codes, (x, y), obs in zip(rows["grid"], rows["position"].tolist(), rows["obs"], strict=True):
        cells = np.stack([codes & 255, codes >> 8 & 255, codes >> 16 & 15], -1)
        direction = int(obs[147:151].argmax())
        pictures.append(draw_cells(cells, (x, y, direction), _seen(codes.shape, x, y, direction, obs), _TILE_PX))
    return pictures


def view_pictures(obs: np.ndarray) -> list[np.ndarray]:
    """What the agent sees in each of the observations (T, 152), ahead upwards."""
    return [draw_view(row[:147], _TILE_PX) for row in obs]


def action_names(actions: np.ndarray) -> list[str]:
    """Minigrid's actions in words; -1, where there is none, as a dash."""
    return [ACTION_NAMES[action] if action >= 0 else "-" for action in actions.tolist()]


def _record(rows: Mapping[str, np.ndarray], expert_hidden_sizes, outcome: str) -> EpisodeRecord:
    """The captions' source: an episode in words, without its world."""
    return EpisodeRecord(
        number=0,
        title="",
        mission="",
        outcome=outcome,
        num_steps=len(rows["action"]) - 1,
        names=[],
        hues=[],
        layer_numbers=[],
        weights=[],
        lpc=rows["lpc"] if max(map(len, expert_hidden_sizes)) > 1 else None,
        action=rows["action"].astype(int),
        probabilities=np.exp(rows["log_probs"].astype(float)),
        subgoals=None,  # a recording has none
        carrying=["" if code & 255 == EMPTY else thing_name(code_of(code)) for code in rows["carried"]],
        events=[],
        world=None,
        no_world="",
    )


def _seen(shape: tuple[int, int], x: int, y: int, direction: int, obs: np.ndarray) -> np.ndarray:
    """Which cells of the grid (H, W) the view shows: (H, W) bool; geometry as in `mop.fast.grid.observe`."""
    seen = np.zeros(shape, bool)
    dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
    i, j = np.nonzero(obs[:49].reshape(7, 7))  # unseen is type 0
    columns, rows = x + dx * (6 - j) - dy * (i - 3), y + dy * (6 - j) + dx * (i - 3)
    inside = (columns >= 0) & (columns < shape[1]) & (rows >= 0) & (rows < shape[0])
    seen[rows[inside], columns[inside]] = True
    return seen


def _framed(view: np.ndarray, is_wrong: np.ndarray) -> np.ndarray:
    """A view with a frame around the cells that are wrong."""
    picture = Image.fromarray(view)
    for j, i in np.argwhere(is_wrong).tolist():
        corner = (i * _TILE_PX, j * _TILE_PX)
        box = [*corner, corner[0] + _TILE_PX - 1, corner[1] + _TILE_PX - 1]
        ImageDraw.Draw(picture).rectangle(box, outline=WRONG_HUE, width=3)
    return np.asarray(picture)


def _shown(picture: np.ndarray, height_px: int) -> Image.Image:
    """A picture as high as all pictures of a frame; a wide grid keeps its shape, in the middle of that height."""
    height, width, _ = picture.shape
    if width <= 2 * height:
        return Image.fromarray(picture).resize((round(height_px * width / height), height_px), _SMOOTH)
    page = Image.new("RGB", (2 * height_px, height_px), "white")
    page.paste(Image.fromarray(picture).resize((2 * height_px, round(2 * height_px * height / width)), _SMOOTH))
    return page


_SMOOTH = Image.Resampling.LANCZOS


def _draw_strips(page: Image.Image, strips: Sequence[Strip], first: int) -> Box | None:
    """The strips below each other and their legend; returns the box of all of them, None where there are none."""
    if not strips:
        return None
    left, top, width, pen = _MARGIN_PX + _LABEL_PX, first, page.width - 2 * _MARGIN_PX - _LABEL_PX, ImageDraw.Draw(page)
    for strip in strips:
        pen.text((_MARGIN_PX, top + 6), strip.label, fill="black", font=font(11))
        page.paste(_strip_picture(strip, width), (left, top))
        top += _STRIP_STEP_PX
    box = (left, first, left + width, top - _STRIP_STEP_PX + _STRIP_PX)
    legend = {name: hue for strip in strips for name, hue in zip(strip.names, strip.hues, strict=True)}
    for name, hue in legend.items():
        pen.rectangle([left, top + 2, left + 11, top + 13], fill=hue)
        pen.text((left + 16, top), short_name(name), fill="black", font=font())
        left += 30 + round(font().getlength(short_name(name)))
    return box


def _strip_picture(strip: Strip, width: int) -> Image.Image:
    """The weights of each state as a column of colours, from the first expert at the top to the last."""
    ends = np.cumsum(strip.weights, 1)[:, :-1]  # where the next expert begins
    heights = (np.arange(_STRIP_PX) + 0.5) / _STRIP_PX
    expert = (ends[:, None, :] <= heights[:, None]).sum(-1)  # (T + 1, height)
    colors = np.array([ImageColor.getrgb(hue) for hue in strip.hues], np.uint8)[expert.T]
    state = np.arange(width) * len(strip.weights) // width
    return Image.fromarray(colors[:, state])


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
