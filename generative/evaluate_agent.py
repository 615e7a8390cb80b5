"""Evaluate an agent of a game on training and unseen levels, against baselines that do not look at the frames.

    python -m generative.evaluate_agent --model_file logs/procgen/coinrun/test/seed_0/model_4005888.pt
    python -m generative.evaluate_agent --model_file ... --num_test_levels 1000 --out plots/coinrun

Actors and intervals: docs/coinrun.md. Writes evaluation.csv, a row for each actor and set of levels, and episodes.csv,
a row for each episode, to --out.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from generative.agents.level_play import evaluate, summarise
from generative.agents.networks import load_agent
from generative.domains.coinrun.games import check_playable
from mop.common.cli import parse, required, setting
from mop.common.errors import run_script
from mop.common.files import check_writable, write_csv
from mop.common.tables import interval_text
from mop.training.devices import choose_device


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    model_file: str = required("a model_<t>.pt of generative.train_agent", also=("checkpoint",), metavar="FILE")
    env_name: str | None = setting(None, "the game, to make sure (default: whatever the agent plays)")
    num_test_levels: int = setting(200, "levels of each set", low=5, high=10**6)
    max_steps: int | None = setting(
        None, "actions until an episode is cut short (default: the game's limit, 1000)", low=1
    )
    seed: int = setting(0, "of sampled actions, and of which training levels", low=0)
    out: str = setting("", "folder of the tables (default: evaluation/ in the model's folder)", metavar="DIR")


def as_text(summary: pd.DataFrame) -> str:
    """The table for the screen."""

    def with_interval(name: str, rate: str, form: str) -> list[str]:
        columns = (summary[rate], summary[f"{name}_low"], summary[f"{name}_high"])
        return [interval_text(*row, form) for row in zip(*columns, strict=True)]

    table = summary[["levels", "actor", "num_levels"]].assign(
        mean_return=with_interval("return", "return", ".2f"),
        minus_random=with_interval("minus_random", "minus_random", "+.2f"),
        success=with_interval("success", "success_rate", ".1%"),
        mean_length=summary["mean_length"].map("{:.0f}".format),
    )
    return table.to_string(index=False)


def main() -> int:
    """Evaluate, write and print the tables."""
    settings = parse(Settings, __doc__)
    agent, config = load_agent(settings.model_file, settings.env_name)
    world = config["world"]
    check_playable(world["env_name"], world["distribution_mode"])
    model = Path(settings.model_file)
    out = Path(settings.out or model.parent / "evaluation" / model.stem)
    check_writable(out, "--out")
    choose_device("cpu")
    episodes = evaluate(agent, world, settings.num_test_levels, settings.max_steps, settings.seed)
    summary = summarise(episodes)
    write_csv(out / "episodes.csv", episodes)
    write_csv(out / "evaluation.csv", summary)
    print(as_text(summary))
    print(f"tables: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
