"""The numbers of CoinRun: an agent that learns on two cores, its returns, its simulator, and two claims about it.

    python studies/coinrun.py                 does what is missing, and writes results/coinrun/
    python studies/coinrun.py --dry_run       prints the commands, and runs nothing

Needs envpool (`make coinrun`). Every stage is one command. It goes on where it was stopped; one that would start anew
is passed over where its result is there. Agent, recordings and simulator lie below
logs/, recordings/ and simulators/ (not in git); what is small and says something is copied to results/coinrun/<stage>/.
"""

from dataclasses import dataclass
from pathlib import Path

from mop.common.cli import parse, setting
from mop.common.errors import run_script
from studies.stages import ROOT, Stage, fidelity_stage, run_stages, stage_to_out

NAME = "coinrun"
NUM_STEPS = 3_000_000
OUT = f"plots/{NAME}"
RUN = "logs/procgen/coinrun/small/seed_0"
AGENT = f"{RUN}/model_3002368.pt"  # whole updates of 64 x 64 steps
DATA, MORE_DATA, SIMULATOR = f"recordings/{NAME}", f"recordings/{NAME}_more", f"simulators/{NAME}"
MIN_FIDELITY = "0.45"  # below the usual 0.7: actions of an agent that hesitates are easily others
FEW = ("--num_worlds", "200", "--num_random", "40")
MOVES = {  # of the memory, stage -> flags of generative.intervene
    "null": [*FEW, "--null", "probe.saw ahead"],
    "swap": [*FEW, "--from", "probe.saw ahead", "--to", "probe.crate ahead"],
    "clamp": [*FEW, "--clamp", "probe.saw ahead=1.5"],
    # what was found with "swap" is asked again, in other levels and with other random directions
    "swap_again": [
        *("--from", "probe.saw ahead", "--to", "probe.crate ahead", "--eval_seed", "1000", "--seed", "1"),
        *("--num_worlds", "300", "--num_random", "60"),
    ],
}
TRAINING = (
    *("--exp_name", "small", "--num_levels", "500", "--num_timesteps", f"{NUM_STEPS}"),
    *("--num_checkpoints", "15", "--seed", "0"),
)


def stages() -> dict[str, Stage]:
    """The stages in their order, by name."""
    of_agent, to_learn, of_data = ["--model_file", AGENT], ["--data_dir", DATA], ["--data_dir", MORE_DATA]
    train = ["generative.train_agent", *TRAINING, "--resume"]
    record = ["generative.record", *of_agent, "--resume"]
    learn = ["generative.train_gen_model", *to_learn, "--tgm_exp_name", NAME, "--resume"]
    by_simulator = [*of_data, "--simulator", SIMULATOR, "--min_fidelity", MIN_FIDELITY]
    moved = ["generative.intervene", *of_agent, "--directions", f"plots/{NAME}/directions/directions.npz"]
    moved += ["--policy", "sampled", "--max_steps", "250"]
    found = {
        "agent": Stage(train, RUN, Path(AGENT).name),
        "training": stage_to_out(f"{OUT}/training", ["generative.plot_training_csv", "--datapath", RUN]),
        "evaluation": stage_to_out(f"{OUT}/evaluation", ["generative.evaluate_agent", *of_agent], "evaluation.csv"),
        "recording": Stage([*record, *to_learn, "--num_steps", "100000"], DATA),
        # of 100 episodes in levels of the test split, and more
        "more": Stage([*record, *of_data, "--num_steps", "250000", "--seed", "1"], MORE_DATA),
        "simulator": Stage(learn, SIMULATOR),
        "fidelity": fidelity_stage(SIMULATOR, of_data),
        "directions": stage_to_out(f"{OUT}/directions", ["generative.directions", *of_data]),
    }
    found |= {name: stage_to_out(f"{OUT}/{name}", [*moved, *flags]) for name, flags in MOVES.items()}
    saliency = ["generative.saliency", *by_simulator, "--of", "jump", "--num_episodes", "40"]
    hazards = ["generative.hazards", *by_simulator]
    found["saliency"] = stage_to_out(f"{OUT}/saliency", saliency)._replace(also=("agreement.csv",))
    return found | {"hazards": stage_to_out(f"{OUT}/hazards", hazards)}


@dataclass(frozen=True)
class Settings:
    """The flags."""

    dry_run: bool = setting(False, "print the commands")


def main() -> int:
    """Run what is missing, and publish after each stage."""
    args = parse(Settings, __doc__)
    run_stages("CoinRun", stages(), ROOT / "results" / NAME, args.dry_run)
    return 0


if __name__ == "__main__":
    run_script(main)
