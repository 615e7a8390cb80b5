"""What several test files look at: errors of one line, the files below a folder, strict JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mop.common.errors import InputError


def one_line(error: pytest.ExceptionInfo) -> str:
    """The message of an exception, which must be a single line."""
    text = str(error.value)
    assert "\n" not in text and text
    return text


def refusal(function: Callable, *args, **options) -> str:
    """The one line with which a function refuses what it is given."""
    with pytest.raises(InputError) as error:
        function(*args, **options)
    return one_line(error)


def files_below(folder: str | Path, pattern: str = "*") -> list[str]:
    """The files below a folder whose names fit the pattern, relative to it, sorted."""
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob(pattern) if path.is_file())


def strict_json(path: Path) -> dict:
    """The content of a JSON file, which must not hold NaN or infinities."""

    def refuse(token):
        raise AssertionError(f"{path} holds {token}")

    return json.loads(path.read_text(), parse_constant=refuse)


def assert_same(one, other, where: str = "") -> None:
    """Two nested states are equal to the last bit; NaN equals NaN."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for k, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{k}]")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), where


def contents(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
