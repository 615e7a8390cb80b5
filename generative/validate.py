"""Hold attribution against truth: objects are changed in the cloned real world, and the true effects ranked.

    python -m generative.validate --data_dir recordings/unlock_pickup
    python -m generative.validate --data_dir recordings/unlock_pickup --simulators exact,simulators/unlock_pickup
    python -m generative.validate --data_dir recordings/unlock_pickup --of lpc,routing:2.2 --lags 0,1,2,4,8,16
    python -m generative.validate --data_dir recordings/unlock_pickup --out plots/...      after Ctrl-C, a kill, ...

Edits, truths, predictors and controls: docs/generative.md. For each case Spearman's rank correlation; means with 95 %
intervals over episodes.
{targets}

Writes config.json, cases.jsonl (a line for each case, added as they are measured: the same command goes on where it was
stopped), agreement.csv, agreement.md and agreement.png to --out.
"""

from pathlib import Path

from generative.attribution.validation import (
    Study,
    ValidationSettings,
    make_predictors,
    measure,
    plan_cases,
    report,
)
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.targets import TARGETS_HELP
from generative.domains.registry import domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import open_recording
from generative.representations.storage import open_directions
from generative.simulators.evaluation import check_fidelity
from mop.common.cli import parse
from mop.common.errors import InputError, run_script
from mop.common.files import open_output_dir


def main() -> int:
    """Measure what is missing, then report all."""
    settings = parse(ValidationSettings, __doc__.format(targets=f"Targets: {TARGETS_HELP}."))
    recording = open_recording(settings.data_dir)
    domain = domain_of_recording(recording)
    if domain.exact_scenes is None:
        raise InputError(f"{settings.data_dir} is a recording of {domain.title}, whose real worlds cannot be edited")
    policy, path = load_recorded_policy(recording, settings.checkpoint)
    assert isinstance(policy, FrozenPolicy)  # the domain's
    digest = recording.config["checkpoint"]["sha256"]
    directions = open_directions(settings.directions, digest, recording.folder)
    horizon = max(1, *settings.lags)
    fidelity = [check_fidelity(name, horizon, settings.min_fidelity, digest) for name in settings.simulators]
    names = [domain.parse_target(text, policy, directions, chosen=0).name for text in settings.of]
    simulators = {name: open_scenes(name, recording) for name in settings.simulators}
    predictors = make_predictors(simulators, policy, recording, settings)
    episodes = recording.episodes(settings.split, settings.policies)[: settings.num_episodes]
    places = plan_cases(recording, episodes, settings.steps_per_episode, sorted(settings.lags), settings.seed)
    if not places:
        raise InputError(f"{settings.data_dir} has no episode of --split {settings.split} and --policies long enough")
    out = settings.out or Path("plots") / "validation" / recording.folder.resolve().name
    task_id = recording.config["encoding"]["task_id"]
    of = {"checkpoint": digest, "fidelity": fidelity, "task_id": task_id}
    record = {"settings": settings.recorded(), "targets": names, "num_cases": len(places), **of}
    with open_output_dir(out, record):
        print("\n".join(fidelity))
        study = Study(recording, policy, predictors, settings, directions)
        rows = measure(study, places, out / "cases.jsonl")
        report(rows, out, f"{task_id}, {path.parent.parent.name}: rank correlation of attribution and true effect")
    return 0


if __name__ == "__main__":
    run_script(main)
