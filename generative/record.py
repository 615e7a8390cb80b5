"""Record episodes of a trained policy: every step with observation, memory, log-probabilities, and what came of it.

    python -m generative.record --checkpoint checkpoint_final.pt
    python -m generative.record --checkpoint checkpoint_final.pt --num_steps 20000 --policies argmax,random
    python -m generative.record --checkpoint checkpoint_final.pt --resume          after Ctrl-C, a kill, ...
    python -m generative.record --model_file logs/procgen/coinrun/mine/seed_0/model_3002368.pt --num_steps 100000
    python -m generative.record --exp_name recording_exp --env_name coinrun --param_name hard-rec \\
        --num_levels 1000000 --distribution_mode hard --num_checkpoints 200 --model_file model.pt --logdir scratch

Who acts, each for the same share of the steps:
    argmax   the policy's likeliest action        bot      the BabyAI bot (of BabyAI)
    sampled  by the policy's probabilities        random   any action
    epsilon  argmax, with probability --epsilon any action
    noisy    by the policy's preferences made flatter; of a game, no idle actions, and more to the right
The policy's memory follows what is executed, whoever acts. A world in which the bot has no answer at the beginning is
passed over and counted. What is in the folder: docs/generative.md, docs/coinrun.md. Same flags, same bytes. Stopped or
killed, it keeps what is finished, but for the episodes that ran, and after a kill the last 5,000 steps or so.
"""

import argparse
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import orjson
import pandas as pd
import torch
from tqdm import tqdm

from generative.agents.networks import KIND, WORLD, load_agent
from generative.domains.babyai.envs import BabyAIWorlds, PolicyActor
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.coinrun.envs import AgentActor, GameWorlds
from generative.domains.coinrun.games import check_playable
from generative.domains.worlds import Actor, Worlds
from generative.recordings.format import (
    BEHAVIOURS,
    CONFIG,
    Recording,
    find_shards,
    load_config,
    open_recording,
    read_episodes,
)
from generative.recordings.recorder import Plan, Recorder, plan_shards, row_dtype
from generative.train_agent import check_preset
from mop.artifacts.checkpoints import quick_config
from mop.common.configuration import MAX_ENVS, Parser, check_flags, integer, number, optional, shown, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, remove_leftovers, whole_digest, write_json
from mop.envs.babyai import MINIGRID_VERSION
from mop.fast.compile_cache import announce_compilation

DEFAULT_BEHAVIOURS = {
    "babyai": ("argmax", "sampled", "epsilon", "bot", "random"),
    "game": ("argmax", "sampled", "noisy", "random"),
}
MAX_GAMES = 16  # side by side: each keeps the frames of its episode
OF_GAMES = ("num_levels", "start_level", "distribution_mode", "param_name")  # flags


class Source(NamedTuple):
    """What is recorded."""

    actor: Actor
    worlds: Worlds
    config: dict  # of the checkpoint
    encoding: dict  # what a reader of the actor's arrays must know
    versions: dict[str, str]  # of what decides about the worlds


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.record", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", "--model_file", required=True, metavar="FILE", help="a policy of BabyAI, an agent of a game")
    add("--num_steps", default=300_000, help="steps in all, at least (default: %(default)s)")
    everyone = "; ".join(f"{','.join(names)} (of {kind})" for kind, names in DEFAULT_BEHAVIOURS.items())
    add("--policies", metavar="NAMES", help=f"who acts, with commas (default: {everyone})")
    add("--data_dir", help="folder of the recording (default: data in --logdir, or recordings/<task>_<digest or name>)")
    add("--logdir", help="folder in whose folder data/ the recording is")
    add("--exp_name", help="name of the recording, in the default of --data_dir")
    add("--seed", default=0, help="of the worlds and all random actions (default: %(default)s)")
    add("--epsilon", default=0.2, help="share of random actions in epsilon (default: %(default)s)")
    add("--num_envs", default=64, help="episodes side by side: speed alone (default: %(default)s; of a game 16)")
    add("--max_steps", help="step limit of an episode (default: the checkpoint's, else the task's)")
    add("--env_name", help="task or game of the policy, to make sure (default: whatever it is)")
    add("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    add("--resume", action="store_true", help="go on with the recording in the folder")
    of_game = parser.add_argument_group("of agents of games")
    add = of_game.add_argument
    add("--num_levels", help="levels that are drawn from; 0: all that no evaluation plays (default: the training's)")
    add("--start_level", help="the first of them (default: the training's)")
    add("--distribution_mode", help="easy or hard levels (default: the training's)")
    add("--param_name", help="preset of generative.train_agent, to make sure (default: the agent's own)")
    add("--num_checkpoints", default=0, help="accepted, and of no meaning: a recording has no checkpoints")
    return parser


def behaviours_of(text: str) -> tuple[str, ...]:
    """Names of BEHAVIOURS with commas between them, in their order. Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(BEHAVIOURS) or len(set(names)) < len(names):
        raise ValueError(f"must be some of {', '.join(BEHAVIOURS)} with commas between them, each once")
    return tuple(name for name in BEHAVIOURS if name in names)


def open_babyai(args: argparse.Namespace) -> Source:
    """A policy of BabyAI in its task. Raises InputError."""
    given = [name for name in OF_GAMES if getattr(args, name) is not None]
    if given:
        raise InputError(f"--{given[0]} is of agents of games, and {args.checkpoint} is a policy of BabyAI")
    announce_compilation()
    policy, config = FrozenPolicy.load(args.checkpoint, args.lang_encoder)
    if args.env_name not in (None, config["task_id"]):
        raise InputError(f"--env_name: {args.checkpoint} is a policy of {config['task_id']}, not of {args.env_name}")
    worlds = BabyAIWorlds(config["task_id"], args.max_steps or config.get("max_steps"), args.num_envs)
    inner = policy.policy
    encoding = {
        "lang_dim": inner.lang_dim,
        "hidden_size": inner.hidden_size,
        "expert_hidden_sizes": inner.expert_hidden_sizes,
        "hidden_layout": {name: [place.start, place.stop] for name, place in inner.hidden_layout.items()},
    }
    versions = {"minigrid": MINIGRID_VERSION, "numba": numba.__version__}
    return Source(PolicyActor(policy, args.num_envs), worlds, config, encoding, versions)


def open_game(args: argparse.Namespace) -> Source:
    """An agent of a game in its levels. Raises InputError."""
    agent, config = load_agent(args.checkpoint, args.env_name)
    check_preset(args.param_name, config, args.checkpoint)
    if agent.memory is None:
        raise InputError(f"{args.checkpoint} has no memory that could be recorded; name an agent that has one")
    if args.policies and "bot" in args.policies:
        raise InputError("--policies: there is no bot in a game; leave it out")
    places = ("num_levels", "start_level", "distribution_mode")
    asked = {name: getattr(args, name) for name in places if getattr(args, name) is not None}
    world, actions = config["world"] | asked, config["shape"]["actions"]
    check_playable(world["env_name"], world["distribution_mode"])
    torch.set_num_threads(1)  # so that the bytes are the same on any number of processors; one frame needs no more
    num_slots = min(args.num_envs, MAX_GAMES)
    encoding = {
        "lang_dim": 0,
        "hidden_size": agent.hidden_size,
        "expert_hidden_sizes": [],
        "hidden_layout": {"memory": [0, agent.hidden_size]},
    }
    versions = {"envpool": version("envpool")}
    worlds = GameWorlds(world, actions, args.max_steps, num_slots)
    return Source(AgentActor(agent, world["env_name"], num_slots), worlds, config, encoding, versions)


def make_config(args: argparse.Namespace, source: Source, digest: str) -> dict:
    """The config of a recording: what it is of, and what its readers must know."""
    settings = {name: getattr(args, name) for name in ("num_steps", "seed", "epsilon")}
    settings |= {"policies": list(args.policies), "max_steps": source.worlds.encoding["max_steps"]}
    of_levels = WORLD.keys() & source.worlds.encoding.keys()
    settings |= {name: source.worlds.encoding[name] for name in sorted(of_levels)}
    return {
        "settings": settings,
        "checkpoint": {"path": args.checkpoint, "sha256": digest, "config": source.config},
        "versions": {"python": platform.python_version(), **source.versions}
        | {module.__name__: module.__version__ for module in (torch, np)},
        "encoding": source.worlds.encoding | source.encoding,
        "num_shards": plan_shards(args.num_steps, row_dtype(source.actor, source.worlds).itemsize),
    }


def data_dir_of(args: argparse.Namespace, task_id: str, digest: str) -> Path:
    """The folder of a recording."""
    if args.data_dir is not None:
        return Path(args.data_dir)
    return Path(args.logdir, "data") if args.logdir else Path("recordings", f"{task_id}_{args.exp_name or digest[:8]}")


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


def table_of(folder: Path, row: np.dtype) -> pd.DataFrame:
    """What a finished recording holds, by behaviour; row: of `row_dtype`."""
    has_teacher = "bot" in row.names
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
        policies=optional(behaviours_of),
        seed=integer(0),
        epsilon=number(0, high=1),
        num_envs=integer(1, MAX_ENVS),
        max_steps=optional(integer(1)),
        num_checkpoints=integer(0),
        logdir=optional(text),
        exp_name=optional(text),
        **{name: optional(WORLD[name]) for name in ("num_levels", "start_level", "distribution_mode")},
    )
    is_game = quick_config(args.checkpoint).get("kind") == KIND
    digest = whole_digest(args.checkpoint)
    source = (open_game if is_game else open_babyai)(args)
    args.policies = args.policies or DEFAULT_BEHAVIOURS["game" if is_game else "babyai"]
    config = make_config(args, source, digest)
    folder = data_dir_of(args, source.worlds.encoding["task_id"], digest)
    check_writable(folder, "--data_dir")
    with claimed(folder) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {folder}; choose another --data_dir")
        num_shards = settle_folder(folder, config, args.resume)["num_shards"]
        plan = Plan(args.policies, args.num_steps, num_shards, args.seed, args.epsilon)
        recorder = Recorder(source.actor, source.worlds, plan, folder)
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
    print(table_of(folder, row_dtype(source.actor, source.worlds)).to_string(index=False))
    print(f"{folder}: {len(recording):,} episodes, {len(recording.missions)} missions, {len(recording.shards)} shards")
    if is_game:  # the first frames of many levels are alike: they show little of a level
        print("splits share no level")
        return 0
    of_the_world = [name for name, *_ in source.worlds.fields() if name != "bot"]
    num_known, num_test = count_known_starts(recording, of_the_world)
    if num_test:
        share = f"{num_known:,} of {num_test:,} test episodes ({num_known / num_test:.1%})"
        print(f"splits share no seed, but {share} begin in the world and with the mission of a training episode")
    return 0


if __name__ == "__main__":
    run_script(main)
