"""Many runs as a sample of trainings: every measure against lpc_alpha and by phase, with the seed as the unit.

    python seed_statistics.py                                     every task under evaluation_cache/
    python seed_statistics.py --task BabyAI-UnlockPickup-v0
    python seed_statistics.py --task BabyAI-UnlockPickup-v0 --phases by_door_opened --state cell direction
    python seed_statistics.py --task BabyAI-UnlockPickup-v0 --action forward        phases with the action held fixed
    python seed_statistics.py --task BabyAI-UnlockPickup-v0 --where num_updates=300 eval_seed=0
    python seed_statistics.py --only measures_against_alpha lpc_maps --format pdf --width 6.75

It reads the results and routing caches of `batch_eval.py`, and writes tables (CSV) and figures to
plots/<task_id>/statistics/. Runs that differ in more than lpc_alpha, trial and seed are no sample: the most frequent
settings count, or those of --where. Which runs are left out, and why, is printed and in left_out.csv.
Exit code 0: everything asked for is written; 1: a task has no run that can be analysed, the others are written;
2: the command itself cannot be carried out.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import sys
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from mop.analysis.actions import DEFAULT_STATE, STATE_PARTS
from mop.apps import flags, samples, statistics_page
from mop.apps.samples import Asked
from mop.apps.statistics_page import Tables
from mop.apps.template import chosen
from mop.artifacts.run_paths import CACHE_DIR
from mop.common.cli import parse, setting
from mop.common.conventions import ACTION_NAMES
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, only_process, write_together

PHASES = tuple(samples.phase_words().values())


@dataclass(frozen=True)
class Settings(flags.SavingSettings):
    """The flags."""

    cache_dir: str = setting(CACHE_DIR, "results and caches")
    task: tuple[str, ...] | None = setting(None, "only these (of several: NAME, NAME/ID)", metavar="TASK_ID")
    phases: str = setting(samples.AUTO_PHASES, "how the steps are split; auto: what suits the task", choices=PHASES)
    state: tuple[str, ...] = setting(
        tuple(DEFAULT_STATE), "what the S of I(S; A) is made of", choices=STATE_PARTS, metavar="PART"
    )
    action: str | None = setting(None, "only the steps of this action", choices=ACTION_NAMES)
    update: int | None = setting(None, "the periodic checkpoints of this update (default: the final ones)", low=0)
    where: tuple[str, ...] = setting((), "only runs with these settings", metavar="KEY=VALUE")


def main() -> int:
    """Analyse each task, write its tables and figures, and print what was found."""
    args = parse(Settings, __doc__)
    chosen(statistics_page.FIGURES, args.only)  # raises before the work if there is no such figure
    check_writable(args.plots_dir, "--plots_dir")
    where, problems = samples.parse_where(args.where), []
    tasks = samples.tasks_asked(args.cache_dir, args.task)
    for task_id in tasks:
        asked = Asked(task_id, args.phases, args.state, args.action, args.update, where, args.cache_dir)
        try:
            write(statistics_page.analyse(asked, partial(tqdm, desc=task_id, unit="run", dynamic_ncols=True)), args)
        except InputError as error:
            problems.append(str(error))
    if len(problems) == len(tasks):
        raise InputError("; ".join(problems) or f"no routing cache under {args.cache_dir}/: `python batch_eval.py`")
    print(*(f"warning: {problem}" for problem in problems), sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


def write(tables: Tables, args: Settings) -> None:
    """Write tables and figures, and print what was found and where it is."""
    folder = statistics_page.folder_of(tables.asked, args.plots_dir)
    with only_process(folder, "another --plots_dir"):
        write_together(statistics_page.table_files(tables, folder))
        numbers = statistics_page.in_numbers(tables)
        print(tables.asked.task_id, numbers.to_string(index=False, na_rep="", float_format="{:.4g}".format), sep="\n")
        print(*(f"note: {note}" for note in tables.notes), sep="\n", end="\n" if tables.notes else "")
        print(f"tables: {folder / '*.csv'}")
        statistics_page.page_of(tables, args.plots_dir).save_as_script(args)


if __name__ == "__main__":
    run_script(main)
