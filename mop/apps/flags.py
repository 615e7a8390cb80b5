"""The command line of the apps."""

import sys
from argparse import Namespace
from dataclasses import dataclass

from mop.apps.export import FORMATS, LARGEST_WIDTH_IN, LEAST_WIDTH_IN
from mop.artifacts.run_paths import CACHE_DIR, DEFAULT_ROOTS, PLOTS_DIR, RESULTS_TABLE
from mop.common.cli import Parser, setting
from mop.common.configuration import check_flags, number
from mop.common.conventions import ACTION_NAMES
from mop.common.values import MAX_ENVS, MAX_EPISODES, choice, integer, optional

CHECKPOINT_DIRS = (*DEFAULT_ROOTS, "results/zoo")
RESULTS_PATHS = (RESULTS_TABLE, "results/tasks.csv", "results/alpha.csv")


@dataclass(frozen=True)
class SavingSettings:
    """Which figures are saved, how and where."""

    plots_dir: str = setting(PLOTS_DIR, "where pictures go")
    only: tuple[str, ...] | None = setting(
        None, "save these figures alone, named as their files", metavar="FIGURE", group="as a script"
    )
    format: str = setting("png", "of the files", choices=FORMATS, group="as a script")
    width: float | None = setting(
        None, "of the figures; null: as they are drawn for a screen", low=LEAST_WIDTH_IN, high=LARGEST_WIDTH_IN,
        metavar="INCHES", group="as a script",
    )  # fmt: skip


@dataclass(frozen=True)
class CacheSettings(SavingSettings):
    """Where checkpoints, results and routing caches are."""

    checkpoint_dir: tuple[str, ...] = setting(CHECKPOINT_DIRS, "trees of checkpoints", metavar="DIR")
    cache_dir: str = setting(CACHE_DIR, "results and caches")


def parser(description: str) -> Parser:
    """The flags of an app over routing caches: where things are, and how figures are saved."""
    added = saving_parser(description)
    added.add_argument(
        "--checkpoint_dir", nargs="+", default=CHECKPOINT_DIRS, metavar="DIR", help="trees of checkpoints"
    )
    added.add_argument("--cache_dir", default=CACHE_DIR, help="results and caches (default: %(default)s)")
    return added


def saving_parser(description: str) -> Parser:
    """The flags that all apps share: where figures go, which, and how."""
    parser = Parser(description=description)
    parser.add_argument("--plots_dir", default=PLOTS_DIR, help="where pictures go (default: %(default)s)")
    saving = parser.add_argument_group("as a script")
    saving.add_argument("--only", nargs="+", metavar="FIGURE", help="save these figures alone, named as their files")
    saving.add_argument(
        "--format", default="png", metavar="|".join(FORMATS), help="of the files (default: %(default)s)"
    )
    saving.add_argument("--width", metavar="INCHES", help="of the figures; null: as they are drawn for a screen")
    return parser


def run_parser(description: str) -> Parser:
    """The flags of an app that shows one run: where things are, which run is shown first, and how it is evaluated."""
    added = parser(description)
    added.add_argument("--task", help="begin with a run of this task id (of several: NAME, NAME/ID)")
    added.add_argument("--trial", help="... of this trial")
    added.add_argument("--seed", help="... of this seed")
    added.add_argument("--update", help="... of this update (a periodic checkpoint)")
    added.add_argument("--action", help="show only the steps of this action: forward, toggle, ...")
    added.add_argument("--min_steps", default=1, help="leave out cells with fewer steps (default: %(default)s)")
    added.add_argument("--fresh", action="store_true", help="evaluate the checkpoint now, without the cache")
    added.add_argument("--num_episodes", default=100, help="worlds of a fresh evaluation (default: %(default)s)")
    added.add_argument("--num_envs", default=64, help="of these, side by side (default: %(default)s)")
    return added


def parse(parser: Parser) -> Namespace:
    """The checked flags of this process; a "--" in front of them is left out. Raises InputError naming a wrong flag."""
    given = sys.argv[1:]
    args = parser.parse_args(given[1:] if given[:1] == ["--"] else given)
    width = optional(number(LEAST_WIDTH_IN, high=LARGEST_WIDTH_IN))
    check_flags(args, format=choice(*FORMATS), width=width)
    if "num_episodes" in args:
        index = optional(integer(0))
        counts = {"num_episodes": integer(1, MAX_EPISODES), "num_envs": integer(1, MAX_ENVS)}
        shown = {"action": optional(choice(*ACTION_NAMES)), "min_steps": integer(1)}
        check_flags(args, **counts, **shown, trial=index, seed=index, update=index)
    return args
