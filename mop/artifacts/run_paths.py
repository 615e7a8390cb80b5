"""The names of runs and checkpoints, and the place of every file that belongs to one."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mop.common.errors import InputError
from mop.common.files import find_files
from mop.common.task_mix import is_task_id
from mop.common.values import MAX_INTEGER, is_plain, shown

DEFAULT_ROOTS = ("checkpoints", "modal_checkpoints")
CACHE_DIR = "evaluation_cache"
PLOTS_DIR = "plots"
RESULTS_TABLE = "evaluation_results.csv"
INTERVENTIONS_TABLE = "intervention_results.csv"

_NUMBER = "0|[1-9][0-9]*"  # no leading zeros, so that a path and its key determine each other
_RUN = rf"(?:.*/)?(?P<task_id>(?!\.\.?/)[^/]+)/trial_(?P<trial>{_NUMBER})(?:/seed_(?P<seed>{_NUMBER}))?"
_CHECKPOINT_PATH = re.compile(rf"{_RUN}/checkpoint_(?:final|(?P<update>{_NUMBER}))\.pt", re.DOTALL)
_ARTEFACTS_PATH = re.compile(rf"{_RUN}(?:/update_(?P<update>{_NUMBER}))?(?:/(?P<evaluated>BabyAI-[^/]+))?", re.DOTALL)


@dataclass(frozen=True)
class RunKey:
    """The name of a checkpoint: the run that it belongs to (task, trial, seed), and the update that it was saved at.

    `seed` is None where none was given (the trial number is the seed then); `update` is None for the final checkpoint.
    A policy of several tasks has the name of their list as its `task_id`; with `trained_on`, the key is that of its
    evaluation on one of them: `task_id` is the task, `trained_on` the name of the list.
    Keys sort by task or list, trial, seed (none first), update (the final checkpoint last), and the task of a list.
    """

    task_id: str
    trial: int
    seed: int | None = None
    update: int | None = None
    trained_on: str | None = None

    def __post_init__(self):
        for name in ("task_id", "trained_on"):
            value = getattr(self, name)
            if value is None and name == "trained_on":
                continue
            if not (isinstance(value, str) and is_plain(value)) or value in ("", ".", "..") or "/" in value:
                raise InputError(f"{name} must be a name without '/' and control characters, not {shown(value)}")
        if self.trained_on is not None and (is_task_id(self.trained_on) or not is_task_id(self.task_id)):
            raise InputError(f"{self.trained_on!r} is no list of tasks with the task {self.task_id!r}")
        for name, value in (("trial", self.trial), ("seed", self.seed), ("update", self.update)):
            if value is None and name != "trial":
                continue
            if type(value) is not int or not 0 <= value <= MAX_INTEGER:  # bool is a subclass of int, and no trial
                raise InputError(f"{name} must be an integer of 0 or more and below 2^63, not {shown(value)}")

    def folder(self, root: str | Path) -> Path:
        """`<root>/<task_id or list>/trial_<N>[/seed_<S>]`: the checkpoints and the log of the run."""
        folder = Path(root) / (self.trained_on or self.task_id) / f"trial_{self.trial}"
        return folder if self.seed is None else folder / f"seed_{self.seed}"

    def checkpoint(self, root: str | Path) -> Path:
        """`checkpoint_final.pt` or `checkpoint_<U>.pt` in the folder of the run."""
        return self.folder(root) / f"checkpoint_{'final' if self.update is None else self.update}.pt"

    def artefacts(self, root: str | Path) -> Path:
        """`<folder>[/update_<U>][/<task of a list>]` under `evaluation_cache/` or `plots/`: what is made from it."""
        folder = self.folder(root)
        folder = folder if self.update is None else folder / f"update_{self.update}"
        return folder if self.trained_on is None else folder / self.task_id

    @property
    def label(self) -> str:
        """Short text for titles and messages, such as `BabyAI-GoToObj-v0 trial 0 seed 1 update 200`."""
        numbers = (("trial", self.trial), ("seed", self.seed), ("update", self.update))
        words = [self.trained_on or self.task_id, *(f"{name} {value}" for name, value in numbers if value is not None)]
        return " ".join(words if self.trained_on is None else [*words, "on", self.task_id])

    # --- a policy of several tasks

    def on(self, task_id: str) -> "RunKey":
        """The key of the evaluation of this checkpoint, of a list of tasks, on one of them."""
        return replace(self, task_id=task_id, trained_on=self.task_id)

    @property
    def of_checkpoint(self) -> "RunKey":
        """The key of the checkpoint that was evaluated; itself, where the policy has one task."""
        return self if self.trained_on is None else replace(self, task_id=self.trained_on, trained_on=None)

    @property
    def task(self) -> str:
        """What `--task` chooses: the task id, for a policy of several `<list>/<task_id>`."""
        return self.task_id if self.trained_on is None else f"{self.trained_on}/{self.task_id}"

    def is_of(self, task: str) -> bool:
        """Whether `--task` asks for it: by its task, by the list that it was trained on, or by both, as in `task`."""
        return task in (self.task_id, self.trained_on, self.task)

    # --- from paths

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> "RunKey":
        """The key of a checkpoint file, from the end of its path."""
        return cls._parse(_CHECKPOINT_PATH, path, "<task_id>/trial_<N>[/seed_<S>]/checkpoint_final.pt (or _<U>.pt)")

    @classmethod
    def from_artefacts(cls, folder: str | Path) -> "RunKey":
        """The key of a folder of artefacts, from the end of its path."""
        return cls._parse(_ARTEFACTS_PATH, folder, "<task_id>/trial_<N>[/seed_<S>][/update_<U>][/<task of a list>]")

    @classmethod
    def _parse(cls, pattern: re.Pattern, path: str | Path, layout: str) -> "RunKey":
        match = pattern.fullmatch(Path(path).as_posix())
        if match is None:
            raise InputError(f"{path}: the path does not end in {layout}")
        if any(len(digits or "") > 19 for digits in match.group("trial", "seed", "update")):  # those of MAX_INTEGER
            raise InputError(f"{path}: a number of the path is past 64 bits")
        numbers = {name: match[name] and int(match[name]) for name in ("trial", "seed", "update")}
        key = cls(match["task_id"], numbers["trial"], numbers["seed"], numbers["update"])
        return key if match.groupdict().get("evaluated") is None else key.on(match["evaluated"])

    def __lt__(self, other: "RunKey") -> bool:
        return self._order() < other._order()

    def _order(self) -> tuple:
        seed = -1 if self.seed is None else self.seed
        update, task_id = math.inf if self.update is None else self.update, self.task_id if self.trained_on else ""
        return self.trained_on or self.task_id, self.trial, seed, update, task_id


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
    return task_folder(cache_dir, task_id) / name


def task_folder(root: str | Path, task: str) -> Path:
    """What belongs to a task and to no single run, or to a list or to a task of it (`RunKey.task`)."""
    return Path(root, *(RunKey(name, 0).task_id for name in task.split("/")))


def find_caches(cache_dir: str | Path) -> list[RunKey]:
    """The keys of all routing caches below `cache_dir`, sorted; files in other places, such as copies, are ignored."""
    keys = []
    for path in find_files(cache_dir, "routing_data.json"):
        with suppress(InputError):
            key = RunKey.from_artefacts(path.parent.relative_to(cache_dir))
            keys += [key] if path == cache_path(cache_dir, key) and path.is_file() else []
    return sorted(keys)
