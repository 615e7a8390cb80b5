"""Draw the paths and the instability of experiments, and print their table. Several directories: seeds are pooled.

    python -m lmc_rl.analyze --results_dir results/base/Hopper-v5/SAC/seed_42_20261122_140000
    python -m lmc_rl.analyze --results_dir results/base/*/*/seed_* --out plots/lmc

Writes all_interpolations.png, interp_fork_<id>.png, instability_over_time.png and instability.md. Experiments that
differ in their seeds alone are one panel, with an interval over parents; others are panels side by side.
"""

import os
from pathlib import Path

from lmc_rl.analysis import load_experiment
from lmc_rl.reports import report
from mop.base.configuration import Parser, check_flags, integer, optional
from mop.base.errors import run_script
from mop.base.files import check_writable


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m lmc_rl.analyze", description=__doc__)
    parser.add_argument("--results_dir", nargs="+", required=True, metavar="DIR", help="folders of lmc_rl.run_env")
    parser.add_argument(
        "--total_steps", help="fork points are shown as fractions of these steps (default: those of the run)"
    )
    parser.add_argument(
        "--out", help="folder of the figures (default: <results_dir>/fork_analysis, of several their common folder's)"
    )
    return parser


def main() -> int:
    """Load, draw, tell."""
    args = parser().parse_args()
    check_flags(args, total_steps=optional(integer(1)))
    folders = sorted({Path(folder).resolve() for folder in args.results_dir})
    experiments = [load_experiment(folder, args.total_steps) for folder in folders]
    out = Path(args.out) if args.out else Path(os.path.commonpath(folders)) / "fork_analysis"
    check_writable(out, "--out" if args.out else "--results_dir")
    for experiment in experiments:
        if args.total_steps is None:
            experiment.write()
    report(experiments, out)
    return 0


if __name__ == "__main__":
    run_script(main)
