"""Train a pathways policy by imitation, fork it, and measure what is lost on the lines between its children.

    python -m lmc_rl.run_mop --task_id BabyAI-UnlockPickup-v0 --fork_points 0,0.02,0.05,0.1,0.2,0.4,0.6,0.8
    python -m lmc_rl.run_mop --task_id BabyAI-GoToLocal-v0 --seed 1 --lpc_alpha 1e-5 --jobs 2
    python -m lmc_rl.run_mop --task_id BabyAI-GoToObj-v0 --num_updates 100 --parts all,routers,experts --align false
    python -m lmc_rl.run_mop --task_id BabyAI-UnlockPickup-v0 --resume           after Ctrl-C, a kill, ...

The run is trained to its end; at each fork point it leaves a snapshot, from which its children continue to the same
update, each with worlds and other random numbers of its own. A fork point of 0 leaves them the initial weights alone.
Every flag of train_mop.py is one here, but those of its folders. Along the line between two children, or with one part
of the weights moving, it measures cross-entropy, accuracy, LPC and routing on fixed trajectories of the bot, and
success in fixed worlds. B is the largest loss against the chord between the ends, I that against their mean.

Writes results/<experiment_name>/<task_id>/mop/seed_<seed>_<time>/ and model_weights/<the same>/; see docs/lmc.md.
"""

from lmc_rl.analysis.report import report_of
from lmc_rl.config import MopFlags, resolve_mop
from lmc_rl.experiment import run
from mop.common.cli import Parser, parser_of
from mop.common.errors import run_script
from mop.common.train_config import DEFAULTS_FILE, read_config


def parser() -> Parser:
    """The command line."""
    return parser_of(MopFlags, __doc__, "file with settings that differ from the defaults", read_config(DEFAULTS_FILE))


def main() -> int:
    """Run one experiment, and report it."""
    flags = vars(parser().parse_args())
    report_of(run(resolve_mop(flags, flags.pop("config"))))
    return 0


if __name__ == "__main__":
    run_script(main)
