"""How true a simulator is: what it shows in unseen worlds, by the number of steps, and what the policy makes of it.

    python -m generative.fidelity --simulator simulators/X --data_dir recordings/X
    python -m generative.fidelity --simulator exact --data_dir recordings/X --out plots/exact
    python -m generative.fidelity --simulator simulators/X --data_dir recordings/X --num_trials 50 --out plots/quick

Trials, measures and baselines: docs/generative.md, docs/coinrun.md. Writes fidelity.json, fidelity.md and fidelity.png
to the simulator's folder, or to --out. The analyses read the first one, and refuse a simulator that is not good enough.
They ask for the trained actor in 100 episodes of the test split or more; what has less goes to --out.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path

import torch

from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy, load_simulator_of
from generative.recordings.format import open_recording
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MODEL, TrialSettings, evaluate, fidelity_line, write_fidelity
from mop.common.cli import as_flags, changes_of, parse, setting, some_of
from mop.common.errors import run_script
from mop.common.files import check_writable, whole_digest

EVERYONE = "; ".join(f"{','.join(domain.fidelity.actors)} (of {domain.title})" for domain in DOMAINS.values())


@dataclass(frozen=True, kw_only=True)
class Settings(TrialSettings):
    """The settings of a measurement."""

    agent_file: str | None = setting(None, "checkpoint of the recorded policy (default: the one that was recorded)")
    actors: tuple[str, ...] | None = setting(None, f"who acts, with commas (default: {EVERYONE})", commas=True)
    min_fidelity: float = setting(0.0, "refuse what is below, as analyses do", low=0, high=1)
    horizon: int = setting(8, "steps ahead up to which that is asked", low=1)
    out: Path | None = setting(None, "folder of what is written (default: the simulator's; plots/fidelity_exact/X)")


def main() -> int:
    """Run the trials, write and print what they show."""
    settings = parse(Settings, __doc__)
    recording = open_recording(settings.data_dir)
    domain = domain_of_recording(recording)
    actors = some_of(settings.actors, domain.fidelity.actors, "--actors")
    of_exact = Path("plots/fidelity_exact", recording.folder.resolve().name)
    folder = settings.out or (of_exact if settings.simulator == EXACT else Path(settings.simulator))
    policy, agent = load_recorded_policy(recording, settings.agent_file)
    learned = load_simulator_of(recording, settings.simulator)
    check_writable(folder, "--out")
    torch.set_num_threads(1)
    is_gate = folder.resolve() == Path(settings.simulator).resolve()
    result = evaluate(domain, learned, recording, policy, actors, settings, must_be_reliable=is_gate)
    result["agent_sha256"] = whole_digest(agent)
    what = f"simulator {Path(settings.simulator).name}, recording {recording.folder.name}"
    title = f"{what}, {result['settings']['num_trials']} episodes of the {settings.split} split"
    words = changes_of(settings) | ({"actors": ",".join(actors)} if settings.actors else {})
    command = shlex.join(["python", "-m", "generative.fidelity", *as_flags(words)])
    write_fidelity(folder, result, f"`{command}`", title, domain.fidelity.measures)
    if "trained" in result["actors"]:
        numbers = result["actors"]["trained"][MODEL]
        horizon = min(settings.horizon, settings.num_horizons)
        print(fidelity_line(settings.simulator, numbers, horizon, settings.min_fidelity))
    return 0


if __name__ == "__main__":
    run_script(main)
