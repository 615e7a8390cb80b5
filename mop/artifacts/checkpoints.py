"""Checkpoints and training states: written as a whole, read without running what they hold, found by their paths."""

import collections
import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mop.artifacts.archives import check_sums, open_archive
from mop.artifacts.run_paths import RunKey
from mop.common.configuration import check_recorded, shown, task_weights
from mop.common.errors import InputError
from mop.common.files import find_files, read_bytes, write_atomic
from mop.common.task_mix import is_task_id, tasks_of

if TYPE_CHECKING:
    import torch

_MAX_PICKLE = 2**22  # bytes of what a checkpoint holds beside its tensors
_MAX_DEPTH = 50  # of dictionaries and lists in one another


def save_checkpoint(path: str | Path, checkpoint: dict) -> None:
    """Write a checkpoint that loads with `weights_only=True`; numpy scalars in its `config` become Python numbers."""
    save_training_state(path, checkpoint | {"config": _plain(checkpoint["config"])})


def load_checkpoint(path: str | Path, device: str = "cpu") -> dict:
    """Read a checkpoint: at least `policy_state_dict` (name -> tensor) and `config` (plain Python, with `task_id`).

    The config is checked and completed by `configuration.check_recorded`; other keys that an older checkpoint lacks
    stay absent. Only tensors, plain Python values and numpy scalars are loaded; every tensor's numbers are finite.
    Raises InputError, naming file and reason, if the file is missing, cut short or damaged, is no checkpoint, or holds
    anything else.
    """
    checkpoint = _load_torch(path, device, allowed=_numpy_scalar_globals())
    for key in ("policy_state_dict", "config"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
            raise InputError(f"{path}: it is no checkpoint (it has no dictionary '{key}')")
    for name, value in checkpoint["policy_state_dict"].items():
        if not isinstance(name, str) or not hasattr(value, "untyped_storage"):
            raise InputError(f"{path}: it is no checkpoint ({shown(name)} in its policy_state_dict is no tensor)")
    if not isinstance(checkpoint["config"].get("task_id"), str):
        raise InputError(f"{path}: it is no checkpoint (its config has no 'task_id')")
    plain = {key: _plain(checkpoint[key]) for key in ("config", "update") if key in checkpoint}
    return checkpoint | plain | {"config": check_recorded(plain["config"], str(path))}


def quick_config(path: str | Path) -> dict:
    """What a checkpoint says of itself, read in milliseconds, without torch and without its tensors: for names alone.

    Its `config` and `update`, as they stand in the file, neither checked nor completed; empty where the file cannot be
    read so. Nothing that the file names is imported or run: it stands for nothing here.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _MAX_PICKLE:
                return {}
            content = _Skimmer(io.BytesIO(archive.read(name))).load()
        config = content["config"]
        plain = {key: value for key, value in config.items() if not isinstance(value, _Unknown)}
        return plain | ({"update": content["update"]} if type(content.get("update")) is int else {})
    except Exception:  # a damaged pickle raises nearly anything, and a name can do without
        return {}


class _Unknown:
    """What stands for an object of a checkpoint that only torch could make."""

    def __new__(cls, *_, **__):
        return object.__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__) -> "_Unknown":
        return self

    def __setstate__(self, state: Any) -> None:
        pass


class _Skimmer(pickle.Unpickler):
    """Reads plain Python values, and puts `_Unknown` in place of all else."""

    def find_class(self, module: str, name: str) -> type:
        return collections.OrderedDict if (module, name) == ("collections", "OrderedDict") else _Unknown

    def persistent_load(self, pid: Any) -> None:
        return None


def save_training_state(path: str | Path, state: dict) -> None:
    """Write nested dicts and lists of tensors, numbers and strings; it loads with `weights_only=True`.

    Raises OSError if the disk refuses.
    """
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)  # not to the file: torch makes a RuntimeError of a full disk
    write_atomic(path, lambda file: file.write(buffer.getbuffer()))


def load_training_state(path: str | Path, device: str = "cpu") -> dict:
    """Read what `save_training_state` wrote; its config, if it has one, is completed as that of a checkpoint.

    Raises InputError, naming file and reason, if it is anything else, or damaged, or its numbers are not finite.
    """
    state = _load_torch(path, device)
    if not isinstance(state, dict):
        raise InputError(f"{path}: it is no training state (it holds a {type(state).__name__})")
    if isinstance(state.get("config"), dict):
        state["config"] = check_recorded(state["config"], str(path))
    return state


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint file and its key, which its path tells."""

    key: RunKey
    path: Path


def find_checkpoints(roots: Sequence[str | Path], is_quick: bool = False) -> list[FoundCheckpoint]:
    """Every checkpoint below `roots`, once, sorted by key; files of another layout and missing roots are ignored.

    Links to folders are followed, see `find_files`.
    Where two roots have a checkpoint of the same key, that of the first root is taken, with a warning if the files
    differ. A periodic checkpoint is left out if the final one of its run is of the same update. To know that update,
    the final one is opened, which needs torch; with `is_quick` it is not, and the periodic one stays.
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
    final_ones = set() if is_quick else {replace(key, update=None) for key in found if key.update is not None}
    for final in final_ones & found.keys():
        update = update_of(FoundCheckpoint(final, found[final]))
        if update is not None:
            found.pop(replace(final, update=update), None)
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
    """Raises InputError where a checkpoint's config is not that of its path, or lacks the task that is asked for."""
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
    try:
        checkpoint = load_checkpoint(found.path)
    except InputError:
        return None  # not reported here: whoever evaluates the file will
    update = checkpoint.get("update", checkpoint["config"].get("num_updates"))
    return update if type(update) is int and update >= 0 else None


def _load_torch(path: str | Path, device: str, allowed: Sequence = ()) -> Any:
    import torch

    data = read_bytes(path)
    try:
        if data.startswith(b"PK"):  # torch.save writes a zip archive; before torch 1.6 it did not
            check_sums(open_archive(data))
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # on a bad file torch raises nearly anything, KeyError('101') for a text among it
        raise InputError(f"{path}: {_reason_not_loaded(data, error)}") from error
    try:
        _check_content(content, max_items=len(data))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return content


def _reason_not_loaded(data: bytes, error: Exception) -> str:
    forbidden = re.search(r"GLOBAL (\S+)", str(error))
    if forbidden:
        return f"it holds {forbidden[1]!r}, which no checkpoint needs; nothing of it was loaded"
    if not data:
        return "the file is empty"
    if not data.startswith(b"PK"):
        return "it is no checkpoint (torch.save did not write it)"
    if not zipfile.is_zipfile(io.BytesIO(data)):  # the table of contents stands at the end
        return "the file is cut short"
    if "weights_only" in str(error):  # torch's advice to load it unsafely is none for a file that is damaged
        return "torch cannot load it (it holds something that is no tensor, number or text)"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return reason if type(error) is ValueError and reason.startswith("it ") else f"torch cannot load it ({reason})"


def _check_content(content: Any, max_items: int) -> None:
    """Raises ValueError for tensors that are not what they seem, or lists in lists without end.

    max_items: a file has at least a byte for each item, unless an item stands in several places; then a few bytes can
    be so many items that nothing that looks at each of them would come to an end.
    """
    import torch

    waiting, num_items = [("", content, 0)], 0
    while waiting:
        name, value, depth = waiting.pop()
        num_items += 1
        if num_items > max_items or depth > _MAX_DEPTH:
            raise ValueError("its dictionaries and lists hold each other without end")
        if isinstance(value, dict):
            waiting += [(f"{name}.{shown(key)}" if depth else str(key), item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(name, item, depth + 1) for item in value]
        elif isinstance(value, torch.Tensor):
            is_dense = value.layout is torch.strided and not (value.is_quantized or value.is_meta)
            if not is_dense or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f"the tensor {name} is not stored number by number")
            if value.is_floating_point() and not _is_finite(value):
                raise ValueError(f"{name} holds weights that are no finite numbers: its training diverged")


def _is_finite(values: "torch.Tensor") -> bool:
    values = values.detach().cpu()
    if values.element_size() == 2:  # numpy does not know bfloat16
        values = values.float()
    return bool(np.isfinite(values.numpy()).all())  # torch would wake its threads for each of many small tensors


def _numpy_scalar_globals() -> list:
    """What the pickle of a numpy scalar refers to; `num_actions` is one in older checkpoints.

    Its constructor moved from `numpy.core` to `numpy._core` in numpy 2.0, and files name it by either.
    """
    scalar = np.int64(0).__reduce__()[0]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdU"]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *dtypes]


def _plain(value: Any) -> Any:
    """The same nested value with Python numbers and strings in place of numpy's."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    return value.item() if isinstance(value, np.generic) else value
