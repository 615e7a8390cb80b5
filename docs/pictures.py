"""The pictures of README.md and apps.md, from what `make site` evaluates: python docs/pictures.py (needs chromium)."""

import shutil
import tempfile
from pathlib import Path

from mop.apps.episode_player import episode_gif, player_document
from mop.apps.episode_records import episode_record
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_figure
from plotting_utils import plot_specialisation

DOCS = Path(__file__).resolve().parent

CACHE_DIR = DOCS.parent / "site" / "cache"
RUN = RunKey("BabyAI-KeyCorridorS3R3-v0", 0, 0)
EPISODE, T_STEP, OVERLAY = 0, 33, "dominant expert of layer 2"


def main() -> None:
    """Draw them all."""
    data = load_cache(cache_path(CACHE_DIR, RUN), "make site")
    write_figure(DOCS / "specialisation.png", plot_specialisation(data, ["by_action", "by_key_phase"]))
    film = episode_gif(data, EPISODE)
    write_atomic(DOCS / "episode.gif", lambda file: file.write(film))
    screenshot = _screenshot(player_document(episode_record(data, EPISODE)))
    write_atomic(DOCS / "app.png", lambda file: file.write(screenshot))


def _screenshot(document: str) -> bytes:
    """A PNG of the player at T_STEP."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("there is no chromium here: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "player.html"
        path.write_text(document)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 700}, device_scale_factor=1.25)
        page.goto(path.as_uri())
        page.get_by_role("combobox").last.select_option(label=OVERLAY)
        page.locator("h1, body").first.click(position={"x": 5, "y": 5})
        page.keyboard.press("Home")
        for _ in range(T_STEP):
            page.keyboard.press("ArrowRight")
        png = page.screenshot(full_page=True)
        browser.close()
    return png


if __name__ == "__main__":
    run_script(main)
