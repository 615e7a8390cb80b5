"""The apps in a real browser: how an app is served to it, where its figures are."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Error
from scripts import PATIENCE_S, REPOSITORY, script_environment

FIGURE = ".figure img"  # each figure of a page
TIMEOUT_MS = 120_000  # the first fresh evaluation of an installation compiles its kernels


@contextlib.contextmanager
def served(app: Path, place: Path, *flags, mode: str = "run", zoo: bool = True, ttl_s: int = 120):
    """The address of an app that is served from `place`; its processes end with the block, whatever happens in it.

    zoo: whether it is to offer the checkpoints of results/zoo. ttl_s: when a visitor who has left is forgotten.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "-q", "-y", mode, app, "--headless", "--no-token", "--host", "127.0.0.1"]
    command += ["--session-ttl", str(ttl_s)] if mode == "run" else []
    given = ("--checkpoint_dir", REPOSITORY / "results" / "zoo") if zoo else ()
    log = place / f"{app.stem}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, command), "-p", str(port), "--", *map(str, (*given, *flags))],
            cwd=place,
            env=script_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Page:
    """A page of an app, in a profile of its own; it notes errors of the console and requests that leave the machine."""

    def __init__(self, browser, address: str, **profile):
        self.page = browser.new_page(viewport={"width": 1440, "height": 1400}, **profile)
        self.page.set_default_timeout(TIMEOUT_MS)
        self.faults: list[str] = []
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._check_request(request.url, address.split("?")[0]))
        self.page.goto(address, wait_until="domcontentloaded")

    def _check_request(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.faults.append(f"fetched {url}")

    def picture(self, number: int = 0, other_than: str = "") -> str:
        """The picture of a figure once it is there and is another one."""
        picture = self.figures().nth(number)
        self.until(lambda: picture.get_attribute("src") != other_than)
        return picture.get_attribute("src")

    def figures(self):
        return self.page.locator(FIGURE)

    def shown_texts(self) -> list[str]:
        """The texts under the mouse, of all figures."""
        return self.page.locator(".figure i").evaluate_all("spots => spots.map(spot => spot.dataset.text)")

    def shows(self, expected: str) -> None:
        """Wait until the figure says that it is this one."""
        self.page.locator(f"{FIGURE}[data-name='{expected}']").wait_for()

    def names(self, part: str) -> None:
        """Wait until a figure is there whose name has this part."""
        self.page.locator(f"{FIGURE}[data-name*='{part}']").first.wait_for()

    def label(self, expected: str) -> None:
        """The same, and see that it stays so."""
        self.shows(expected)
        self.page.wait_for_timeout(2000)  # what was still on its way would come now
        assert self.figures().first.get_attribute("data-name") == expected

    def choose(self, label: str, option: str) -> None:
        self.dropdown(label).select_option(label=option)

    def choose_start(self, label: str, start: str) -> None:
        """Choose the first option that begins so."""
        options = self.dropdown(label).locator("option").all_inner_texts()
        self.choose(label, next(option for option in options if option.startswith(start)))

    def choose_run(self, name: str) -> None:
        """Choose in the menu of runs, which can be searched."""
        self._runs().click()
        self.page.get_by_role("option", name=re.compile(f"^{re.escape(name)}( ·|$)")).first.click()

    def run_names(self) -> list[str]:
        """What the menu of runs offers."""
        self._runs().click()
        found = self.page.get_by_role("option").all_inner_texts()
        self.page.keyboard.press("Escape")
        return found

    def chosen_run(self) -> str:
        return self._runs().inner_text()

    def _runs(self):
        return self.page.locator("marimo-dropdown[data-label*='Run'] button")

    def dropdown(self, label: str):
        return self.page.locator(f"marimo-dropdown[data-label*='{label}'] select")

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("radio", name=name).click()

    def tab_names(self) -> list[str]:
        return self.page.get_by_role("radiogroup").locator("label").all_inner_texts()

    def view(self) -> tuple[str, list[str]]:
        """The address, and what the figures say that they show."""
        return self.page.url, self.figures().evaluate_all("images => images.map(image => image.dataset.name)")

    def undo(self, choose: Callable[[], None]) -> None:
        """Choose something, which shows other figures, and go back: address and figures are as they were."""
        before = self.view()
        choose()
        self.until(lambda: all(new != old for new, old in zip(self.view(), before, strict=True)))
        self.page.go_back()
        self.until(lambda: self.view() == before)

    def pass_over(self) -> None:
        """Press the Tab key through the page: nothing is chosen by it."""
        before = self.view()
        for _ in range(20):
            self.page.keyboard.press("Tab")
        self.page.wait_for_timeout(1000)
        assert self.view() == before

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while time.monotonic() < deadline:
            with contextlib.suppress(Error):  # the page is being loaded
                if condition():
                    return
            self.page.wait_for_timeout(100)
        raise AssertionError(self.view())

    def enter(self, label: str, value: int) -> None:
        """Type a number beside a slider."""
        box = self.page.locator(f"marimo-slider[data-label*='{label}']").locator("input[inputmode]")
        box.fill(str(value))
        box.press("Enter")

    def see(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def save(self, name: str, start: bytes = b"\x89PNG") -> dict[str, bytes]:
        """Press the button that downloads a figure: its files by name, of which the last is a picture."""
        with self.page.expect_download() as download:
            self.page.locator("marimo-download").get_by_text(f"Download {name}", exact=True).click()
        assert download.value.suggested_filename == f"{name}.zip"
        with zipfile.ZipFile(download.value.path()) as archive:
            files = {path: archive.read(path) for path in archive.namelist()}
        assert [*files][-1].startswith(name) and files[[*files][-1]].startswith(start)
        return files

    def chosen(self, label: str) -> str:
        """What a dropdown shows."""
        return self.dropdown(label).evaluate("select => select.selectedOptions[0].label")

    def refresh(self) -> None:
        """Press the button, and wait until the page has made its controls anew: the old ones are not listened to."""
        before = self._controls()
        self.page.get_by_role("button", name="Refresh").click()
        self.until(lambda: self._controls() != before)

    def _controls(self) -> list[str]:
        """What tells each control from the one that stood there before."""
        controls = self.page.locator("marimo-ui-element")
        return controls.evaluate_all("all => all.map(one => one.getAttribute('random-id'))")

    def close(self) -> None:
        self.page.close()
        assert self.faults == []


@contextlib.contextmanager
def opened(browser, address: str, **profile):
    page = Page(browser, address, **profile)
    yield page
    page.close()
