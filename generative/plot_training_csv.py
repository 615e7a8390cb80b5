"""Draw the training log of a run: a policy, a learner of lmc_rl, a simulator, an agent of a game.

    python -m generative.plot_training_csv --datapath simulators/UnlockPickup
    python -m generative.plot_training_csv --datapath logs/procgen/coinrun/test/seed_0      of an agent of a game
    python -m generative.plot_training_csv --datapath checkpoints/.../training_log.csv --out plots/run

Writes plot.png, a panel for each measure, and plot_for_fig.png, with the measures of success alone.
"""

from dataclasses import dataclass
from pathlib import Path

from mop.common.cli import parse, required, setting
from mop.common.errors import run_script
from mop.common.files import check_writable, write_figure
from mop.common.reading import read_csv, reading
from mop.plotting.curves import plot_training_curve
from mop.training.loop import LOG_NAME

LOG_NAMES = (LOG_NAME, "log.csv")  # the second one of agents of games
IN_FIGURE = ("loss", "obs", "val_exact", "success_rate", "eval_return", "recent_return", "mean_episode_rewards")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    datapath: str = required(f"folder of a run, or its {' or '.join(LOG_NAMES)}")
    out: str = setting("", "folder of the pictures (default: the one of the log)")


def main() -> int:
    """Draw both pictures."""
    settings = parse(Settings, __doc__)
    path = Path(settings.datapath)
    if path.is_dir():
        path = next((path / name for name in LOG_NAMES if (path / name).exists()), path / LOG_NAME)
    table = read_csv(path, "training log")
    folder = Path(settings.out or path.parent)
    check_writable(folder, "--out")
    title = path.resolve().parent.name
    columns = [name for name in IN_FIGURE if name in table]
    with reading(path, "training log"):
        figures = plot_training_curve(table, title), plot_training_curve(table, title, columns)
    everything, for_figure = map(write_figure, (folder / "plot.png", folder / "plot_for_fig.png"), figures)
    print(f"{everything}, {for_figure}: {len(table)} rows")
    return 0


if __name__ == "__main__":
    run_script(main)
