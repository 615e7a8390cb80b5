"""What several test files look at: errors of one line, the files below a folder, strict JSON."""

import json
from pathlib import Path

import pytest


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message of an exception, which must be a single line."""
    text = str(error.value)
    assert "\n" not in text and text
    return text


def files_below(folder: str | Path, pattern: str = "*") -> list[str]:
    """The files below a folder whose names fit the pattern, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob(pattern) if path.is_file())


def strict_json(path: Path) -> dict:
    """The content of a JSON file, which must not hold NaN or infinities."""

    def refuse(token):
        raise AssertionError(f"{path} holds {token}")

    return json.loads(path.read_text(), parse_constant=refuse)
