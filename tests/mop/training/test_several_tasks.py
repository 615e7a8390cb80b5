"""Several tasks in one policy, while it learns: slots, worlds, the loss of each task, resume, lists that are bad."""

import contextlib
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from checks import assert_same, refusal
from scripts import TINY_FLAGS
from torch.nn import functional as F
from training import train_with

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state
from mop.common.task_mix import is_task_id, name_of_list, share_out, slots_by_task
from mop.common.train_config import DEFAULTS_FILE, parse_config
from mop.envs.babyai import NO_LABEL, babyai_task_ids
from mop.envs.vector_env import BabyAIVectorEnv
from mop.plotting.curves import plot_training_curve
from mop.training import loop
from mop.training.imitation_log import bar_text, closing_lines
from mop.training.loss import ComplexityPenalty, imitation_loss, loss_of_tasks

TASKS = ("BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0", "BabyAI-GoToLocal-v0")
SEVERAL = (*TINY_FLAGS, "--task_id", ",".join(TASKS), "--num_envs", "6")  # given twice: the last one counts
EVERYTHING = ("--replay", "2", "--replay_size", "3", "--teacher_mix", "0.7", "--lpc_alpha", "1e-4", "--normalize_lpc")
CLOCK = ["steps_per_s", "seconds"]


def config_of(*flags) -> dict:
    return parse_config("", [str(word) for word in flags])[0]


def trained(folder, *flags, interrupt_at: int = 0) -> dict:
    """Train with these flags below a folder; its training state. interrupt_at: an update after which it is cut off."""
    saves = itertools.count(1)

    def save(path: Path, state: dict) -> None:
        save_training_state(path, state)
        if next(saves) > interrupt_at > 0:
            raise ConnectionError("cut off")

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(*[ConnectionError] * (interrupt_at > 0)):
        patch.setattr(loop, "save_training_state", save)
        train_with(*flags, "--checkpoint_dir", folder)
    config = config_of(*flags)
    return load_training_state(folder / config["task_id"] / f"trial_{config['trial']}" / "training_state.pt")


@pytest.mark.parametrize(
    ("num_slots", "weights", "expected"),
    [
        (6, [1, 1, 1], [2, 2, 2]),
        (7, [1, 1, 1], [3, 2, 2]),  # of equal remainders, the first
        (8, [1, 1, 1], [3, 3, 2]),
        (10, [5, 3, 2], [5, 3, 2]),
        (10, [0.5, 0.3, 0.2], [5, 3, 2]),
        (10, [1, 1, 98], [1, 1, 8]),  # at least one
        (3, [1, 1000, 1e6], [1, 1, 1]),
        (10, [41, 33, 26], [4, 3, 3]),  # quotas 4.1, 3.3, 2.6
        (5, [1], [5]),
    ],
)
def test_slots_are_shared_out_by_weight(num_slots, weights, expected):
    assert share_out(num_slots, weights) == expected


def test_any_shares_are_near_the_weights():
    rng, num_cases = np.random.default_rng(0), 0
    for _ in range(300):
        weights = rng.exponential(size=rng.integers(1, 9)).tolist()
        num_slots = int(rng.integers(len(weights), 50))
        counts = share_out(num_slots, weights)
        quotas = [num_slots * weight / sum(weights) for weight in weights]
        assert sum(counts) == num_slots and min(counts) >= 1
        assert all(count == 1 or count < quota + 1 for count, quota in zip(counts, quotas, strict=True))
        num_cases += 1
    assert num_cases == 300


def test_slots_are_contiguous_and_in_the_order_of_the_tasks():
    tasks = slots_by_task({"tasks": [["A", 3.0], ["B", 1.0], ["C", 2.0]], "num_envs": 12})
    assert [(task.task_id, task.slots.start, task.slots.stop) for task in tasks] == [
        ("A", 0, 6), ("B", 6, 8), ("C", 8, 12)
    ]  # fmt: skip
    assert [task.share for task in tasks] == [3 / 6, 1 / 6, 2 / 6]
    (one,) = slots_by_task({"task_id": "A", "tasks": None, "num_envs": 12})
    assert one == ("A", 1.0, slice(0, 12))


def test_the_ways_to_name_tasks(tmp_path):
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump(dict.fromkeys(TASKS, 2) | {TASKS[1]: 0.5}, sort_keys=False))
    weighted = [[TASKS[0], 2.0], [TASKS[1], 0.5], [TASKS[2], 2.0]]
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump({"tasks": list(TASKS), "name": "three", "num_envs": 9}))
    equal = [[task_id, 1.0] for task_id in TASKS]
    cases = {
        ("--task_id", ", ".join(TASKS)): ("GoToObj+UnlockPickup+GoToLocal", equal),
        ("--task_id", ",".join(TASKS), "--name", "three"): ("three", equal),
        ("--tasks", path): ("GoToObj+UnlockPickup+GoToLocal", weighted),
        ("--tasks", path, "--name", "three"): ("three", weighted),
        ("--config", mine): ("three", equal),
        ("--config", mine, "--tasks", path): ("three", weighted),
        ("--config", mine, "--task_id", TASKS[0]): ("three", [[TASKS[0], 1.0]]),
        ("--config", DEFAULTS_FILE, "--tasks", path): ("GoToObj+UnlockPickup+GoToLocal", weighted),
        ("--task_id", TASKS[0]): (TASKS[0], None),
        ("--task_id", TASKS[0], "--name", TASKS[0]): (TASKS[0], None),
        ("--task_id", TASKS[0], "--name", "mine"): ("mine", [[TASKS[0], 1.0]]),
        ("--name", "mine"): ("mine", [["BabyAI-GoToObj-v0", 1.0]]),
        (): ("BabyAI-GoToObj-v0", None),
    }
    for flags, (name, tasks) in cases.items():
        config = config_of(*flags)
        assert (config["task_id"], config["tasks"]) == (name, tasks) and "name" not in config, flags
    given = {flags: parse_config("", list(map(str, flags)))[1] for flags in cases}
    assert given["--name", "mine"] == {"name"} and given["--tasks", path] == {"tasks"} and given[()] == set()
    assert given["--config", mine, "--task_id", TASKS[0]] == {"name", "num_envs", "task_id"}
    assert len(given) == 13


def test_a_long_list_gets_a_short_name_of_its_own():
    task_ids = babyai_task_ids()
    names = {name_of_list(task_ids[:count]) for count in range(2, 60)}
    assert len(names) == 58 and max(map(len, names)) == 60 and not any(map(is_task_id, names))
    assert name_of_list(task_ids[:40]) == name_of_list(task_ids[:40])
    assert all(map(is_task_id, task_ids)) and len(task_ids) > 90


LIST = ("--task_id", ",".join(TASKS))
BAD_LISTS = [  # flags, the content of FILE, what the line names
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-GoToObject-v0"), "", "BabyAI-GoToObject-v0"),
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-GoToObj-v0"), "", "--task_id"),
    (("--task_id", "BabyAI-GoToObj-v0,"), "", "--task_id"),
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-KeyInBox-v0"), "", "BabyAI-KeyInBox-v0"),
    (("--tasks", "FILE", "--task_id", "BabyAI-GoToObj-v0"), "[A]", "--task_id"),
    (("--tasks", "missing.yaml"), "", "missing.yaml"),
    *((("--tasks", "FILE"), f"BabyAI-GoToObj-v0: {value}", "number") for value in ("0", "-1", ".nan", "many")),
    *((("--tasks", "FILE"), content, "FILE") for content in ("", "just words", "[[BabyAI-GoToObj-v0]]")),
    (("--tasks", "FILE"), "[BabyAI-GoToObj-v0, BabyAI-GoToObj-v0]", "BabyAI-GoToObj-v0"),
    (("--tasks", "FILE"), "[BabyAI-Nothing-v0, BabyAI-GoToObj-v0]", "BabyAI-Nothing-v0"),
    ((*LIST, "--num_envs", "2"), "", "--num_envs"),
    *(((*LIST, "--name", name), "", "name") for name in ("a/b", "..", "BabyAI-GoToObj-v0", "a,b", "x" * 201)),
    (("--name", "thre", "--resume"), "", "thre"),  # mistyped: no run is begun
]


@pytest.mark.parametrize(("flags", "content", "named"), BAD_LISTS)
def test_bad_lists_are_refused_in_one_line(tmp_path, flags, content, named):
    (tmp_path / "FILE").write_text(content)
    words = [tmp_path / word if word == "FILE" else word for word in flags]
    assert named in refusal(train_with, "--lang_encoder", "vocab", *words, "--checkpoint_dir", tmp_path)
    assert not list(tmp_path.rglob("*.pt"))


def test_the_worlds_of_a_task_do_not_depend_on_the_others():
    """Two slots of one task between slots of another are the two slots of an environment of that task alone."""
    task_ids = [TASKS[1], TASKS[0], TASKS[1], TASKS[0], TASKS[2]]
    mixed = BabyAIVectorEnv(task_ids, 5, 3)
    alone = {task_id: BabyAIVectorEnv(task_id, task_ids.count(task_id), 3) for task_id in set(task_ids)}
    slots = {task_id: [i for i, other in enumerate(task_ids) if other == task_id] for task_id in alone}
    mixed.reset()
    for env in alone.values():
        env.reset()
    rng, num_ended = np.random.default_rng(0), 0
    for step in range(120):
        actions = rng.integers(0, 7, 5)
        if step % 3:  # mostly the bot's, so that episodes end with success too
            actions = np.where(mixed.arrays.label != NO_LABEL, mixed.arrays.label, actions)
        mixed.step(actions)
        for task_id, env in alone.items():
            env.step(actions[slots[task_id]])
            for name, array in vars(env.arrays).items():
                np.testing.assert_array_equal(array, getattr(mixed.arrays, name)[slots[task_id]], err_msg=name)
            assert env.missions == [mixed.missions[i] for i in slots[task_id]]
        num_ended += int(mixed.arrays.done.sum())
    assert num_ended > 20


def test_each_task_has_its_own_step_limit_or_one_for_all():
    for max_steps, expected in ((None, [64, 72]), (9, [9, 9])):
        env = BabyAIVectorEnv(TASKS[:2], 2, 0, max_steps)
        env.reset()
        lengths = [0, 0]
        for _ in range(80):
            env.step(np.zeros(2, int))  # turning on the spot
            for i in np.flatnonzero(env.arrays.truncated):
                lengths[i] = lengths[i] or int(env.arrays.steps[i])
        assert lengths == expected


def random_batch(num_steps=5, num_envs=6):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_steps, num_envs, 7, generator=generator)
    labels = torch.randint(0, 7, (num_steps, num_envs), generator=generator)
    labels[torch.rand(num_steps, num_envs, generator=generator) < 0.3] = NO_LABEL
    return logits, labels, 1000 * torch.rand(num_steps, num_envs, generator=generator)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_is_that_of_each_task_by_hand(normalize):
    logits, labels, lpc = random_batch()
    tasks = slots_by_task({"tasks": [["A", 3.0], ["B", 1.0], ["C", 2.0]], "num_envs": 6})
    assert [range(6)[task.slots] for task in tasks] == [range(3), range(3, 4), range(4, 6)]
    expected, by_hand = 0.0, []
    for share, columns in ((3 / 6, (0, 1, 2)), (1 / 6, (3,)), (2 / 6, (4, 5))):
        cells = [(t, i) for t in range(5) for i in columns if labels[t, i] != NO_LABEL]
        entropy = sum(-F.log_softmax(logits[t, i], -1)[labels[t, i]].item() for t, i in cells) / len(cells)
        cost = sum(lpc[t, i].item() for t in range(5) for i in columns) / (5 * len(columns))
        expected += share * (entropy + 1e-3 * cost / (entropy + 0.01 if normalize else 1.0))
        by_hand.append(entropy)
    loss, entropies = loss_of_tasks(logits, labels, lpc, tasks, ComplexityPenalty(1e-3, normalize))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert [entropy.item() for entropy in entropies] == pytest.approx(by_hand, rel=1e-5)
    together = imitation_loss(logits, labels, lpc, ComplexityPenalty(1e-3, normalize))[0].item()
    assert abs(together - expected) > 1e-3  # it is not the loss of all slots together


@pytest.mark.parametrize("detach", [False, True])
def test_of_one_task_it_is_the_loss_of_one_task_to_the_last_bit(detach):
    logits, labels, lpc = random_batch()
    tasks, price = slots_by_task({"task_id": "A", "num_envs": 6}), ComplexityPenalty(1e-3, True, 0.01, detach)
    results = []
    for compute in (lambda *batch: loss_of_tasks(*batch, tasks, price), lambda *batch: imitation_loss(*batch, price)):
        leaves = logits.clone().requires_grad_(), lpc.clone().requires_grad_()
        loss, _ = compute(leaves[0], labels, leaves[1])
        loss.backward()
        results.append((loss.detach(), *(leaf.grad for leaf in leaves)))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_a_list_of_one_task_is_a_run_of_this_task_bit_for_bit(tmp_path):
    alone = trained(tmp_path, *TINY_FLAGS, *EVERYTHING)
    path = tmp_path / "one.yaml"
    path.write_text(f"{TASKS[0]}: 7\n")
    words = [word for word in TINY_FLAGS if word not in ("--task_id", TASKS[0])]
    named = trained(tmp_path, *words, *EVERYTHING, "--tasks", path, "--name", "mine")
    assert (named["config"].pop("task_id"), named["config"].pop("tasks")) == ("mine", [[TASKS[0], 7.0]])
    assert (alone["config"].pop("task_id"), alone["config"].pop("tasks")) == (TASKS[0], None)
    assert_same(named, alone)
    logs = [pd.read_csv(tmp_path / name / "trial_0" / "training_log.csv") for name in ("mine", TASKS[0])]
    pd.testing.assert_frame_equal(*(log.drop(columns=CLOCK) for log in logs))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[dict, pd.DataFrame, dict]:
    """A run of three tasks that nobody cut off: its state, its log, its checkpoint."""
    root = tmp_path_factory.mktemp("whole")
    state = trained(root, *SEVERAL, *EVERYTHING, "--name", "three")
    folder = root / "three" / "trial_0"
    return state, pd.read_csv(folder / "training_log.csv"), load_checkpoint(folder / "checkpoint_final.pt")


def test_workers_make_the_same_bytes(tmp_path, whole):
    state = trained(tmp_path, *SEVERAL, *EVERYTHING, "--name", "three", "--num_workers", 2)
    assert state["config"].pop("num_workers") == 2 and state["config"].pop("checkpoint_dir")
    config = {key: value for key, value in whole[0]["config"].items() if key not in ("num_workers", "checkpoint_dir")}
    assert_same(state, whole[0] | {"config": config})


def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(tmp_path, whole, capsys):
    flags = (*SEVERAL, *EVERYTHING, "--name", "three", "--checkpoint_interval", 2)
    early = trained(tmp_path, *flags, interrupt_at=2)
    assert early["update"] == 4 and set(early["by_task"]) == set(TASKS)
    state = trained(tmp_path, *flags, "--resume")
    assert state["update"] == 6
    assert "slots: GoToObj 0 to 1, UnlockPickup 2 to 3, GoToLocal 4 to 5" in capsys.readouterr().out
    for name in ("checkpoint_dir", "checkpoint_interval"):
        assert state["config"].pop(name) is not None
    config = {key: value for key, value in whole[0]["config"].items() if key in state["config"]}
    assert_same(state, whole[0] | {"config": config})
    log = pd.read_csv(tmp_path / "three" / "trial_0" / "training_log.csv")
    pd.testing.assert_frame_equal(log.drop(columns=CLOCK), whole[1].drop(columns=CLOCK), rtol=1e-12)


def test_the_log_the_bar_and_the_curve_tell_each_task(whole):
    _, log, checkpoint = whole
    assert checkpoint["config"]["task_id"] == "three"
    assert checkpoint["config"]["tasks"] == [[task_id, 1.0] for task_id in TASKS]
    names = ("GoToObj", "UnlockPickup", "GoToLocal")
    for measure in ("success_rate", "cross_entropy", "accuracy", "lpc"):
        assert [name for name in log if name.startswith(f"{measure}_")] == [f"{measure}_{name}" for name in names]
    for measure in ("cross_entropy", "lpc"):  # two slots each, so the mean of the tasks is that of all
        of_tasks = log[[f"{measure}_{name}" for name in names]].mean(axis=1)
        np.testing.assert_allclose(of_tasks, log[measure], rtol=1e-5)
    row = log.iloc[-1].to_dict() | {
        f"success_rate_{name}": rate for name, rate in zip(names, (1, 0.5, 0.9), strict=True)
    }
    assert all(part in bar_text(row) for part in ("80%", "UnlockPickup 50%"))
    of_one = {name: value for name, value in row.items() if not name.startswith("success_rate_")}
    words = bar_text(of_one).split()
    assert words[0] == "success" and "loss" in words[:4]  # a terminal of 80 columns shows them
    early = bar_text(of_one | {"success_rate": math.nan, "path_ratio": math.nan})
    assert "warm-up" in early and "nan" not in early
    assert all(part in closing_lines(row)["by task"] for part in ("80.0%", "UnlockPickup 50%", "GoToObj 100%"))
    axes = {ax.get_title("left"): ax for ax in plot_training_curve(log).axes}
    for measure, title in (("cross_entropy", "cross-entropy by task"), ("lpc", "LPC by task")):
        lines = {line.get_label(): line for line in axes[title].get_lines()}
        assert list(lines) == list(names)
        for name in names:
            np.testing.assert_array_equal(lines[name].get_ydata(), log[f"{measure}_{name}"])


def test_a_run_with_other_tasks_is_not_continued(tmp_path):
    flags = (*SEVERAL, "--name", "three", "--num_updates", 1)
    trained(tmp_path, *flags)
    other = ",".join([*TASKS[:2], "BabyAI-GoToRedBall-v0"])
    assert "BabyAI-GoToRedBall-v0" in refusal(trained, tmp_path, *flags, "--task_id", other, "--resume")


def test_a_state_whose_tallies_do_not_fit_is_refused(tmp_path):
    flags = (*SEVERAL, "--name", "three")
    whole = trained(tmp_path, *flags, "--num_updates", 1)
    path = tmp_path / "three" / "trial_0" / "training_state.pt"
    tallies = whole["by_task"]
    damages = (None, {}, {**tallies, TASKS[1]: {}}, {**tallies, TASKS[2]: tallies[TASKS[2]] | {"has_bot": [False]}})
    for by_task in damages:
        save_training_state(path, whole | {"by_task": by_task})
        assert "training_state.pt" in refusal(trained, tmp_path, *flags, "--resume", "--num_updates", 2)


def test_the_papers_expert_dropout_has_a_name():
    """Probability 0.8 (1 - w / 0.1) of leaving out an expert of weight w < 0.1: arXiv 2506.02813."""
    config = config_of("--expert_dropout", "paper")
    assert (config["expert_dropout"], config["expert_dropout_below"]) == (0.8, 0.1)
    assert config_of("--expert_dropout", "0.3")["expert_dropout"] == 0.3
    assert "expert_dropout" in refusal(config_of, "--expert_dropout", "papers")
