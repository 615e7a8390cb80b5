"""Train a learner on a MuJoCo environment, fork it, and measure what is lost on the lines between its children.

    python -m lmc_rl.run_env --env InvertedDoublePendulum-v5 --algo SAC --seed 42
    python -m lmc_rl.run_env --env Hopper-v5 --algo DDPG --fork_points 0.1,0.3,0.5,0.7,0.9
    python -m lmc_rl.run_env --env Hopper-v5 --seed 42 --fork_buffer_strategy frozen --jobs 2
    python -m lmc_rl.run_env --env Hopper-v5 --seed 42 --split_noise replay        which noise breaks connectivity?
    python -m lmc_rl.run_env --env Hopper-v5 --seed 42 --resume                    after Ctrl-C, a kill, ...

The run is trained to its end; at each fork point it leaves a snapshot, from which its children continue to the same
step, each with noise of its own. Then policies on the straight line between two children are played in the same worlds.
B is the largest loss against the chord between the ends, I that against their mean (Frankle et al. 2020), both in
percent of (return of the ends - random policy) with 95 % intervals. Connectivity: `connected` where the interval of B
is below --tolerance, `barrier` where it is above, else `undecided`.

Writes results/<experiment_name>/<env>/<algo>/seed_<seed>_<time>/ and model_weights/<the same>/; see docs/lmc.md.
"""

from lmc_rl.analysis.report import report_of
from lmc_rl.config import RLConfig, resolve_rl
from lmc_rl.experiment import run
from mop.common.cli import Parser, parser_of
from mop.common.errors import run_script


def parser() -> Parser:
    """The command line."""
    return parser_of(RLConfig, __doc__, "file with settings that differ from the defaults")


def main() -> int:
    """Run one experiment, and report it."""
    flags = vars(parser().parse_args())
    report_of(run(resolve_rl(flags, flags.pop("config"))))
    return 0


if __name__ == "__main__":
    run_script(main)
