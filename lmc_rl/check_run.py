"""Train SAC and DDPG from several seeds to their end, without forks: whether all of it runs, and how fast.

    python -m lmc_rl.check_run
    python -m lmc_rl.check_run --total_steps 50000 --seeds 0,1,2,3 --jobs 2
    python -m lmc_rl.check_run --resume          after Ctrl-C, a kill, ...

Writes learning_curves.png, wall_clock.png and check_run.md to results/check_run/<env>/, and the final weights below
model_weights/. Each run is one of lmc_rl.run_env with no forks and no controls, in an experiment named check_run.
"""

from dataclasses import dataclass
from pathlib import Path

from lmc_rl.analysis.training_figures import plot_training
from lmc_rl.config import ALGORITHM_DEFAULTS, RLRunSettings, resolve_rl
from lmc_rl.experiment import run
from mop.common.cli import as_dict, parse, setting
from mop.common.errors import run_script
from mop.common.files import write_atomic, write_figure
from mop.common.reading import read_csv
from mop.common.tables import markdown_table, text_table
from mop.training.loop import LOG_NAME

HEAD = ("run", "return at the end", "best", "seconds", "steps/s")


@dataclass(frozen=True, kw_only=True)
class Settings(RLRunSettings):
    """Runs that are quick, and long enough to begin to balance."""

    seeds: tuple[int, ...] = setting((0, 1, 2), "with commas: one run of each algorithm for each", low=0, commas=True)
    total_steps: int = setting(10_000, "environment steps of each run", low=1)
    learning_starts: int = setting(1000, "transitions in the buffer before the first gradient step", low=1)
    eval_freq: int = setting(500, "environment steps between evaluations; 0: none", low=0)


def main() -> int:
    """Train what is missing, draw, print."""
    settings = parse(Settings, __doc__, config="file with settings that differ from the defaults")
    fixed = {"experiment_name": "check_run", "fork_points": "none", "controls": "none", "num_eval_episodes": 2}
    logs, clocks, rows = {}, {}, []
    for algo in ALGORITHM_DEFAULTS:
        for seed in settings.seeds:
            config = resolve_rl({**as_dict(settings, ("seeds",)), **fixed, "algo": algo, "seed": seed})
            table = read_csv(run(config) / "training" / "parent" / LOG_NAME)
            label = f"{algo}, seed {seed}"
            last = table.iloc[-1]
            numbers = (last["eval_return"], table["eval_return"].max(), last["seconds"])
            rows.append((label, *(f"{x:,.0f}" for x in numbers), f"{last['env_steps'] / last['seconds']:,.0f}"))
            logs[label] = clocks["{0}: {3} s, {4} steps/s".format(*rows[-1])] = table
    folder = Path(config.output_dir) / "results" / "check_run" / config.env
    title = f"{config.env}, {config.total_steps:,} steps"
    write_figure(folder / "learning_curves.png", plot_training(logs, title=title))
    write_figure(folder / "wall_clock.png", plot_training(clocks, "seconds", title))
    write_atomic(folder / "check_run.md", lambda file: file.write(markdown_table(HEAD, rows).encode()))
    print(text_table(HEAD, rows))
    print(f"figures and table: {folder}")
    return 0


if __name__ == "__main__":
    run_script(main)
