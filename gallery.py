"""Runs as a static site, for people without this repository: python gallery.py, then open site/index.html.

Writes a site of every run with a routing cache: a front page with a card for each, and for each a page of its figures.
The pages need no server and no network: open them from the disk, or upload them anywhere.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import sys
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mop.apps import comparison_page, flags, gallery, runs
from mop.common.cli import parse, setting
from mop.common.errors import run_script
from mop.common.files import check_writable


@dataclass(frozen=True)
class Settings(flags.CacheSettings):
    """The flags."""

    results_path: tuple[str, ...] = setting(flags.RESULTS_PATHS, "tables of results", metavar="CSV")
    site_dir: str = setting("site", "where the pages go")


def main() -> int:
    """Write the site. Returns 1 if a run has no page or a result cannot be read, 0 otherwise."""
    args = parse(Settings, __doc__)
    check_writable(args.site_dir, "--site_dir")
    found = list(runs.find_cached_runs(args.checkpoint_dir, args.cache_dir).values())
    table, problems = comparison_page.load_table(args.cache_dir, args.results_path)
    pages = gallery.write_gallery(found, table, Path(args.site_dir))
    for problem in tqdm(pages, total=len(found) + 1, desc="site", unit="page", dynamic_ncols=True):
        problems += [] if problem is None else [problem]
    print(*(f"warning: {problem}" for problem in problems), sep="\n", end="\n" if problems else "", file=sys.stderr)
    print(f"site: {Path(args.site_dir) / gallery.INDEX_NAME}")
    return 1 if problems else 0


if __name__ == "__main__":
    run_script(main)
