"""Recordings of one policy: every step of many episodes on disk, read as whole episodes or as windows of them.

A recording is a folder: `config.json`, shards, and an index of all episodes for other programs. A shard is a
folder with a file for each array, which is memory-mapped, `episodes.json` and `lang.npy` with a row an episode, and
the sums of these files. An episode of T actions has T + 1 consecutive rows; the last one is what the last action led
to, with action -1.
Axis letters: M rows, T of them in an episode or a window, B windows, G numbers of a mission, S hidden units.
"""

import functools
import os
import re
import resource
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from generative.recordings.checks import check_forms, check_sums
from mop.artifacts.sums import write_sums
from mop.common.errors import InputError
from mop.common.files import json_bytes, save_array, whole_digest, write_atomic, write_together
from mop.common.reading import check_types, read_array, read_json, reading

SPLITS = ("train", "validation", "test")
BEHAVIOURS = ("argmax", "sampled", "epsilon", "bot", "random", "noisy")  # who acts, see `behaviours`
NOTHING = -1  # in place of an action: of the bot where it is silent, of a terminal row, of padding
CONFIG, INDEX, MISSIONS, LANG, EPISODES = "config.json", "index.npz", "missions.json", "lang.npy", "episodes.json"
REPOSITORY = Path(__file__).parents[2]

_WAY_OUT = "record anew"
_OTHER_FILES = 512  # that a process may have open besides the arrays of a recording
_PADDING = {"action": NOTHING, "bot": NOTHING, "student": NOTHING}  # of the other arrays: 0
_ENCODING = {"task_id": str, "max_steps": int | None, "hidden_size": int, "lang_dim": int, "expert_hidden_sizes": list}
_INDEX = {
    **{"shard": np.int32, "first_row": np.int64, "num_rows": np.int32, "seed": np.int64, "split": np.int8},
    **{"behaviour": np.int8, "mission": np.int32, "success": np.bool_},
}


def split_of(seed: int) -> int:
    """The number in SPLITS of every episode in world `seed`: of ten seeds eight, one and one.

    The seed alone decides, so that the splits share no seed, not even those of different recordings. Worlds of two
    seeds may be the same: where a task has few of them, unseen seeds are no unseen worlds.
    """
    return max(0, seed % 10 - 7)


def common_fields(hidden_size: int, num_actions: int) -> list[tuple]:
    """The arrays of a row that depend neither on the kind of world nor on that of the policy, as fields of a dtype."""
    return [
        ("hidden", np.float32, (hidden_size,)),  # the memory before the step
        ("log_probs", np.float32, (num_actions,)),
        ("student", np.int8),  # the policy's likeliest action
        ("action", np.int8),  # what was executed
        ("reward", np.float32),  # of that action, and so the next two
        ("terminated", np.bool_),
        ("truncated", np.bool_),
    ]


# --- shards -----------------------------------------------------------------------------------------------------------


def shard_name(number: int) -> str:
    """The name of a shard's folder."""
    return f"shard_{number:05d}"


def find_shards(folder: Path) -> list[Path]:
    """The whole shards of a recording in their order."""
    found = sorted(path for path in folder.glob("shard_*") if re.fullmatch(r"shard_\d{5,}", path.name))
    for number, path in enumerate(found):
        if path.name != shard_name(number):
            raise InputError(f"{folder}: {shard_name(number)} is missing; bring it back, or record anew")
    return found


def write_shard(folder: Path, number: int, rows: np.ndarray, episodes: Sequence[dict], lang: np.ndarray) -> None:
    """Write a shard as a whole: under another name first, which is then changed.

    rows (M,): of all its episodes, of a dtype whose fields become the arrays; episodes: what is to be known of each,
    without its place, with its number of `steps`; lang (episodes, G) float32. Raises OSError.
    """
    temporary = folder / f".{shard_name(number)}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    records, first = [], 0
    for episode in episodes:
        records.append({**episode, "first_row": first, "num_rows": episode["steps"] + 1})
        first += episode["steps"] + 1
    arrays = {f"{name}.npy": np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()} | {LANG: lang}
    writers = {name: functools.partial(save_array, array=array) for name, array in arrays.items()}
    try:
        temporary.mkdir(parents=True)
        for name, write in {**writers, EPISODES: lambda file: file.write(json_bytes(records))}.items():
            write_atomic(temporary / name, write)
        write_sums(temporary, sorted(temporary.iterdir()))
        os.rename(temporary, folder / shard_name(number))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # it would keep a full disk full
        raise


def read_episodes(shard: Path) -> list[dict]:
    """What is known of each episode of a shard."""
    return read_json(shard / EPISODES, "list of episodes", _WAY_OUT)


def _map_arrays(shard: Path) -> dict[str, np.ndarray]:
    """The arrays of a shard by name, memory-mapped; what is written to them stays in memory."""
    paths = [path for path in sorted(shard.glob("*.npy")) if path.name != LANG]
    # not read-only: torch would warn of such arrays, and die where it writes to one
    return {path.stem: read_array(path, _WAY_OUT, mmap_mode="c") for path in paths}


def _forms(arrays: Mapping[str, np.ndarray]) -> dict:
    return {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}


def _allow_files(count: int) -> None:
    """Let this process hold so many files open besides others: each array that is memory-mapped is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and wanted > soft:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


# --- the index --------------------------------------------------------------------------------------------------------


Table = tuple[dict[str, np.ndarray], list[str], np.ndarray]  # index, missions, lang


def make_index(shards: Sequence[Path], num_rows: Sequence[int]) -> Table:
    """The index of a recording's shards, its missions, and what the policy is given of each (missions, G) float32.

    num_rows: of each shard, whose episodes begin at row 0, follow each other and end with the last row.
    """
    episodes, langs = [], []
    for number, (shard, wanted) in enumerate(zip(shards, num_rows, strict=True)):
        with reading(shard / EPISODES, "list of episodes", _WAY_OUT):
            some = read_episodes(shard)
            first, sizes = np.array([(one["first_row"], one["num_rows"]) for one in some], int).reshape(-1, 2).T
            if (first != np.cumsum(sizes) - sizes).any() or (sizes < 2).any() or sizes.sum() != wanted:
                raise InputError("its episodes do not make up its rows")
            for one in some:
                split, behaviour = SPLITS.index(one["split"]), BEHAVIOURS.index(one["behaviour"])
                episodes.append(one | {"shard": number, "split": split, "behaviour": behaviour})
            langs.append(read_array(shard / LANG, _WAY_OUT))
            if len(langs[-1]) != len(some):
                raise InputError(f"{shard / LANG} has no row for each episode; {_WAY_OUT}")
    with reading(shards[0].parent, "recording", _WAY_OUT):
        texts = [one["mission"] for one in episodes]
        missions, first, numbers = np.unique(texts, return_index=True, return_inverse=True)
        for one, mission in zip(episodes, numbers.tolist(), strict=True):
            one["mission"] = mission
        index = {name: np.array([one[name] for one in episodes], dtype) for name, dtype in _INDEX.items()}
        return index, missions.tolist(), np.concatenate(langs)[first]


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Episode(Mapping):
    """The arrays (T, ...) of one episode by name, and what is known of it; its last row is terminal."""

    arrays: dict[str, np.ndarray]
    seed: int
    split: str
    behaviour: str
    mission: str
    success: bool
    lang: np.ndarray  # (G,) float32, what the policy is given of the mission

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        """How many arrays there are."""
        return len(self.arrays)


class Recording:
    """A finished recording. config: of config.json; index: arrays of a row an episode, `shard`, `first_row`, ...

    missions: the distinct texts, to which `index["mission"]` points; lang (missions, G) float32: what the policy is
    given of each.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.config = load_config(self.folder)
        shards, wanted = find_shards(self.folder), self.config["num_shards"]
        if len(shards) < max(wanted, 1):
            raise InputError(
                f"{folder} is not finished ({len(shards)} of {wanted} shards); give the command of "
                "generative.record that began it once more, with --resume"
            )
        _allow_files(sum(len(list(shard.glob("*.npy"))) for shard in shards))
        self.shards = [_map_arrays(shard) for shard in shards]
        for shard, arrays in zip(shards, self.shards, strict=True):
            with reading(shard, "shard of a recording", _WAY_OUT):
                self._check(shard, arrays)
        num_rows = [len(arrays["action"]) for arrays in self.shards]
        self.index, self.missions, self.lang = make_index(shards, num_rows)

    def _check(self, shard: Path, arrays: Mapping[str, np.ndarray]) -> None:
        check_sums(shard, _WAY_OUT)
        num_actions = arrays["log_probs"].shape[1]
        check_forms(arrays, common_fields(self.config["encoding"]["hidden_size"], num_actions))
        if len(set(map(len, arrays.values()))) != 1 or _forms(arrays) != _forms(self.shards[0]):
            raise InputError("its arrays differ in length, or from those of the first shard")

    def write_index(self) -> None:
        """Write what `make_index` found to the folder, for other programs."""
        files = {
            MISSIONS: lambda file: file.write(json_bytes(self.missions, orjson.OPT_INDENT_2)),
            LANG: lambda file: save_array(file, self.lang),
            INDEX: lambda file: np.savez(file, allow_pickle=False, **self.index),
        }
        write_together([(self.folder / name, write) for name, write in files.items()])

    def __len__(self) -> int:
        """How many episodes there are."""
        return len(self.index["seed"])

    def episodes(self, split: str | None = None, behaviours: Sequence[str] | None = None) -> np.ndarray:
        """The numbers of the episodes of a split of SPLITS and of some of BEHAVIOURS; None: of all."""
        wanted = np.ones(len(self), bool)
        if split is not None:
            wanted &= self.index["split"] == SPLITS.index(split)
        if behaviours is not None:
            wanted &= np.isin(self.index["behaviour"], [BEHAVIOURS.index(name) for name in behaviours])
        return np.flatnonzero(wanted)

    def distinct(self, numbers: Iterable[int]) -> list[int]:
        """These episodes without those that repeat an earlier one of them: the same world, and the same actions.

        So is every further greedy episode of an agent in the same level of a game.
        """
        first: dict[tuple, int] = {}
        for k in map(int, numbers):
            first.setdefault((int(self.index["seed"][k]), self.episode(k)["action"].tobytes()), k)
        return list(first.values())

    def episode(self, k: int) -> Episode:
        """Episode number k, its arrays memory-mapped."""
        row = {name: column[k].item() for name, column in self.index.items()}
        rows = slice(row["first_row"], row["first_row"] + row["num_rows"])
        return Episode(
            arrays={name: array[rows] for name, array in self.shards[row["shard"]].items()},
            seed=row["seed"],
            split=SPLITS[row["split"]],
            behaviour=BEHAVIOURS[row["behaviour"]],
            mission=self.missions[row["mission"]],
            success=row["success"],
            lang=self.lang[row["mission"]],
        )

    def windows(
        self, length: int, split: str | None = None, behaviours: Sequence[str] | None = None, least: int | None = None
    ) -> "Windows":
        """All windows of `length` consecutive rows of one episode; an episode of fewer rows is one, the rest padding.

        least: windows begin at every row that has so many rows from it on to the end of the episode; they reach beyond
        the end, where they are padded.
        """
        if length < 1:
            raise ValueError("the length of windows must be at least 1")
        episodes = self.episodes(split, behaviours)
        num_rows = self.index["num_rows"][episodes]
        counts = np.maximum(num_rows - length + 1, 1) if least is None else np.maximum(num_rows - least + 1, 0)
        starts = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Windows(self, length, np.repeat(episodes, counts), starts)


class Windows:
    """Windows of a recording: window w begins at row `starts[w]` of episode `episodes[w]`."""

    def __init__(self, recording: Recording, length: int, episodes: np.ndarray, starts: np.ndarray):
        self.recording, self.length, self.episodes, self.starts = recording, length, episodes, starts

    def __len__(self) -> int:
        return len(self.episodes)

    def batch(self, numbers: Sequence[int] | np.ndarray, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays (B, T, ...) of some windows, all of them or those of `names`, as new arrays.

        With them `mask` (B, T) bool, False in the padding, where arrays are 0 and actions -1, and `lang` (B, G).
        """
        index, shards = self.recording.index, self.recording.shards
        numbers = np.asarray(numbers, np.int64)
        episodes = self.episodes[numbers]
        rows = self.starts[numbers, None] + np.arange(self.length)
        mask = rows < index["num_rows"][episodes, None]
        rows = np.where(mask, rows + index["first_row"][episodes, None], index["first_row"][episodes, None])
        of_shard = index["shard"][episodes]
        found = {
            name: np.empty((*mask.shape, *shards[0][name].shape[1:]), shards[0][name].dtype)
            for name in (shards[0] if names is None else names)
        }
        for number in np.unique(of_shard):
            here = of_shard == number
            for name, array in found.items():
                array[here] = shards[number][name][rows[here]]
        for name, array in found.items():
            array[~mask] = _PADDING.get(name, 0)
        return {**found, "mask": mask, "lang": self.recording.lang[index["mission"][episodes]]}


def load_config(folder: str | Path) -> dict:
    """The config of a recording."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} is no recording (it has no {CONFIG}); make one with python -m generative.record")
    with reading(path, "config of a recording", "name the folder of one"):
        config = read_json(path)
        check_types(config, {"settings": dict, "checkpoint": dict, "encoding": dict, "num_shards": int})
        check_types(config["checkpoint"], {"path": str, "sha256": str})
        check_types(config["encoding"], _ENCODING)
        return config


def open_recording(folder: str | Path) -> Recording:
    """The finished recording in a folder."""
    return Recording(folder)


def find_policy(recording: Recording, path: str | Path | None, flag: str) -> Path:
    """The checkpoint of a recording's policy: at `path`, if it is given, else where it was when it was recorded.

    A relative path is seen from here or from the repository. flag: which says where it is.
    """
    expected = Path(path or recording.config["checkpoint"]["path"])
    found = next((place for place in (expected, REPOSITORY / expected) if place.is_file()), None)
    if found is None:
        raise InputError(f"{expected}, the policy of {recording.folder}, is missing; say where it is with {flag}")
    if whole_digest(found) != recording.config["checkpoint"]["sha256"]:
        raise InputError(f"{expected} is not the policy of {recording.folder}; say where that is with {flag}")
    return found
