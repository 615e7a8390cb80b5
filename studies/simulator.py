"""The numbers of the simulator, for three policies: fidelity, attribution against truth, causes, directions, a null.

Of one of them also clamps, synthesised worlds, the exact simulator and the default training.

    python studies/simulator.py               does what is missing, and writes results/generative/
    python studies/simulator.py --dry_run     prints the commands, and runs nothing
    python studies/simulator.py --only UnlockPickup

Every stage is one command. It goes on where it was stopped; one that would start anew is passed over where its result
is there. A simulator that is not true enough leaves out what needs it. Recordings and simulators lie below recordings/
and simulators/ (not in git); what is small and says something is copied to results/generative/<policy>/<stage>/.
"""

from dataclasses import dataclass

from mop.common.cli import parse, setting
from mop.common.errors import run_script
from studies.stages import ROOT, Stage, fidelity_stage, run_stages, stage_to_out

MAIN = "UnlockPickup"  # the policy of which all is measured
DEFAULT = "default"  # the simulator of MAIN that is trained with the defaults, which takes longer
POLICIES = {  # name -> its checkpoint below results/zoo
    MAIN: "BabyAI-UnlockPickup-v0/trial_0/seed_0",
    "UnlockPickup_1e-5": "BabyAI-UnlockPickup-v0/trial_2/seed_0",
    "GoToLocal": "BabyAI-GoToLocal-v0/trial_0/seed_0",
}
METHODS = {"GoToLocal": ["--methods", "integrated"]}  # of attribution; of the others all
OF = "action:chosen,lpc,routing:2.2"
NULLED = {  # of a policy's routers and experts, the direction that tells best what is carried, or whether the goal is
    # in view where nothing is; see docs/generative.md
    MAIN: "expert_0_2.pca.1",
    "UnlockPickup_1e-5": "expert_0_2.pca.1",
    "GoToLocal": "expert_2_2.nmf.11",
}


def stages(name: str) -> dict[str, Stage]:
    """The stages of a policy, in their order, by name."""
    data, simulator, out = f"recordings/{name}", f"simulators/{name}", f"plots/generative/{name}"
    of_data = ["--data_dir", data]
    learned = ["--tgm_exp_name", name, "--num_updates", "1600", "--lr", "1.5e-3", "--log_interval", "25"]
    validate = ["generative.validate", *of_data, "--of", OF, "--steps_per_episode", "1"]
    saliency = ["generative.saliency", *of_data, "--of", "routing:2.2"]
    by_learned = [*validate, "--simulators", simulator, "--methods", "integrated"]
    found = {
        "recording": Stage(["generative.record", "--checkpoint", checkpoint_of(name), *of_data, "--resume"], data),
        "simulator": Stage(["generative.train_gen_model", *of_data, *learned, "--resume"], simulator),
        "fidelity": fidelity_stage(simulator, of_data),
        "agreement": stage_to_out(f"{out}/agreement", [*validate, *METHODS.get(name, [])]),
        "agreement_learned": stage_to_out(f"{out}/agreement_learned", by_learned)._replace(
            simulator=simulator, policy=checkpoint_of(name)
        ),
        "causes": stage_to_out(f"{out}/causes", [*saliency, "--num_episodes", "40", "--num_points", "8"])._replace(
            also=("checked.csv",)
        ),
        "directions": stage_to_out(f"{out}/directions", ["generative.directions", *of_data]),
        "null": stage_to_out(f"{out}/null", [*_intervene(name), "--null", NULLED[name]]),
    }
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
    found = {
        name: stage_to_out(f"plots/generative/{MAIN}/{name}", line, results.get(line[0]))
        for name, line in words.items()
    }
    learned, simulator = ["--tgm_exp_name", DEFAULT, "--resume"], f"simulators/{DEFAULT}"
    return found | {
        "simulator_default": Stage(["generative.train_gen_model", *of_data, *learned], simulator),
        "fidelity_default": fidelity_stage(simulator, of_data),
    }


def checkpoint_of(name: str) -> str:
    """The checkpoint of a policy, below ROOT."""
    return f"results/zoo/{POLICIES[name]}/checkpoint_final.pt"


@dataclass(frozen=True)
class Settings:
    """The flags."""

    only: str | None = setting(None, "this policy alone (default: all)", choices=POLICIES)
    dry_run: bool = setting(False, "print the commands")


def main() -> int:
    """Run what is missing, and publish after each stage."""
    args = parse(Settings, __doc__)
    for name in [args.only] if args.only else POLICIES:
        run_stages(name, stages(name), ROOT / "results" / "generative" / name, args.dry_run)
    return 0


if __name__ == "__main__":
    run_script(main)
