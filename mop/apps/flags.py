"""The command line of the apps."""

from dataclasses import dataclass

from mop.artifacts.run_paths import CACHE_DIR, DEFAULT_ROOTS, PLOTS_DIR, RESULTS_TABLE
from mop.common.cli import setting
from mop.common.values import MAX_ENVS, MAX_EPISODES

FORMATS = ("png", "svg", "pdf")
ALL_STEPS = "all steps"
SCALES = RELATIVE, ABSOLUTE = ("relative", "absolute")
LEAST_WIDTH_IN, LARGEST_WIDTH_IN = 2.0, 30.0
CHECKPOINT_DIRS = (*DEFAULT_ROOTS, "results/zoo")
RESULTS_PATHS = (RESULTS_TABLE, "results/tasks.csv")  # other tables are of other input encoders: no seeds of these


@dataclass(frozen=True)
class SavingSettings:
    """Which figures are saved, how and where."""

    plots_dir: str = setting(PLOTS_DIR, "where pictures go")
    only: tuple[str, ...] | None = setting(
        None, "save these figures alone, named as their files", metavar="FIGURE", group="as a script"
    )
    format: str = setting("png", "of the files", choices=FORMATS, group="as a script")
    width: float | None = setting(
        None,
        "of the figures; null: as they are drawn for a screen",
        low=LEAST_WIDTH_IN,
        high=LARGEST_WIDTH_IN,
        metavar="INCHES",
        group="as a script",
    )


@dataclass(frozen=True)
class CacheSettings:
    """Where checkpoints, results and routing caches are."""

    checkpoint_dir: tuple[str, ...] = setting(CHECKPOINT_DIRS, "trees of checkpoints", metavar="DIR")
    cache_dir: str = setting(CACHE_DIR, "results and caches")


@dataclass(frozen=True)
class RunSettings(CacheSettings, SavingSettings):
    """Which run an app shows first, and how it is evaluated."""

    task: str | None = setting(None, "begin with a run of this task id (of several: NAME, NAME/ID)")
    trial: int | None = setting(None, "... of this trial", low=0)
    seed: int | None = setting(None, "... of this seed", low=0)
    update: int | None = setting(None, "... of this update (a periodic checkpoint)", low=0)
    steps: str = setting(ALL_STEPS, "show only these, such as 'action: forward' or 'key phase: before the key'")
    min_steps: int = setting(1, "leave out cells with fewer steps", low=1)
    scale: str = setting(RELATIVE, "of maps: from the least to the greatest, or all that is possible", choices=SCALES)
    fresh: bool = setting(False, "evaluate the checkpoint now, without the cache")
    num_episodes: int = setting(100, "worlds of a fresh evaluation", low=1, high=MAX_EPISODES)
    num_envs: int = setting(64, "of these, side by side", low=1, high=MAX_ENVS)
