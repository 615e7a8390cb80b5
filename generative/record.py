"""Record episodes of a trained policy: every step with observation, memory, routing, the bot's action, and the world.

    python -m generative.record --checkpoint checkpoint_final.pt
    python -m generative.record --checkpoint checkpoint_final.pt --num_steps 20000 --policies argmax,random
    python -m generative.record --checkpoint checkpoint_final.pt --resume          after Ctrl-C, a kill, ...

Who acts, each for the same share of the steps:
    argmax   the policy's likeliest action        bot      the BabyAI bot
    sampled  by the policy's probabilities        random   any action
    epsilon  argmax, with probability --epsilon any action
The policy's memory follows what is executed, whoever acts. A world in which the bot has no answer at the beginning is
passed over and counted. What is in the folder: docs/generative.md. Same flags, same bytes. Stopped or killed, it keeps
what is finished, but for the episodes that ran, and after a kill the last 5,000 steps or so.
"""

import platform
from collections.abc import Sequence
from pathlib import Path

import numba
import numpy as np
import orjson
import pandas as pd
import torch
from tqdm import tqdm

from generative.babyai import BabyAIWorlds
from generative.policies import FrozenPolicy
from generative.recorder import Plan, Recorder, plan_shards, row_dtype
from generative.recordings import (
    BEHAVIOURS,
    CONFIG,
    Recording,
    find_shards,
    load_config,
    open_recording,
    read_episodes,
)
from mop.base.configuration import MAX_ENVS, Parser, check_flags, integer, number, optional, shown
from mop.base.errors import InputError, run_script
from mop.base.files import check_writable, claimed, remove_leftovers, whole_digest, write_json
from mop.kernels.cache import announce_compilation
from mop.worlds.world import MINIGRID_VERSION


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.record", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="checkpoint_final.pt or checkpoint_<U>.pt of either policy")
    parser.add_argument("--num_steps", default=300_000, help="steps in all, at least (default: %(default)s)")
    everyone = ",".join(BEHAVIOURS)
    parser.add_argument("--policies", default=everyone, help="who acts, with commas (default: %(default)s)")
    parser.add_argument("--data_dir", help="folder of the recording (default: recordings/<task>_<checkpoint's digest>)")
    parser.add_argument("--seed", default=0, help="of the worlds and all random actions (default: %(default)s)")
    parser.add_argument("--epsilon", default=0.2, help="share of random actions in epsilon (default: %(default)s)")
    parser.add_argument("--num_envs", default=64, help="episodes side by side: speed alone (default: %(default)s)")
    parser.add_argument("--max_steps", help="step limit of an episode (default: the checkpoint's, else the task's)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--resume", action="store_true", help="go on with the recording in the folder")
    return parser


def behaviours_of(text: str) -> tuple[str, ...]:
    """Names of BEHAVIOURS with commas between them, in their order. Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(BEHAVIOURS) or len(set(names)) < len(names):
        raise ValueError(f"must be some of {', '.join(BEHAVIOURS)} with commas between them, each once")
    return tuple(name for name in BEHAVIOURS if name in names)


def make_config(args, policy: FrozenPolicy, checkpoint: dict, worlds: BabyAIWorlds, digest: str) -> dict:
    """The config of a recording: what it is of, and what its readers must know."""
    inner = policy.policy
    settings = {name: getattr(args, name) for name in ("num_steps", "seed", "epsilon")}
    settings |= {"policies": list(args.policies), "max_steps": worlds.encoding["max_steps"]}
    return {
        "settings": settings,
        "checkpoint": {"path": args.checkpoint, "sha256": digest, "config": checkpoint},
        "versions": {"python": platform.python_version(), "minigrid": MINIGRID_VERSION}
        | {module.__name__: module.__version__ for module in (torch, np, numba)},
        "encoding": worlds.encoding
        | {
            "lang_dim": inner.lang_dim,
            "hidden_size": inner.hidden_size,
            "expert_hidden_sizes": inner.expert_hidden_sizes,
            "hidden_layout": {name: [place.start, place.stop] for name, place in inner.hidden_layout.items()},
        },
        "num_shards": plan_shards(args.num_steps, row_dtype(policy, worlds).itemsize),
    }


def settle_folder(folder: Path, config: dict, is_resumed: bool) -> dict:
    """Make the folder that of this recording; the config that is in it. Raises InputError where it holds another one.

    It also does where the folder holds something else.
    """
    remove_leftovers(folder.glob(".*.tmp"))
    if (folder / CONFIG).exists():
        old = load_config(folder)
        for name, value in config["settings"].items():
            if old["settings"].get(name) != value:
                was = old["settings"].get(name)
                raise InputError(
                    f"{folder} was recorded with {name} {shown(was)}, not {shown(value)}; choose another --data_dir"
                )
        if old["checkpoint"].get("sha256") != config["checkpoint"]["sha256"]:
            raise InputError(f"{folder} is a recording of another checkpoint; choose another --data_dir")
        if not is_resumed:
            raise InputError(f"{folder} holds this recording; go on with --resume, or choose another --data_dir")
        return old
    if any(folder.iterdir()):
        raise InputError(f"{folder} holds something else; choose another --data_dir")
    write_json(folder / CONFIG, config, orjson.OPT_INDENT_2)
    return config


def table_of(folder: Path, row_bytes: int) -> pd.DataFrame:
    """What a finished recording holds, by behaviour."""
    episodes = pd.DataFrame([episode for shard in find_shards(folder) for episode in read_episodes(shard)])
    episodes["at_start"] = [sum(counts.values()) for counts in episodes["passed_over"]]
    episodes["failed"] = episodes["teacher_failure"].notna()
    rows = []
    for name, group in [*episodes.groupby("behaviour", sort=False), ("all", episodes)]:
        row = {"behaviour": name, "episodes": f"{len(group):,}", "steps": f"{group['steps'].sum():,}"}
        row |= {"success": f"{group['success'].mean():.1%}", "worlds passed over": group["at_start"].sum()}
        row |= {"teacher failed later": group["failed"].sum()}
        rows.append(row | {"MB": f"{group['num_rows'].sum() * row_bytes / 1e6:.1f}"})
    return pd.DataFrame(rows)


def count_known_starts(recording: Recording, names: Sequence[str]) -> tuple[int, int]:
    """How many test episodes begin as a training episode does, and how many test episodes there are.

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


def main() -> int:
    """Check the flags, record what is missing, tell."""
    args = parser().parse_args()
    check_flags(
        args,
        num_steps=integer(1),
        policies=behaviours_of,
        seed=integer(0),
        epsilon=number(0, high=1),
        num_envs=integer(1, MAX_ENVS),
        max_steps=optional(integer(1)),
    )
    announce_compilation()
    digest = whole_digest(args.checkpoint)
    policy, checkpoint = FrozenPolicy.load(args.checkpoint, args.lang_encoder)
    worlds = BabyAIWorlds(checkpoint["task_id"], args.max_steps or checkpoint.get("max_steps"), args.num_envs)
    config = make_config(args, policy, checkpoint, worlds, digest)
    folder = Path(args.data_dir or f"recordings/{checkpoint['task_id']}_{digest[:8]}")
    check_writable(folder, "--data_dir")
    with claimed(folder) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {folder}; choose another --data_dir")
        num_shards = settle_folder(folder, config, args.resume)["num_shards"]
        plan = Plan(args.policies, args.num_steps, num_shards, args.seed, args.epsilon)
        recorder = Recorder(policy, worlds, plan, folder)
        with tqdm(
            total=args.num_steps, initial=min(recorder.num_steps, args.num_steps), unit="step", dynamic_ncols=True
        ) as bar:
            try:
                recorder.run(lambda steps: bar.update(min(steps, bar.total - bar.n)))  # the last episodes run past it
            except KeyboardInterrupt:
                bar.close()
                print(f"{recorder.num_steps:,} steps are kept in {folder}; the same command with --resume goes on")
                raise
    recording = open_recording(folder)
    print(table_of(folder, row_dtype(policy, worlds).itemsize).to_string(index=False))
    print(f"{folder}: {len(recording):,} episodes, {len(recording.missions)} missions, {len(recording.shards)} shards")
    num_known, num_test = count_known_starts(recording, [name for name, *_ in worlds.fields()])
    if num_test:
        share = f"{num_known:,} of {num_test:,} test episodes ({num_known / num_test:.1%})"
        print(f"splits share no seed, but {share} begin in the world and with the mission of a training episode")
    return 0


if __name__ == "__main__":
    run_script(main)
