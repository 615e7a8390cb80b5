"""What earlier steps made a policy choose, route or pay: attribution through its memory and through the world.

    python -m generative.saliency --data_dir recordings/unlock_pickup
    python -m generative.saliency --data_dir recordings/unlock_pickup --of routing:2.2 --episode 12 --step 7
    python -m generative.saliency --data_dir recordings/unlock_pickup --simulator simulators/unlock_pickup --of lpc
    python -m generative.saliency --data_dir recordings/unlock_pickup --of entropy --num_episodes 20 --horizon 12
    python -m generative.saliency --data_dir recordings/coinrun --simulator simulators/coinrun --of jump

Every thing that was there at the step, or up to --horizon steps before, is attributed what it contributes to the target
(docs/generative.md, docs/coinrun.md).
Without --episode: recorded test episodes in their order; without --step: the step at which the target is largest.
{targets}

Writes to --out for each step an .npz (generative/attribution/explanations.py), a picture of the largest cause, and a
strip over time; causes.csv with all causes, checked.csv with those whose truth is known, causes.md with the largest in
words; kinds.csv with sums by kind of thing and lag, sizes.csv with sizes by path and lag, horizon.png with both; of a
game agreement.csv, attribution against the truth. Steps that are there already are not computed again.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from generative.attribution.common_targets import CHOSEN
from generative.attribution.integrated_gradients import METHODS
from generative.attribution.loop_inputs import VIEW, WORLD, Place
from generative.attribution.recorded_steps import choose_steps, explain, report
from generative.attribution.settings import AnalysisSettings
from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import BEHAVIOURS, Recording, open_recording
from generative.representations.storage import open_directions
from generative.simulators.base import EXACT
from generative.simulators.evaluation import check_fidelity
from mop.artifacts.records import write_record
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import open_output_dir

POINTS = ", ".join(f"{domain.num_points} in {domain.title}" for domain in DOMAINS.values())
TARGETS = " ".join(f"Targets in {domain.title}: {domain.targets_help}." for domain in DOMAINS.values())


@dataclass(frozen=True, kw_only=True)
class Settings(AnalysisSettings):
    """The settings of a saliency analysis."""

    of: str = setting(CHOSEN, "the target")
    horizon: int = setting(8, "steps back", low=0, high=1000)
    simulator: str = setting(EXACT, "exact, or the folder of a learned one")
    what: str | None = setting(None, "what is varied (default: world if exact, else view)", choices=(WORLD, VIEW))
    method: str = setting("integrated", "method of attribution", choices=METHODS)
    num_points: int | None = setting(None, f"of the integral (default: {POINTS})", low=1, high=1024)
    actions: str = setting("recorded", "actions of the loop", choices=("own", "recorded"))
    episode: int | None = setting(None, "number of an episode (default: of the test split, in their order)", low=0)
    num_episodes: int = setting(1, "without --episode, how many", low=1)
    step: int | None = setting(None, "of the episode, from 0 (default: where the target is largest)", low=0)
    policy: str = setting("argmax", "who acted", choices=BEHAVIOURS)
    directions: str | None = setting(None, "file of directions, for direction:K")
    num_causes: int = setting(10, "of each step that are printed", low=1)

    def episodes(self, recording: Recording) -> list[int]:
        """The episodes that are asked for."""
        if self.episode is None:
            episodes = recording.distinct(recording.episodes(self.split, [self.policy]))[: self.num_episodes]
            if not episodes:
                raise InputError(f"{self.data_dir} has no episode of --split {self.split} and --policy {self.policy}")
            return episodes
        if self.episode >= len(recording):
            raise InputError(f"--episode {self.episode}: {self.data_dir} has the episodes 0 to {len(recording) - 1}")
        return [self.episode]


def main() -> int:
    """Explain what is missing, then report all."""
    settings = parse(Settings, __doc__.format(targets=TARGETS))
    recording = open_recording(settings.data_dir)
    domain = domain_of_recording(recording)
    digest = recording.config["checkpoint"]["sha256"]
    policy, _ = load_recorded_policy(recording, settings.checkpoint)
    directions = open_directions(settings.directions, digest, recording.folder)
    fidelity = check_fidelity(settings.simulator, max(1, settings.horizon), settings.min_fidelity, digest)
    scenes = open_scenes(settings.simulator, recording)
    kind = settings.what or scenes.kinds[0]
    num_points = settings.num_points or domain.num_points
    if kind not in scenes.kinds:
        raise InputError(f"--what {kind} is for the exact simulator; a learned one is given what is seen: view")
    target_of = functools.partial(domain.parse_target, settings.of, policy, directions)
    steps = choose_steps(recording, settings.episodes(recording), settings.step, target_of)
    name = f"{recording.folder.resolve().name}_{re.sub('[^a-z0-9]+', '_', settings.of.lower())}"
    out = settings.out or Path("plots") / "saliency" / name
    of = settings.recorded("num_causes", "num_episodes") | {"what": kind, "num_points": num_points}
    with open_output_dir(out, {"settings": of, "checkpoint": digest, "fidelity": fidelity}):
        print(fidelity)
        paths = []
        for episode, step, target in tqdm(steps, unit="step", disable=len(steps) == 1):
            paths.append(out / f"episode_{episode:06d}_step_{step:04d}.npz")
            if not paths[-1].exists():
                place = Place(episode, step, settings.horizon)
                how = (kind, settings.method, num_points, settings.actions == "own")
                write_record(paths[-1], explain(domain, policy, scenes, recording, place, target, *how))
        explanations = [domain.explanation.load(path) for path in paths]
        report(domain, explanations, paths, out, settings.num_causes, fidelity)
    return 0


if __name__ == "__main__":
    run_script(main)
