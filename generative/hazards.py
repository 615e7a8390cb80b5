"""Does attribution through a simulator put the hazard before the jump? In recorded games, with all its controls.

    python -m generative.hazards --data_dir recordings/coinrun --simulator simulators/coinrun
    python -m generative.hazards --data_dir recordings/coinrun --simulator simulators/coinrun --num_moments 20

Moments are steps of test levels at which the agent begins a jump with a hazard within --ahead points to its right; the
log-odds of a jump are attributed to the patches of the frames 0 to --horizon steps earlier. Measures and controls:
docs/coinrun.md.

Writes to --out moments/ (an .npz for each), frames.csv (a row for each frame and reader), hazards.csv (means with 95 %
intervals over levels), hazards.md (the answer in words) and hazards.png. Moments that are there are not measured again.
"""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from generative.attribution.hazard_report import report
from generative.attribution.hazard_study import Study, draw_moments, find_moments, load_measured
from generative.attribution.settings import AnalysisSettings
from generative.domains.coinrun.causes import episode_objects
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import check_playable
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.targets import jumps_of
from generative.domains.registry import domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import BEHAVIOURS, open_recording
from generative.simulators.evaluation import check_fidelity
from mop.artifacts.records import write_record
from mop.common.cli import parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.files import open_output_dir


@dataclass(frozen=True, kw_only=True)
class Settings(AnalysisSettings):
    """The settings of the study of hazards."""

    simulator: str = required("the folder of one that was learned of the recording")
    num_moments: int = setting(100, "with a jump, and without one", low=1)
    per_level: int = setting(2, "of each of them, at most", low=1)
    horizon: int = setting(8, "steps back", low=1, high=100)
    ahead: int = setting(16, "points, of 64, within which a hazard is", low=1, high=64)
    num_points: int = setting(2, "of the integral", low=1, high=1024)
    policies: tuple[str, ...] = setting(("argmax", "sampled"), "who acted", choices=BEHAVIOURS, commas=True)
    seed: int = setting(0, "of moments and controls", low=0)


def main() -> int:
    """Measure what is missing, then report all."""
    settings = parse(Settings, __doc__)
    recording = open_recording(settings.data_dir)
    if domain_of_recording(recording) is not COINRUN:
        raise InputError(f"{settings.data_dir} is no recording of a game, so nothing in it is a hazard or a jump")
    encoding = recording.config["encoding"]
    check_playable(encoding["env_name"], encoding["distribution_mode"])
    agent, _ = load_recorded_policy(recording, settings.checkpoint)
    assert isinstance(agent, FrozenAgent)  # the domain's
    jumps_of(agent)
    digest = recording.config["checkpoint"]["sha256"]
    scenes = open_scenes(settings.simulator, recording)
    fidelity = check_fidelity(settings.simulator, settings.horizon, settings.min_fidelity, digest)
    out = settings.out or Path("plots") / "hazards" / recording.folder.resolve().name
    with open_output_dir(out, {"settings": settings.recorded(), "checkpoint": digest, "fidelity": fidelity}):
        print(fidelity)
        numbers = recording.distinct(recording.episodes(settings.split, settings.policies))
        episodes = tqdm(numbers, desc="looking for hazards", unit="episode", leave=False)
        objects_of = episode_objects(encoding)
        candidates = find_moments(recording, objects_of, agent, episodes, settings.horizon, settings.ahead)
        moments = draw_moments(candidates, settings.num_moments, settings.per_level, settings.seed)
        if not any(moment.has_jump for moment in moments):
            raise InputError(
                f"in {len(numbers)} episodes of --split {settings.split} and --policies, the agent never begins a jump "
                f"before a hazard within {settings.ahead} points; record more, or give another --split or --ahead"
            )
        study = Study(recording, scenes, objects_of, agent, settings.horizon, settings.num_points, settings.seed)
        (out / "moments").mkdir(exist_ok=True)
        paths = [out / "moments" / f"episode_{one.episode:06d}_step_{one.step:04d}.npz" for one in moments]
        for moment, path in zip(tqdm(moments, unit="moment"), paths, strict=True):
            if not path.exists():
                write_record(path, study.measure(moment))
        report([load_measured(path) for path in paths], out, settings.seed, fidelity)
    return 0


if __name__ == "__main__":
    run_script(main)
