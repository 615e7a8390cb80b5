"""Checkpoints and training states: written as a whole, read without running what they hold, found by their paths."""

import io
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mop.artifacts.run_paths import RunKey
from mop.artifacts.torch_files import read_torch
from mop.common.errors import InputError
from mop.common.files import find_files, write_atomic
from mop.common.reading import read_bytes, reading
from mop.common.task_mix import is_task_id, tasks_of
from mop.common.train_config import check_recorded, task_weights
from mop.common.values import shown


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint that loads with `weights_only=True`; numpy scalars in its `config` become Python numbers.

    A run that was continued writes the same bytes as one that was not, for evaluations know a policy by its file's
    digest: its settings, which come in another order then, are sorted, and equal texts are one object.
    """
    checkpoint = _plain(checkpoint)
    save_training_state(path, checkpoint | {"config": dict(sorted(checkpoint["config"].items()))})


def load_checkpoint(path: str | Path) -> dict:
    """Read a checkpoint: at least `policy_state_dict` (name -> tensor) and `config` (plain Python, with `task_id`).

    The config is checked and completed by `train_config.check_recorded`; other keys that an older checkpoint lacks
    stay absent.
    """
    checkpoint = read_torch(path, "checkpoint")
    with reading(path, "checkpoint"):
        config = checkpoint["config"]
        for name, weight in checkpoint["policy_state_dict"].items():
            if not isinstance(name, str) or not hasattr(weight, "dtype"):
                raise InputError(f"{shown(name)} in its policy_state_dict is no tensor")
        if not isinstance(config["task_id"], str):
            raise InputError("the 'task_id' of its config is no text")
        return checkpoint | {"config": check_recorded(config, str(path))}


def quick_config(path: str | Path) -> dict:
    """Read what a checkpoint says of itself, in milliseconds, without torch and its tensors: for names alone.

    Its `config` and `update`, as they stand in the file, neither checked nor completed; empty where the file cannot be
    read.
    """
    with suppress(InputError), reading(path):
        checkpoint = read_torch(path, "checkpoint", has_tensors=False)
        return {**checkpoint["config"], **({"update": checkpoint["update"]} if "update" in checkpoint else {})}
    return {}


def save_training_state(path: str | Path, state: dict) -> None:
    """Write nested dicts and lists of tensors, numbers and strings; it loads with `weights_only=True`.

    Raises OSError if the disk refuses.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)  # not to the file: torch makes a RuntimeError of a full disk
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def load_training_state(path: str | Path) -> dict:
    """Read what `save_training_state` wrote; its config, if it has one, is completed as that of a checkpoint."""
    state = read_torch(path, "training state")
    with reading(path, "training state"):
        if not isinstance(state, dict):
            raise InputError(f"it is no training state (it holds a {type(state).__name__})")
        if "config" in state:
            state["config"] = check_recorded(state["config"], str(path))
        return state


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint file and its key, which its path tells."""

    key: RunKey
    path: Path


def find_checkpoints(roots: Sequence[str | Path]) -> list[FoundCheckpoint]:
    """Every checkpoint below `roots`, once, sorted by key; files of another layout and missing roots are ignored.

    Links to folders are followed, see `find_files`.
    Where two roots have a checkpoint of the same key, that of the first root is taken, with a warning if the files
    differ.
    """
    found: dict[RunKey, Path] = {}
    for root in map(Path, roots):
        for path in find_files(root, "checkpoint_*.pt"):
            try:
                key = RunKey.from_checkpoint(path.relative_to(root))  # the task's folder must be below the root
            except InputError:
                continue
            first = found.setdefault(key, path) if path.is_file() else path
            if first != path and read_bytes(first) != read_bytes(path):
                warnings.warn(f"{path} differs from {first}, which is used for the same run", stacklevel=2)
    return [FoundCheckpoint(key, found[key]) for key in sorted(found)]


def by_task(found: FoundCheckpoint) -> list[FoundCheckpoint]:
    """A checkpoint once for each task of its policy, with the key of its evaluation there; itself, where it has one.

    Only the name is known of a file that cannot be read: it stays as it is, and whoever evaluates it reports that.
    """
    if is_task_id(found.key.task_id):
        return [found]
    try:
        tasks = task_weights(quick_config(found.path).get("tasks"))
        return [replace(found, key=found.key.on(task_id)) for task_id, _ in tasks]
    except (ValueError, InputError):
        return [found]


def check_trained_on(config: dict, key: RunKey, path: str | Path) -> None:
    """Refuse a checkpoint whose config is not that of its path, or lacks the task that is asked for."""
    name = key.of_checkpoint.task_id
    if config["task_id"] != name:
        raise InputError(f"{path} was trained on {config['task_id']}, not on {name} as its path says")
    task_ids = [task_id for task_id, _ in tasks_of(config)]
    if key.task_id not in task_ids:
        raise InputError(f"{path} was not trained on {key.task_id}; its tasks are {', '.join(task_ids)}")


def update_of(found: FoundCheckpoint) -> int | None:
    """The update that a checkpoint was saved at; None for a final one whose file is broken or does not tell."""
    if found.key.update is not None:
        return found.key.update
    config = quick_config(found.path)
    update = config.get("update", config.get("num_updates"))
    return update if type(update) is int and update >= 0 else None


def _plain(value: Any) -> Any:
    """The same nested value with Python numbers and strings in place of numpy's, and one object for equal texts.

    Pickle writes an object once, and what was read has several of a text. A state_dict stays as it is.
    """
    if type(value) is dict:
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    value = value.item() if isinstance(value, np.generic) else value
    return sys.intern(value) if type(value) is str else value
