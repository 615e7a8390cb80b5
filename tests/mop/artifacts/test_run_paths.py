"""Keys and paths determine each other."""

import itertools
from pathlib import Path

from checks import refusal

from mop.artifacts.run_paths import RunKey, cache_path, result_path

TASK = "BabyAI-GoToObj-v0"


def test_keys_and_paths_determine_each_other():
    tasks = (TASK, "trial_3", "seed_1", "update_2", "with space", "a.b", "ä", "...")
    roots = ("", ".", "checkpoints", "/abs/modal_checkpoints", "a/trial_1/seed_2", "../up")
    paths, cases = {}, 0
    for task, trial, seed, update in itertools.product(tasks, (0, 1, 10), (None, 0, 7), (None, 0, 200)):
        key = RunKey(task, trial, seed, update)
        for root in roots:
            assert RunKey.from_checkpoint(key.checkpoint(root)) == key
            assert RunKey.from_checkpoint(str(key.checkpoint(root))) == key
            assert RunKey.from_artefacts(key.artefacts(root)) == key
            cases += 1
        assert key.checkpoint("r").parent == key.folder("r")
        paths.setdefault(key.checkpoint("r"), key)
        paths.setdefault(key.artefacts("r"), key)
    assert cases == 8 * 3 * 3 * 3 * 6
    assert len(paths) == 2 * 8 * 3 * 3 * 3  # no two keys share a path


def test_paths_are_the_documented_ones():
    key = RunKey(TASK, 0, seed=1, update=200)
    assert key.checkpoint("checkpoints").as_posix() == f"checkpoints/{TASK}/trial_0/seed_1/checkpoint_200.pt"
    assert key.artefacts("plots").as_posix() == f"plots/{TASK}/trial_0/seed_1/update_200"
    final = RunKey(TASK, 3)
    assert final.checkpoint("checkpoints").as_posix() == f"checkpoints/{TASK}/trial_3/checkpoint_final.pt"
    assert result_path("c", final).as_posix() == f"c/{TASK}/trial_3/result.json"
    assert cache_path("c", key).as_posix() == f"c/{TASK}/trial_0/seed_1/update_200/routing_data.json"
    assert key.label == f"{TASK} trial 0 seed 1 update 200" and final.label == f"{TASK} trial 3"


def test_bad_keys_and_foreign_paths_are_refused():
    bad_keys = [("", 0), (".", 0), ("..", 0), ("a/b", 0), (3, 0), ("T", -1), ("T", None), ("T", True), ("T", "0")]
    bad_keys += [("T", 1.0), ("T", 0, -1), ("T", 0, "1"), ("T", 0, None, -5), ("T", 0, False), ("T", 2**63)]
    for arguments in (*bad_keys, ("a\0", 0), ("a\n", 0), ("\ud800", 0)):
        refusal(RunKey, *arguments)
    foreign = ["checkpoint_final.pt", "trial_0/checkpoint_final.pt", "T/trial_0/checkpoint_5000.pth", "", "T/trial_0"]
    foreign += ["T/trial_00/checkpoint_final.pt", "T/trial_0/checkpoint_05.pt", "T/trial_x/checkpoint_final.pt"]
    foreign += ["T/trial_0/seed_/checkpoint_final.pt", "../trial_0/checkpoint_final.pt", "T/trial_²/checkpoint_1.pt"]
    foreign += ["T/trial_0/update_5/checkpoint_final.pt", "T/trial_0/.checkpoint_final.pt.1a.tmp"]
    for path in (*foreign, f"a/trial_{'9' * 5000}/checkpoint_final.pt"):
        line = refusal(RunKey.from_checkpoint, path)
        assert str(Path(path)) in line or path in line or len(path) > 5000
    for folder in ("T", "trial_0", "T/trial_0/update_5/seed_1", "T/trial_0/update_", "T/trial_0/plots"):
        refusal(RunKey.from_artefacts, folder)
