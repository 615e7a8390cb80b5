"""The page of many runs: its table, filters, figures and captions; what cannot be compared is one line."""

import html
import shlex
import shutil
from pathlib import Path

import orjson
import pandas as pd
import pytest
from checks import refusal
from old_caches import CACHE, TASK
from scripts import REPOSITORY, run_script_here, the_error_line

from mop.apps.comparison_page import (
    ALL,
    Settings,
    as_shown,
    choose_pair,
    common_analyses,
    common_worlds,
    compare_in_numbers,
    complete,
    filtered,
    link_to_run,
    load_table,
    measures_of,
    page_of,
    penalties,
    plot_comparison,
    plot_tasks,
    plot_tradeoff,
    result_notes,
    run_words,
    worlds_name,
    worlds_of,
)
from mop.apps.elements import View, opened_by
from mop.apps.runs import Run, find_cached_runs, load_routing
from mop.apps.template import Export
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common import cli
from mop.plotting.compared_runs import ALL_MEASURES

KEY = RunKey(TASK, 0, 0)
TABLES = [REPOSITORY / "results" / f"{name}.csv" for name in ("linear/tasks", "alpha")]
PENALTIES = [0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]  # of the published tables


@pytest.fixture
def cache_dir(tmp_path) -> Path:
    """The small cache twice, as trial 0 and, in other worlds and at another update, as trial 7."""
    folder = Path(shutil.copytree(CACHE, tmp_path / "evaluation_cache"))
    other = RunKey(TASK, 7, None, 50)
    shutil.copytree(KEY.artefacts(CACHE), other.artefacts(folder))
    path = cache_path(folder, other)
    content = orjson.loads(path.read_bytes())
    for episode in content["episodes"]:
        episode["seed"] += 500
    path.write_bytes(orjson.dumps(content | {"trial": 7, "seed": None, "update": 50, "is_final": False}))
    (path.parent / "result.json").unlink()
    return folder


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return load_table("none", TABLES)[0]


def test_table_of_results_and_older_tables(cache_dir, tmp_path):
    table = tmp_path / "table.csv"
    old = {"task_id": ["BabyAI-GoTo-v0", TASK], "trial": [1, 0], "seed": [None, 0], "num_episodes": [1000, 1000]}
    old |= {"success_rate": [0.5, 0.1], "mean_lpc": [100.0, 7.0], "lpc_alpha": [1e-5, 0.0]}
    pd.DataFrame(old).to_csv(table, index=False)
    (cache_dir / "result.json").write_text("{}")
    rows, problems = load_table(str(cache_dir), [table, tmp_path / "none.csv"])
    assert rows["task_id"].tolist() == [TASK, "BabyAI-GoTo-v0"], "the cached result goes before that of unknown worlds"
    assert rows["success_rate"].tolist() == [1.0, 0.5] and rows["policy"].tolist() == ["mop", "mop"]
    assert rows.loc[1, "success_low"] == pytest.approx(0.469, abs=1e-3)
    assert worlds_of(rows).tolist() == ["12:0", "unknown"] and rows["env_steps"].tolist()[0] == 300 * 16 * 32
    assert len(problems) == 1 and "result.json is skipped: results lie in" in problems[0]
    (shown,) = as_shown(rows.assign(success_low=[0.7, None], success_high=[1.0, None]))["interval"].dropna()
    assert shown == "70.0% to 100.0%", "an older table may have neither an interval nor a number of episodes"
    pd.DataFrame(old).assign(eval_seed=0).to_csv(table, index=False)
    rows, _ = load_table(str(cache_dir), [table])
    assert worlds_of(rows).tolist() == ["12:0", "1000:0", "1000:0"], "another evaluation of the same run"


def test_tables_of_something_else_are_named(cache_dir, tmp_path):
    (tmp_path / "broken.csv").write_bytes(b"\x00\xff")
    (tmp_path / "other.csv").write_text("planet,moons\nMars,2\n")
    rows, problems = load_table(str(cache_dir), [tmp_path / "broken.csv", tmp_path / "other.csv"])
    assert len(rows) == 1 and len(problems) == 2
    assert "broken.csv" in problems[0] and "other.csv" in problems[1]
    assert "batch_eval.py" in refusal(load_table, str(tmp_path / "none"), ["x.csv"])


def test_filters(rows):
    assert common_worlds(rows) == ["1000:0"] and sorted(map(float, penalties(rows))) == PENALTIES
    assert penalties(rows)[:2] == ["0", "1e-05"], "those of the table of tasks, where there are most"
    assert worlds_name("1000:0") == "1,000 worlds from eval_seed 0"
    cheap = filtered(Settings(worlds=ALL, lpc_alpha="1e-4"), rows)
    assert set(cheap[cheap["policy"] == "mop"]["lpc_alpha"]) == {1e-4}
    assert cheap["policy"].eq("gru").sum() == rows["policy"].eq("gru").sum() >= 48
    refusal(filtered, Settings(worlds="300:0", lpc_alpha=ALL), rows)
    assert list(as_shown(rows).columns)[:2] == ["task", "policy"] and "update" not in as_shown(rows)


def test_what_cannot_be_compared_is_said(rows):
    assert result_notes(rows) == []
    mixed = pd.concat([rows, rows[:1].assign(eval_seed=100_000)])
    (note,) = result_notes(mixed)
    assert "eval_seed 0" in note and "eval_seed 100000" in note
    assert "different worlds" in plot_tasks(mixed, "failures").get_suptitle()
    (note,) = result_notes(rows[rows["policy"] == "mop"])
    assert "`python train.py`" in note


def test_by_task_shows_the_last_checkpoint_of_each_run(rows):
    mixture = rows[rows["policy"] == "mop"][:1]
    one = mixture.assign(env_steps=100, update=5, success_rate=0.5, success_low=0.4, success_high=0.6)
    figure = plot_tasks(pd.concat([one, mixture]), "success")
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_marker() == "o"] == [[100.0]]


def test_tradeoff_leaves_out_what_it_cannot_colour(rows):
    assert len(rows) >= 40 and set(rows["policy"]) == {"mop", "gru"}

    def labels(*asked) -> list[str]:
        return [text.get_text() for text in plot_tradeoff(rows, *asked).legends[0].get_texts()]

    assert len(plot_tradeoff(rows, "task", "mop").axes) == rows["task_id"].nunique() >= 16
    assert labels("lpc_alpha", "mop") == [f"{alpha:g}" for alpha in PENALTIES]
    (ax,) = plot_tradeoff(rows, "lpc_alpha", "mop").axes
    dots = [len(container.lines[0].get_xdata()) for container in ax.containers]
    mixtures = rows[rows["policy"] == "mop"]
    num_shown = (mixtures.groupby("task_id")["lpc_alpha"].transform("nunique") > 1).sum()
    assert sum(dots) == num_shown >= 70 + 12 * 6, "two tasks, seven penalties, five seeds; twelve, two, three"
    assert labels("lpc_alpha", "gru") == ["0"]
    assert "lpc_alpha" in refusal(plot_tradeoff, rows.assign(lpc_alpha=None), "lpc_alpha", "gru")


def test_two_runs_are_chosen_by_the_folders_of_their_caches(cache_dir):
    cached = find_cached_runs([], str(cache_dir))
    words = list(run_words(cached).values())
    assert words == [f"{TASK}/trial_0/seed_0", f"{TASK}/trial_7/update_50"]
    left, right = choose_pair(cached, None, None)
    assert (left.key, right.key) == (KEY, RunKey(TASK, 7, None, 50))
    assert choose_pair(cached, words[1], words[1]) == (right, right) and choose_pair(cached, words[1], None)[0] == right
    assert choose_pair(cached, None, words[0]) == (right, left)
    assert "trial_1" in refusal(choose_pair, cached, "X/trial_1", None)
    shutil.rmtree(right.cache_path.parent)
    assert "batch_eval.py" in refusal(choose_pair, find_cached_runs([], str(cache_dir)), None, None)


def test_a_run_that_is_given_alone_is_compared_with_another_of_its_task():
    runs = [Run(RunKey(task, trial), "") for task, trial in (("A", 0), ("B", 0), ("B", 1), ("C", 0))]
    cached = {run.name: run for run in runs}
    a, b, b_1, c = runs
    pairs = {(None, None): (b, b_1), ("A", None): (a, b), ("B", None): (b, b_1), ("B_1", None): (b_1, b)}
    pairs |= {("C", None): (c, a), (None, "A"): (b, a), (None, "B"): (b_1, b), (None, "B_1"): (b, b_1)}
    words = {None: None, "A": "A/trial_0", "B": "B/trial_0", "B_1": "B/trial_1", "C": "C/trial_0"}
    for (left, right), chosen in pairs.items():
        assert choose_pair(cached, words[left], words[right]) == chosen, (left, right)


def test_two_runs_in_numbers_and_what_their_maps_can_show(cache_dir):
    one, other = map(load_routing, find_cached_runs([], str(cache_dir)).values())
    table, notes = compare_in_numbers(one, one)
    head, _, success, ratio, lpc = table.split("\n")
    assert "left: mixture lpc_alpha 0 trial 0 seed 0 | right: mixture" in head and notes == []
    assert success.startswith("| success | 100.0 % (75.8 to 100.0) |") and "**+0.0 % (" in success
    assert "paired by world, 12 worlds that both solve" in ratio and "**+0.0 (+0.0 to +0.0)**" in lpc
    table, notes = compare_in_numbers(one, other)
    assert "not paired, 12 and 12 episodes" in table and "not evaluated in the same worlds" in notes[0]
    assert measures_of(one, other, "overall") == [ALL_MEASURES, "LPC", "layer 0", "layer 1", "layer 2"]
    assert measures_of(one, other, "by_carrying")[0] == "LPC"
    assert common_analyses(one, other)["by key phase"] == "by_key_phase"


def test_comparison_shows_a_column_for_each_run(cache_dir):
    chosen = list(find_cached_runs([], str(cache_dir)).values())
    figure = plot_comparison(Settings(), chosen)
    titles = [" ".join(ax.get_title().split()) for ax in figure.axes]
    num_steps = len(load_routing(chosen[0]).steps)
    assert f"{TASK} mixture lpc_alpha 0 trial 0 seed 0 {num_steps} steps layer 0" in titles
    assert any("trial 7 update 50" in title for title in titles)
    assert [titles.count(name) for name in ("layer 1", "layer 2")] == [2, 2]
    refusal(plot_comparison, Settings(), [])


def test_flags_of_the_filters(rows):
    def asked(*flags):
        return complete(cli.parse(Settings, "", [*map(str, flags)]), rows)

    assert asked() == Settings(worlds="1000:0", lpc_alpha="0")
    of_all = Settings(worlds=ALL, lpc_alpha=ALL)
    assert asked("--worlds", ALL, "--lpc_alpha", ALL) == of_all
    for flags in (("--worlds", "7:7"), ("--lpc_alpha", "x")):
        assert flags[0] in refusal(asked, *flags)


def test_the_command_of_a_caption_makes_the_same_figure(cache_dir, tmp_path, capsys, monkeypatch):
    left, right = run_words(find_cached_runs([], str(cache_dir))).values()
    asked = {"worlds": "12:0", "lpc_alpha": "0", "policy": "mop", "analysis": "by_carrying", "map": "layer 1"}
    args = Settings(**asked, left=left, right=right, results_path=("none.csv",))
    table, _ = load_table(str(cache_dir), [])
    monkeypatch.chdir(tmp_path)
    caption = page_of(args, table).caption("difference", Export("svg"))
    command = shlex.split(caption.splitlines()[-1].removeprefix("Command: "))
    assert command[:2] == ["python", "cross_task_viz.py"] and "Right: " in caption
    result = run_script_here(capsys, command[1], *command[2:], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["plots/difference.svg"]
    assert (tmp_path / "plots" / "difference.txt").read_text().splitlines()[:-1] == caption.splitlines()
    assert (tmp_path / "plots" / "difference.csv").read_text().startswith("panel,")


def test_a_run_that_is_asked_for_and_not_there_is_refused(capsys):
    result = run_script_here(capsys, "cross_task_viz.py", "--left", "nonsense", "--cache_dir", CACHE, cwd=REPOSITORY)
    assert result.returncode == 2 and "nonsense" in the_error_line(result.stderr) and result.stdout == ""


def test_a_point_leads_to_its_run_where_one_server_has_both_pages():
    row = {"task_id": TASK, "trial": 2, "seed": 1.0, "trained_on": float("nan")}
    address = link_to_run(View({"file": "cross_task_viz.py", "measure": "success"}))
    assert address(row) == f"?file=routing_viz.py&run={TASK}/trial_2/seed_1"
    assert address(row | {"seed": float("nan"), "trained_on": "three"}) == (
        f"?file=routing_viz.py&run=three/trial_2/{TASK}"
    )
    assert address({"task_id": TASK, "mean": 3.0}) == "" and link_to_run(View({}))(row) == ""
    column = opened_by([address(row), ""])["run"]
    assert html.unescape(column[0].text) == f'<a href="{address(row)}">open</a>' and column[1].text == ""
    assert opened_by(["", ""]) == {}
