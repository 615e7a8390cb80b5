"""Films: pictures of states side by side, captions, and strips of weights over time, as an animated GIF or an MP4.

Axis letters: T actions of an episode, which has the states 0 to T; E experts.
"""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from mop.common.errors import InputError
from mop.plotting.style import expert_looks, short_name

LAST_MS = 2000  # how long the last frame stays
LINE_PX = 17  # of a line of text
_PICTURE_PX, _MARGIN_PX = 224, 10  # a picture is as high as a view of 7 cells
_STRIP_PX, _STRIP_STEP_PX, _LABEL_PX, _LEAST_PX = 26, 32, 110, 560
_SMOOTH = Image.Resampling.LANCZOS
_NO_ENCODER = (
    "an MP4 needs the encoder ffmpeg, and none is found: install the system's package of that name or "
    "`pip install imageio-ffmpeg`, or make a GIF"
)

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


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


def gif_bytes(frames: Sequence[Image.Image], steps_per_second: float) -> bytes:
    """An animated GIF of frames of one size; the last one stays for 2 s.

    steps_per_second: to a hundredth of a second.
    """
    durations = [round(100 / steps_per_second) * 10] * (len(frames) - 1) + [LAST_MS]
    palette = _shared_palette([frames[0], frames[len(frames) // 2], frames[-1]])
    small = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    small[0].save(file := io.BytesIO(), "GIF", save_all=True, append_images=small[1:], duration=durations, loop=0)
    return file.getvalue()


def mp4_bytes(frames: Sequence[Image.Image], steps_per_second: float) -> bytes:
    """The same as MP4 (H.264), by an ffmpeg of this machine."""
    encoder = find_encoder()
    width, height = (side + side % 2 for side in frames[0].size)  # H.264 stores colours for two by two pixels
    stays = round(LAST_MS / 1000 * steps_per_second)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"  # the head of an MP4 is written last: it cannot be piped
        given = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {steps_per_second:g} -i -"
        wanted = "-an -c:v libx264 -pix_fmt yuv420p -movflags +faststart -bitexact"
        command = [encoder, "-loglevel", "error", *given.split(), *wanted.split(), str(path)]
        pixels = [np.asarray(_padded(frame, width, height)).tobytes() for frame in frames]
        result = subprocess.run(command, input=b"".join(pixels + pixels[-1:] * stays), capture_output=True, check=False)
        if result.returncode:
            raise InputError(f"{encoder} could not make the MP4 ({result.stderr.decode().strip()[:200]}); make a GIF")
        return path.read_bytes()


def find_encoder() -> str:
    """The path of an ffmpeg, the system's or that of the package imageio-ffmpeg."""
    if (found := shutil.which("ffmpeg")) is not None:
        return found
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        return get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        raise InputError(_NO_ENCODER) from None


@cache
def font(size: int = 13) -> ImageFont.FreeTypeFont:
    """The font of texts in a frame."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _padded(frame: Image.Image, width: int, height: int) -> Image.Image:
    page = Image.new("RGB", (width, height), "white")
    page.paste(frame)
    return page


def _shared_palette(samples: Sequence[Image.Image]) -> Image.Image:
    """256 colours for all frames: those of samples, each of which is made as large as the first."""
    width, height = samples[0].size
    page = Image.new("RGB", (width, len(samples) * height))
    for number, sample in enumerate(samples):
        page.paste(sample.resize((width, height)), (0, number * height))
    return page.quantize(256)


WRITERS = {"gif": gif_bytes, "mp4": mp4_bytes}


def gate_strips(routing: np.ndarray, expert_hidden_sizes: Sequence[Sequence[int]], note: str = "") -> list[Strip]:
    """The strips of all layers with a choice; routing (T + 1, sum of E_l), the layers side by side."""
    layers = np.split(routing, np.cumsum([len(sizes) for sizes in expert_hidden_sizes])[:-1], axis=-1)
    looks = expert_looks({"expert_hidden_sizes": expert_hidden_sizes}, layers)
    return [
        Strip(f"layer {layer}{note}", weights, *look)
        for layer, (weights, look) in enumerate(zip(layers, looks, strict=True))
        if weights.shape[1] > 1
    ]


def film_bytes(film: Film, file_format: str, steps_per_second: float = 4) -> bytes:
    """A film as a file of a format of WRITERS."""
    return WRITERS[file_format](draw_frames(film), steps_per_second)


def draw_frames(film: Film) -> list[Image.Image]:
    """The pictures of a film, one for each state."""
    page = _draw_page(film)
    return [_draw_state(*page, film, t, (t, t + 1)) for t in range(len(film.captions))]


def draw_still(film: Film, marked: tuple[int, int]) -> Image.Image:
    """The first state of a film as one picture, with the states from .. to (not with it) marked in the strips."""
    return _draw_state(*_draw_page(film), film, 0, marked)


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


def _draw_state(
    page: Image.Image, strips: Box | None, top: int, film: Film, t: int, marked: tuple[int, int]
) -> Image.Image:
    """A page with the pictures of a state below their headings and its caption; marked: states framed in the strips."""
    frame, left = page.copy(), _MARGIN_PX
    for heading, pictures in film.columns:
        picture = _shown(pictures[t], film.height_px)
        ImageDraw.Draw(frame).text((left, top), heading, fill="#555555", font=font())
        frame.paste(picture, (left, top + LINE_PX))
        left += picture.width + _MARGIN_PX
    _write(frame, film.captions[t], top + LINE_PX + film.height_px + _MARGIN_PX)
    if strips is not None:
        x0, y0, x1, y1 = strips
        start, end = (x0 + (x1 - x0) * min(1.0, state / len(film.captions)) for state in marked)
        ImageDraw.Draw(frame).rectangle([start - 1, y0 - 3, end + 1, y1 + 3], outline="black", width=2)
    return frame


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
