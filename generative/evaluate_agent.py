"""How well an agent of a game plays: in levels of its training and in unseen ones, beside who looks at nothing.

    python -m generative.evaluate_agent --model_file logs/procgen/coinrun/test/seed_0/model_4005888.pt
    python -m generative.evaluate_agent --model_file ... --num_test_levels 1000 --out plots/coinrun

Each level is played once by each actor: the agent with actions sampled and with the likeliest ones, all actions equally
often (random), and the one action `right and jump`. 95 % intervals: of returns and differences by a bootstrap over
levels, of success Wilson's. `minus_random` is the difference in the same levels.

Writes evaluation.csv, a row for each actor and set of levels, and episodes.csv, a row for each episode, to --out.
"""

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from generative.agents.level_play import Actor, AgentActor, ConstantActor, RandomActor, play_levels
from generative.agents.networks import GameAgent, load_agent
from generative.domains.coinrun.games import ALL_LEVELS, RIGHT_AND_JUMP, UNSEEN_LEVELS, check_playable
from mop.common.configuration import Parser, check_flags, integer, optional
from mop.common.errors import run_script
from mop.common.files import check_writable, write_csv
from mop.common.seeding import stream_seed
from mop.statistics.bootstrap import bootstrap_means
from mop.statistics.intervals import wilson_interval
from mop.training.devices import choose_device

RANDOM = "random"


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.evaluate_agent", description=__doc__)
    add = parser.add_argument
    add("--model_file", "--checkpoint", required=True, metavar="FILE", help="a model_<t>.pt of generative.train_agent")
    add("--env_name", help="the game, to make sure (default: whatever the agent plays)")
    add("--num_test_levels", default="200", help="levels of each set (default: %(default)s)")
    add("--max_steps", metavar="N", help="actions until an episode is cut short (default: the game's limit, 1000)")
    add("--seed", default="0", help="of sampled actions, and of which training levels (default: %(default)s)")
    add("--out", metavar="DIR", help="where the tables are written (default: evaluation/ beside the model)")
    return parser


def level_sets(world: Mapping, count: int, seed: int) -> dict[str, list[int]]:
    """Levels of the training, `count` or all, and as many unseen ones.

    An agent that was trained in all levels has hardly seen any of them twice: then there are unseen ones alone.
    """
    sets = {}
    if world["num_levels"] != ALL_LEVELS:
        rng = np.random.default_rng(stream_seed(seed, "levels of an evaluation"))
        chosen = rng.choice(world["num_levels"], min(count, world["num_levels"]), replace=False)
        sets["training"] = sorted((world["start_level"] + chosen).tolist())
    return sets | {"unseen": list(range(UNSEEN_LEVELS, UNSEEN_LEVELS + count))}


def actors(agent: GameAgent, seed: int) -> dict[str, Actor]:
    """Who plays, by name."""
    return {
        "agent, sampled": AgentActor(agent, True, seed),
        "agent, greedy": AgentActor(agent, False),
        "right and jump": ConstantActor(RIGHT_AND_JUMP),
        RANDOM: RandomActor(seed),
    }


def play_all(args: Namespace, agent: GameAgent, world: Mapping) -> pd.DataFrame:
    """A row for each episode."""
    sets, players = level_sets(world, args.num_test_levels, args.seed), actors(agent, args.seed)
    rows = []
    total = len(players) * sum(map(len, sets.values()))
    with tqdm(total=total, desc="levels", unit="episode", dynamic_ncols=True, leave=False) as bar:
        for name, levels in sets.items():
            for actor, player in players.items():
                episodes = play_levels(world, levels, player, max_steps=args.max_steps, on_episode=bar.update)
                for episode in episodes:
                    outcome = {"return": episode.reward, "success": int(episode.is_success)}
                    length = {"length": len(episode.actions), "out_of_time": int(episode.is_cut)}
                    rows.append({"levels": name, "actor": actor, "level": episode.level} | outcome | length)
    return pd.DataFrame(rows)


def summary_of(episodes: pd.DataFrame) -> pd.DataFrame:
    """A row for each set of levels and actor, with 95 % intervals."""
    rows = []
    for (levels, actor), group in episodes.groupby(["levels", "actor"], sort=False):
        is_random = (episodes["levels"] == levels) & (episodes["actor"] == RANDOM)
        baseline = episodes[is_random].set_index("level")["return"]
        gain = group["return"].to_numpy() - baseline[group["level"]].to_numpy()
        means = bootstrap_means(np.stack([group["return"], gain], 1), np.arange(len(group)))
        row = {"levels": levels, "actor": actor, "num_levels": len(group)}
        for column, name in enumerate(("return", "minus_random")):
            row |= {name: means.mean[0, column], f"{name}_low": means.low[0, column]}
            row |= {f"{name}_high": means.high[0, column]}
        low, high = wilson_interval(int(group["success"].sum()), len(group))
        row |= {"success_rate": group["success"].mean(), "success_low": low, "success_high": high}
        rows.append(row | {"mean_length": group["length"].mean(), "out_of_time": group["out_of_time"].mean()})
    return pd.DataFrame(rows)


def as_text(summary: pd.DataFrame) -> str:
    """The table for the screen."""

    def shown(name: str, form: str) -> list[str]:
        parts = zip(*(summary[f"{name}{end}"] for end in ("", "_low", "_high")), strict=True)
        return [f"{mean:{form}} ({low:{form}} to {high:{form}})" for mean, low, high in parts]

    table = summary[["levels", "actor", "num_levels"]].assign(
        mean_return=shown("return", ".2f"),
        minus_random=shown("minus_random", "+.2f"),
        success=[
            f"{mean:.1%} ({low:.1%} to {high:.1%})"
            for mean, low, high in summary[["success_rate", "success_low", "success_high"]].itertuples(index=False)
        ],
        mean_length=summary["mean_length"].map("{:.0f}".format),
    )
    return table.to_string(index=False)


def main() -> int:
    """Check the flags, play, tell."""
    args = parser().parse_args()
    check_flags(args, num_test_levels=integer(5, 10**6), seed=integer(0), max_steps=optional(integer(1)))
    agent, config = load_agent(args.model_file, args.env_name)
    check_playable(config["world"]["env_name"], config["world"]["distribution_mode"])
    out = Path(args.out or Path(args.model_file).parent / "evaluation" / Path(args.model_file).stem)
    check_writable(out, "--out")
    choose_device("cpu")
    episodes = play_all(args, agent, config["world"])
    summary = summary_of(episodes)
    for name, table in (("episodes.csv", episodes), ("evaluation.csv", summary)):
        write_csv(out / name, table)
    print(as_text(summary))
    print(f"tables: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
