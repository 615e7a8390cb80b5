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

import numpy as np
import torch
from tqdm import tqdm

from generative.agents.networks import KIND
from generative.agents.networks import load_agent as load_game_agent
from generative.attribution.closed_loop import roll_out
from generative.domains.babyai.playing import greedy, play, sampler
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.render import (
    STEPS_PER_SECOND,
    WRITERS,
    Film,
    comparison_film,
    episode_film,
    film_bytes,
    outcome_of,
)
from generative.domains.base import GAMES, domain_of
from generative.domains.coinrun.games import MAX_LEVEL, MODES
from generative.domains.coinrun.render import STEPS_PER_SECOND as GAME_STEPS_PER_SECOND
from generative.domains.coinrun.render import level_films, recorded_film, simulated_film
from generative.domains.inputs import open_scenes
from generative.domains.registry import load_recorded_policy
from generative.recordings.format import Episode, Recording, load_config, open_recording
from generative.simulators.relaxation import harden
from generative.train_agent import PRESETS, check_preset
from mop.artifacts.checkpoints import quick_config
from mop.common.configuration import Parser, check_flags, choice, integer, number, optional, text
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, write_atomic
from mop.common.seeding import stream_seed
from mop.common.task_mix import task_name
from mop.envs.babyai import World
from mop.plotting.film import find_encoder
from mop.plotting.style import counted

_WHO_ACTS = {"recorded": "the actions of the recording", "own": "the policy's own actions"}
MAX_SEED = 2**63 - 1


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
    """The flags, parsed. Raises InputError where they are wrong, or do not go together."""
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
        param_name=optional(choice(*PRESETS)),
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


def played_films(args: Namespace) -> Iterator[tuple[str, Film]]:
    """Films of what the policy plays now, with their names."""
    policy, config = FrozenPolicy.load(args.checkpoint, args.lang_encoder)
    task_id = args.task_id or config["task_id"]
    world = World(task_id, args.max_steps or config.get("max_steps"))
    for seed in range(args.world_seed, args.world_seed + args.num_eps):
        world.reset(seed)
        choose = greedy if args.policy == "argmax" else sampler(stream_seed(args.seed, f"actions in world {seed}"))
        (rows,) = play(policy, [world], choose=choose)
        title = [f"{task_name(task_id)}, world {seed}, {args.policy}", f"mission: {world.mission}"]
        name = f"{task_name(task_id)}_world_{seed}_{args.policy}"
        yield name, episode_film(rows, title, policy.policy.expert_hidden_sizes, outcome_of(rows))


def game_films(args: Namespace) -> Iterator[tuple[str, Film]]:
    """Films of levels that an agent of a game plays now, with their names. Raises InputError."""
    agent, config = load_game_agent(args.checkpoint, args.task_id)
    check_preset(args.param_name, config, args.checkpoint)
    world = config["world"] | ({"distribution_mode": args.distribution_mode} if args.distribution_mode else {})
    levels = range(args.world_seed, args.world_seed + args.num_eps)
    if levels.stop > MAX_LEVEL:
        raise InputError(f"--world_seed: a game has the levels 0 to {MAX_LEVEL - 1}")
    for name, film in level_films(agent, world, levels, args.policy == "sampled", args.seed, args.max_steps):
        yield "_".join(filter(None, (args.exp_name, name))), film


def chosen_episodes(args: Namespace, recording: Recording) -> range:
    """The numbers of the episodes that are asked for. Raises InputError where the recording has not so many."""
    first = args.episode or 0
    if first + args.num_eps > len(recording):
        raise InputError(f"{args.data_dir} has the episodes 0 to {len(recording) - 1}, not {first + args.num_eps - 1}")
    return range(first, first + args.num_eps)


def recorded_game_films(args: Namespace, recording: Recording) -> Iterator[tuple[str, Film]]:
    """Films of recorded episodes of a game, or of simulations of them, with their names. Raises InputError."""
    encoding, name = recording.config["encoding"], Path(args.data_dir).name
    if args.simulator is not None:
        agent, _ = load_recorded_policy(recording, args.checkpoint)
        scenes = open_scenes(args.simulator, recording)
    for k in chosen_episodes(args, recording):
        episode = recording.episode(k)
        title = [f"{encoding['task_id']}, episode {k} of {name}: level {episode.seed}, {episode.behaviour}"]
        if args.simulator is None:
            yield f"{name}_episode_{k}", recorded_film(episode, encoding["actions"], title)
            continue
        num_states = states_left(args, episode, k)
        title.append(f"simulator: {args.simulator}, {_WHO_ACTS[args.actions]} from step {args.step} on")
        film = simulated_film(
            agent, scenes.simulator, scenes.num_frames, episode, encoding["actions"], args.step, num_states,
            args.actions == "own", title,
        )  # fmt: skip
        yield f"{name}_episode_{k}_step_{args.step}_{Path(args.simulator).name}_{args.actions}", film


def states_left(args: Namespace, episode: Episode, k: int) -> int:
    """How many states of episode k a simulation shows. Raises InputError where it has no such step."""
    left = len(episode["action"]) - args.step
    if left < 1:
        raise InputError(f"--step {args.step}: episode {k} has the states 0 to {len(episode['action']) - 1}")
    return min(left, args.num_sim_steps or left)


def recorded_films(args: Namespace) -> Iterator[tuple[str, Film]]:
    """Films of a recording's episodes, or of simulations of them, with their names."""
    recording = open_recording(args.data_dir)
    if domain_of(recording.config["encoding"]) is GAMES:
        yield from recorded_game_films(args, recording)
        return
    numbers, name = chosen_episodes(args, recording), Path(args.data_dir).name
    sizes = recording.config["encoding"]["expert_hidden_sizes"]
    simulation = None if args.simulator is None else Simulation(args, recording)
    for k in numbers:
        episode = recording.episode(k)
        task = task_name(recording.config["encoding"]["task_id"])
        title = [f"{task}, episode {k} of {name}: world {episode.seed}, {episode.behaviour}"]
        title.append(f"mission: {episode.mission}")
        if simulation is None:
            yield f"{name}_episode_{k}", episode_film(episode, title, sizes, outcome_of(episode))
        else:
            yield simulation.film(k, title)


class Simulation:
    """Simulations of recorded episodes, as the flags ask for them."""

    def __init__(self, args: Namespace, recording: Recording):
        self.policy, _ = load_recorded_policy(recording, args.checkpoint, args.lang_encoder)
        self.scenes = open_scenes(args.simulator, recording)
        self.args, self.recording = args, recording

    @torch.no_grad()
    def film(self, k: int, title: list[str]) -> tuple[str, Film]:
        """The name and the film of one. Raises InputError where the episode has no such step."""
        args, episode = self.args, self.recording.episode(k)
        num_steps = states_left(args, episode, k)
        scene = self.scenes.at(episode, args.step, self.scenes.kinds[0])
        state, first_view = scene.begin(scene.there)
        actions = torch.from_numpy(episode["action"][args.step : args.step + num_steps].astype(np.int64))
        actions = None if args.actions == "own" else actions.clamp(0)[None]  # of the last state, nothing is executed
        hidden = torch.from_numpy(episode["hidden"][args.step : args.step + 1].copy())
        lang = torch.from_numpy(np.asarray(episode.lang))[None]
        trace = roll_out(
            self.policy, self.scenes.simulator, state, lang, hidden, num_steps, actions, first_view=first_view
        )
        simulated = {
            "obs": harden(trace.soft[:, 0]).numpy().astype(np.uint8),
            "routing": torch.cat(trace.routing, -1)[:, 0].numpy(),
            "action": trace.logits[:, 0].argmax(-1).numpy(),
        }
        truth = {name: rows[args.step : args.step + num_steps] for name, rows in episode.items()}
        title = [*title, f"simulator: {args.simulator}, {_WHO_ACTS[args.actions]} from step {args.step} on"]
        name = f"{Path(args.data_dir).name}_episode_{k}_step_{args.step}_{Path(args.simulator).name}_{args.actions}"
        sizes = self.policy.policy.expert_hidden_sizes
        return name, comparison_film(truth, simulated, title, sizes, args.step)


def main() -> int:
    """Make the films, and tell where they are."""
    args = checked(parser().parse_args())
    if args.data_dir is not None:
        make, is_game = recorded_films, domain_of(load_config(args.data_dir)["encoding"]) is GAMES
    else:
        is_game = quick_config(args.checkpoint).get("kind") == KIND
        make = game_films if is_game else played_films
    films = make(args)
    steps_per_second = args.steps_per_second or (GAME_STEPS_PER_SECOND if is_game else STEPS_PER_SECOND)
    for name, film in tqdm(films, "films", args.num_eps, leave=False, disable=args.num_eps == 1, dynamic_ncols=True):
        content = film_bytes(film, args.format, steps_per_second)
        path = Path(args.vid_dir) / f"{name}.{args.format}"
        write_atomic(path, lambda file, content=content: file.write(content))
        tqdm.write(f"{path}: {counted(len(film.captions), 'state')}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_script(main)
