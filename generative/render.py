"""Films: an episode of a recording, one that a policy plays now, or a simulation beside the truth.

    python -m generative.render --checkpoint results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt
    python -m generative.render --checkpoint ... --world_seed 7 --num_eps 3 --policy sampled
    python -m generative.render --data_dir recordings/unlock --episode 12                     of a recording
    python -m generative.render --data_dir recordings/unlock --episode 12 --simulator exact --step 4
    python -m generative.render --data_dir recordings/unlock --episode 12 --simulator simulators/unlock --format mp4
    python -m generative.render --model_file logs/procgen/coinrun/test/seed_0/model_4005888.pt --policy sampled
    python -m generative.render --data_dir recordings/coinrun_X --episode 3 --simulator simulators/coinrun_X --step 10

Each frame shows the world (what the agent sees is brighter), the agent's view, step and action, and below them the
weights of each router over the whole episode. A simulation begins in the true state at --step, and is given the actions
of the recording (--actions recorded) or acts by the policy inside it (--actions own); the cells of its view that are
wrong have a red frame. Of an agent of a game (generative.train_agent), worlds are levels, and frames show what it sees;
beside a simulation, how far its points are from the true ones.
Writes <vid_dir>/<what it shows>.gif or .mp4; an MP4 needs ffmpeg.
"""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from generative.domains.base import Domain
from generative.domains.coinrun.games import MODES
from generative.domains.registry import (
    domain_of_checkpoint,
    domain_of_recording,
    load_recorded_policy,
    open_scenes,
)
from generative.figures.film import WRITERS, Film, film_bytes
from generative.recordings.format import Recording, open_recording
from mop.common.configuration import Parser, check_flags, choice, integer, number, optional, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, write_atomic
from mop.plotting.film import find_encoder
from mop.plotting.style import counted

_WHO_ACTS = {"recorded": "the actions of the recording", "own": "the policy's own actions"}
MAX_SEED = 2**63 - 1
OF_GAMES = ("distribution_mode", "param_name")  # flags


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.render", description=__doc__)
    add = parser.add_argument
    add("--checkpoint", "--model_file", metavar="FILE", help="the policy that plays (of a recording: its own)")
    add("--lang_encoder", metavar="FOLDER", help="where the checkpoint's mission encoder lies on this machine")
    add("--task_id", "--env_name", metavar="TASK", help="the task that it plays (default: the one it was trained on)")
    add("--world_seed", default="0", metavar="N", help="the first world that it plays (default: %(default)s)")
    add("--policy", default="argmax", metavar="argmax|sampled", help="how it acts (default: %(default)s)")
    add("--seed", default="0", metavar="N", help="of the actions that are sampled (default: %(default)s)")
    add("--max_steps", metavar="N", help="actions until an episode is cut short (default: the task's limit)")
    add("--data_dir", metavar="DIR", help="a recording, of generative.record")
    add("--episode", metavar="K", help="the first episode of the recording to show (default: 0)")
    add("--num_eps", default="1", metavar="N", help="how many, one file each (default: %(default)s)")
    add("--simulator", metavar="exact|DIR", help="show the simulation of a recorded episode beside it")
    add("--step", default="0", metavar="T", help="where the simulation begins (default: %(default)s)")
    add("--num_sim_steps", metavar="N", help="how many states it shows (default: to the end of the episode)")
    add("--actions", default="recorded", metavar="recorded|own", help="what is done in it (default: %(default)s)")
    add("--format", default="gif", metavar="gif|mp4", help="of the films (default: %(default)s)")
    add("--steps_per_second", metavar="X", help="how fast they play (default: 4, of a game 15)")
    add("--vid_dir", default="plots/films", metavar="DIR", help="where they are written (default: %(default)s)")
    of_game = parser.add_argument_group("of agents of games")
    add = of_game.add_argument
    add("--distribution_mode", metavar="MODE", help="easy or hard levels (default: those of the training)")
    add("--param_name", metavar="PRESET", help="of generative.train_agent, to make sure (default: the agent's own)")
    add("--exp_name", metavar="NAME", help="in the names of the films (default: none)")
    add("--device", default="cpu", metavar="cpu", help="one agent in one level is fastest on the cpu (default)")
    return parser


def checked(args: Namespace) -> Namespace:
    """The flags, parsed."""
    check_flags(
        args,
        world_seed=integer(0),
        policy=choice("argmax", "sampled"),
        seed=integer(0, MAX_SEED),
        max_steps=optional(integer(1, 10**6)),
        episode=optional(integer(0)),
        num_eps=integer(1, 1000),
        simulator=optional(text),
        step=integer(0),
        num_sim_steps=optional(integer(1)),
        actions=choice("recorded", "own"),
        format=choice(*WRITERS),
        steps_per_second=optional(number(0.1, high=50)),
        distribution_mode=optional(choice(*MODES)),
        param_name=optional(text),
        exp_name=optional(text),
        device=choice("cpu"),
    )
    if args.data_dir is None and args.checkpoint is None:
        raise InputError("give --checkpoint, a policy that is to play, or --data_dir, a recording")
    if args.data_dir is None and (args.simulator is not None or args.episode is not None):
        raise InputError("--episode and --simulator are of a recording: give --data_dir")
    if args.format == "mp4":
        find_encoder()
    check_writable(args.vid_dir, "--vid_dir")
    return args


def played_films(domain: Domain, args: Namespace) -> Iterator[tuple[str, Film]]:
    """Yield films of what a policy plays now, with their names."""
    given = {name: getattr(args, name) for name in OF_GAMES if getattr(args, name) is not None}
    foreign = next((name for name in given if name not in domain.world_flags), None)
    if foreign is not None:
        raise InputError(
            f"--{foreign} is no flag of {domain.title}, and {args.checkpoint} is a policy of {domain.title}"
        )
    seeds = range(args.world_seed, args.world_seed + args.num_eps)
    is_sampled = args.policy == "sampled"
    films = domain.play_films(
        args.checkpoint, args.lang_encoder, task_id=args.task_id, seeds=seeds, is_sampled=is_sampled, seed=args.seed,
        max_steps=args.max_steps, **given,
    )  # fmt: skip
    for name, film in films:
        yield "_".join(filter(None, (args.exp_name, name))), film


def recorded_films(domain: Domain, recording: Recording, args: Namespace) -> Iterator[tuple[str, Film]]:
    """Yield films of a recording's episodes, or of simulations of them, with their names."""
    first = args.episode or 0
    if first + args.num_eps > len(recording):
        raise InputError(f"{args.data_dir} has the episodes 0 to {len(recording) - 1}, not {first + args.num_eps - 1}")
    encoding, folder = recording.config["encoding"], Path(args.data_dir).name
    if args.simulator is not None:
        policy, _ = load_recorded_policy(recording, args.checkpoint, args.lang_encoder)
        scenes = open_scenes(args.simulator, recording)
    for k in range(first, first + args.num_eps):
        episode, title, name = recording.episode(k), f"episode {k} of {folder}", f"{folder}_episode_{k}"
        if args.simulator is None:
            yield name, domain.recorded_film(encoding, episode, title)
            continue
        left = len(episode["action"]) - args.step
        if left < 1:
            raise InputError(f"--step {args.step}: episode {k} has the states 0 to {len(episode['action']) - 1}")
        num_states = min(left, args.num_sim_steps or left)
        how = f"simulator: {args.simulator}, {_WHO_ACTS[args.actions]} from step {args.step} on"
        is_own = args.actions == "own"
        film = domain.simulated_film(policy, scenes, encoding, episode, title, how, args.step, num_states, is_own)
        yield f"{name}_step_{args.step}_{Path(args.simulator).name}_{args.actions}", film


def main() -> int:
    """Make the films, and print where they are."""
    args = checked(parser().parse_args())
    if args.data_dir is not None:
        recording = open_recording(args.data_dir)
        domain = domain_of_recording(recording)
        films = recorded_films(domain, recording, args)
    else:
        domain = domain_of_checkpoint(args.checkpoint)
        films = played_films(domain, args)
    steps_per_second = args.steps_per_second or domain.steps_per_second
    for name, film in tqdm(films, "films", args.num_eps, leave=False, disable=args.num_eps == 1, dynamic_ncols=True):
        content = film_bytes(film, args.format, steps_per_second)
        path = Path(args.vid_dir) / f"{name}.{args.format}"
        write_atomic(path, lambda file, content=content: file.write(content))
        tqdm.write(f"{path}: {counted(len(film.captions), 'state')}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_script(main)
