"""`modal run` of modal_app.py against the stand-in for Modal's servers, as tests use it."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts import PATIENCE_S, REPOSITORY, run_script, script_environment

PIN = re.search(r"^modal==(.*)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)[1]


def without_account() -> dict[str, str]:
    """An environment without any account of Modal."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")} | {
        "MODAL_CONFIG_PATH": os.devnull
    }


class Cloud:
    """One Modal environment of the stand-in, and the folder on "this machine" that it is used from."""

    def __init__(self, folder: Path, address: str, name: str, here: Path):
        self.folder, self.here = folder / name, here
        self.folder.mkdir()
        self.environment = script_environment(without_account()) | {
            "MODAL_SERVER_URL": address, "MODAL_TOKEN_ID": "ak-user", "MODAL_TOKEN_SECRET": "as-user",
            "MODAL_ENVIRONMENT": name, "COLUMNS": "400",
        }  # fmt: skip

    def start(self, entry_point: str, *words) -> subprocess.Popen:
        """`modal run modal_app.py::<entry point> ...`; `--detach` and `-e ENV` go before the file."""
        of_run = ("--detach", "-e", self.folder.name)
        flags = [word for word in words if word in of_run]
        words = [str(word) for word in words if word not in of_run]
        return subprocess.Popen(
            [sys.executable, "-m", "modal", "run", *flags, f"{REPOSITORY}/modal_app.py::{entry_point}", *words],
            cwd=self.here, env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, entry_point: str, *words) -> tuple[int, str, list[dict]]:
        """The exit code, the output, and what the stand-in recorded meanwhile."""
        before = len(self.events())
        process = self.start(entry_point, *words)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in out + err, out + err + self.logs()
        return process.returncode, out + err, self.events()[before:]

    def events(self) -> list[dict]:
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def logs(self) -> str:
        """What the containers printed."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("containers/*/log")))

    def volume(self, name: str) -> Path:
        return self.folder / "volumes" / name

    def upload(self) -> None:
        """Copy modal_checkpoints/ to its volume."""
        shutil.copytree(self.here / "modal_checkpoints", self.volume("rl-mop"), dirs_exist_ok=True)

    def dict_entries(self) -> int:
        """How many calls are noted."""
        return len(of(self.events(), "dict"))

    def kill(self, function: str, commit: int, times: int = 1) -> None:
        """Have containers of a function killed at their commit of that number."""
        (self.folder / "kill.json").write_text(json.dumps({function: {"commit": commit, "times": times}}))

    def download(self) -> set[str]:
        """`python modal_app.py download`; the files that it says it copied."""
        result = run_script("modal_app.py", "download", cwd=self.here, env=self.environment)
        assert result.returncode == 0, result.stderr
        return {line for line in result.stdout.splitlines() if (self.here / line).is_file()}


def serve(folder: Path) -> Iterator[tuple[Path, str]]:
    """Folder and address of a running stand-in, which ends afterwards."""
    environment = {
        "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/helpers'}",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests/helpers/modal_stand_in.py"), str(folder)],
        env=without_account() | environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield folder, f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)


def until(is_so: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Wait for something to become so."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)


def of(events: list[dict], kind: str, function: str | None = None) -> list[dict]:
    return [event for event in events if event["event"] == kind and function in (None, event.get("function"))]


def assert_files_are_their_own(events: list[dict]) -> None:
    """No file was written by containers of two calls; the table by the merge alone."""
    writers: dict[tuple, set] = {}
    for event in of(events, "commit"):
        for file in event["files"]:
            writers.setdefault((event["volume"], file), set()).add(event["container"])
    assert writers and all(len(containers) == 1 for containers in writers.values()), writers


def layers_of(events: list[dict], image: str) -> tuple[list[dict], dict[str, list[str]]]:
    """The layers of an image, the lowest first, and the files of each context that a layer can copy."""
    images, layers = {event["id"]: event for event in of(events, "image")}, []
    while True:
        layers.insert(0, images[image])
        if not images[image]["base"]:
            return layers, {event["id"]: event["files"] for event in of(events, "mount")}
        (image,) = images[image]["base"]


def imported_by(path: Path) -> set[Path]:
    """A file and every file of the repository that it imports, anywhere, directly or not."""
    found, left = set(), {path}
    while left:
        path = left.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):  # what is imported from a package may be a module of it
                names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = Path(*name.split("."))
                packages = [folder / "__init__.py" for folder in (parts, *parts.parents)]
                files = {REPOSITORY / file for file in (Path(f"{parts}.py"), *packages)}
                left |= {file for file in files if file.exists()} - found
    return found


def in_container(files: set[Path]) -> set[str]:
    """Where files of the repository are in a container."""
    return {f"/root/{file.relative_to(REPOSITORY).as_posix()}" for file in files}
