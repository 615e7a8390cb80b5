"""Draw the paths and the instability of experiments, and print their table. Several directories: seeds are pooled.

    python -m lmc_rl.analyze --results_dir results/base/Hopper-v5/SAC/seed_42_20261122_140000
    python -m lmc_rl.analyze --results_dir results/base/*/*/seed_* --out plots/lmc

Writes all_interpolations.png, interp_fork_<id>.png, instability_over_time.png and instability.md. Experiments that
differ in their seeds alone are one panel, with an interval over parents; others are panels side by side. Folders are
all of lmc_rl.run_env, or all of lmc_rl.run_mop, which adds rise_by_part.png.
"""

import os
from pathlib import Path

from lmc_rl.analysis import load_experiment
from lmc_rl.imitation_settings import load_settings
from lmc_rl.line_analysis import load_line_experiment
from lmc_rl.line_reports import report_lines
from lmc_rl.reports import report
from mop.common.configuration import Parser, check_flags, integer, optional
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m lmc_rl.analyze", description=__doc__)
    parser.add_argument("--results_dir", nargs="+", required=True, metavar="DIR", help="folders of experiments")
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
    of_imitation = [folder for folder in folders if load_settings(folder) is not None]
    if 0 < len(of_imitation) < len(folders):
        raise InputError(
            "--results_dir: some folders are of run_env and some of run_mop; analyze them one kind at a time"
        )
    if of_imitation and args.total_steps is not None:
        raise InputError("--total_steps is for experiments of run_env alone; leave it out")
    if of_imitation:
        experiments = [load_line_experiment(folder) for folder in folders]
    else:
        experiments = [load_experiment(folder, args.total_steps) for folder in folders]
    out = Path(args.out) if args.out else Path(os.path.commonpath(folders)) / "fork_analysis"
    check_writable(out, "--out" if args.out else "--results_dir")
    for experiment in experiments:
        if args.total_steps is None:
            experiment.write()
    (report_lines if of_imitation else report)(experiments, out)
    return 0


if __name__ == "__main__":
    run_script(main)
