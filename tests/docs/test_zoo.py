"""The trained policies of results/zoo: all open, say what the results table says, and still solve their tasks."""

import pandas as pd
import pytest
from scripts import REPOSITORY

from mop.artifacts.checkpoints import find_checkpoints, load_checkpoint
from mop.envs.bot_paths import BotPaths
from mop.evaluation.evaluate import encoder_for, evaluate
from mop.statistics.intervals import interval_of_rate
from studies import tasks

RESULTS = REPOSITORY / "results"
FOUND = find_checkpoints([RESULTS / "zoo"])
NUM_EPISODES = 200
OTHER_WORLDS = 2_000_000  # eval_seed: worlds of neither the table nor any training
TRIAL, _, _ = tasks.POLICIES["mixture"]
KEY = ["task_id", "trial", "seed"]


def test_the_zoo_holds_the_median_seed_of_each_task_of_the_table():
    mixtures = pd.read_csv(RESULTS / "tasks.csv").query("setting == 'mixture'")
    of_table = {found.key.task_id: found.key for found in FOUND if found.key.trial == TRIAL}
    medians = {task_id: tasks.median_seed(rows) for task_id, rows in mixtures.groupby("task_id")}
    assert {task_id: key.seed for task_id, key in of_table.items()} == medians and len(medians) >= 16
    assert all(found.path.stat().st_size < 1_000_000 for found in FOUND)


def test_the_table_of_the_zoo_is_that_of_its_policies():
    tables = [pd.read_csv(RESULTS / name).set_index(KEY) for name in ("zoo.csv", "tasks.csv", "linear/tasks.csv")]
    tables = [tables[0], pd.concat(tables[1:])]
    keys = {(found.key.task_id, found.key.trial, found.key.seed) for found in FOUND}
    assert set(tables[0].index) == keys
    both = tables[0].index.intersection(tables[1].index)
    evaluated, trained = (table.loc[both, "success_rate"] for table in tables)  # in the same worlds
    assert len(both) >= 16 and evaluated.equals(trained)


def test_what_the_page_says_of_other_worlds():
    first, other = (pd.read_csv(RESULTS / name).set_index(KEY) for name in ("zoo.csv", "zoo_other_worlds.csv"))
    other = other.loc[first.index]
    overlap = (first["success_low"] <= other["success_high"]) & (other["success_low"] <= first["success_high"])
    of_table = first.index.get_level_values("trial") == TRIAL
    inside = other["success_rate"].between(first["success_low"], first["success_high"])[of_table]
    text = f"All {len(first)} pairs of intervals overlap; of the {of_table.sum()} policies of the table, {inside.sum()}"
    assert overlap.all() and f"{text} have" in (RESULTS / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("found", FOUND, ids=lambda found: f"{found.key.task_id} {found.key.trial}")
def test_success_in_other_worlds_is_that_of_the_table(found):
    checkpoint = load_checkpoint(found.path)
    assert "optimizer_state_dict" not in checkpoint
    bot_paths = BotPaths(found.key.task_id, None, None)
    result = evaluate(checkpoint, encoder_for(checkpoint), bot_paths, NUM_EPISODES, OTHER_WORLDS, record_steps=False)
    key = (found.key.task_id, found.key.trial, found.key.seed)
    row = pd.read_csv(RESULTS / "zoo.csv").set_index(KEY).loc[key]
    low, high = interval_of_rate(result.metrics["success_rate"], NUM_EPISODES)
    assert low <= row["success_high"] and high >= row["success_low"]
