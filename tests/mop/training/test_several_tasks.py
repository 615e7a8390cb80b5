"""Several tasks in one policy, while it learns: slots, worlds, the loss of each task, resume, lists that are bad."""

import contextlib
import math
import os
import signal
import subprocess

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scripts import TINY_FLAGS, run_script, script_command, script_environment
from torch.nn import functional as F

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state
from mop.common.errors import InputError
from mop.common.task_mix import is_task_id, name_of_list, share_out, slots_by_task
from mop.common.train_config import DEFAULTS_FILE, parse_config
from mop.envs.babyai import NO_LABEL, babyai_task_ids
from mop.envs.vector_env import BabyAIVectorEnv
from mop.plotting.curves import plot_training_curve
from mop.training.imitation_log import bar_text, closing_lines
from mop.training.loss import ComplexityPenalty, imitation_loss, loss_of_tasks
from mop.training.train import train

TASKS = ("BabyAI-GoToObj-v0", "BabyAI-UnlockPickup-v0", "BabyAI-GoToLocal-v0")
SEVERAL = (*TINY_FLAGS, "--task_id", ",".join(TASKS), "--num_envs", "6")  # given twice: the last one counts
EVERYTHING = ("--replay", "2", "--replay_size", "3", "--teacher_mix", "0.7", "--lpc_alpha", "1e-4", "--normalize_lpc")
CLOCK = ["steps_per_s", "seconds"]


def config_of(*flags) -> dict:
    return parse_config("", [str(word) for word in flags])[0]


def trained(folder, *flags, interrupt_at: int = 0) -> dict:
    """Train with these flags below a folder; its training state. interrupt_at: an update after which it is cut off."""

    def on_save() -> None:
        nonlocal num_saved
        num_saved += 1
        if interrupt_at and num_saved > interrupt_at:
            raise ConnectionError("cut off")

    config, given = parse_config("", [*map(str, flags), "--checkpoint_dir", str(folder)])
    num_saved, place = 0, folder / config["task_id"] / f"trial_{config['trial']}"
    if interrupt_at:
        with pytest.raises(ConnectionError):
            train(config | {"policy": "mop"}, given, on_save)
    else:
        train(config | {"policy": "mop"}, given, on_save)
    return load_training_state(place / "training_state.pt")


def assert_same(one, other, path="") -> None:
    """Equal in every bit, nested."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), path
        for k, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{path}.{k}")
    elif isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), path
    else:
        assert one == other or (one != one and other != other), path


# --- which slots ------------------------------------------------------------------------------------------------------


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
    with pytest.raises(InputError, match="3 tasks need at least 3 slots: --num_envs is 2"):
        slots_by_task({"tasks": [["A", 1.0], ["B", 1.0], ["C", 1.0]], "num_envs": 2})


# --- what they are called ---------------------------------------------------------------------------------------------


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


BAD_LISTS = {
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-GoToObject-v0"), None): "unknown task id 'BabyAI-GoToObject-v0'; did you",
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-GoToObj-v0"), None): "--task_id must name each task once",
    (("--task_id", "BabyAI-GoToObj-v0,"), None): "--task_id must be tasks with weights; of '', it must be a text",
    (("--tasks", "FILE"), "BabyAI-GoToObj-v0: 0"): "a finite number above 0",
    (("--tasks", "FILE"), "BabyAI-GoToObj-v0: -1"): "of 'BabyAI-GoToObj-v0', it must be a finite number above 0",
    (("--tasks", "FILE"), "BabyAI-GoToObj-v0: .nan"): "a finite number above 0",
    (("--tasks", "FILE"), "BabyAI-GoToObj-v0: many"): "must be a number",
    (("--tasks", "FILE"), "[BabyAI-GoToObj-v0, BabyAI-GoToObj-v0]"): "is there 2 times",
    (("--tasks", "FILE"), ""): "must be tasks with weights",
    (("--tasks", "FILE"), "just words"): "must be tasks with weights",
    (("--tasks", "FILE"), "[[BabyAI-GoToObj-v0]]"): "must be tasks with weights",
    (("--tasks", "FILE"), "[BabyAI-Nothing-v0, BabyAI-GoToObj-v0]"): "unknown task id 'BabyAI-Nothing-v0'",
    (("--tasks", "FILE", "--task_id", "BabyAI-GoToObj-v0"), "[A]"): "give --task_id or --tasks, not both",
    (("--tasks", "missing.yaml"), None): "missing.yaml",
    (("--task_id", ",".join(TASKS), "--num_envs", "2"), None): "3 tasks need at least 3 slots: --num_envs is 2",
    (("--task_id", ",".join(TASKS), "--name", "a/b"), None): "--name|name must be a name that a folder can have",
    (("--task_id", ",".join(TASKS), "--name", ".."), None): "name must be a name that a folder can have",
    (("--task_id", ",".join(TASKS), "--name", "BabyAI-GoToObj-v0"), None): "--name must be no task's id",
    (("--task_id", ",".join(TASKS), "--name", "a,b"), None): "--name must be no task's id, without commas",
    (("--task_id", ",".join(TASKS), "--name", "x" * 201), None): "not longer than a folder's",
    (("--task_id", "BabyAI-GoToObj-v0,BabyAI-KeyInBox-v0"), None): "cannot teach BabyAI-KeyInBox-v0",
}


@pytest.mark.parametrize(("flags", "content"), BAD_LISTS, ids=lambda value: " ".join(value) if value else "")
def test_bad_lists_are_refused_in_one_line(tmp_path, flags, content):
    (tmp_path / "FILE").write_text(content or "")
    words = [str(tmp_path / word) if word == "FILE" else word for word in flags]
    with pytest.raises(InputError, match=BAD_LISTS[flags, content]) as raised:
        config, given = parse_config("", ["--lang_encoder", "vocab", *words, "--checkpoint_dir", str(tmp_path / "c")])
        train(config | {"policy": "mop"}, given)
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.pt"))


def test_a_mistyped_name_begins_no_run(tmp_path):
    config, given = parse_config("", ["--name", "thre", "--resume", "--checkpoint_dir", str(tmp_path)])
    with pytest.raises(InputError, match=r"no run in .*/thre/trial_0; to begin one of this --name, add "):
        train(config | {"policy": "mop"}, given)
    assert not list(tmp_path.rglob("*.pt"))


def test_the_script_says_it_in_one_line(tmp_path):
    result = run_script("train_mop.py", "--task_id", "BabyAI-GoToObj-v0,BabyAI-Nothing-v0", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "") and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: unknown task id 'BabyAI-Nothing-v0'")


# --- worlds -----------------------------------------------------------------------------------------------------------


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
            actions = np.where(mixed.arrays.label_valid, mixed.arrays.label, actions)
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


# --- the loss ---------------------------------------------------------------------------------------------------------


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


# --- runs -------------------------------------------------------------------------------------------------------------


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


def test_states_from_before_there_were_lists_go_on(tmp_path):
    whole = trained(tmp_path / "whole", *TINY_FLAGS, *EVERYTHING)
    early = trained(tmp_path / "old", *TINY_FLAGS, *EVERYTHING, "--checkpoint_interval", 2, interrupt_at=2)
    assert early["update"] == 4 and "by_task" not in early
    del early["config"]["tasks"]
    save_training_state(tmp_path / "old" / TASKS[0] / "trial_0" / "training_state.pt", early)
    state = trained(tmp_path / "old", *TINY_FLAGS, *EVERYTHING, "--resume")
    for name in ("checkpoint_dir", "checkpoint_interval"):
        del state["config"][name], whole["config"][name]
    assert_same(state, whole)


def test_the_baseline_takes_lists_too(tmp_path):
    config, given = parse_config("", [*SEVERAL, "--num_updates", "2", "--checkpoint_dir", str(tmp_path)])
    path = train(config | {"policy": "gru"}, given)
    assert path.parent.parent.name == "GoToObj+UnlockPickup+GoToLocal"
    log = pd.read_csv(path.with_name("training_log.csv"))
    assert {"cross_entropy_GoToObj", "cross_entropy_UnlockPickup", "success_rate_GoToLocal"} <= set(log)


def test_after_kill_9_too(tmp_path):
    flags = (*SEVERAL, *EVERYTHING, "--name", "three", "--num_updates", 2000)
    folder = tmp_path / "checkpoints" / "three" / "trial_0"
    command = script_command("train_mop.py", *flags, "--checkpoint_interval", 2)
    with subprocess.Popen(command, cwd=tmp_path, env=script_environment(), stdout=-3, stderr=-3) as process:
        while not (folder / "checkpoint_4.pt").exists():
            assert process.poll() is None
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
        os.kill(process.pid, signal.SIGKILL)
    last = load_training_state(folder / "training_state.pt")["update"] + 1
    resumed = trained(tmp_path / "checkpoints", "--name", "three", "--resume", "--num_updates", last)
    never_cut_off = trained(tmp_path / "plain", *flags, "--checkpoint_interval", 1, interrupt_at=last)
    assert resumed["update"] == never_cut_off["update"] == last
    for state in (resumed, never_cut_off):
        for name in ("num_updates", "checkpoint_dir", "checkpoint_interval"):
            del state["config"][name]
        del state["unfinished_row"]  # the one ended its log
    assert_same(resumed, never_cut_off)


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
    assert "success mean 80% of 3 tasks, worst UnlockPickup 50%" in bar_text(row)
    assert closing_lines(row)["by task"] == "mean 80.0% of 3, lowest: UnlockPickup 50%, GoToLocal 90%, GoToObj 100%"
    unknown = {f"success_rate_{name}": math.nan for name in names}
    assert "worst" not in bar_text(row | unknown) and "by task" not in closing_lines(row | unknown)
    axes = {ax.get_title("left"): ax for ax in plot_training_curve(log).axes}
    for measure, title in (("cross_entropy", "cross-entropy by task"), ("lpc", "LPC by task")):
        lines = {line.get_label(): line for line in axes[title].get_lines()}
        assert list(lines) == list(names)
        for name in names:
            np.testing.assert_array_equal(lines[name].get_ydata(), log[f"{measure}_{name}"])


def test_a_run_with_other_tasks_is_not_continued(tmp_path):
    flags = (*SEVERAL, "--name", "three", "--num_updates", 1, "--checkpoint_dir", tmp_path)
    trained(tmp_path, *flags)
    other = ",".join([*TASKS[:2], "BabyAI-GoToRedBall-v0"])
    result = run_script("train_mop.py", *flags, "--task_id", other, "--resume", "--num_updates", 2)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert "has tasks [['BabyAI-GoToObj-v0', 1.0], " in result.stderr and "BabyAI-GoToRedBall-v0" in result.stderr


@pytest.mark.parametrize("damage", ["missing", "other tasks", "no counts", "wrong length"])
def test_a_state_whose_tallies_do_not_fit_is_refused(tmp_path, damage, whole):
    state = trained(tmp_path, *SEVERAL, "--name", "three", "--num_updates", 1)
    by_task = state["by_task"]
    if damage == "missing":
        del state["by_task"]
    elif damage == "other tasks":
        by_task["BabyAI-GoToRedBall-v0"] = by_task.pop(TASKS[0])
    elif damage == "no counts":
        del by_task[TASKS[1]]["counts"]
    else:
        by_task[TASKS[2]]["has_bot"] = [False]
    save_training_state(tmp_path / "three" / "trial_0" / "training_state.pt", state)
    with pytest.raises(InputError, match=r"training_state\.pt: "):
        trained(tmp_path, *SEVERAL, "--name", "three", "--resume", "--num_updates", 2)


def test_the_papers_expert_dropout_has_a_name():
    """Probability 0.8 (1 - w / 0.1) of leaving out an expert of weight w < 0.1: arXiv 2506.02813."""
    config = config_of("--expert_dropout", "paper")
    assert (config["expert_dropout"], config["expert_dropout_below"]) == (0.8, 0.1)
    assert config_of("--expert_dropout", "0.3")["expert_dropout"] == 0.3
    with pytest.raises(InputError, match="expert_dropout must be a number, or paper, not 'papers'"):
        config_of("--expert_dropout", "papers")
