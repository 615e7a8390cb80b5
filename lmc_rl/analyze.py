"""Draw the paths and the instability of experiments, and print their table. Several directories: seeds are pooled.

    python -m lmc_rl.analyze --results_dir results/base/Hopper-v5/SAC/seed_42_20261122_140000
    python -m lmc_rl.analyze --results_dir results/base/*/*/seed_* --out plots/lmc

Writes all_interpolations.png, interp_fork_<id>.png, instability_over_time.png and instability.md. Experiments that
differ in their seeds alone are one panel, with an interval over parents; others are panels side by side. Folders are
all of lmc_rl.run_env, or all of lmc_rl.run_mop, which adds rise_by_part.png.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lmc_rl.analysis.report import write_report, write_summaries
from lmc_rl.analysis.results import load_experiment
from mop.common.cli import parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is analyzed, and where the figures go."""

    results_dir: tuple[str, ...] = required("folders of experiments", metavar="DIR")
    total_steps: int | None = setting(None, "steps of the runs, which their configs say: others are refused", low=1)
    out: str | None = setting(
        None, "folder of the figures (default: <results_dir>/fork_analysis, of several their common folder's)"
    )


def main() -> int:
    """Load, draw, print."""
    args = parse(Settings, __doc__)
    folders = sorted({Path(folder).resolve() for folder in args.results_dir})
    experiments = [load_experiment(folder) for folder in folders]
    kinds = {experiment.is_rl for experiment in experiments}
    if len(kinds) > 1:
        raise InputError(
            "--results_dir: some folders are of run_env and some of run_mop; analyze them one kind at a time"
        )
    for experiment in experiments:
        if args.total_steps not in (None, experiment.config.total):
            length = f"the run in {experiment.results} has {experiment.config.total}"
            raise InputError(f"--total_steps {args.total_steps}: {length}; leave the flag out")
    out = Path(args.out) if args.out else Path(os.path.commonpath(folders)) / "fork_analysis"
    check_writable(out, "--out" if args.out else "--results_dir")
    for experiment in experiments:
        write_summaries(experiment)
    write_report(experiments, out)
    return 0


if __name__ == "__main__":
    run_script(main)
