"""The names of runs and checkpoints, and the place of every file that belongs to one."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mop.base.configuration import MAX_INTEGER, is_plain, shown
from mop.base.errors import InputError
from mop.base.files import find_files

DEFAULT_ROOTS = ("checkpoints", "modal_checkpoints")
CACHE_DIR = "evaluation_cache"
PLOTS_DIR = "plots"
RESULTS_TABLE = "evaluation_results.csv"
INTERVENTIONS_TABLE = "intervention_results.csv"

_NUMBER = "0|[1-9][0-9]*"  # no leading zeros, so that a path and its key determine each other
_RUN = rf"(?:.*/)?(?P<task_id>(?!\.\.?/)[^/]+)/trial_(?P<trial>{_NUMBER})(?:/seed_(?P<seed>{_NUMBER}))?"
_CHECKPOINT_PATH = re.compile(rf"{_RUN}/checkpoint_(?:final|(?P<update>{_NUMBER}))\.pt", re.DOTALL)
_ARTEFACTS_PATH = re.compile(rf"{_RUN}(?:/update_(?P<update>{_NUMBER}))?", re.DOTALL)


@dataclass(frozen=True)
class RunKey:
    """The name of a checkpoint: the run that it belongs to (task, trial, seed), and the update that it was saved at.

    `seed` is None where none was given (the trial number is the seed then); `update` is None for the final checkpoint.
    Keys sort by task, trial, seed (none first) and update (the final checkpoint last).
    Raises InputError if `task_id` cannot be a folder name or a number is not an integer from 0 to 2^63 - 1.
    """

    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None

    def __post_init__(self):
        is_name = isinstance(self.task_id, str) and is_plain(self.task_id)
        if not is_name or self.task_id in ("", ".", "..") or "/" in self.task_id:
            raise InputError(f"task_id must be a name without '/' and control characters, not {shown(self.task_id)}")
        for name, value in (("trial", self.trial), ("seed", self.seed), ("update", self.update)):
            if value is None and name != "trial":
                continue
            if type(value) is not int or not 0 <= value <= MAX_INTEGER:  # bool is a subclass of int, and no trial
                raise InputError(f"{name} must be an integer of 0 or more and below 2^63, not {shown(value)}")

    def folder(self, root: str | Path) -> Path:
        """`<root>/<task_id>/trial_<N>[/seed_<S>]`: the checkpoints and the log of the run."""
        folder = Path(root) / self.task_id / f"trial_{self.trial}"
        return folder if self.seed is None else folder / f"seed_{self.seed}"

    def checkpoint(self, root: str | Path) -> Path:
        """`checkpoint_final.pt` or `checkpoint_<U>.pt` in the folder of the run."""
        return self.folder(root) / f"checkpoint_{'final' if self.update is None else self.update}.pt"

    def artefacts(self, root: str | Path) -> Path:
        """`<folder>[/update_<U>]` under `evaluation_cache/` or `plots/`: what is made from the checkpoint."""
        folder = self.folder(root)
        return folder if self.update is None else folder / f"update_{self.update}"

    @property
    def label(self) -> str:
        """Short text for titles and messages, such as `BabyAI-GoToObj-v0 trial 0 seed 1 update 200`."""
        numbers = (("trial", self.trial), ("seed", self.seed), ("update", self.update))
        return " ".join([self.task_id, *(f"{name} {value}" for name, value in numbers if value is not None)])

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "RunKey":
        """The key of a checkpoint file, from the end of its path. Raises InputError if the path has another layout."""
        return cls._parse(_CHECKPOINT_PATH, path, "<task_id>/trial_<N>[/seed_<S>]/checkpoint_final.pt (or _<U>.pt)")

    @classmethod
    def from_artefacts(cls, folder: str | Path) -> "RunKey":
        """The key of a folder of artefacts, from the end of its path. Raises InputError if it has another layout."""
        return cls._parse(_ARTEFACTS_PATH, folder, "<task_id>/trial_<N>[/seed_<S>][/update_<U>]")

    @classmethod
    def _parse(cls, pattern: re.Pattern, path: str | Path, layout: str) -> "RunKey":
        match = pattern.fullmatch(Path(path).as_posix())
        if match is None:
            raise InputError(f"{path}: the path does not end in {layout}")
        if any(len(digits or "") > 19 for digits in match.group("trial", "seed", "update")):  # those of MAX_INTEGER
            raise InputError(f"{path}: a number of the path is past 64 bits")
        numbers = {name: match[name] and int(match[name]) for name in ("trial", "seed", "update")}
        return cls(match["task_id"], **numbers)

    def __lt__(self, other: "RunKey") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple:
        seed = -1 if self.seed is None else self.seed
        return self.task_id, self.trial, seed, math.inf if self.update is None else self.update


def result_path(cache_dir: str | Path, key: RunKey) -> Path:
    """The result row of one evaluation."""
    return key.artefacts(cache_dir) / "result.json"


def cache_path(cache_dir: str | Path, key: RunKey) -> Path:
    """The routing cache of one evaluation."""
    return key.artefacts(cache_dir) / "routing_data.json"


def interventions_path(cache_dir: str | Path, key: RunKey) -> Path:
    """A row for each intervention on the routing of one checkpoint."""
    return key.artefacts(cache_dir) / "interventions.jsonl"


def bot_paths_file(cache_dir: str | Path, task_id: str, max_steps: int | None) -> Path:
    """The bot's results in the fixed worlds of a task, for one step limit (None: the task's own)."""
    name = "teacher.json" if max_steps is None else f"teacher_max_steps_{max_steps}.json"
    return RunKey(task_id, 0).folder(cache_dir).parent / name


def find_caches(cache_dir: str | Path) -> list[RunKey]:
    """The keys of all routing caches below `cache_dir`, sorted; files in other places, such as copies, are ignored."""
    keys = []
    for path in find_files(cache_dir, "routing_data.json"):
        with suppress(InputError):
            key = RunKey.from_artefacts(path.parent.relative_to(cache_dir))
            keys += [key] if path == cache_path(cache_dir, key) and path.is_file() else []
    return sorted(keys)
