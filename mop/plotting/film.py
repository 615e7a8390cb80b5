"""Films: frames to an animated GIF or an MP4, and what the frames of all films share."""

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from mop.common.errors import InputError

LAST_MS = 2000  # how long the last frame stays
LINE_PX, BAR_PX = 17, 12  # of a line of text, of a bar of weights
_DPI = 72  # of figures in a frame
_NO_ENCODER = (
    "an MP4 needs the encoder ffmpeg, and none is found: install the system's package of that name or "
    "`pip install imageio-ffmpeg`, or make a GIF"
)

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def gif_bytes(frames: Sequence[Image.Image], steps_per_second: float, samples: Sequence[Image.Image] = ()) -> bytes:
    """An animated GIF of frames of one size; the last one stays for 2 s.

    steps_per_second: to a hundredth of a second; samples: pictures with colours that need a place in the palette of
    256, beside those of the first and the last frame.
    """
    durations = [round(100 / steps_per_second) * 10] * (len(frames) - 1) + [LAST_MS]
    palette = _shared_palette([frames[0], frames[-1], *samples])
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


def rasterise(figure: Figure, left: float = 0, top: float = 0) -> tuple[Image.Image, list[Box]]:
    """A figure as a picture, and where the data of its panels are once its corner is at (left, top) of a frame."""
    figure.savefig(file := io.BytesIO(), format="png", dpi=_DPI)
    picture = Image.open(file).convert("RGB")
    boxes = [ax.get_window_extent().transformed(figure.transFigure.inverted()) for ax in figure.axes]
    width, height = picture.size
    return picture, [
        (left + b.x0 * width, top + (1 - b.y1) * height, left + b.x1 * width, top + (1 - b.y0) * height) for b in boxes
    ]


def mark_part(frame: Image.Image, panel: Box, start: float, end: float) -> None:
    """A black frame around the part of a panel from `start` to `end`, shares of its width."""
    left, top, right, bottom = panel
    x = left + (right - left) * np.array([start, end])
    ImageDraw.Draw(frame).rectangle([x[0] - 1, top - 3, x[1] + 1, bottom + 3], outline="black", width=2)


def draw_bar(pen: ImageDraw.ImageDraw, left: float, top: float, width: float, weights, hues: Sequence[str]) -> None:
    """Weights (E,) that sum to 1 side by side, as a bar."""
    edges = left + width * np.cumsum([0, *weights])
    for (start, end), hue in zip(pairwise(edges), hues, strict=True):
        pen.rectangle([start, top, end, top + BAR_PX], fill=hue)


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
