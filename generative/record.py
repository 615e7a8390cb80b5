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
from pathlib import Path

from generative.agents.networks import WORLD
from generative.domains.registry import DOMAINS, domain_of_checkpoint
from generative.recordings.format import BEHAVIOURS
from generative.recordings.recorder import row_dtype
from generative.recordings.session import count_known_starts, open_source, record, table_of
from mop.common.configuration import MAX_ENVS, Parser, check_flags, integer, number, optional, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable

OF_GAMES = ("num_levels", "start_level", "distribution_mode", "param_name")  # flags


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.record", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", "--model_file", required=True, metavar="FILE", help="a policy of BabyAI, an agent of a game")
    add("--num_steps", default=300_000, help="steps in all, at least (default: %(default)s)")
    behaviours = {domain.name: domain.behaviours for domain in DOMAINS.values()}
    everyone = "; ".join(f"{','.join(names)} (of {kind})" for kind, names in behaviours.items())
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


def data_dir_of(args: argparse.Namespace, task_id: str, digest: str) -> Path:
    """The folder of a recording."""
    if args.data_dir is not None:
        return Path(args.data_dir)
    return Path(args.logdir, "data") if args.logdir else Path("recordings", f"{task_id}_{args.exp_name or digest[:8]}")


def main() -> int:
    """Check the flags, record what is missing, print what there is."""
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
    domain = domain_of_checkpoint(args.checkpoint)
    world = {name: getattr(args, name) for name in OF_GAMES if getattr(args, name) is not None}
    source = open_source(domain, args.checkpoint, args.lang_encoder, args.num_envs, args.max_steps, world)
    task_id = source.worlds.encoding["task_id"]
    if args.env_name not in (None, task_id):
        raise InputError(f"--env_name: {args.checkpoint} is a policy of {task_id}, not of {args.env_name}")
    settings = {name: getattr(args, name) for name in ("num_steps", "seed", "epsilon")}
    settings["policies"] = list(args.policies or domain.behaviours)
    folder = data_dir_of(args, task_id, source.digest)
    check_writable(folder, "--data_dir")
    recording = record(source, folder, settings, args.resume)
    print(table_of(folder, row_dtype(source.actor, source.worlds)).to_string(index=False))
    print(f"{folder}: {len(recording):,} episodes, {len(recording.missions)} missions, {len(recording.shards)} shards")
    if not domain.start_arrays:  # the first frames of many levels are alike: they show little of a level
        print("splits share no level")
        return 0
    num_known, num_test = count_known_starts(recording, domain.start_arrays)
    if num_test:
        share = f"{num_known:,} of {num_test:,} test episodes ({num_known / num_test:.1%})"
        print(f"splits share no seed, but {share} begin in the world and with the mission of a training episode")
    return 0


if __name__ == "__main__":
    run_script(main)
