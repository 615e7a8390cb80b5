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

import functools
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from mop.analysis.actions import DEFAULT_STATE, STATE_PARTS
from mop.analysis.routing_data import ACTION_NAMES
from mop.apps import flags, statistics_page
from mop.apps.export import Export
from mop.apps.run_figures import chosen, save_figures
from mop.apps.statistics_page import Asked, Tables
from mop.artifacts.run_paths import CACHE_DIR
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, write_together
from mop.common.values import choice, integer, optional


def parser() -> Parser:
    """The command line of this script."""
    added = flags.saving_parser(__doc__)
    added.add_argument("--cache_dir", default=CACHE_DIR, help="results and caches (default: %(default)s)")
    added.add_argument("--task", nargs="+", metavar="TASK_ID", help="only these (of several: NAME, NAME/ID)")
    added.add_argument(
        "--phases", default=statistics_page.AUTO_PHASES,
        help="how the steps are split: by_key_phase, by_carrying, ..., none; auto: what suits the task (default)",
    )  # fmt: skip
    added.add_argument(
        "--state", nargs="+", default=list(DEFAULT_STATE), metavar="PART",
        help=f"what the S of I(S; A) is made of: {', '.join(STATE_PARTS)} (default: {' '.join(DEFAULT_STATE)})",
    )  # fmt: skip
    added.add_argument("--action", help="only the steps of this action: forward, toggle, ...")
    added.add_argument("--update", help="the periodic checkpoints of this update (default: the final ones)")
    added.add_argument("--where", nargs="+", default=[], metavar="KEY=VALUE", help="only runs with these settings")
    return added


def main() -> int:
    """Analyse each task, write its tables and figures, and print what was found."""
    args = flags.parse(parser())
    check_flags(args, action=optional(choice(*ACTION_NAMES)), update=optional(integer(0)))
    if args.phases not in (words := statistics_page.phase_words().values()):
        raise InputError(f"--phases must be one of {', '.join(words)}, not {args.phases!r:.60}")
    for part in args.state:
        if part not in STATE_PARTS:
            raise InputError(f"--state is made of {', '.join(STATE_PARTS)}, not {part!r:.40}")
    chosen(statistics_page.FIGURES, args.only)  # raises before the work if there is no such figure
    check_writable(args.plots_dir, "--plots_dir")
    where, problems = statistics_page.parse_where(args.where), []
    tasks = statistics_page.tasks_asked(args.cache_dir, args.task)
    for task_id in tasks:
        asked = Asked(task_id, args.phases, tuple(args.state), args.action, args.update, where, args.cache_dir)
        try:
            write(statistics_page.analyse(asked, functools.partial(with_bar, task_id)), args)
        except InputError as error:
            problems.append(str(error))
    if len(problems) == len(tasks):
        raise InputError("; ".join(problems) or f"no routing cache under {args.cache_dir}/: `python batch_eval.py`")
    print(*(f"warning: {problem}" for problem in problems), sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


def with_bar(task_id: str, found: Iterator, total: int) -> Iterable:
    """A progress bar over the runs of a task."""
    return tqdm(found, total=total, desc=task_id, unit="run", dynamic_ncols=True)


def write(tables: Tables, args: Namespace) -> None:
    """Write tables and figures, and print what was found and where it is."""
    folder = statistics_page.folder_of(tables.asked, args.plots_dir)
    drawings, export = statistics_page.drawings_of(tables, args.width), Export(args.format, args.width)
    figures = chosen(drawings, args.only)
    with claimed(folder) as is_mine:
        if not is_mine:
            raise InputError(f"another process is writing to {folder}: wait for it, or name another --plots_dir")
        write_together(statistics_page.table_files(tables, folder))
        print(f"{tables.asked.task_id}\n{statistics_page.format_tables(tables)}")
        print(*(f"note: {note}" for note in tables.notes), sep="\n", end="\n" if tables.notes else "")
        print(f"tables: {folder / '*.csv'}")
        save_figures(
            figures,
            folder,
            export,
            lambda name: statistics_page.caption_of(tables, name, drawings[name].about, export, args.plots_dir),
        )


if __name__ == "__main__":
    run_script(main)
