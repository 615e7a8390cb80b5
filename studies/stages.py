"""Stages of an experiment, each one command that makes a folder, and what of these folders is published."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mop.common.errors import InputError
from mop.common.files import file_digest, whole_digest
from mop.common.reading import read_json, reading
from mop.common.workers import run_command

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {  # command -> what is copied of its folder
    "generative.evaluate_agent": ("evaluation.csv",),
    "generative.plot_training_csv": ("plot_for_fig.png",),
    "generative.fidelity": ("fidelity.md", "fidelity.png"),
    "generative.validate": ("agreement.csv", "agreement.md", "agreement.png"),
    "generative.hazards": ("hazards.csv", "hazards.md", "hazards.png"),
    "generative.saliency": ("causes.md", "kinds.csv", "sizes.csv", "horizon.png"),
    "generative.directions": ("methods.csv", "probes.csv", "probes.png", "stability.png"),
    "generative.intervene": ("effects.csv", "effect.png"),
    "generative.visualise": ("summary.json", "levels.csv", "search.png"),
}
LARGEST_LAG = 8  # of what asks whether a simulator is true enough


class Stage(NamedTuple):
    """A command, and what it makes. Paths are below ROOT."""

    words: list[str]  # after `python -m`
    folder: str  # that it writes
    result: str | None = None  # the file whose presence passes it over; None: it goes on by itself
    made_of: str | None = None  # the file that a fidelity must be of
    simulator: str | None = None  # the learned one that must be true enough, of
    policy: str | None = None  # this checkpoint
    also: tuple[str, ...] = ()  # files that are copied besides those of PUBLISHED

    @property
    def published(self) -> tuple[str, ...]:
        """The names of the files that are copied."""
        return PUBLISHED.get(self.words[0], ()) + self.also

    def is_done(self) -> bool:
        """Whether it would only do again what is there."""
        if self.result is None or not (result := ROOT / self.folder / self.result).exists():
            return False
        if self.made_of is None:
            return True
        with reading(result, "fidelity"):
            return read_json(result)["simulator"]["digest"] == file_digest(ROOT / self.made_of)


def stage_to_out(folder: str, words: list[str], result: str | None = None) -> Stage:
    """A stage whose command is told where to write."""
    return Stage([*words, "--out", folder], folder, result)


def fidelity_stage(simulator: str, of_data: list[str]) -> Stage:
    """How true a simulator is; in its folder, where the analyses look for it."""
    words = ["generative.fidelity", "--simulator", simulator, *of_data]
    return Stage(words, simulator, "fidelity.json", f"{simulator}/checkpoint_final.pt")


def run_stages(name: str, stages: Mapping[str, Stage], out: Path, is_dry_run: bool) -> None:
    """Run what is missing of the stages of a policy, and publish to `out` after each."""
    for stage, made in stages.items():
        print(shlex.join(["python", "-m", *made.words]), flush=True)
        if is_dry_run:
            continue
        if (why := refusal_of(made)) is not None:
            print(f"{stage} of {name} is left out: {why}", flush=True)
            continue
        if not made.is_done() and run_command([sys.executable, "-m", *made.words], cwd=ROOT) != 0:
            raise InputError(f"{stage} of {name} was not finished; the same command goes on")
        publish(made, out / stage)


def publish(made: Stage, target: Path) -> None:
    """Copy what is small of a stage to a folder."""
    for file in made.published:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / made.folder / file, target / file)


def refusal_of(stage: Stage) -> str | None:
    """Why a stage is left out: its simulator is not true enough."""
    from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity

    try:
        if stage.simulator is not None and stage.policy is not None:
            digest = whole_digest(ROOT / stage.policy)
            check_fidelity(str(ROOT / stage.simulator), LARGEST_LAG, MIN_FIDELITY, digest)
    except InputError as error:
        return str(error)
    return None
