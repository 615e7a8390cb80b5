"""Many runs as a sample: which of them count and why not, tables, figures, the script."""

import csv
import json
import math
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from eval_helpers import write_result
from figure_contents import check_labels
from routing_data import TASK, random_data
from scripts import check_refused, in_process, run_script_here

import seed_statistics
from mop.analysis.many_runs import ALL_STEPS, ANY_ACTION
from mop.apps.samples import Asked, choose_units, count_reasons, parse_where, tasks_with_runs
from mop.apps.statistics_page import analyse, in_numbers, page_of, title_of
from mop.artifacts.routing_cache import write_cache
from mop.artifacts.run_paths import RunKey, cache_path
from mop.common.cli import parse
from mop.common.files import folder_lock
from mop.plotting.alphas import plot_lpc_with_action_held, plot_measures_against_alpha
from mop.plotting.hover import values_of

ALPHAS = (0.0, 1e-5, 1e-3)
SEEDS = (0, 1, 2)


def write_run(cache_dir: Path, trial: int, seed: int | None, alpha: float, has_cache=True, update=None, **settings):
    """A made-up run: LPC is lower with a higher alpha, and of another level for each seed."""
    key = RunKey(TASK, trial, seed, update)
    number = trial if seed is None else seed
    data = random_data(12, seed=100 * trial + number)
    lengths = np.bincount(data.steps.episode)
    for episode, length in zip(data.episodes, lengths.tolist(), strict=True):
        episode |= {"steps": length, "expert_steps": length - 2}
    data.steps.direction = np.random.default_rng(number).integers(0, 4, len(data.steps)).astype(np.int8)
    data.steps.lpc = (data.steps.lpc * (1 + 0.1 * number) / (1 + 1e4 * alpha)).astype(np.float32)
    row = {"checkpoint_path": str(key.checkpoint("checkpoints")), "task_id": TASK, "trial": trial, "seed": seed}
    row |= {"policy": "mop", "lpc_alpha": alpha, "num_updates": 60, "num_episodes": 12, "eval_seed": 0} | settings
    row |= {"success_rate": 0.8, "mean_lpc": 1.0}
    if has_cache:
        data.header |= {"seed": seed, "trial": trial, "checkpoint_path": row["checkpoint_path"]}
        write_cache(cache_dir, key, data)
    write_result(cache_dir, key, row)
    return key


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    """Three seeds at each of three penalties, and a run of each kind that does not count."""
    folder = tmp_path_factory.mktemp("statistics") / "evaluation_cache"
    for trial, alpha in enumerate(ALPHAS):
        for seed in SEEDS:
            write_run(folder, trial, seed, alpha)
    write_run(folder, 10, 0, 0.0)
    write_run(folder, 11, 0, 0.0, num_updates=300)
    write_run(folder, 12, 3, 0.0, eval_seed=5000, num_updates=300)
    write_run(folder, 13, 3, 0.0, policy="gru")
    write_run(folder, 14, 3, 0.0, has_cache=False)
    write_run(folder, 0, 0, 0.0, update=30)
    write_run(folder, 15, 4, 1e-5)
    path = cache_path(folder, RunKey(TASK, 15, 4))
    path.write_text(path.read_text()[:1000])
    return folder


@pytest.fixture(scope="module")
def tables(cache_dir):
    return analyse(Asked(TASK, cache_dir=str(cache_dir)))


def test_every_run_counts_or_is_counted_with_its_reason(cache_dir, tables):
    units, left_out = choose_units(Asked(TASK, cache_dir=str(cache_dir)))
    assert [(unit.lpc_alpha, unit.seed) for unit in units] == sorted(
        [(alpha, seed) for alpha in ALPHAS for seed in SEEDS] + [(1e-5, 4)]
    )
    reasons = count_reasons(left_out)
    expected = {
        f"a copy: settings and seed of {TASK} trial 0 seed 0": 1,
        "other settings: num_updates 300 (not 60)": 1,
        "other settings: num_updates 300 (not 60), eval_seed 5000 (not 0)": 1,
        "a GRU baseline: it has no routers, and no lpc_alpha": 1,
        "no routing cache: `python batch_eval.py --force` without --skip_routing makes one": 1,
        "another checkpoint than the final one": 1,
    }
    assert reasons == expected
    assert len(units) + len(left_out) == 16, "no run is lost"
    (broken,) = [reason for run, reason in tables.left_out if run == f"{TASK} trial 15 seed 4"]
    assert broken.startswith("it cannot be measured: ")
    assert len(tables.measured) + len(tables.left_out) == 16 and tables.num_seeds == dict.fromkeys(ALPHAS, 3)
    notes = [note for note in tables.notes if note.startswith("left out, 1 run: ")]
    assert len(notes) == 7


def test_other_settings_and_updates_can_be_asked_for(cache_dir):
    asked = Asked(TASK, where=parse_where(["num_updates=300", "eval_seed=0"]), cache_dir=str(cache_dir))
    (unit,), left_out = choose_units(asked)
    assert unit.run.key.trial == 11
    assert count_reasons(left_out)["not asked for: num_updates is not 300"] == 11
    assert shlex.join(asked.flags).startswith(f"--task {TASK} --where num_updates=300 eval_seed=0 --cache_dir ")
    (unit,), _ = choose_units(Asked(TASK, update=30, cache_dir=str(cache_dir)))
    assert unit.run.key == RunKey(TASK, 0, 0, 30)
    for words in (["num_updates"], ["lpc_alpha=0"], ["=3"]):
        assert "--where" in refusal(parse_where, words)
    assert "num_updates" in refusal(
        choose_units, Asked(TASK, where=parse_where(["num_updates=7"]), cache_dir=str(cache_dir))
    )
    refusal(choose_units, Asked("BabyAI-GoTo-v0", cache_dir=str(cache_dir)))
    assert tasks_with_runs(str(cache_dir)) == [TASK]


def test_tables_have_every_seed_and_their_means(tables):
    seeds, summary = tables.seeds, tables.summary
    assert tables.phases == "by_key_phase"
    of_all = seeds[(seeds["phase"] == ALL_STEPS) & (seeds["action"] == ANY_ACTION)]
    assert len(of_all) == 9 and of_all["lpc"].notna().all() and of_all["complexity_nats"].notna().all()
    row = summary[(summary["phase"] == ALL_STEPS) & (summary["action"] == ANY_ACTION) & (summary["measure"] == "lpc")]
    for found in row.to_dict("records"):
        values = of_all[of_all["lpc_alpha"] == found["lpc_alpha"]]["lpc"]
        half = 4.3027 * values.std() / math.sqrt(3)
        assert found["mean"] == pytest.approx(values.mean())
        assert (found["low"], found["high"]) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)
        assert math.isnan(found["drawn_low"]) and (found["num_seeds"], found["num_missing"]) == (3, 0)
    assert len(row) == 3
    assert set(tables.shares["held"]) == {"", "action", "action × time since start", "cell × action × time since start"}
    assert {"LPC", "LPC of layer 2", "layer 0 skip", "layer 2 GRU 16"} <= set(tables.shares["value"])
    assert (tables.shares_summary["num_seeds"] == 3).all()


def test_a_phase_that_some_runs_never_reach_is_counted(cache_dir, tmp_path):
    folder = Path(shutil.copytree(cache_dir, tmp_path / "cache"))
    path = cache_path(folder, RunKey(TASK, 2, 1))
    path.with_suffix(".npz").unlink()
    content = json.loads(path.read_text())
    for episode in content["episodes"]:
        episode |= {"t_unlocked": None, "t_opened": None}
    path.write_text(json.dumps(content))
    tables = analyse(Asked(TASK, cache_dir=str(folder)))
    assert any("in 1 run: no phases: " in note for note in tables.notes), "it never unlocks the door"
    rows = tables.summary[(tables.summary["lpc_alpha"] == ALPHAS[2]) & (tables.summary["measure"] == "lpc")]
    rows = rows[rows["action"] == ANY_ACTION].set_index("phase")
    assert rows.loc[ALL_STEPS, "num_seeds"] == 3
    assert (rows.loc["key dropped", ["num_seeds", "num_missing"]] == [2, 1]).all()


def test_one_seed_gives_numbers_without_intervals_and_says_so(tmp_path):
    write_run(tmp_path, 0, None, 0.0)
    tables = analyse(Asked(TASK, cache_dir=str(tmp_path)))
    assert tables.summary["mean"].notna().any() and tables.summary["low"].isna().all()
    assert "one seed at lpc_alpha 0: numbers without intervals" in tables.notes[0]
    assert "one seed, so no intervals" in title_of(tables) and in_numbers(tables)["low"].isna().all()
    for name, figure in page_of(tables).figures.items():
        assert figure.draw().axes, name


def test_figures_have_a_dot_for_each_seed(tables):
    drawings = page_of(tables).figures
    assert list(drawings) == [
        *("measures_against_alpha", "measures_by_phase", "lpc_with_action_held", "correlations_by_phase"),
        *("variance_over_seeds", "variance_of_gates", "lpc_maps", "entropy_maps"),
    ]
    figure = drawings["measures_against_alpha"].draw()
    rows = pd.DataFrame(values_of(figure))
    dots = rows[(rows["measure"] == "lpc") & rows["seed"].notna()].sort_values(["lpc_alpha", "seed"])
    seeds = tables.seeds[(tables.seeds["phase"] == ALL_STEPS) & (tables.seeds["action"] == ANY_ACTION)]
    np.testing.assert_array_equal(dots["value"], seeds["lpc"])
    assert sum(line.get_marker() == "o" for line in figure.axes[1].lines) == 9


def test_labels_stay_inside_and_apart(tables):
    """Also with many values of lpc_alpha, close to each other."""
    drawings = page_of(tables).figures
    for name in ("measures_against_alpha", "variance_over_seeds", "variance_of_gates", "lpc_maps"):
        assert check_labels(drawings[name].draw(), name) >= 10
    one = tables.seeds[tables.seeds["action"].isin([ANY_ACTION, "forward"])]
    assert check_labels(plot_lpc_with_action_held(one, tables.summary, "a title"), "one row") >= 10
    close = [tables.seeds.assign(lpc_alpha=alpha) for alpha in (0.0, 1e-6, 3e-6, 1e-5, 2e-5, 5e-5, 1e-3, 0.01)]
    figure = plot_measures_against_alpha(pd.concat(close), tables.summary, "a title that is long " * 8)
    assert check_labels(figure, "close") >= 20


def test_figures_by_phase_have_its_columns(tables):
    phases = [phase for phase in dict.fromkeys(tables.seeds["phase"]) if phase != ALL_STEPS]
    assert len(phases) >= 3
    drawings = page_of(tables).figures
    figure = drawings["measures_by_phase"].draw()
    assert len(figure.axes) == 4 * (1 + len(phases))
    rows = pd.DataFrame(values_of(drawings["correlations_by_phase"].draw()))
    means = rows[rows["seed"].isna() & (rows["phase"] == phases[0]) & (rows["measure"] == "r_entropy")]
    assert len(means) == 3 and means["low"].notna().all()
    held = pd.DataFrame(values_of(drawings["lpc_with_action_held"].draw()))
    assert set(held["measure"]) == {"lpc_difference"} and ANY_ACTION not in set(held["action"])
    gates = pd.DataFrame(values_of(drawings["variance_of_gates"].draw()))
    assert set(gates["value"]) == set(tables.shares["value"]) and len(gates) == 3 * 13 * (4 + 1 + 3)
    maps = pd.DataFrame(values_of(drawings["lpc_maps"].draw()))
    assert set(maps["lpc_alpha"]) == set(ALPHAS) and set(maps["phase"]) == set(phases)


def test_any_grouping_can_be_the_phases(cache_dir):
    tables = analyse(Asked(TASK, "by_outcome", ("cell",), cache_dir=str(cache_dir)))
    assert set(tables.seeds["phase"]) == {ALL_STEPS, "success", "failure"}
    none = analyse(Asked(TASK, "none", ("cell",), cache_dir=str(cache_dir)))
    assert set(none.seeds["phase"]) == {ALL_STEPS} and none.phases is None
    assert set(none.seeds["action"]) > {ANY_ACTION}
    refusal(page_of(none).figures["measures_by_phase"].draw)


def test_script_writes_tables_figures_and_what_is_left_out(cache_dir, tables, tmp_path, capsys):
    flags = ("--cache_dir", cache_dir, "--only", "measures_against_alpha", "lpc_maps", "--format", "svg")
    result = run_script_here(capsys, "seed_statistics.py", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "plots" / TASK / "statistics"
    assert {path.name for path in folder.iterdir()} == {
        *("seeds.csv", "summary.csv", "variance.csv", "variance_summary.csv", "left_out.csv"),
        *(f"{name}.{end}" for name in ("measures_against_alpha", "lpc_maps") for end in ("svg", "csv", "txt")),
    }
    written = pd.read_csv(folder / "seeds.csv")
    pd.testing.assert_frame_equal(written, tables.seeds, check_dtype=False, rtol=1e-12)
    with (folder / "left_out.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 7
    caption = (folder / "lpc_maps.txt").read_text().splitlines()
    words = shlex.split(next(line for line in caption if line.startswith("Command: "))[9:])
    assert words[:2] == ["python", "seed_statistics.py"]
    parse(seed_statistics.Settings, "", words[2:])


def test_one_action_goes_to_a_folder_of_its_own(cache_dir, tmp_path):
    given = ("--cache_dir", cache_dir, "--plots_dir", tmp_path, "--only", "measures_by_phase", "--action")
    assert in_process(seed_statistics.main, *given, "turn left") == 0
    text = (tmp_path / TASK / "statistics" / "turn_left" / "summary.csv").read_text()
    assert "path_ratio" not in text and "r_entropy" in text
    shares = pd.read_csv(tmp_path / TASK / "statistics" / "turn_left" / "variance.csv", keep_default_na=False)
    assert set(shares["held"]) == {"", "time since start", "cell × time since start"}


def test_bad_input_is_one_line(cache_dir, tmp_path, capsys):
    bad = {
        ("--phases", "by_mood"): "--phases",
        ("--state", "smell"): "--state",
        ("--action", "dance"): "--action",
        ("--where", "x=1"): "--where",
        ("--task", "BabyAI-GoTo-v0"): "BabyAI-GoTo-v0",
        ("--cache_dir", "none"): ("none/", "batch_eval.py"),
        ("--only", "nothing"): ("--only", "nothing"),
    }
    check_refused(capsys, seed_statistics.main, bad, "--cache_dir", cache_dir, "--plots_dir", tmp_path)
    assert not list(tmp_path.iterdir())
    flags = ("--task", TASK, "BabyAI-GoTo-v0", "--only", "lpc_maps", "--plots_dir", tmp_path, "--cache_dir", cache_dir)
    assert in_process(seed_statistics.main, *flags) == 1
    assert "warning: no run of BabyAI-GoTo-v0" in capsys.readouterr().err


def test_two_processes_do_not_write_at_once(cache_dir, tmp_path, capsys):
    """The table that another one writes is not touched."""
    flags = ("--cache_dir", cache_dir, "--plots_dir", tmp_path, "--only", "lpc_maps")
    with folder_lock(tmp_path / TASK / "statistics") as is_mine:
        assert is_mine and in_process(seed_statistics.main, *flags) == 2
        assert "another process" in capsys.readouterr().err
    assert in_process(seed_statistics.main, *flags) == 0
    first = {path.name: path.read_bytes() for path in (tmp_path / TASK / "statistics").iterdir()}
    assert in_process(seed_statistics.main, *flags) == 0
    second = {path.name: path.read_bytes() for path in (tmp_path / TASK / "statistics").iterdir()}
    assert first == second and len(first) == 8, "the same bytes"
