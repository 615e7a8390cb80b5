"""The apps in a real browser: where it is, how an app is served to it, where its figures are."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from conftest import REPOSITORY, script_environment

CHROMIUM = shutil.which("chromium")
CHROMIUM_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

FIGURE = ".figure img"  # each figure of a page


@contextlib.contextmanager
def served(app: Path, place: Path, *flags, mode: str = "run", zoo: bool = True):
    """The address of an app that is served from `place`; its processes end with the block, whatever happens in it.

    zoo: whether it is to offer the checkpoints of results/zoo.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "-q", "-y", mode, app, "--headless", "--no-token", "--host", "127.0.0.1"]
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
        deadline = time.monotonic() + 60
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
