"""The trained policies of results/zoo: all open, say what the results table says, and still solve their tasks."""

import pandas as pd
import pytest
import torch
from bare_minigrid import bare_env, bare_reset, observation_vector
from scripts import REPOSITORY

from mop.artifacts.checkpoints import find_checkpoints, load_checkpoint
from mop.envs.bot_paths import BotPaths
from mop.evaluation.evaluate import encoder_for, evaluate
from mop.statistics.intervals import interval_of_rate, wilson_interval
from mop.training.policies import policy_from_checkpoint
from studies import tasks

RESULTS = REPOSITORY / "results"
FOUND = find_checkpoints([RESULTS / "zoo"])
NUM_EPISODES = 200
OTHER_WORLDS = 2_000_000  # eval_seed: worlds of neither the table nor any training
TRIAL, _, _ = tasks.POLICIES["mixture"]
KEY = ["task_id", "trial", "seed"]
CONFIRMED = ("GoToObj", "UnlockPickup", "KeyCorridorS3R3", "GoToLocal", "PickupLoc", "PutNextLocal", "GoTo", "Open")
CONFIRMED += ("GoToObjMaze", "BossLevel")
NUM_BARE, BARE_WORLDS = 25, 3_000_000  # their number and first seed


def test_the_zoo_holds_the_median_seed_of_each_task_of_the_table():
    mixtures = pd.read_csv(RESULTS / "tasks.csv").query("setting == 'mixture'")
    of_table = {found.key.task_id: found.key for found in FOUND if found.key.trial == TRIAL}
    assert of_table.keys() == set(mixtures["task_id"]) and len(of_table) >= 16
    for task_id, rows in mixtures.groupby("task_id"):
        own = rows.set_index("seed")["success_rate"]
        assert own[of_table[task_id].seed] == own.quantile(0.5, "lower"), task_id  # of an even number, the worse one
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


def test_what_the_pages_say_of_drawn_actions():
    greedy, drawn = (pd.read_csv(RESULTS / name).set_index(KEY) for name in ("zoo.csv", "zoo_drawn.csv"))
    assert set(drawn.index) == set(greedy.index) and set(drawn["temperature"]) == {0.7}
    assert set(drawn["num_episodes"]) == {1000} and set(drawn["eval_seed"]) == {0}
    of_table = [table.xs(TRIAL, level="trial").droplevel("seed") for table in (greedy, drawn)]
    counts = [int((table["success_rate"] >= 0.985).sum()) for table in of_table]
    page = (REPOSITORY / "docs" / "learning_speed.md").read_text(encoding="utf-8")
    assert f"in {counts[1]} of the {len(of_table[0])} tasks, {counts[0]} when greedy" in page
    for name in ("SynthSeq", "BossLevel", "GoToImpUnlock", "GoToSeq", "Unlock", "SynthLoc", "GoTo", "Synth"):
        one, other = (table.loc[f"BabyAI-{name}-v0"] for table in of_table)
        success = [100 * other[column] for column in ("success_rate", "success_low", "success_high")]
        cells = f"{100 * one['success_rate']:.1f}; {one['path_ratio']:.2f} | "
        cells += "{:.1f} ({:.1f} to {:.1f})".format(*success) + f"; {other['path_ratio']:.2f}"
        assert f"| {name} | {cells} |" in page


def test_drawn_actions_in_other_worlds_solve_what_the_table_says():
    (found,) = (found for found in FOUND if found.key.task_id == "BabyAI-GoToSeq-v0")
    checkpoint, paths = load_checkpoint(found.path), BotPaths(found.key.task_id, None, None)
    encoder = encoder_for(checkpoint)
    result = evaluate(checkpoint, encoder, paths, 100, OTHER_WORLDS, record_steps=False, temperature=0.7)
    row = pd.read_csv(RESULTS / "zoo_drawn.csv").set_index(KEY).loc[(found.key.task_id, TRIAL, found.key.seed)]
    low, high = interval_of_rate(result.metrics["success_rate"], 100)
    assert low <= row["success_high"] and high >= row["success_low"]


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


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIRMED)
@torch.no_grad()
def test_bare_minigrid_and_the_plain_equations_confirm_it(name):
    """Minigrid's own worlds and view, and the equations one step at a time; nothing of the fast path."""
    (found,) = (found for found in FOUND if (found.key.task_id, found.key.trial) == (f"BabyAI-{name}-v0", TRIAL))
    checkpoint = load_checkpoint(found.path)
    (policy, lang_proj), encoder = policy_from_checkpoint(checkpoint), encoder_for(checkpoint)
    env, num_solved = bare_env(found.key.task_id), 0
    for seed in range(BARE_WORLDS, BARE_WORLDS + NUM_BARE):
        obs, hidden, ended = bare_reset(env, seed), policy.initial_hidden(1), [False]
        lang = lang_proj(encoder.embed([obs["mission"]]))
        while not any(ended):
            inputs = policy.encode(torch.from_numpy(observation_vector(obs, env))[None], lang)
            logits, _, hidden = policy.step(inputs, hidden)
            obs, reward, *ended, _ = env.step(int(logits.argmax()))
        num_solved += reward > 0
    low, high = wilson_interval(num_solved, NUM_BARE)
    row = pd.read_csv(RESULTS / "tasks.csv").set_index(KEY).loc[(found.key.task_id, found.key.trial, found.key.seed)]
    assert low <= row["success_high"] and high >= row["success_low"]
