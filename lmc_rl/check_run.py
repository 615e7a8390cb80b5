"""Train SAC and DDPG from several seeds to their end, without forks: whether all of it runs, and how fast.

    python -m lmc_rl.check_run
    python -m lmc_rl.check_run --total_steps 50000 --seeds 0,1,2,3 --jobs 2
    python -m lmc_rl.check_run --resume          after Ctrl-C, a kill, ...

Writes learning_curves.png, wall_clock.png and check_run.md to results/check_run/<env>/, and the final weights below
model_weights/. Each run is one of lmc_rl.run_env with no forks and no controls, in an experiment named check_run.
"""

from pathlib import Path

import pandas as pd

from lmc_rl.analysis import as_markdown, as_text
from lmc_rl.experiment import run
from lmc_rl.figures import plot_learning_curves, plot_wall_clock
from lmc_rl.settings import ALGORITHM_DEFAULTS, add_flags, settle
from mop.common.configuration import Parser
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_figure
from mop.training.loop import LOG_NAME

DEFAULTS = {"total_steps": 10_000, "learning_starts": 1000, "eval_freq": 500}  # quick, and enough to begin to balance
FLAGS = (
    *("env", "total_steps", "max_episode_steps", "train_freq", "learning_starts", "buffer_size", "eval_freq"),
    *("eval_episodes", "output_dir", "jobs", "resume", "device", "batch_size", "gamma", "tau", "hidden_sizes"),
)
HEAD = ("run", "return at the end", "best", "seconds", "steps/s")


def parser() -> Parser:
    """The command line."""
    quick = ", ".join(f"{name} {value}" for name, value in DEFAULTS.items())
    parser = Parser(prog="python -m lmc_rl.check_run", description=f"{__doc__}\nDefaults of its own: {quick}.\n")
    parser.add_argument("--seeds", default="0,1,2", help="one run of each algorithm for each (default: %(default)s)")
    parser.add_argument("--config", metavar="YAML", help="file with settings that differ from the defaults")
    add_flags(parser, FLAGS)
    return parser


def seeds_of(text: str) -> list[int]:
    """Seeds with commas between them. Raises InputError."""
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise InputError(f"--seeds must be integers with commas between them, not {text!r}")
    return [int(part) for part in text.split(",")]


def main() -> int:
    """Train what is missing, draw, tell."""
    flags = vars(parser().parse_args())
    seeds, config_path = seeds_of(flags.pop("seeds")), flags.pop("config")
    fixed = {"experiment_name": "check_run", "fork_points": "none", "controls": "none", "num_eval_episodes": 2}
    logs, rows = {}, []
    for algo in ALGORITHM_DEFAULTS:
        for seed in seeds:
            own = {**DEFAULTS, **flags, **fixed, "algo": algo, "seed": seed}
            settings, given = settle(own, config_path)
            table = pd.read_csv(run(settings, given) / "training" / "parent" / LOG_NAME)
            label = f"{algo}, seed {seed}"
            logs[label] = table
            last = table.iloc[-1]
            numbers = (last["eval_return"], table["eval_return"].max(), last["seconds"])
            rows.append((label, *(f"{x:,.0f}" for x in numbers), f"{last['env_steps'] / last['seconds']:,.0f}"))
    folder = Path(settings["output_dir"]) / "results" / "check_run" / settings["env"]
    title = f"{settings['env']}, {settings['total_steps']:,} steps"
    write_figure(folder / "learning_curves.png", plot_learning_curves(logs, title))
    write_figure(folder / "wall_clock.png", plot_wall_clock(logs, title))
    write_atomic(folder / "check_run.md", lambda file: file.write(as_markdown(HEAD, rows).encode()))
    print(as_text(HEAD, rows))
    print(f"figures and table: {folder}")
    return 0


if __name__ == "__main__":
    run_script(main)
