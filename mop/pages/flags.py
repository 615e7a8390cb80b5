"""The command line of the apps."""

import sys
from argparse import Namespace

from mop.base.configuration import MAX_ENVS, MAX_EPISODES, Parser, check_flags, integer, optional
from mop.store.run_keys import CACHE_DIR, DEFAULT_ROOTS, PLOTS_DIR, RESULTS_TABLE

CHECKPOINT_DIRS = (*DEFAULT_ROOTS, "results/zoo")
RESULTS_PATHS = (RESULTS_TABLE, "results/tasks.csv", "results/alpha.csv")


def parser(description: str) -> Parser:
    """The flags that the apps share: where things are."""
    parser = Parser(description=description)
    parser.add_argument(
        "--checkpoint_dir", nargs="+", default=CHECKPOINT_DIRS, metavar="DIR", help="trees of checkpoints"
    )
    parser.add_argument("--cache_dir", default=CACHE_DIR, help="results and caches (default: %(default)s)")
    parser.add_argument("--plots_dir", default=PLOTS_DIR, help="where pictures go (default: %(default)s)")
    return parser


def run_parser(description: str) -> Parser:
    """The flags of an app that shows one run: where things are, which run is shown first, and how it is evaluated."""
    added = parser(description)
    added.add_argument("--task", help="begin with a run of this task id")
    added.add_argument("--trial", help="... of this trial")
    added.add_argument("--seed", help="... of this seed")
    added.add_argument("--update", help="... of this update (a periodic checkpoint)")
    added.add_argument("--fresh", action="store_true", help="evaluate the checkpoint now, without the cache")
    added.add_argument("--num_episodes", default=100, help="worlds of a fresh evaluation (default: %(default)s)")
    added.add_argument("--num_envs", default=64, help="of these, side by side (default: %(default)s)")
    return added


def parse(parser: Parser) -> Namespace:
    """The checked flags of this process; a "--" in front of them is left out. Raises InputError naming a wrong flag."""
    given = sys.argv[1:]
    args = parser.parse_args(given[1:] if given[:1] == ["--"] else given)
    if "num_episodes" in args:
        number = optional(integer(0))
        counts = {"num_episodes": integer(1, MAX_EPISODES), "num_envs": integer(1, MAX_ENVS)}
        check_flags(args, **counts, trial=number, seed=number, update=number)
    return args
