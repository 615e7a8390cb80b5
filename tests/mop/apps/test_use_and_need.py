"""Use against need on a page: which rows belong together, and what to do where some are missing."""

import shlex
from pathlib import Path

import pytest
from checks import refusal
from old_caches import CACHE, TASK

import intervene
from mop.apps import use_and_need
from mop.apps.runs import Run, load_routing
from mop.apps.template import Export
from mop.artifacts.intervention_rows import add_row
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_paths import RunKey, interventions_path, result_path
from mop.common import cli
from mop.common.intervention_grammar import GATE_ONLY, NONE

KEY = RunKey(TASK, 0, 0)


@pytest.fixture
def data() -> RoutingData:
    return load_routing(Run(KEY, str(CACHE)))


def rows(about: dict) -> list[dict]:
    """The intact policy and two lesions in 12 worlds, and one lesion in others; about: checkpoint and worlds."""
    known = {"checkpoint_path": "x.pt", "phases_by": "by_key_phase", "expert_hidden_sizes": [[0, 16, 32]] * 3} | about
    known |= {"variant": GATE_ONLY, "success_rate": 0.5, "worlds_lost": 6, "worlds_gained": 0}
    for name in ("delta_success", "delta_path_ratio", "agreement"):
        known |= {name: -0.5, f"{name}_low": -0.75, f"{name}_high": None if name == "agreement" else -0.25}
    known["phases"] = [{"phase": "all steps", "steps": 10, "use": [[0.5, 0.25, 0.25]] * 3}]
    names = {NONE: 12, "lesion 0.1": 12, "lesion 0.2": 12, "lesion 0.0": 50}
    return [known | {"intervention": name, "num_episodes": count} for name, count in names.items()]


def write(place: Path, made: list[dict]) -> Run:
    """A run with a result and rows of interventions."""
    result = result_path(place, KEY)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_bytes(result_path(CACHE, KEY).read_bytes())
    for row in made:
        add_row(interventions_path(place, KEY), row)
    return Run(KEY, str(place))


def test_the_command_is_one_that_the_script_takes(data):
    run = Run(KEY, "caches", Path("some place") / KEY.checkpoint("x"))
    words = shlex.split(use_and_need.command_of(run, data))
    args = cli.parse(intervene.Settings, "", words[2:])
    assert words[:2] == ["python", "intervene.py"] and args.checkpoint == run.checkpoint.as_posix()
    assert args.cache_dir == "caches" and args.num_episodes == data.header["num_episodes"] and "--what" not in words


def test_rows_that_belong_together_are_shown(data, tmp_path):
    assert "`python intervene.py --checkpoint" in refusal(use_and_need.rows_of, Run(KEY, str(tmp_path)), data)
    other = {"checkpoint_sha256": "0" * 16, "eval_seed": 0, "minigrid_version": "3.1.0"}
    run = write(tmp_path, rows(other))
    found = use_and_need.rows_of(run, data)
    assert [row["intervention"] for row in found] == [NONE, "lesion 0.1", "lesion 0.2"]
    page = use_and_need.matrix_page(run, found, data)
    (name,) = page.figures
    assert [text.get_text() for text in page.figures[name].draw().axes[0].texts].count("-50.0") == 2
    caption = page.caption(name, Export())
    assert "12 worlds" in caption and "Command: python intervene.py" in caption
    assert use_and_need.other_checkpoint(run, found, data) is None, "nothing is known"
    checkpoint = tmp_path / "checkpoint_final.pt"
    checkpoint.write_bytes(b"other")
    note = use_and_need.other_checkpoint(Run(KEY, str(tmp_path), checkpoint), found, data)
    assert str(interventions_path(tmp_path, KEY)) in note and str(checkpoint) in note


def test_without_a_row_of_the_intact_policy_the_command_makes_one(data, tmp_path):
    about = {"checkpoint_sha256": "0" * 16, "eval_seed": 0, "minigrid_version": "3.1.0"}
    run = write(tmp_path, rows(about)[1:])
    assert "`python intervene.py --checkpoint" in refusal(use_and_need.rows_of, run, data)
    for row in rows(about | {"eval_seed": 5})[:1]:  # of other worlds
        add_row(interventions_path(tmp_path, KEY), row)
    refusal(use_and_need.rows_of, run, data)
    for row in rows(about)[:1]:
        add_row(interventions_path(tmp_path, KEY), row)
    page = use_and_need.shown(run, data, "plots").text
    assert "use_and_need" in page and "lesion 0.2" in page and "marimo-callout" not in page
