"""The drivers of simulators' numbers: what they write is found, a refusal is passed, and the folders agree."""

import json
import os
import shlex
import sys
from types import SimpleNamespace

import pytest
from scripts import REPOSITORY

from generative.simulators import evaluation
from generative.simulators.evaluation import RESULT
from mop.common.errors import InputError, exit_code
from mop.common.files import file_digest
from studies import coinrun, simulator
from studies import stages as stages_module


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty repository in which each command writes what is published of it."""
    ran = []

    def run(words, cwd):
        stage = next(s for name in simulator.POLICIES for s in simulator.stages(name).values() if s.words == words[2:])
        ran.append(stage)
        made = (
            ["checkpoint_final.pt"] if stage.words[0] == "generative.train_gen_model" else [stage.result or "log.txt"]
        )
        for file in (*stage.published, *made):
            path = tmp_path / stage.folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if file == RESULT and stage.made_of:
                path.write_text(json.dumps({"simulator": {"digest": file_digest(tmp_path / stage.made_of)}}))
            elif file != "checkpoint_final.pt" or not path.exists():
                path.write_text(file)
        return 0

    monkeypatch.setattr(simulator, "ROOT", tmp_path)
    monkeypatch.setattr(stages_module, "ROOT", tmp_path)
    monkeypatch.setattr(stages_module, "whole_digest", lambda path: "digest")
    monkeypatch.setattr(stages_module, "run_command", run)
    monkeypatch.setattr(sys, "argv", ["simulator"])
    return SimpleNamespace(path=tmp_path, ran=ran)


def test_a_refused_simulator_leaves_out_its_stage_alone(root, monkeypatch, capsys):
    """Fidelity is where the gate reads it; all other stages of all policies are run and published."""
    asked = []

    def check(folder, *_):
        asked.append(folder)
        assert os.path.exists(os.path.join(folder, RESULT)), "the driver would stop at the gate"
        if folder.endswith("1e-5"):
            raise InputError("0.6 of the policy's actions")

    monkeypatch.setattr(evaluation, "check_fidelity", check)
    assert exit_code(simulator.main) == 0 and len(asked) == 3
    assert "agreement_learned of UnlockPickup_1e-5 is left out: 0.6 of" in capsys.readouterr().out
    every = {(name, stage) for name in simulator.POLICIES for stage in simulator.stages(name)}
    assert len(root.ran) == len(every) - 1
    published = {path.relative_to(root.path / "results/generative").parts for path in root.path.glob("results/**/*.*")}
    assert {parts[:2] for parts in published} == {
        (name, stage)
        for name, stage in every - {("UnlockPickup_1e-5", "agreement_learned")}
        if stage not in ("recording", "simulator", "simulator_default")
    }


def test_what_would_start_anew_is_passed_over_where_its_result_is_there(root, monkeypatch):
    monkeypatch.setattr(evaluation, "check_fidelity", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["simulator", "--only", "UnlockPickup"])
    assert exit_code(simulator.main) == 0
    root.ran.clear()
    assert exit_code(simulator.main) == 0
    found = {stage.words[0] for stage in root.ran}
    assert found and not found & {"generative.fidelity", "generative.visualise"}
    (root.path / "simulators/UnlockPickup/checkpoint_final.pt").write_text("another")  # the simulator was trained again
    root.ran.clear()
    assert exit_code(simulator.main) == 0
    assert [stage.folder for stage in root.ran if "fidelity" in stage.words[0]] == ["simulators/UnlockPickup"]


def test_what_is_published_of_coinrun_is_of_its_stages():
    folder, stages = REPOSITORY / "results" / "coinrun", coinrun.stages()
    places = {place for place in folder.iterdir() if place.is_dir()}
    published = {place.name: {path.name for path in place.iterdir()} for place in places}
    assert {path.name for path in set(folder.iterdir()) - places} == {"README.md"}
    assert published == {name: set(stage.published) for name, stage in stages.items() if stage.published}
    assert len(published) >= 9 and set(coinrun.MOVES) < set(published)
    of_fidelity = (folder / "fidelity" / "fidelity.md").read_text()
    assert f"python -m {shlex.join(stages['fidelity'].words)}" in of_fidelity


def test_every_published_file_is_of_a_stage_and_every_published_stage_is_whole():
    folder, num_stages = REPOSITORY / "results" / "generative", 0
    for name in simulator.POLICIES:
        stages = simulator.stages(name)
        for place in sorted((folder / name).iterdir()):
            assert {path.name for path in place.iterdir()} == set(stages[place.name].published), place
            num_stages += 1
    assert num_stages >= 23 and {path.name for path in folder.iterdir() if path.is_dir()} == set(simulator.POLICIES)
    for name, direction in simulator.NULLED.items():
        stages = simulator.stages(name)
        assert direction in stages["null"].words and ("clamp" in stages) == (name == simulator.MAIN)
