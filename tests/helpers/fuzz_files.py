"""Damages files at random: whatever reads them must read them, or refuse them in one line that names them.

    python tests/helpers/fuzz_files.py                                     a hundred cases of each kind: some minutes
    python tests/helpers/fuzz_files.py --kinds state --cases 5000 --seed 7

A case is its kind, the seed and its number, which are printed with what went wrong. Exit code 1 where something else
than one line came, nothing within a minute, or more than a gigabyte of memory was taken.
"""

import contextlib
import io
import os
import random
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a damaged name of an encoder is not looked for elsewhere
import numpy as np
import orjson
import torch
from scripts import REPOSITORY, TINY_FLAGS, TINY_TASK
from training import train_with

from generative.representations.storage import Directions, load_directions, write_directions
from mop.artifacts.checkpoints import find_checkpoints, quick_config
from mop.artifacts.intervention_rows import load_rows
from mop.artifacts.results import load_result
from mop.artifacts.routing_cache import load_cache
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.reading import read_csv, read_gzip, read_npz, reading
from mop.evaluation import settings as of_evaluation
from mop.evaluation.batch import evaluate_checkpoint
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.training.policies import policy_from_checkpoint

LIMIT_S = 60
LIMIT_BYTES = 2**30
FOREIGN = (
    *(b"", b"\0", b"hello world\n", b"[1, 2]", b"{}", b"\x93NUMPY"),
    *(b"PK\x03\x04" + bytes(100), b"\x1f\x8b" + bytes(9)),
)
NASTY = (
    *(None, True, -1, 0, 7, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "010", "a\0b", "\ud800", "a\nb", "9" * 5000),
    *([], [[]], {}, {0: 16}, [1, "x"], ["x"] * 3000, torch.zeros(3), [[[[[[[[[[[[[[[]]]]]]]]]]]]]]]),
)


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it lies in a finished run, what reads it, and how its content is read and written."""

    path: str
    read: Callable[[Path], object]
    load: Callable[[Path], object] | None = None
    save: Callable[[object, Path], object] | None = None


def read_checkpoint(path: Path) -> None:
    quick_config(path)
    checkpoint = load_for_evaluation(path)
    with reading(path):
        policy_from_checkpoint(checkpoint)
        encoder_for(checkpoint)


def resume(path: Path) -> None:
    words = ("--task_id", TINY_TASK, "--resume", "--num_updates", "7", "--num_workers", "0", "--device", "cpu")
    train_with(*words, "--checkpoint_dir", str(path.parents[2]), "--wandb_project", "null")


def read_cache_alone(path: Path) -> None:
    path.with_suffix(".npz").unlink(missing_ok=True)
    load_cache(path)


def read_arrays(path: Path) -> None:
    """Arrays never matter: where something is wrong with them, the JSON beside them is read."""
    cache = load_cache(path.with_suffix(".json"))
    path.unlink()
    assert np.array_equal(load_cache(path.with_suffix(".json")).steps.action, cache.steps.action)


def load_json(path: Path) -> object:
    return orjson.loads(path.read_bytes())


def save_json(content: object, path: Path) -> None:
    with contextlib.suppress(TypeError, ValueError):  # not everything is JSON
        path.write_bytes(orjson.dumps(content, default=str) + b"\n")


def load_torch(path: Path) -> object:
    return torch.load(path, weights_only=True)


RUN = f"checkpoints/{TINY_TASK}/trial_0"
CACHE = f"cache/{TINY_TASK}/trial_0"
KINDS = {
    "checkpoint": Kind(f"{RUN}/checkpoint_final.pt", read_checkpoint, load_torch, torch.save),
    "state": Kind(f"{RUN}/training_state.pt", resume, load_torch, torch.save),
    "log": Kind(f"{RUN}/training_log.csv", lambda path: (read_csv(path), resume(path))),
    "cache": Kind(f"{CACHE}/routing_data.json", read_cache_alone, load_json, save_json),
    "arrays": Kind(f"{CACHE}/routing_data.npz", read_arrays),
    "result": Kind(f"{CACHE}/result.json", load_result, load_json, save_json),
    "interventions": Kind("rows.jsonl", load_rows, load_json, save_json),
    "directions": Kind("directions.npz", load_directions),
    "lines": Kind("lines.npz", read_npz),
    "rows": Kind("episodes.jsonl.gz", read_gzip),
}


def intervention_row() -> dict:
    """Make a row of an intervention."""
    changed = ("delta_success", "delta_path_ratio", "agreement")
    deltas = [f"{name}{end}" for name in changed for end in ("", "_low", "_high")]
    numbers = dict.fromkeys((*deltas, "success_rate", "worlds_lost", "worlds_gained"), 1)
    return numbers | {"checkpoint_path": "x", "intervention": "none", "variant": "running"}


def toy_directions() -> Directions:
    """Make two directions in a memory of three units."""
    names = np.array(["a", "b"])
    units = np.eye(2, 3, dtype=np.float32)
    block = (names[:1], np.array([[0, 3]]))
    return Directions(units, units, names, names, names, np.zeros(3), np.eye(3), *block, np.array("x"))


@contextlib.contextmanager
def finished_run() -> Iterator[Path]:
    """A folder with a small finished run, its evaluation and a file of each other kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train_with(*TINY_FLAGS, "--replay", "2", "--checkpoint_dir", str(folder / "checkpoints"))
        settings = of_evaluation.Settings(num_episodes=4, cache_dir=str(folder / "cache"), device="cpu")
        evaluate_checkpoint(find_checkpoints([folder / "checkpoints"])[0], settings)
        save_json(intervention_row(), folder / "rows.jsonl")
        write_directions(folder / "directions.npz", toy_directions())
        results = REPOSITORY / "results"
        shutil.copy(next(results.rglob("lines.npz")), folder / KINDS["lines"].path)
        shutil.copy(next(results.rglob("*.jsonl.gz")), folder / KINDS["rows"].path)
        yield folder


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip some bits; lose, double or overwrite a stretch; or take something else."""
    start = rng.randrange(len(data))
    end = start + rng.choice((1, 4, 100, 10_000))
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 5))):
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    changed = (data[:start], data[:start] + data[end:], data[:end] + data[start:], bytes(flipped), bytes(flipped))
    zeroed = data[:start] + bytes(end - start) + data[end:]
    return rng.choice((*changed, zeroed, rng.choice(FOREIGN)))


def damage_content(content: object, rng: random.Random) -> None:
    """Change, remove or add an item, anywhere in nested dictionaries and lists."""
    place = content
    while isinstance(place, dict | list) and place:
        key = rng.choice([*place] if isinstance(place, dict) else range(len(place)))
        value = place[key]
        if isinstance(value, dict | list) and value and rng.random() < 0.8:
            place = value
        elif rng.random() < 0.15:
            del place[key]
            return
        elif isinstance(value, torch.Tensor) and rng.random() < 0.8:
            changed = (value[None], value.double(), value.long() - 9, value * float("nan"), value.flatten()[:1])
            place[key] = rng.choice(changed)
            return
        else:
            place[key] = rng.choice(NASTY)
            return


def damage(kind: Kind, path: Path, rng: random.Random) -> None:
    """Damage a file: its bytes, or what they hold, so that its checksums are right."""
    if kind.load is None or rng.random() < 0.4:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    content = kind.load(path)
    for _ in range(rng.choice((1, 1, 3))):
        damage_content(content, rng)
    kind.save(content, path)


def run_cases(folder: Path, name: str, seed: int, count: int) -> tuple[int, list[str]]:
    """Count the cases that were refused; and describe those that were neither read nor refused."""
    refused = 0
    wrong = []

    def too_long(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, too_long)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (used + LIMIT_BYTES, limits[1]))
        for number in range(-1, count):
            rng = random.Random(f"{name} {seed} {number}")
            copy = folder.with_name(f"{folder.name}_copy")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy)
            path = copy / KINDS[name].path
            if number >= 0:  # the first one is whole
                damage(KINDS[name], path, rng)
            signal.alarm(LIMIT_S)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    KINDS[name].read(path)
            except InputError as error:
                refused += 1
                if number < 0:
                    wrong.append(f"{name}: the whole file is refused: {error}")
                if "\n" in str(error) or len(str(error)) > 2000 or str(copy) not in str(error):
                    wrong.append(f"{name}, seed {seed}, case {number}: no short line that names the file: {error}")
            except Exception:
                wrong.append(f"{name}, seed {seed}, case {number}:\n{traceback.format_exc(limit=-5)}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
        shutil.rmtree(folder.with_name(f"{folder.name}_copy"), ignore_errors=True)
    return refused, wrong


@dataclass(frozen=True)
class Settings:
    """The flags."""

    kinds: tuple[str, ...] = setting(tuple(KINDS), "of files", choices=KINDS)
    cases: int = setting(100, "of each kind", low=1)
    seed: int = setting(0, "of the damage", low=0)


def main() -> int:
    """Run the cases, and say what went wrong."""
    args = parse(Settings, __doc__)
    failed = 0
    with finished_run() as folder:
        for kind in args.kinds:
            refused, wrong = run_cases(folder, kind, args.seed, args.cases)
            print(f"{kind}: {args.cases} cases, {refused} refused, {len(wrong)} wrong", *wrong, sep="\n", flush=True)
            failed += len(wrong)
    return min(failed, 1)


if __name__ == "__main__":
    run_script(main)
