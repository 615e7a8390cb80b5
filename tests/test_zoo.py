"""The trained policies of results/zoo: all open, say what the results table says, and still solve their tasks."""

import pandas as pd
import pytest
from conftest import REPOSITORY

from mop.jobs.evaluation import encoder_for, evaluate
from mop.measures.metrics import interval_of_rate
from mop.store.checkpoints import find_checkpoints, load_checkpoint
from mop.worlds.bot_paths import BotPaths

RESULTS = REPOSITORY / "results"
FOUND = find_checkpoints([RESULTS / "zoo"])
NUM_EPISODES = 200
OTHER_WORLDS = 2_000_000  # eval_seed: worlds of neither the table nor any training


def test_the_zoo_holds_a_policy_for_each_task_of_the_table():
    tasks = pd.read_csv(RESULTS / "tasks.csv").query("policy == 'mop'")
    assert {found.key.task_id for found in FOUND} == set(tasks["task_id"])
    assert len(FOUND) >= 10 and all(found.path.stat().st_size < 1_000_000 for found in FOUND)


@pytest.mark.parametrize("found", FOUND, ids=lambda found: found.key.task_id)
def test_success_in_other_worlds_is_that_of_the_table(found):
    checkpoint = load_checkpoint(found.path)
    assert "optimizer_state_dict" not in checkpoint
    bot_paths = BotPaths(found.key.task_id, None, None)
    result = evaluate(checkpoint, encoder_for(checkpoint), bot_paths, NUM_EPISODES, OTHER_WORLDS, record_steps=False)
    rows = pd.concat(pd.read_csv(RESULTS / f"{name}.csv") for name in ("tasks", "alpha"))
    key = (found.key.task_id, found.key.trial, found.key.seed)
    row = rows.set_index(["task_id", "trial", "seed"]).loc[[key]].iloc[0]
    low, high = interval_of_rate(result.metrics["success_rate"], NUM_EPISODES)
    assert low <= row["success_high"] and high >= row["success_low"]
