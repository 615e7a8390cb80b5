"""The files of an experiment of lmc_rl, written without any training: paths with dips of known depth."""

import csv
from pathlib import Path

import numpy as np
import orjson
from lmc_settings import tiny

from lmc_rl.records import CONFIG_NAME, ROWS_NAME
from lmc_rl.settings import RUNTIME_KEYS

FORKS = {0.1: 60.0, 0.25: 30.0, 0.5: 1.0, 0.8: 0.5}  # fork point -> depth of the dip, of 90 that are learned
INDEPENDENT = 80.0
BEST, RANDOM = 100.0, 10.0  # returns
SETTINGS = {
    "total_steps": 20_000, "learning_starts": 1000, "eval_freq": 1000, "alpha_points": 11, "num_eval_episodes": 12,
}  # fmt: skip


def write_experiment(root: Path, algo: str = "SAC", seed: int = 1, scale: float = 1.0, forks=None, **changes) -> Path:
    """An experiment below `root`, as `run_env` leaves it; its folder. scale: of the dips."""
    forks = FORKS if forks is None else forks
    settings = tiny(**SETTINGS, **{"algo": algo, "seed": seed, "fork_points": list(forks) or "none"} | changes)
    folder = root / "demo" / settings["env"] / algo / f"seed_{seed}_20260101_00000{seed}"
    (folder / "paths").mkdir(parents=True)
    kept = {name: value for name, value in settings.items() if name not in RUNTIME_KEYS}
    (folder / CONFIG_NAME).write_bytes(orjson.dumps({"settings": kept, "versions": {"python": "3"}}))
    _write_log(folder, "parent", 0, settings)
    rng = np.random.default_rng(seed)
    walks = [("random", None, None, 0.0), ("self", len(forks) - 1, None, 0.0)]
    walks += [("independent", None, None, INDEPENDENT)]
    for number, (fraction, depth) in enumerate(forks.items()):
        walks.append(("fork", number, [1, 2], depth * scale))
        for child in (1, 2):
            _write_log(folder, f"child_{number}_{child}", fraction * settings["total_steps"], settings)
    lines = []
    for kind, fork, children, depth in walks:
        lines += _rows(folder.name, kind, fork, children, depth, settings, rng)
        if kind != "random":
            _write_measures(folder, kind, fork, children, depth, settings)
    (folder / ROWS_NAME).write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return folder


def _rows(run, kind, fork, children, depth, settings, rng) -> list[dict]:
    places = [None] if kind == "random" else np.linspace(0, 1, settings["alpha_points"]).tolist()
    worlds = rng.normal(0, 3, settings["num_eval_episodes"])  # what is hard in a world is so at all places
    rows = []
    for alpha in places:
        level = RANDOM if alpha is None else BEST - depth * 4 * alpha * (1 - alpha)
        noise = 0 if kind == "self" else rng.normal(0, 0.5, len(worlds))
        for episode, value in enumerate((level + worlds + noise).tolist()):
            row = {"run": run, "kind": kind, "fork": fork, "children": children, "alpha": alpha, "episode": episode}
            rows.append(row | {"seed": 10**6 + episode, "return": value, "length": 9})
    return rows


def _write_log(folder: Path, run: str, start: float, settings: dict) -> None:
    rows = []
    for steps in range(settings["eval_freq"], settings["total_steps"] + 1, settings["eval_freq"]):
        share = steps / settings["total_steps"]
        level = RANDOM + (BEST - RANDOM) * share**0.5 - 2 * run.endswith("_2")
        row = {"update": steps // 2, "env_steps": steps, "gradient_steps": max(0, steps - 1000) // 2}
        row |= {"critic_loss": 50 * (1 - share) if steps > 1000 else "", "actor_loss": -level, "episodes": steps // 50}
        row |= {"recent_return": level - 8, "eval_return": level, "steps_per_s": 400.0, "seconds": steps / 400}
        rows += [row] if steps > start else []
    path = folder / "training" / run / "training_log.csv"
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_measures(folder: Path, kind, fork, children, depth, settings) -> None:
    places = np.linspace(0, 1, settings["alpha_points"])
    bulge = depth * places * (1 - places)
    measures = {"places": places.tolist(), "td_error": (5 + bulge).tolist(), "kl_to_first": (places * depth).tolist()}
    measures |= {"kl_to_second": ((1 - places) * depth).tolist(), "distance": 7.5, "actor_distance": 4.0}
    identity = {"kind": kind, "fork": fork, "children": children}
    name = "_".join(str(part) for part in (kind, fork, *(children or ())) if part is not None)
    (folder / "paths" / f"{name}.json").write_bytes(orjson.dumps(identity | measures))
