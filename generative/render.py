"""Films: an episode of a recording, one that a policy plays now, or a simulation beside the truth.

    python -m generative.render --checkpoint results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt
    python -m generative.render --checkpoint ... --world_seed 7 --num_eps 3 --policy sampled
    python -m generative.render --data_dir recordings/unlock --episode 12                     of a recording
    python -m generative.render --data_dir recordings/unlock --episode 12 --simulator exact --step 4
    python -m generative.render --data_dir recordings/unlock --episode 12 --simulator simulators/unlock --format mp4
    python -m generative.render --model_file logs/procgen/coinrun/test/seed_0/model_4005888.pt --policy sampled
    python -m generative.render --data_dir recordings/coinrun_X --episode 3 --simulator simulators/coinrun_X --step 10

What the frames show: docs/generative.md, docs/coinrun.md. A simulation begins in the true state at --step, and is given
the actions of the recording (--actions recorded) or acts by the policy inside it (--actions own).
Writes <vid_dir>/<what it shows>.gif or .mp4; an MP4 needs ffmpeg.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from generative.domains.base import Domain
from generative.domains.playing import OF_GAMES, PlaySettings, Span
from generative.domains.registry import domain_of_checkpoint, domain_of_recording, load_recorded_policy, open_scenes
from generative.figures.film import WRITERS, Film, film_bytes, find_encoder
from generative.recordings.format import Recording, open_recording
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, write_atomic
from mop.common.values import folder_name
from mop.plotting.style import counted

_ACTIONS = {"recorded": "the actions of the recording", "own": "the policy's own actions"}


@dataclass(frozen=True, kw_only=True)
class Settings(PlaySettings):
    """The settings of films."""

    data_dir: str | None = setting(None, "a recording, of generative.record")
    episode: int | None = setting(None, "the first episode of the recording to show (default: 0)", low=0)
    simulator: str | None = setting(None, "show a simulation of the recorded episode, too", metavar="exact|DIR")
    step: int = setting(0, "where the simulation begins", low=0)
    num_sim_steps: int | None = setting(None, "how many states it shows (default: to the end of the episode)", low=1)
    actions: str = setting("recorded", "actions in it", choices=("recorded", "own"))
    format: str = setting("gif", "of the films", choices=tuple(WRITERS))
    steps_per_second: float | None = setting(None, "how fast they play (default: 4, of a game 15)", low=0.1, high=50)
    vid_dir: Path = setting(Path("plots/films"), "where they are written")
    exp_name: str | None = setting(None, "in the names of the films (default: none)", parse=folder_name)
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
    domain.given_flags(settings, ("distribution_mode", "param_name"), domain.world_flags)
    for name, film in domain.play_films(settings):
        yield "_".join(filter(None, (settings.exp_name, name))), film


def recorded_films(domain: Domain, recording: Recording, settings: Settings) -> Iterator[tuple[str, Film]]:
    """Yield films of a recording's episodes, or of simulations of them, with their names."""
    first = settings.episode or 0
    if first + settings.num_eps > len(recording):
        raise InputError(
            f"{settings.data_dir} has the episodes 0 to {len(recording) - 1}, not {first + settings.num_eps - 1}"
        )
    encoding, folder = recording.config["encoding"], recording.folder.name
    if settings.simulator is not None:
        policy, _ = load_recorded_policy(recording, settings.checkpoint)
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
        span = Span(settings.step, num_states, settings.actions == "own", how)
        film = domain.simulated_film(policy, scenes, encoding, episode, title, span)
        yield f"{name}_step_{settings.step}_{Path(settings.simulator).name}_{settings.actions}", film


def main() -> int:
    """Render the films and print their paths."""
    settings = parse(Settings, __doc__)
    check_writable(settings.vid_dir, "--vid_dir")
    if settings.data_dir is not None:
        recording = open_recording(settings.data_dir)
        domain = domain_of_recording(recording)
        films = recorded_films(domain, recording, settings)
    else:
        domain = domain_of_checkpoint(str(settings.checkpoint))
        films = played_films(domain, settings)
    steps_per_second = settings.steps_per_second or domain.steps_per_second
    for name, film in tqdm(
        films, "films", settings.num_eps, leave=False, disable=settings.num_eps == 1, dynamic_ncols=True
    ):
        content = film_bytes(film, settings.format, steps_per_second)
        path = settings.vid_dir / f"{name}.{settings.format}"
        write_atomic(path, lambda file, content=content: file.write(content))
        tqdm.write(f"{path}: {counted(len(film.captions), 'frame')}, {len(content) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_script(main)
