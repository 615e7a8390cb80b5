"""The settings of a training: config.yaml, flags, the config of a checkpoint; one clear line for whatever is wrong."""

import numpy as np
import pytest
import torch
from checks import refusal

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_training_state
from mop.common.cli import declared, default_of
from mop.common.train_config import (
    DEFAULTS_FILE,
    FLAGS,
    KEYS,
    RUNTIME_KEYS,
    RunConfig,
    TrainConfig,
    check_declared,
    complete,
    expert_sizes,
    parse_config,
    read_config,
)


def config_of(*argv):
    return parse_config("a test", [str(word) for word in argv])[0]


def test_config_yaml_repeats_defaults_and_help_of_the_fields():
    expected = []
    for field in declared(TrainConfig):
        expected += ["", f"# {field.metadata['section']}"] if "section" in field.metadata else []
        value = default_of(field)
        word = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
        expected.append(f"{f'{field.name}: {word}':<30} # {field.metadata['help']}")
    assert DEFAULTS_FILE.read_text(encoding="utf-8").splitlines()[2:] == expected and len(expected) > 45
    assert read_config(DEFAULTS_FILE) == {field.name: default_of(field) for field in declared(TrainConfig)}
    assert set(KEYS) == set(FLAGS) | {"policy", "scheduled_updates", "encoder_dim", "encoder_fingerprint"}
    assert set(RUNTIME_KEYS) < set(FLAGS) and all(field.metadata["help"] for field in declared(RunConfig))


def test_an_edited_config_yaml_counts(tmp_path, monkeypatch):
    mine = tmp_path / "config.yaml"
    mine.write_text("lr: 0.25\ntasks: {BabyAI-GoToObj-v0: 1, BabyAI-GoToLocal-v0: 2}\n")
    monkeypatch.setattr("mop.common.train_config.DEFAULTS_FILE", mine)
    config, given = parse_config("", ["--num_envs", "3"])
    assert (config["lr"], config["num_envs"], config["task_id"], given) == (0.25, 3, "GoToObj+GoToLocal", {"num_envs"})
    assert config_of("--task_id", "BabyAI-GoTo-v0")["tasks"] is None


def test_defaults_are_the_documented_ones():
    expected = {
        "num_envs": 16, "unroll_len": 32, "lr": 1e-3, "grad_clip": 0.5, "intermediate_dim": 64, "lang_dim": 64,
        "expert_hidden_sizes": [[0, 16, 32]] * 3, "router_hidden_size": 64, "input_dim": 152, "lpc_alpha": 0.0,
        "trial": 0, "lang_encoder": "words", "lpc_eps": 1e-2, "num_actions": 7,
    }  # fmt: skip
    expected |= {  # found by measurement: studies/experiments.py
        "obs_encoding": "one_hot", "residual": False, "expert_gain": 10.0, "replay": 2, "teacher_mix": 2.0,
        "lr_decay": 0.25, "input_encoder": "film", "replay_size": 6000,
    }  # fmt: skip
    config = config_of()
    assert {key: config[key] for key in expected} == expected


@pytest.mark.parametrize(
    "words, share", [(["--lr_decay"], 1.0), (["--lr_decay", "true"], 1.0), (["--lr_decay", "false"], 0.0),
                     (["--lr_decay", "0.25"], 0.25), (["--lr_decay", "--residual"], 1.0)],
)  # fmt: skip
def test_a_share_is_a_number_or_true_or_false(words, share):
    value = parse_config("a test", words)[0]["lr_decay"]
    assert value == share and type(value) is float


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 3e-4\nnum_envs: 8\nmop_layers: ['32,64', '0,8']\n")
    config, given = parse_config("", ["--config", str(path), "--num_envs", "4"])
    assert (config["lr"], config["num_envs"], config["expert_hidden_sizes"]) == (3e-4, 4, [[32, 64], [0, 8]])
    assert given == {"lr", "num_envs", "expert_hidden_sizes"}


def test_expert_sizes():
    for given in ("[[0,16,32],[0,64]]", "0,16,32;0,64", ["0,16,32", "0,64"]):
        assert expert_sizes(given) == [[0, 16, 32], [0, 64]]
    for given in ("0,16", "[0, 16]", [0, 16]):
        assert expert_sizes(given) == [[0, 16]]


def test_aliases_and_switches():
    config = config_of("--mop_layers", "16,32;8", "--mop_router_dim", 5, "--mop_intermediate_dim", 9, "--residual")
    assert config["expert_hidden_sizes"] == [[16, 32], [8]]
    assert (config["router_hidden_size"], config["intermediate_dim"], config["residual"]) == (5, 9, True)
    assert config_of("--residual", "false")["residual"] is False
    assert config_of("--max_steps", "null")["max_steps"] is None


BAD_FLAGS = [
    ("--num_updates", "-3"), ("--trial", "-1"), ("--seed", "-1"), ("--unroll", "5"), ("--input_dim", "280"),
    *(("--expert_hidden_sizes", value) for value in ("0,-4", "[]", "[[0],[]]", "print()", "0x")),
    *(("--lr_decay", value) for value in ("1.5", "-0.1", "nan", "half")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_FLAGS)
def test_bad_flags_and_files_name_the_key(tmp_path, name, value):
    assert name.lstrip("-") in refusal(config_of, f"{name}={value}")
    path = tmp_path / "bad.yaml"
    path.write_text(f"{name.lstrip('-')}: '{value}'\n")
    line = refusal(config_of, "--config", path)
    assert name.lstrip("-") in line and "bad.yaml" in line


OLDEST = {"task_id": "BabyAI-GoToObj-v0", "trial": 0, "num_updates": 20, "num_actions": np.int64(7)}
ABSENCE_MEANS = {
    "tasks": None,
    "policy": "mop", "seed": None, "max_steps": None, "wandb_project": None, "scheduled_updates": 20,
    "obs_encoding": "raw", "residual": False, "expert_gain": 1.0, "expert_dropout": 0.0, "expert_dropout_below": 0.1,
    "teacher_mix": 0.0, "replay": 0, "replay_size": 1, "lr_decay": False,
    "input_encoder": "linear", "film_cell_dim": 32, "film_features": 8,
}  # fmt: skip


def test_an_old_config_is_completed():
    assert complete(OLDEST) == OLDEST | ABSENCE_MEANS
    assert complete({"task_id": "a"}).keys() == {"task_id"} | ABSENCE_MEANS.keys() - {"scheduled_updates"}
    given = {"policy": "gru", "scheduled_updates": 9, "max_steps": 5, "residual": True, "replay": 3}
    assert complete(OLDEST | given) == OLDEST | ABSENCE_MEANS | given
    nulls = dict.fromkeys(("lr", "policy", "residual", "seed", "theirs"))
    assert complete(OLDEST | nulls) == complete(OLDEST)
    assert complete(complete(OLDEST)) == complete(OLDEST)
    config = config_of()
    assert complete(config).items() >= config.items()  # what this version writes means what it says


def test_files_are_completed_and_checked_where_they_are_read(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    theirs = {"their_key": [1, 2], "lr": "1e-3", "expert_hidden_sizes": "0,4;8"}
    expected = OLDEST | ABSENCE_MEANS | {"their_key": [1, 2], "lr": 1e-3, "expert_hidden_sizes": [[0, 4], [8]]}
    torch.save({"policy_state_dict": {}, "config": OLDEST | theirs}, path)
    loaded = load_checkpoint(path)["config"]
    assert loaded == expected and type(loaded["num_actions"]) is int
    save_training_state(path, {"config": OLDEST | theirs | {"num_actions": 7}})
    assert load_training_state(path)["config"] == expected


BAD_RECORDS = {
    "policy": "cnn", "encoder_dim": 0, "encoder_fingerprint": [0.5, "x"], "scheduled_updates": "many", "lr": -1.0,
    "input_dim": 150,
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), BAD_RECORDS.items())
def test_every_declared_key_of_a_file_is_checked(tmp_path, name, value):
    path = tmp_path / "checkpoint_final.pt"
    torch.save({"policy_state_dict": {}, "config": OLDEST | {name: value}}, path)
    assert f"checkpoint_final.pt: {name} " in refusal(load_checkpoint, path)


def test_what_a_run_adds_is_no_flag():
    for name in set(KEYS) - set(FLAGS):
        assert name in refusal(config_of, f"--{name}", "1")


def test_a_key_that_was_not_declared_is_not_written():
    check_declared(dict.fromkeys(KEYS))
    with pytest.raises(KeyError, match="does not declare a_new_key, b"):
        check_declared({"b": 1, "a_new_key": 2, "lr": 3})
