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

from collections.abc import Iterator
from dataclasses import dataclass
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
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, write_atomic
from mop.plotting.film import find_encoder
from mop.plotting.style import counted

_ACTIONS = {"recorded": "the actions of the recording", "own": "the policy's own actions"}
OF_GAMES = "of agents of games"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of films."""

    checkpoint: str | None = setting(
        None, "the policy that plays (of a recording: its own)", also=["model_file"], metavar="FILE"
    )
    lang_encoder: Path | None = setting(None, "where the checkpoint's mission encoder lies on this machine")
    task_id: str | None = setting(None, "the task that it plays (default: its training's)", also=["env_name"])
    world_seed: int = setting(0, "the first world that it plays", low=0)
    policy: str = setting("argmax", "how it acts", choices=("argmax", "sampled"))
    seed: int = setting(0, "of the actions that are sampled", low=0, high=2**63 - 1)
    max_steps: int | None = setting(
        None, "actions until an episode is cut short (default: the task's limit)", low=1, high=10**6
    )
    data_dir: str | None = setting(None, "a recording, of generative.record")
    episode: int | None = setting(None, "the first episode of the recording to show (default: 0)", low=0)
    num_eps: int = setting(1, "how many, one file each", low=1, high=1000)
    simulator: str | None = setting(None, "show a simulation of the recorded episode, too", metavar="exact|DIR")
    step: int = setting(0, "where the simulation begins", low=0)
    num_sim_steps: int | None = setting(None, "how many states it shows (default: to the end of the episode)", low=1)
    actions: str = setting("recorded", "actions in it", choices=("recorded", "own"))
    format: str = setting("gif", "of the films", choices=tuple(WRITERS))
    steps_per_second: float | None = setting(None, "how fast they play (default: 4, of a game 15)", low=0.1, high=50)
    vid_dir: Path = setting(Path("plots/films"), "where they are written")
    distribution_mode: str | None = setting(None, "levels (default: the training's)", choices=MODES, group=OF_GAMES)
    param_name: str | None = setting(
        None, "preset of generative.train_agent, to make sure (default: the agent's own)", group=OF_GAMES
    )
    exp_name: str | None = setting(None, "in the names of the films (default: none)", group=OF_GAMES)
    device: str = setting("cpu", "one agent in one level is fastest on the cpu", choices=("cpu",), group=OF_GAMES)

    def __post_init__(self):
        if self.data_dir is None and self.checkpoint is None:
            raise InputError("give --checkpoint, a policy that is to play, or --data_dir, a recording")
        if self.data_dir is None and (self.simulator is not None or self.episode is not None):
            raise InputError("--episode and --simulator are of a recording: give --data_dir")
        if self.format == "mp4":
            find_encoder()


def played_films(domain: Domain, settings: Settings) -> Iterator[tuple[str, Film]]:
    """Yield films of what a policy plays now, with their names."""
    names = ("distribution_mode", "param_name")
    given = {name: getattr(settings, name) for name in names if getattr(settings, name) is not None}
    foreign = next((name for name in given if name not in domain.world_flags), None)
    if foreign is not None:
        raise InputError(
            f"--{foreign} is no flag of {domain.title}, and {settings.checkpoint} is a policy of {domain.title}"
        )
    seeds = range(settings.world_seed, settings.world_seed + settings.num_eps)
    is_sampled = settings.policy == "sampled"
    films = domain.play_films(
        settings.checkpoint, settings.lang_encoder, task_id=settings.task_id, seeds=seeds, is_sampled=is_sampled,
        seed=settings.seed, max_steps=settings.max_steps, **given,
    )  # fmt: skip
    for name, film in films:
        yield "_".join(filter(None, (settings.exp_name, name))), film


def recorded_films(domain: Domain, recording: Recording, settings: Settings) -> Iterator[tuple[str, Film]]:
    """Yield films of a recording's episodes, or of simulations of them, with their names."""
    first = settings.episode or 0
    if first + settings.num_eps > len(recording):
        raise InputError(
            f"{settings.data_dir} has the episodes 0 to {len(recording) - 1}, not {first + settings.num_eps - 1}"
        )
    encoding, folder = recording.config["encoding"], Path(settings.data_dir).name
    if settings.simulator is not None:
        policy, _ = load_recorded_policy(recording, settings.checkpoint, settings.lang_encoder)
        scenes = open_scenes(settings.simulator, recording)
    for k in range(first, first + settings.num_eps):
        episode, title, name = recording.episode(k), f"episode {k} of {folder}", f"{folder}_episode_{k}"
        if settings.simulator is None:
            yield name, domain.recorded_film(encoding, episode, title)
            continue
        left = len(episode["action"]) - settings.step
        if left < 1:
            raise InputError(f"--step {settings.step}: episode {k} has the states 0 to {len(episode['action']) - 1}")
        num_states = min(left, settings.num_sim_steps or left)
        how = f"simulator: {settings.simulator}, {_ACTIONS[settings.actions]} from step {settings.step} on"
        is_own = settings.actions == "own"
        film = domain.simulated_film(policy, scenes, encoding, episode, title, how, settings.step, num_states, is_own)
        yield f"{name}_step_{settings.step}_{Path(settings.simulator).name}_{settings.actions}", film


def main() -> int:
    """Make the films, and print where they are."""
    settings = parse(Settings, __doc__)
    check_writable(settings.vid_dir, "--vid_dir")
    if settings.data_dir is not None:
        recording = open_recording(settings.data_dir)
        domain = domain_of_recording(recording)
        films = recorded_films(domain, recording, settings)
    else:
        domain = domain_of_checkpoint(settings.checkpoint)
        films = played_films(domain, settings)
    steps_per_second = settings.steps_per_second or domain.steps_per_second
    for name, film in tqdm(
        films, "films", settings.num_eps, leave=False, disable=settings.num_eps == 1, dynamic_ncols=True
    ):
        content = film_bytes(film, settings.format, steps_per_second)
        path = settings.vid_dir / f"{name}.{settings.format}"
        write_atomic(path, lambda file, content=content: file.write(content))
        tqdm.write(f"{path}: {counted(len(film.captions), 'state')}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_script(main)
