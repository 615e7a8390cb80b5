"""The pictures of README.md and microscope.md (needs chromium).

python docs/pictures.py                    both, from what `make site` evaluates
python docs/pictures.py --only microscope  microscope.gif and microscope.png alone, from results/zoo
"""

import io
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_figure
from mop.evaluation.evaluate import load_for_evaluation
from mop.microscope.document import microscope_document
from plotting_utils import plot_specialisation

DOCS = Path(__file__).resolve().parent

CACHE_DIR = DOCS.parent / "site" / "cache"
RUN = RunKey("BabyAI-KeyCorridorS3R3-v0", 0, 0)
CHECKPOINT = DOCS.parent / "results/zoo/BabyAI-KeyCorridorS3R3-v0/trial_30/seed_0/checkpoint_final.pt"
WORLD, SLIDER = 2, "1.1"  # GRU 16 of layer 1
FRAME_MS, LAST_MS = 110, 2500
NUM_COLORS = 128  # of the film


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    only: str | None = setting(None, "this alone", choices=("specialisation", "microscope"))


def main() -> None:
    """Draw what is asked for, or both."""
    only = parse(Settings, __doc__).only
    if only != "microscope":
        data = load_cache(cache_path(CACHE_DIR, RUN), "make site")
        write_figure(DOCS / "specialisation.png", plot_specialisation(data, ["by_action", "by_key_phase"]))
    if only != "specialisation":
        draw_microscope()


def draw_microscope() -> None:
    """Write microscope.png, a view, and microscope.gif: a weight is dragged to zero, the second agent fails."""
    document = microscope_document([load_for_evaluation(CHECKPOINT)], cache_dir=str(CACHE_DIR))
    with _visit(document, 1440, 860) as page:
        page.evaluate(f"location.hash = 'world={WORLD}&step=42&intervention=lesion 0.0'")
        _count(page)
        _write(page.screenshot(), "microscope.png")
    with _visit(document, 1120, 780) as page:
        _write(_film(page), "microscope.gif")


def _film(page) -> bytes:
    """A GIF of the microscope at work."""
    frames: list[Image.Image] = []

    def see(count: int = 1) -> None:
        frames.extend([Image.open(io.BytesIO(page.screenshot())).convert("RGB")] * count)

    def play(num_steps: int) -> None:
        for _ in range(num_steps):
            page.keyboard.press(".")
            page.wait_for_timeout(10)
            see()

    page.evaluate(f"location.hash = 'world={WORLD}'")
    see(4)
    play(14)
    slider = page.locator(f'[id="slider{SLIDER}"]')
    box = slider.bounding_box()
    x, y = box["x"] + box["width"] * float(slider.input_value()), box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for share in range(6):
        page.mouse.move(x + (box["x"] - x) * share / 5, y)
        see()
    page.mouse.up()
    page.evaluate("document.activeElement.blur()")
    see(3)
    page.keyboard.press("Home")
    play(30)
    page.press("#time", "End")
    see(4)
    _count(page)
    see()
    palette = frames[-1].quantize(NUM_COLORS)
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    film = io.BytesIO()
    times = [FRAME_MS] * len(others) + [LAST_MS]
    first.save(film, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=True)
    return film.getvalue()


def _count(page) -> None:
    """Play all worlds."""
    page.click("#all")
    page.locator("#effect p").first.wait_for(timeout=120_000)
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # why is said


def _write(content: bytes, name: str) -> None:
    write_atomic(DOCS / name, lambda file: file.write(content))


@contextmanager
def _visit(document: str, width: int, height: int) -> Generator:
    """Show a page in a browser."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("there is no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "page.html"
        path.write_text(document)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(path.as_uri())
        yield page
        browser.close()


if __name__ == "__main__":
    run_script(main)
