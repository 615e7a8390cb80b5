"""The numbers of the simulator, for three policies: fidelity, attribution against truth, causes, directions, a null.

Of one of them also clamps, synthesised worlds, the exact simulator and the default training.

    python results/simulator.py               does what is missing, and writes results/generative/
    python results/simulator.py --dry_run     prints the commands, and runs nothing
    python results/simulator.py --only UnlockPickup

Every stage is one command. It goes on where it was stopped; one that would start anew is passed over where its result
is there. A simulator that is not true enough leaves out what needs it. Recordings and simulators lie below recordings/
and simulators/ (not in git); what is small and says something is copied to results/generative/<policy>/<stage>/.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mop.base.configuration import Parser
from mop.base.errors import InputError, run_script
from mop.base.files import file_digest, read_json, whole_digest

ROOT = Path(__file__).resolve().parent.parent
MAIN = "UnlockPickup"  # the policy of which all is measured
DEFAULT = "default"  # the simulator of MAIN that is trained with the defaults, which takes longer
POLICIES = {  # name -> its checkpoint below results/zoo
    MAIN: "BabyAI-UnlockPickup-v0/trial_0/seed_0",
    "UnlockPickup_1e-5": "BabyAI-UnlockPickup-v0/trial_2/seed_0",
    "GoToLocal": "BabyAI-GoToLocal-v0/trial_0/seed_0",
}
METHODS = {"GoToLocal": ["--methods", "integrated"]}  # of attribution; of the others all
PUBLISHED = {  # command -> what is copied of its folder
    "generative.fidelity": ("fidelity.md", "fidelity.png"),
    "generative.validate": ("agreement.csv", "agreement.md", "agreement.png"),
    "generative.saliency": ("causes.md", "checked.csv", "kinds.csv", "sizes.csv", "horizon.png"),
    "generative.directions": ("methods.csv", "probes.csv", "probes.png", "stability.png"),
    "generative.intervene": ("effects.csv", "effect.png"),
    "generative.visualise": ("summary.json", "levels.csv", "search.png"),
}
OF = "action:chosen,lpc,routing:2.2"
NULLED = {  # of a policy's routers and experts, the direction that tells best what is carried, or whether the goal is
    # in view where nothing is; see docs/generative.md
    MAIN: "expert_0_2.pca.1",
    "UnlockPickup_1e-5": "expert_0_2.pca.1",
    "GoToLocal": "expert_2_2.nmf.11",
}
LARGEST_LAG = 8  # of generative.validate


class Stage(NamedTuple):
    """A command, and what it makes. Paths are below ROOT."""

    words: list[str]  # after `python -m`
    folder: str  # that it writes
    result: str | None = None  # the file whose presence passes it over; None: it goes on by itself
    made_of: str | None = None  # the file that a fidelity must be of
    simulator: str | None = None  # the learned one that must be true enough

    @property
    def published(self) -> tuple[str, ...]:
        """The names of the files that are copied."""
        return PUBLISHED.get(self.words[0], ())

    def is_done(self) -> bool:
        """Whether it would only do again what is there."""
        if self.result is None or not (result := ROOT / self.folder / self.result).exists():
            return False
        return self.made_of is None or read_json(result)["simulator"]["digest"] == file_digest(ROOT / self.made_of)


def stages(name: str) -> dict[str, Stage]:
    """The stages of a policy, in their order, by name."""
    data, simulator = f"recordings/{name}", f"simulators/{name}"
    of_data = ["--data_dir", data]
    learned = ["--tgm_exp_name", name, "--num_updates", "1600", "--lr", "1.5e-3", "--log_interval", "25"]
    validate = ["generative.validate", *of_data, "--of", OF, "--steps_per_episode", "1"]
    saliency = ["generative.saliency", *of_data, "--of", "routing:2.2"]
    by_learned = [*validate, "--simulators", simulator, "--methods", "integrated"]
    found = {
        "recording": Stage(["generative.record", "--checkpoint", checkpoint_of(name), *of_data, "--resume"], data),
        "simulator": Stage(["generative.train_gen_model", *of_data, *learned, "--resume"], simulator),
        "fidelity": Stage(  # in the simulator's folder, where the analyses look for it
            ["generative.fidelity", "--simulator", simulator, *of_data], simulator, "fidelity.json",
            f"{simulator}/checkpoint_final.pt",
        ),
        "agreement": _to_out(name, "agreement", [*validate, *METHODS.get(name, [])]),
        "agreement_learned": _to_out(name, "agreement_learned", by_learned)._replace(simulator=simulator),
        "causes": _to_out(name, "causes", [*saliency, "--num_episodes", "40", "--num_points", "8"]),
        "directions": _to_out(name, "directions", ["generative.directions", *of_data]),
        "null": _to_out(name, "null", [*_intervene(name), "--null", NULLED[name]]),
    }  # fmt: skip
    return found | (_stages_of_main(of_data) if name == MAIN else {})


def _intervene(name: str) -> list[str]:
    directions = f"plots/generative/{name}/directions/directions.npz"
    return ["generative.intervene", "--checkpoint", checkpoint_of(name), "--directions", directions]


def _stages_of_main(of_data: list[str]) -> dict[str, Stage]:
    """What is measured of one policy alone: clamps, levels, the exact simulator, the default training."""
    of_policy, intervene = ["--checkpoint", checkpoint_of(MAIN)], _intervene(MAIN)
    clamp, few = ["--clamp", f"{NULLED[MAIN]}=2"], ["--num_random", "1000", "--num_steps"]
    words = {
        "clamp": [*intervene, *clamp],
        "clamp_again": [*intervene, *clamp, "--eval_seed", "100000", "--seed", "1", "--num_random", "199"],
    }
    levels = {"levels_lpc": ["lpc"], "levels_routing": ["routing:2.2"]}
    levels |= {f"levels_lpc_{steps}_steps": ["lpc", *few, f"{steps}"] for steps in (1, 2, 8)}
    words |= {name: ["generative.visualise", *of_policy, "--maximise", *more] for name, more in levels.items()}
    words["fidelity_exact"] = ["generative.fidelity", "--simulator", "exact", *of_data, "--num_trials", "60"]
    results = {"generative.visualise": "summary.json", "generative.fidelity": "fidelity.json"}
    found = {name: _to_out(MAIN, name, line, results.get(line[0])) for name, line in words.items()}
    learned, simulator = ["--tgm_exp_name", DEFAULT, "--resume"], f"simulators/{DEFAULT}"
    fidelity = ["generative.fidelity", "--simulator", simulator, *of_data]
    return found | {
        "simulator_default": Stage(["generative.train_gen_model", *of_data, *learned], simulator),
        "fidelity_default": Stage(fidelity, simulator, "fidelity.json", f"{simulator}/checkpoint_final.pt"),
    }


def _to_out(name: str, stage: str, words: list[str], result: str | None = None) -> Stage:
    folder = f"plots/generative/{name}/{stage}"
    return Stage([*words, "--out", folder], folder, result)


def checkpoint_of(name: str) -> str:
    """The checkpoint of a policy, below ROOT."""
    return f"results/zoo/{POLICIES[name]}/checkpoint_final.pt"


def publish(name: str, stage: str, made: Stage) -> None:
    """Copy what is small of a stage to results/generative/."""
    target = ROOT / "results" / "generative" / name / stage
    for file in made.published:
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / made.folder / file, target / file)


def refusal_of(name: str, stage: Stage) -> str | None:
    """Why a stage is left out: its simulator is not true enough."""
    from generative.fidelity import MIN_FIDELITY, check_fidelity  # here: it loads torch

    try:
        if stage.simulator is not None:
            digest = whole_digest(ROOT / checkpoint_of(name))
            check_fidelity(str(ROOT / stage.simulator), LARGEST_LAG, MIN_FIDELITY, digest)
    except InputError as error:
        return str(error)
    return None


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--only", help=f"one of {', '.join(POLICIES)} (default: all)")
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    return parser


def main() -> int:
    """Run what is missing, and publish after each stage."""
    args = parser().parse_args()
    if args.only is not None and args.only not in POLICIES:
        raise InputError(f"--only must be one of {', '.join(POLICIES)}, not {args.only!r}")
    for name in [args.only] if args.only else POLICIES:
        for stage, made in stages(name).items():
            print(shlex.join(["python", "-m", *made.words]), flush=True)
            if args.dry_run:
                continue
            if (why := refusal_of(name, made)) is not None:
                print(f"{stage} of {name} is left out: {why}", flush=True)
                continue
            if not made.is_done() and subprocess.run([sys.executable, "-m", *made.words], cwd=ROOT).returncode != 0:
                raise InputError(f"{stage} of {name} was not finished; the same command goes on")
            publish(name, stage, made)
    return 0


if __name__ == "__main__":
    run_script(main)
