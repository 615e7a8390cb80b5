"""The numbers of the simulator, for three policies: fidelity, attribution against truth, directions, levels.

    python results/simulator.py               does what is missing, and writes results/generative/
    python results/simulator.py --dry_run     prints the commands, and runs nothing
    python results/simulator.py --only UnlockPickup

Every stage is one command; each goes on where it was stopped. Recordings and simulators lie below recordings/ and
simulators/ (not in git); what is small and says something is copied to results/generative/<policy>/.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mop.base.configuration import Parser
from mop.base.errors import InputError, run_script

ROOT = Path(__file__).resolve().parent.parent
POLICIES = {  # name -> its checkpoint below results/zoo
    "UnlockPickup": "BabyAI-UnlockPickup-v0/trial_0/seed_0",
    "UnlockPickup_1e-5": "BabyAI-UnlockPickup-v0/trial_2/seed_0",
    "GoToLocal": "BabyAI-GoToLocal-v0/trial_0/seed_0",
}
PUBLISHED = (
    *("*.md", "*.csv", "summary.json", "agreement.png", "fidelity.png"),
    *("horizon.png", "probes.png", "effect.png", "search.png"),
)
OF = "action:chosen,lpc,routing:2.2"


def stages(name: str) -> dict[str, list[str]]:
    """The commands of a policy, in their order: name of what each makes -> words after `python -m`."""
    checkpoint = f"results/zoo/{POLICIES[name]}/checkpoint_final.pt"
    data, simulator, out = f"recordings/{name}", f"simulators/{name}", f"plots/generative/{name}"
    of_data, of_policy = ["--data_dir", data], ["--checkpoint", checkpoint]
    learned = ["--tgm_exp_name", name, "--num_updates", "1600", "--lr", "1.5e-3", "--log_interval", "25"]
    validate = ["generative.validate", *of_data, "--of", OF, "--steps_per_episode", "1"]
    directions = f"{out}/directions/directions.npz"
    return {
        "recording": ["generative.record", *of_policy, *of_data, "--resume"],
        "simulator": ["generative.train_gen_model", *of_data, *learned, "--resume"],
        "fidelity": ["generative.fidelity", "--simulator", simulator, *of_data, "--out", f"{out}/fidelity"],
        "agreement": [*validate, "--out", f"{out}/agreement"],
        "agreement_learned": [
            *validate, "--simulators", simulator, "--methods", "integrated", "--out", f"{out}/agreement_learned",
        ],
        "causes": ["generative.saliency", *of_data, "--of", "routing:2.2", "--num_episodes", "40", "--num_points", "8",
                   "--out", f"{out}/causes"],
        "directions": ["generative.directions", *of_data, "--out", f"{out}/directions"],
        "intervention": ["generative.intervene", *of_policy, "--directions", directions, "--clamp",
                         "expert_0_2.pca.1=2", "--out", f"{out}/intervention"],
        "levels_lpc": ["generative.visualise", *of_policy, "--maximise", "lpc", "--out", f"{out}/levels_lpc"],
    }  # fmt: skip


def publish(name: str, stage: str) -> None:
    """Copy what is small of a stage to results/generative/."""
    target = ROOT / "results" / "generative" / name / stage
    for pattern in PUBLISHED:
        for path in (ROOT / "plots" / "generative" / name / stage).glob(pattern):
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.name)


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
        for stage, words in stages(name).items():
            print(shlex.join(["python", "-m", *words]), flush=True)
            if args.dry_run:
                continue
            if subprocess.run([sys.executable, "-m", *words], cwd=ROOT).returncode != 0:
                raise InputError(f"{stage} of {name} was not finished; the same command goes on")
            publish(name, stage)
    return 0


if __name__ == "__main__":
    run_script(main)
