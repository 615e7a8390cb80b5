"""Make a recording: the policy of a checkpoint in its worlds, what its config says, its folder, and what it holds."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pandas as pd
import torch
from tqdm import tqdm

from generative.domains.base import Actor, Domain, Policy, Worlds
from generative.recordings.format import CONFIG, Recording, find_shards, load_config, open_recording, read_episodes
from generative.recordings.recorder import Plan, Recorder, plan_shards, row_dtype
from mop.common.errors import InputError
from mop.common.files import open_output_dir, whole_digest, write_json
from mop.common.values import shown


class Source(NamedTuple):
    """What is recorded."""

    path: Path  # of the checkpoint
    digest: str  # its SHA-256
    config: dict  # its config
    policy: Policy
    worlds: Worlds
    actor: Actor


def open_source(
    domain: Domain,
    path: str | Path,
    encoder: str | Path | None,
    num_slots: int,
    max_steps: int | None,
    world: Mapping[str, Any],
) -> Source:
    """Open a policy and its worlds; world: what is given of `Domain.world_flags`."""
    policy, config = domain.load_policy(path, encoder)
    worlds = domain.open_worlds(config, num_slots, max_steps, **world)
    actor = domain.actor(policy, worlds, domain.to_views)
    return Source(Path(path), whole_digest(path), config, policy, worlds, actor)


def make_config(source: Source, settings: Mapping[str, Any]) -> dict:
    """Make the config of a recording: what it is of, and what its readers must know.

    settings: num_steps, seed, epsilon, policies.
    """
    encoding, policy = source.worlds.encoding, source.policy
    world = {name: encoding[name] for name in sorted(source.config.get("world", {}).keys() & encoding.keys())}
    modules = {module.__name__: module.__version__ for module in (torch, np)}
    return {
        "settings": {**settings, "max_steps": encoding["max_steps"], **world},
        "checkpoint": {"path": str(source.path), "sha256": source.digest, "config": source.config},
        "versions": {"python": platform.python_version(), **source.worlds.versions, **modules},
        "encoding": {
            **encoding,
            "lang_dim": policy.lang_dim,
            "hidden_size": policy.hidden_size,
            "expert_hidden_sizes": policy.expert_hidden_sizes,
            "hidden_layout": policy.hidden_layout,
        },
        "num_shards": plan_shards(settings["num_steps"], row_dtype(source.actor, source.worlds).itemsize),
    }


def open_folder(folder: Path, config: dict, is_resumed: bool) -> dict:
    """Open the folder of a recording: write its config, or check that it holds this recording; returns the config."""
    if (folder / CONFIG).exists():
        old = load_config(folder)
        for name, value in config["settings"].items():
            if (was := old["settings"].get(name)) != value:
                what = f"{folder} was recorded with {name} {shown(was)}, not {shown(value)}"
                raise InputError(f"{what}; choose another --data_dir")
        if old["checkpoint"].get("sha256") != config["checkpoint"]["sha256"]:
            raise InputError(f"{folder} is a recording of another checkpoint; choose another --data_dir")
        if not is_resumed:
            raise InputError(f"{folder} holds this recording; go on with --resume, or choose another --data_dir")
        return old
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds something else; choose another --data_dir")
    write_json(folder / CONFIG, config, orjson.OPT_INDENT_2)
    return config


def record(source: Source, folder: Path, settings: Mapping[str, Any], is_resumed: bool = False) -> Recording:
    """Record what a folder lacks of a recording; settings: as of `make_config`."""
    if "bot" in settings["policies"] and "bot" not in (row_dtype(source.actor, source.worlds).names or ()):
        raise InputError(f"--policies: there is no bot in {source.worlds.encoding['task_id']}; leave it out")
    with open_output_dir(folder, flag="--data_dir"):
        num_shards = open_folder(folder, make_config(source, settings), is_resumed)["num_shards"]
        num_steps = settings["num_steps"]
        plan = Plan(settings["policies"], num_steps, num_shards, settings["seed"], settings["epsilon"])
        recorder = Recorder(source.actor, source.worlds, plan, folder)
        done = min(recorder.num_steps, num_steps)
        with tqdm(total=num_steps, initial=done, unit="step", dynamic_ncols=True) as bar:
            try:
                recorder.run(lambda steps: bar.update(min(steps, bar.total) - bar.n))  # the last episodes run past it
            except KeyboardInterrupt:
                bar.close()
                kept = f"{recorder.num_written} of {num_shards} shards are kept in {folder}"
                raise KeyboardInterrupt(f"{kept}; the same command with --resume goes on") from None
    recording = open_recording(folder)
    recording.write_index()
    return recording


def table_of(folder: Path, row: np.dtype) -> pd.DataFrame:
    """Tabulate what a finished recording holds, by behaviour; row: of `row_dtype`."""
    has_teacher = "bot" in (row.names or ())
    episodes = pd.DataFrame([episode for shard in find_shards(folder) for episode in read_episodes(shard)])
    episodes["at_start"] = [sum(counts.values()) for counts in episodes["passed_over"]]
    episodes["failed"] = episodes["teacher_failure"].notna()
    lines = []
    for name, group in [*episodes.groupby("behaviour", sort=False), ("all", episodes)]:
        line = {"behaviour": name, "episodes": f"{len(group):,}", "steps": f"{group['steps'].sum():,}"}
        line |= {"success": f"{group['success'].mean():.1%}"}
        if has_teacher:
            line |= {"worlds passed over": group["at_start"].sum(), "teacher failed later": group["failed"].sum()}
        lines.append(line | {"MB": f"{group['num_rows'].sum() * row.itemsize / 1e6:.1f}"})
    return pd.DataFrame(lines)


def count_known_starts(recording: Recording, names: Sequence[str]) -> tuple[int, int]:
    """Count the test episodes that begin as a training episode does, and all test episodes.

    names: the arrays that show the world; two episodes begin alike if these and the mission are the same at their
    first rows.
    """
    index, known = recording.index, []
    for shard, arrays in enumerate(recording.shards):
        rows = index["first_row"][index["shard"] == shard]
        shown = [arrays[name][rows] for name in names]
        known += [b"".join(array[k].tobytes() for array in shown) for k in range(len(rows))]
    starts = list(zip(known, index["mission"].tolist(), strict=True))
    train, test = ([starts[k] for k in recording.episodes(split)] for split in ("train", "test"))
    return sum(map(set(train).__contains__, test)), len(test)
