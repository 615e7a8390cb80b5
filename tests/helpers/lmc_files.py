"""The files of an experiment of lmc_rl, written without any training: paths with dips of known depth."""

import csv
from pathlib import Path

import numpy as np
import orjson
from lmc_settings import tiny

from lmc_rl.analysis.table import ROWS_NAME, TRAJECTORIES_NAME
from lmc_rl.config import CONFIG_NAME, resolve_mop

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
    folder = root / "demo" / settings.env / algo / f"seed_{seed}_20260101_00000{seed}"
    (folder / "paths").mkdir(parents=True)
    (folder / CONFIG_NAME).write_bytes(orjson.dumps({"settings": settings.recorded(), "versions": {"python": "3"}}))
    _write_log(folder, "parent", 0, settings)
    rng = np.random.default_rng(seed)
    lines = [("random", None, None, 0.0), ("self", len(forks) - 1, None, 0.0)]
    lines += [("independent", None, None, INDEPENDENT)]
    for number, (fraction, depth) in enumerate(forks.items()):
        lines.append(("fork", number, [1, 2], depth * scale))
        for child in (1, 2):
            _write_log(folder, f"child_{number}_{child}", fraction * settings.total_steps, settings)
    rows = []
    for kind, fork, children, depth in lines:
        rows += _rows(folder.name, kind, fork, children, depth, settings, rng)
        if kind != "random":
            _write_measures(folder, kind, fork, children, depth, settings)
    (folder / ROWS_NAME).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


def _rows(run, kind, fork, children, depth, settings, rng) -> list[dict]:
    places = [None] if kind == "random" else np.linspace(0, 1, settings.alpha_points).tolist()
    worlds = rng.normal(0, 3, settings.num_eval_episodes)  # what is hard in a world is so at all places
    rows = []
    for alpha in places:
        level = RANDOM if alpha is None else BEST - depth * 4 * alpha * (1 - alpha)
        noise = 0 if kind == "self" else rng.normal(0, 0.5, len(worlds))
        for episode, value in enumerate((level + worlds + noise).tolist()):
            row = {"run": run, "kind": kind, "fork": fork, "children": children, "alpha": alpha, "episode": episode}
            rows.append(row | {"seed": 10**6 + episode, "return": value, "length": 9})
    return rows


def _write_log(folder: Path, run: str, start: float, settings) -> None:
    rows = []
    for steps in range(settings.eval_freq, settings.total_steps + 1, settings.eval_freq):
        share = steps / settings.total_steps
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
    places = np.linspace(0, 1, settings.alpha_points)
    bulge = depth * places * (1 - places)
    measures = {"places": places.tolist(), "td_error": (5 + bulge).tolist(), "kl_to_first": (places * depth).tolist()}
    measures |= {"kl_to_second": ((1 - places) * depth).tolist(), "distance": 7.5, "actor_distance": 4.0}
    identity = {"kind": kind, "fork": fork, "children": children}
    name = "_".join(str(part) for part in (kind, fork, *(children or ())) if part is not None)
    (folder / "paths" / f"{name}.json").write_bytes(orjson.dumps(identity | measures))


HEIGHTS = {0.0: 0.8, 0.1: 0.2, 0.5: 0.0}  # fork point -> bump of the cross-entropy in the middle, nats
BETWEEN_RUNS = 1.5
PARTS = {"all": 1.0, "routers": 0.25, "experts": 0.5}  # part -> share of the bump
END_NATS, ALIGNED = 0.1, 0.6  # of the ends; share of the bump that alignment leaves
OF_LINES = {
    "task_id": "BabyAI-GoToObj-v0", "num_updates": 20, "num_envs": 4, "unroll_len": 8, "lang_encoder": "vocab",
    "alpha_points": 5, "num_trajectories": 6, "num_eval_episodes": 8, "parts": "all,routers,experts",
    "experiment_name": "demo",
}  # fmt: skip


def write_line_experiment(root: Path, seed: int = 1, lpc_alpha: float = 0.0, scale: float = 1.0) -> Path:
    """An experiment below `root`, as `run_mop` leaves it; its folder. scale: of the bumps."""
    flags = OF_LINES | {"seed": seed, "lpc_alpha": lpc_alpha, "fork_points": list(HEIGHTS)}
    time = f"20260101_{round(1e5 * lpc_alpha):04d}{seed:02d}"
    folder = root / "demo" / OF_LINES["task_id"] / "mop" / f"seed_{seed}_{time}"
    (folder / "paths").mkdir(parents=True)
    config = {"imitation": resolve_mop(flags).recorded(), "versions": {"python": "3"}}
    (folder / CONFIG_NAME).write_bytes(orjson.dumps(config))
    lines = [("self", len(HEIGHTS) - 1, None, 0.0), ("independent", None, None, BETWEEN_RUNS)]
    lines += [("fork", number, [1, 2], scale * height) for number, height in enumerate(HEIGHTS.values())]
    rng, seen, played = np.random.default_rng(seed), [], _worlds("random", None, None, "all", False, None, 0.0)
    for kind, fork, children, height in lines:
        for part, share in [*PARTS.items(), ("all", ALIGNED)]:
            is_aligned, bump = share == ALIGNED, share * height
            identity = {"kind": kind, "fork": fork, "children": children, "part": part, "aligned": is_aligned}
            for alpha in np.linspace(0, 1, OF_LINES["alpha_points"]).tolist():
                rise = bump * 4 * alpha * (1 - alpha)
                seen += _trajectories(identity, alpha, rise, rng)
                played += _worlds(*identity.values(), alpha, 1 - rise / 2) if part == "all" else []
        name = "_".join(str(part) for part in (kind, fork, *(children or ())) if part is not None)
        (folder / "paths" / f"{name}.json").write_bytes(orjson.dumps({"distance": 3.0, "alignment": ALIGNMENT}))
    for name, rows in ((TRAJECTORIES_NAME, seen), (ROWS_NAME, played)):
        (folder / name).write_bytes(b"".join(orjson.dumps({"run": folder.name} | row) + b"\n" for row in rows))
    logged = OF_LINES["num_envs"] * OF_LINES["unroll_len"]
    for run, start in [("parent", 0.0), *((f"child_1_{child}", 0.1) for child in (1, 2))]:
        updates = range(2 + round(start * OF_LINES["num_updates"]), OF_LINES["num_updates"] + 1, 2)
        lines = ["update,env_steps,loss,cross_entropy,accuracy,success_rate,failures_loop,seconds"]
        lines += [f"{k},{k * logged},{2 / k},{2 / k},{1 - 1 / k},{1 - 1 / k},0,{k}" for k in updates]
        path = folder / "training" / run / "training_log.csv"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(lines) + "\n")
    return folder


ALIGNMENT = {"distance_before": 3.0, "distance_after": 2.0, "moved_units": 0.5, "moved_experts": 0, "stream_turn": 0.1}


def _trajectories(identity: dict, alpha: float, rise: float, rng) -> list[dict]:
    """Rows of trajectories of 4 steps, whose cross-entropies differ by noise that is the same at both ends."""
    rows = []
    for episode in range(OF_LINES["num_trajectories"]):
        row = identity | {"alpha": alpha, "episode": episode, "seed": 4_000_000 + episode, "length": 4}
        noise = rng.normal(0, 0.01) if 0 < alpha < 1 and identity["kind"] != "self" else 0.0
        row |= {"cross_entropy": END_NATS + 0.01 * episode + rise + noise, "accuracy": 1 - rise / 3}
        row |= {"lpc": 100.0 + 10 * rise, "kl_to_first": [alpha, 2 * alpha], "kl_to_second": [1 - alpha, 2 - 2 * alpha]}
        rows.append(row)
    return rows


def _worlds(kind, fork, children, part, is_aligned, alpha, success: float) -> list[dict]:
    """Rows of worlds, of which a share is solved, in twice the bot's steps."""
    identity = {"kind": kind, "fork": fork, "children": children, "part": part, "aligned": is_aligned, "alpha": alpha}
    count = OF_LINES["num_eval_episodes"]
    return [
        identity | {"episode": e, "seed": 10**6 + e, "return": float(e < round(success * count)), "length": 10}
        | {"bot_length": 5}
        for e in range(count)
    ]  # fmt: skip
