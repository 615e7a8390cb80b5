"""Damages files and flags at random: whatever reads them must read them, or refuse them in one line.

    python tests/helpers/fuzz_files.py                                a hundred cases of each kind: some minutes
    python tests/helpers/fuzz_files.py --kinds state --cases 5000 --seed 7

A case is its kind, the seed and its number: what fails is printed with the three, and `--first N --cases 1` repeats it.
Exit code 1 where something else than an InputError came, or nothing within a minute.
"""

import contextlib
import io
import os
import random
import shutil
import signal
import tempfile
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a damaged name of an encoder is not looked for elsewhere
import numpy as np
import orjson
import torch
import yaml
from scripts import TINY_FLAGS, TINY_TASK

from mop.artifacts.checkpoints import find_checkpoints
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import as_flags, parse, setting
from mop.common.errors import InputError, run_script
from mop.common.train_config import DEFAULTS_FILE, FLAGS, parse_config, read_config
from mop.evaluation import settings as of_evaluation
from mop.evaluation.batch import evaluate_checkpoint
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.training.memory import check_memory
from mop.training.policies import policy_from_checkpoint
from mop.training.train import train

LIMIT_S = 60
NASTY = (
    None, True, -1, 0, 1, 7, 2**31, 2**63, 2**70, 10**30, 0.5, 1e38, 1e308, float("nan"), float("inf"), "", "x", "010",
    "a\0b", "\ud800", "a\nb", [], [[]], {}, {0: 16}, [1, "x"], "9" * 5000, -1.5,
)  # fmt: skip


class Fuzzer:
    """A small finished run with its evaluation, and a damaged copy of it for each case."""

    def __init__(self, folder: Path):
        self.whole, self.copy = folder / "whole", folder / "copy"
        words = [*TINY_FLAGS, "--replay", "2", "--checkpoint_dir", str(self.whole / "checkpoints")]
        self.update = self.train(words)["num_updates"]
        settings = of_evaluation.Settings(num_episodes=4, cache_dir=str(self.whole / "cache"), device="cpu")
        evaluate_checkpoint(find_checkpoints([self.whole / "checkpoints"])[0], settings)

    def fresh(self) -> None:
        """An undamaged copy."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy)

    @property
    def run_folder(self) -> Path:
        return RunKey(TINY_TASK, 0).folder(self.copy / "checkpoints")

    @property
    def cache(self) -> Path:
        return cache_path(self.copy / "cache", RunKey(TINY_TASK, 0))

    def case(self, kind: str, seed: int, number: int) -> bool:
        """Whether what was damaged was read; False: it was refused. Raises what a reader raises but InputError."""
        rng = random.Random(f"{kind} {seed} {number}")
        self.fresh()
        try:
            KINDS[kind](self, rng)
            return True
        except InputError as error:
            if "\n" in str(error) or len(str(error)) > 2000:
                raise AssertionError(f"no single short line: {str(error)[:500]}") from error
            return False

    def resume(self) -> None:
        """Train one update more."""
        words = ["--task_id", TINY_TASK, "--resume", "--num_updates", str(self.update + 1), "--num_workers", "0"]
        words += ["--checkpoint_dir", str(self.copy / "checkpoints"), "--device", "cpu", "--wandb_project", "null"]
        self.train(words)

    @staticmethod
    def train(words: list[str]) -> dict:
        """What train_mop.py does with these flags; the config."""
        config, given = parse_config("", words)
        train(config | {"policy": "mop"}, given)
        return config


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bits flipped, a stretch lost, doubled or overwritten."""
    data, start = bytearray(data), rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 4, 100, 10_000)))
    kind = rng.choice(("flip", "cut", "lose", "double", "zero"))
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 5))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "lose":
        del data[start:end]
    elif kind == "double":
        data[start:start] = data[start:end]
    else:
        data[start:end] = bytes(end - start)
    return bytes(data)


def damaged_value(value, rng: random.Random):
    """Something else in the place of a value."""
    if isinstance(value, torch.Tensor) and rng.random() < 0.8:
        changed = (
            value[None],
            value.double(),
            value.long() - 9,
            value * float("nan"),
            value.flatten()[:1],
            value + 100,
        )
        return rng.choice(changed) if value.dtype != torch.bool else value[None]
    if isinstance(value, int | float) and rng.random() < 0.3:
        return rng.choice((-value, value + 1, value * 1000, str(value)))
    deep: list = []
    for _ in range(rng.choice((30, 100, 200))):
        deep = [deep]
    return rng.choice((*NASTY, deep, ["x"] * 3000, torch.zeros(3)))


def damage_content(content, rng: random.Random) -> None:
    """Change, remove or add one item, anywhere in nested dictionaries and lists."""
    place = content
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        action = rng.random()
        if action < 0.15:
            del place[key]
        elif action < 0.25 and isinstance(place, dict):
            place[rng.choice(("x", 0, "\ud800", None))] = rng.choice(NASTY)
        else:
            place[key] = damaged_value(place[key], rng)
        return


def damage_torch_file(path: Path, rng: random.Random) -> None:
    """Its bytes, or what they hold: then its checksums are right."""
    if rng.random() < 0.3:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return
    content = torch.load(path, weights_only=True)
    for _ in range(rng.choice((1, 1, 3))):
        damage_content(content, rng)
    torch.save(content, path)
    if rng.random() < 0.1:  # as if somebody had packed it once more
        with zipfile.ZipFile(path) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members:
                archive.writestr(name, data)


def fuzz_checkpoint(files: Fuzzer, rng: random.Random) -> None:
    path = files.run_folder / "checkpoint_final.pt"
    damage_torch_file(path, rng)
    checkpoint = load_for_evaluation(path)
    policy_from_checkpoint(checkpoint)
    encoder_for(checkpoint)
    RunKey(checkpoint["config"]["task_id"], 0)


def fuzz_state(files: Fuzzer, rng: random.Random) -> None:
    damage_torch_file(files.run_folder / "training_state.pt", rng)
    files.resume()


def fuzz_log(files: Fuzzer, rng: random.Random) -> None:
    path = files.run_folder / "training_log.csv"
    lines = path.read_text().splitlines()
    columns = range(1 + lines[0].count(","))
    action = rng.randrange(4)
    if action == 0:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    elif action == 1:
        path.write_text("\n".join(lines).replace(",", rng.choice((";", "\t", ",,", ", "))))
    elif action == 2:
        kept = [column for column in columns if rng.random() < 0.7]
        path.write_text("\n".join(",".join(line.split(",")[column] for column in kept) for line in lines))
    else:
        row, words = rng.randrange(len(lines)), lines[-1].split(",")
        words[rng.choice(columns)] = rng.choice(("x", "", "1e999", "-1", "9" * 30, '"', "nan", "True"))
        lines[row] = ",".join(words)
        path.write_text("\n".join(lines) + "\n")
    files.resume()


def fuzz_cache(files: Fuzzer, rng: random.Random) -> None:
    files.cache.with_suffix(".npz").unlink()
    if rng.random() < 0.3:
        files.cache.write_bytes(damaged_bytes(files.cache.read_bytes(), rng))
    else:
        content = orjson.loads(files.cache.read_bytes())
        damage_content(content, rng)
        with contextlib.suppress(TypeError, ValueError):  # not everything is JSON
            files.cache.write_bytes(orjson.dumps(content, default=str))
    load_cache(files.cache)


def fuzz_arrays(files: Fuzzer, rng: random.Random) -> None:
    """The arrays never matter: what is wrong with them, the JSON says right."""
    path, expected = files.cache.with_suffix(".npz"), load_cache(files.cache)
    if rng.random() < 0.4:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    else:
        with np.load(path) as file:
            arrays = dict(file)
        name = rng.choice([name for name in arrays if name != "content"])
        changes = [
            lambda a: a.ravel()[:-1],
            lambda a: a.astype("f8"),
            lambda a: np.int64(7),
            lambda a: a.astype("U"),
            None,
        ]
        change = rng.choice(changes[: -1 if name == "action" else None])  # a column left out cannot be known
        arrays = {n: a for n, a in arrays.items() if n != name} | ({name: change(arrays[name])} if change else {})
        rng.choice((np.savez, np.savez_compressed))(path, **arrays)
    assert np.array_equal(load_cache(files.cache).steps.action, expected.steps.action)


def fuzz_yaml(files: Fuzzer, rng: random.Random) -> None:
    path, config = files.copy / "mine.yaml", read_config(DEFAULTS_FILE)
    if rng.random() < 0.5:
        values = {name: rng.choice((config[name], rng.choice(NASTY))) for name in rng.sample(FLAGS, 3)}
        path.write_text(yaml.dump(values, allow_unicode=False), encoding="utf-8", errors="surrogatepass")
    else:
        pieces = (
            "lr: ",
            "&a ",
            "*a",
            "[",
            "]",
            "{",
            "}",
            ", ",
            "\n",
            "<<: ",
            "!!int ",
            "!!binary x",
            "010",
            "1:30",
            "- ",
        )
        text = "".join(rng.choice(pieces) for _ in range(rng.choice((3, 8, 30))))
        path.write_text(rng.choice((text, text * 2000, "[" * 100_000, "lr: 1\nlr: 2\n")))
    _parse(["--config", str(path)])


def fuzz_flags(files: Fuzzer, rng: random.Random) -> None:
    config = read_config(DEFAULTS_FILE)
    values = {name: rng.choice((config[name], rng.choice(NASTY))) for name in rng.sample(FLAGS, 2)}
    _parse(as_flags(values))


def _parse(words: list[str]) -> None:
    config = parse_config("", words)[0] | {"policy": "mop"}
    RunKey(config["task_id"], config["trial"], config["seed"])
    check_memory(config, 768)


KINDS: dict[str, Callable[[Fuzzer, random.Random], None]] = {
    "checkpoint": fuzz_checkpoint, "state": fuzz_state, "log": fuzz_log, "cache": fuzz_cache, "arrays": fuzz_arrays,
    "yaml": fuzz_yaml, "flags": fuzz_flags,
}  # fmt: skip


def run_cases(files: Fuzzer, kind: str, seed: int, first: int, count: int) -> tuple[int, list[str]]:
    """How many of some cases were refused, and what is wrong with the others that were not read."""
    refused, wrong = 0, []

    def too_long(*_):
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, too_long)
    try:
        for number in range(first, first + count):
            signal.alarm(LIMIT_S)
            try:
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    refused += not files.case(kind, seed, number)
            except Exception:
                wrong.append(f"{kind}, seed {seed}, case {number}:\n{traceback.format_exc(limit=-4)}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    return refused, wrong


@dataclass(frozen=True)
class Settings:
    kinds: tuple[str, ...] = setting(tuple(KINDS), "of files", choices=KINDS)
    cases: int = setting(100, "of each kind", low=1)
    first: int = setting(0, "number of the first case", low=0)
    seed: int = setting(0, "of the damage", low=0)


def main() -> int:
    args = parse(Settings, __doc__)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        files = Fuzzer(Path(folder))
        for kind in args.kinds:
            refused, wrong = run_cases(files, kind, args.seed, args.first, args.cases)
            print(f"{kind}: {args.cases} cases, {refused} refused, {len(wrong)} wrong", *wrong, sep="\n")
            failed += len(wrong)
    return min(failed, 1)


if __name__ == "__main__":
    run_script(main)
