"""Draw the training log of any run of this project: of policies, learners of lmc_rl, simulators, agents of games.

    python -m generative.plot_training_csv --datapath simulators/UnlockPickup
    python -m generative.plot_training_csv --datapath logs/procgen/coinrun/test/seed_0      of an agent of a game
    python -m generative.plot_training_csv --datapath checkpoints/.../training_log.csv --out plots/run

Writes plot.png, a panel for each measure, and plot_for_fig.png, of those that say how well the run does.
"""

from pathlib import Path

import pandas as pd

from generative.figures.training_curves import plot_log
from mop.common.configuration import Parser
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, read_bytes, write_figure
from mop.training.loop import LOG_NAME

LOG_NAMES = (LOG_NAME, "log.csv")  # the latter of agents of games
SHOWN = (  # in plot_for_fig.png
    *("loss", "obs", "val_exact", "success_rate", "eval_return", "recent_return", "mean_episode_rewards"),
)


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.plot_training_csv", description=__doc__)
    parser.add_argument("--datapath", required=True, help=f"folder of a run, or its {' or '.join(LOG_NAMES)}")
    parser.add_argument("--out", help="folder of the pictures (default: that of the log)")
    return parser


def read_log(path: Path) -> pd.DataFrame:
    """The rows of a training log. Raises InputError where the file is none."""
    read_bytes(path)
    try:
        return pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is no training log ({' '.join(str(error).split())[:200]})") from None


def main() -> int:
    """Read, draw, tell."""
    args = parser().parse_args()
    path = Path(args.datapath)
    if path.is_dir():
        path = next((path / name for name in LOG_NAMES if (path / name).exists()), path / LOG_NAME)
    table, folder = read_log(path), Path(args.out or path.parent)
    check_writable(folder, "--out")
    title = path.resolve().parent.name
    everything = write_figure(folder / "plot.png", plot_log(table, title))
    columns = [name for name in SHOWN if name in table]
    for_figure = write_figure(folder / "plot_for_fig.png", plot_log(table, title, tuple(columns) or None))
    print(f"{everything}, {for_figure}: {len(table)} rows")
    return 0


if __name__ == "__main__":
    run_script(main)
