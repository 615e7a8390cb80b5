"""Checkpoints and training states: whole files only, old and hostile ones, and how they are found."""

import itertools
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import refusal

from mop.artifacts.checkpoints import (
    find_checkpoints,
    load_checkpoint,
    load_training_state,
    quick_config,
    save_checkpoint,
    save_training_state,
)
from mop.artifacts.run_paths import RunKey
from mop.common.train_config import complete

TASK = "BabyAI-GoToObj-v0"


def toy_checkpoint(update=None, **config) -> dict:
    """A checkpoint with one weight and the keys that the oldest files have; `update` only if given."""
    checkpoint = {"policy_state_dict": {"head.weight": torch.arange(6.0).reshape(2, 3)}, "config": {"task_id": TASK}}
    checkpoint["config"] |= config
    return checkpoint if update is None else checkpoint | {"update": update}


def test_checkpoint_round_trip_needs_no_allow_list(tmp_path):
    path = tmp_path / "deep" / "checkpoint_final.pt"
    checkpoint = toy_checkpoint(
        update=5, trial=2, num_actions=np.int64(7), lr=np.float32(0.5), sizes=[[0, np.int32(3)]]
    )
    weight = torch.nn.Linear(2, 3).weight
    adam = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(3, 2)}}, "param_groups": [{"lr": 0.1}]}
    checkpoint |= {"policy_state_dict": OrderedDict(weight=weight), "optimizer_state_dict": adam}
    save_checkpoint(path, checkpoint)
    plain = torch.load(path, weights_only=True)
    loaded = load_checkpoint(path)
    expected = {"task_id": TASK, "trial": 2, "num_actions": 7, "lr": 0.5, "sizes": [[0, 3]]}
    assert plain["config"] == expected and loaded["config"] == complete(expected)
    for result in (plain, loaded):
        assert result["update"] == 5
        assert torch.equal(result["policy_state_dict"]["weight"], weight)
        assert torch.equal(result["optimizer_state_dict"]["state"][0]["exp_avg"], torch.ones(3, 2))
    assert type(checkpoint["config"]["num_actions"]) is np.int64, "the caller's dictionary is left alone"


def test_quick_config_reads_what_a_name_needs(tmp_path):
    path = tmp_path / "checkpoint_final.pt"
    checkpoint = toy_checkpoint(update=5, trial=2, lpc_alpha=1e-05, policy="gru")
    checkpoint["config"]["num_actions"] = np.int64(7)  # as in older files
    torch.save(checkpoint | {"optimizer_state_dict": {"state": {0: torch.ones(3)}}}, path)
    expected = {"task_id": TASK, "trial": 2, "lpc_alpha": 1e-05, "policy": "gru", "update": 5, "num_actions": 7}
    assert quick_config(path) == expected
    torch.save(torch.nn.Linear(2, 3), path)
    assert quick_config(path) == {}
    path.write_bytes(path.read_bytes()[:200])
    assert quick_config(path) == {} and quick_config(tmp_path / "none.pt") == {}


def test_training_state_round_trip(tmp_path):
    path = tmp_path / "training_state.pt"
    state = {"hidden": [torch.ones(2, 3), {"a": torch.tensor([1, 2])}], "update": 3, "names": ["x", "y"], "none": None}
    save_training_state(path, state)
    loaded = load_training_state(path)
    assert torch.equal(loaded["hidden"][0], torch.ones(2, 3)) and loaded["hidden"][1]["a"].tolist() == [1, 2]
    assert {key: loaded[key] for key in ("update", "names", "none")} == {"update": 3, "names": ["x", "y"], "none": None}
    torch.save([1, 2], path)
    assert "training_state.pt" in refusal(load_training_state, path)


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Give a global of a file by torch.save another name, as another version of its library would have written it."""
    with zipfile.ZipFile(path) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    assert any(old in data for name, data in entries if name.endswith("data.pkl"))
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries:
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_scalars_of_either_numpy_load_as_python_numbers(tmp_path, module):
    path = tmp_path / "checkpoint_final.pt"
    scalars = {"num_actions": np.int64(7), "lr": np.float32(0.5), "flag": np.bool_(True), "lpc_alpha": np.float64(1e-4)}
    torch.save(toy_checkpoint(update=np.int64(9)) | {"config": {"task_id": TASK, **scalars}}, path)
    rename_in_pickle(path, b"numpy._core.multiarray", module)
    with zipfile.ZipFile(path) as archive:
        assert b"c" + module + b"\nscalar\n" in next(archive.read(n) for n in archive.namelist() if "data.pkl" in n)
    loaded = load_checkpoint(path)
    expected = {"task_id": TASK, "num_actions": 7, "lr": 0.5, "flag": True, "lpc_alpha": 1e-4}
    assert loaded["config"] == complete(expected)
    types = {name: type(loaded["config"][name]) for name in scalars}
    assert types == {"num_actions": int, "lr": float, "flag": bool, "lpc_alpha": float}
    assert type(loaded["update"]) is int
    assert "trial" not in loaded["config"], "keys of which nothing can be assumed stay absent"


class Attack:
    """Unpickled without care, it runs a command."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_pickle_is_named_and_not_executed(tmp_path):
    marker = tmp_path / "executed"
    hostile = toy_checkpoint() | {"extra": Attack(marker)}
    torch.save(hostile, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(hostile["extra"], protocol=2))
    cases = 0
    for name, load in itertools.product(("zip.pt", "plain.pt"), (load_checkpoint, load_training_state)):
        assert refusal(load, tmp_path / name).startswith(str(tmp_path / name))
        assert quick_config(tmp_path / name) == {}
        cases += 1
    assert cases == 4 and not marker.exists()
    pickle.loads((tmp_path / "plain.pt").read_bytes())
    assert marker.exists(), "the attack does work on a careless reader"


def test_files_that_are_no_checkpoints_get_one_line(tmp_path):
    path, weight = tmp_path / "some.pt", {"head.weight": 3}
    for content in (
        *([1, 2], {"config": {"task_id": TASK}}, {"policy_state_dict": {}}),
        *(
            {"policy_state_dict": {}, "config": {"trial": 1}},
            {"policy_state_dict": weight, "config": {"task_id": TASK}},
        ),
    ):
        torch.save(content, path)
        assert refusal(load_checkpoint, path).startswith(str(path)), content


def test_find_checkpoints_takes_the_layout_and_nothing_else(tmp_path):
    keys = [RunKey("A", 0), RunKey("A", 0, 1), RunKey("A", 0, 2, 50)]
    keys += [RunKey("A", 0, 2), RunKey("A", 10), RunKey("B", 2)]
    for key in reversed(keys):
        save_checkpoint(key.checkpoint(tmp_path), toy_checkpoint(update=100))
    folder = RunKey("A", 0).folder(tmp_path)
    names = ("training_state.pt", ".checkpoint_final.pt.12ab.tmp", "checkpoint_best.pt", "checkpoint_.pt", "x.pt")
    for name in (*names, "checkpoint_007.pt", "training_log.csv"):
        (folder / name).write_bytes(b"")
    (folder / "checkpoint_9.pt").mkdir()
    for foreign in ("checkpoint_final.pt", "trial_0/checkpoint_final.pt", "A/checkpoint_final.pt"):
        (tmp_path / foreign).parent.mkdir(exist_ok=True)
        (tmp_path / foreign).write_bytes(b"")
    found = find_checkpoints([tmp_path, tmp_path / "missing"])
    assert [item.key for item in found] == keys, "sorted, the final one after the periodic ones"
    assert [item.path for item in found] == [key.checkpoint(tmp_path) for key in keys]
    assert find_checkpoints([tmp_path / "missing"]) == [] == find_checkpoints([])


def test_the_first_root_wins_and_a_difference_is_told(tmp_path):
    first, second = tmp_path / "checkpoints", tmp_path / "modal_checkpoints"
    same, other, only = RunKey("A", 0), RunKey("A", 1), RunKey("B", 0, 4)
    for root, update in ((first, 1), (second, 2)):
        save_checkpoint(same.checkpoint(root), toy_checkpoint(update=1))
        save_checkpoint(other.checkpoint(root), toy_checkpoint(update=update))
    save_checkpoint(only.checkpoint(second), toy_checkpoint(update=1))
    with pytest.warns(UserWarning) as told:
        found = find_checkpoints([first, second])
    assert [item.path for item in found] == [same.checkpoint(first), other.checkpoint(first), only.checkpoint(second)]
    assert len(told) == 1
    assert str(other.checkpoint(first)) in str(told[0].message)
    assert str(other.checkpoint(second)) in str(told[0].message)
