"""Instability against fork point on the double pendulum: SAC and DDPG, buffers copied and frozen, three parents each.

    python results/lmc.py               trains and walks what is missing, and writes results/lmc/
    python results/lmc.py --dry_run     prints the commands of the experiments, and runs nothing
    python results/lmc.py --report      writes what the finished experiments say, and runs nothing

Each experiment is one `python -m lmc_rl.run_env` command; its files stay under results/lmc/ and model_weights/lmc/ (not
in git). Ctrl-C at any time: the same command goes on. Writes results/lmc/instability.md, the table, and the figures
instability_over_time.png and all_interpolations.png.
"""

import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lmc_rl.analysis import load_experiment
from lmc_rl.experiment import run
from lmc_rl.records import CONFIG_NAME, ROWS_NAME
from lmc_rl.reports import report
from lmc_rl.settings import settle
from mop.base.configuration import Parser, check_flags, integer
from mop.base.errors import InputError, run_script

ROOT = Path(__file__).resolve().parent.parent
SEEDS, ALGORITHMS = (1, 2, 3), ("SAC", "DDPG")
STRATEGIES = {"copy": "self,independent", "frozen": "none"}  # the controls are the same for both: once is enough
SHARED = {
    "env": "InvertedDoublePendulum-v5", "total_steps": "20000", "train_freq": "1", "batch_size": "64",
    "learning_rate": "0.001", "learning_starts": "1000", "eval_freq": "2000", "eval_episodes": "5",
    "fork_points": "0.05,0.2,0.4,0.6,0.8,0.9", "alpha_points": "21", "num_eval_episodes": "16",
    "experiment_name": "lmc",
}  # fmt: skip


def experiments() -> list[dict[str, str]]:
    """The flags of each experiment; all of one seed before those of the next."""
    return [
        SHARED | {"algo": algo, "seed": str(seed), "fork_buffer_strategy": strategy, "controls": controls}
        for seed in SEEDS
        for algo in ALGORITHMS
        for strategy, controls in STRATEGIES.items()
    ]


def command(flags: dict[str, str]) -> str:
    """The experiment as a command."""
    words = [word for name, value in flags.items() for word in (f"--{name}", value)]
    return shlex.join(["python", "-m", "lmc_rl.run_env", *words, "--resume"])


def parser() -> Parser:
    """The command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--jobs", default=1, help="processes of an experiment (default: %(default)s)")
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    parser.add_argument("--report", action="store_true", help="run nothing more: write what the finished ones say")
    return parser


def write_report() -> None:
    """Write table and figures of the experiments that have walked along all of their paths."""
    folders = sorted(path.parent for path in (ROOT / "results" / "lmc").glob(f"*/*/seed_*/{CONFIG_NAME}"))
    loaded = [load_experiment(folder) for folder in folders if (folder / ROWS_NAME).exists()]
    finished = [one for one in loaded if len(one.forks) == len(one.settings["fork_points"])]
    if not finished:
        raise InputError("no experiment is finished; leave --report out")
    report(finished, ROOT / "results" / "lmc")
    for path in (ROOT / "results" / "lmc").glob("interp_fork_*.png"):
        path.unlink()  # they are in the folder of each experiment


def main() -> int:
    """Run what is missing, and report after each experiment."""
    args = parser().parse_args()
    check_flags(args, jobs=integer(1))
    for flags in experiments():
        if args.dry_run:
            print(command(flags))
        elif not args.report:
            machine = {"output_dir": str(ROOT), "jobs": args.jobs, "resume": True, "device": "cpu"}
            run(*settle(flags | machine))
            write_report()
    if args.report:
        write_report()
    return 0


if __name__ == "__main__":
    run_script(main)
