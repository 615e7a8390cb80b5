"""Levels that excite a unit or action of a policy: optimised through policy and world, then replayed for real.

    python -m generative.visualise --checkpoint results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt
    python -m generative.visualise --checkpoint ... --maximise routing:2.2 --num_steps 6 --read last
    python -m generative.visualise --checkpoint ... --maximise action:toggle --prior 0.005 --films gif
    python -m generative.visualise --checkpoint ... --maximise lpc --simulator simulators/unlock_pickup
{targets}

Levels, the search, its check in the real world and its controls: docs/generative.md; generative/synthesis/search.py has
the objective.

Writes config.json, summary.json, levels.csv, levels.npz, search.png and, of each survivor, level_<n>.png (and a film)
to --out. Same flags, same bytes.
"""

import functools
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from generative.attribution.closed_loop import untrained
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.targets import TARGETS_HELP, parse_target
from generative.domains.registry import load_simulator
from generative.figures.film import WRITERS, find_encoder
from generative.representations.storage import open_directions
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from generative.simulators.exact import ExactSimulator
from generative.synthesis.report import summary, write_study
from generative.synthesis.search import begin_learned
from generative.synthesis.study import Reader, StudySettings, run_study
from mop.common.cli import as_dict, parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.files import file_digest, open_output_dir, whole_digest
from mop.common.task_mix import task_name
from mop.envs.babyai import World

NOT_IN_RECORD = ("out", "films", "lang_encoder", "checkpoint", "directions")  # flags


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """The flags."""

    checkpoint: str = required("the policy", also=("model_file",), metavar="FILE")
    maximise: str = setting("lpc", "the quantity", metavar="TARGET")
    directions: str | None = setting(None, "file of directions, for direction:K", metavar="FILE")
    task_id: str | None = setting(None, "task of the levels (default: the task of the training)", metavar="TASK")
    simulator: str = setting(EXACT, "through which it is optimised", metavar="exact|DIR")
    min_fidelity: float = setting(MIN_FIDELITY, "of a learned simulator; 0: any", low=0, high=1)
    films: str | None = setting(None, "also a film of each survivor", choices=WRITERS)
    lang_encoder: str | None = setting(None, "where the checkpoint's mission encoder lies on this machine")
    out: str = setting("", "output folder (default: plots/visualise/<task>/<target>)")


def open_simulator(settings: Settings, task_id: str, grid_shape: tuple[int, int]):
    """The simulator, a function of missions that says how levels begin in it, and a line on its fidelity."""
    exact = ExactSimulator(grid_shape)
    horizon = max(1, settings.num_steps - 1)
    agent = whole_digest(settings.checkpoint)
    line = check_fidelity(settings.simulator, horizon, settings.min_fidelity, agent)
    if settings.simulator == EXACT:
        return exact, lambda lang: lambda state: (state, None), line
    model, config = load_simulator(settings.simulator)
    if config["task_id"] != task_id:
        raise InputError(f"--simulator {settings.simulator} is of {config['task_id']}, not of {task_id}")
    return model, functools.partial(begin_learned, model, exact), line


def main() -> int:
    """Search levels, replay them, and report."""
    targets = textwrap.fill(f"Targets: {TARGETS_HELP}.", 120)
    settings = parse(Settings, __doc__.format(targets=targets))
    if settings.films == "mp4":
        find_encoder()
    policy, config = FrozenPolicy.load(settings.checkpoint, settings.lang_encoder)
    task_id, max_steps = settings.task_id or config["task_id"], config.get("max_steps")
    digest = whole_digest(settings.checkpoint)
    directions = open_directions(settings.directions, digest, settings.checkpoint)
    readers = [
        Reader(one, parse_target(settings.maximise, one, directions), settings)
        for one in (policy, untrained(policy, config, settings.seed))
    ]
    world = World(task_id, max_steps)
    simulator, make_begin, line = open_simulator(settings, task_id, (world.env.height, world.env.width))
    quantity = readers[0].target.name
    out = Path("plots", "visualise", task_name(task_id), re.sub(r"[^\w.-]+", "_", quantity))
    out = Path(settings.out or out)
    record = as_dict(settings, NOT_IN_RECORD) | {"task_id": task_id, "checkpoint": file_digest(settings.checkpoint)}
    record |= {} if settings.directions is None else {"directions": whole_digest(settings.directions)}
    with open_output_dir(out, record):
        study = run_study(lambda: World(task_id, max_steps), readers, simulator, make_begin)
        write_study(study, out, quantity, task_name(task_id), policy.policy.expert_hidden_sizes, settings.films)
    print(f"{line}\n{summary(study, quantity)}\ntable, arrays and pictures: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
