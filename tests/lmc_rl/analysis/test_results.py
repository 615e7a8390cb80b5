"""What is read of the rows of experiments, what is left out, and what is refused."""

import shutil

import numpy as np
import orjson
import pytest
from checks import refusal
from lmc_files import FORKS, HEIGHTS, OF_LINES, SETTINGS, write_experiment, write_line_experiment
from lmc_settings import tiny

from lmc_rl.analysis.archive import archive
from lmc_rl.analysis.barrier import VERDICTS
from lmc_rl.analysis.report import summary_of_part, table_of
from lmc_rl.analysis.results import load_experiment, pooled_groups
from lmc_rl.analysis.table import ROWS_NAME
from lmc_rl.app import page as app
from lmc_rl.app.catalog import load_shown
from lmc_rl.config import CONFIG_NAME, MIN_EPISODES, names_of, resolve_mop
from lmc_rl.experiment import begin_or_resume
from mop.plotting.hover import boxes_of


def forks_of(folder) -> list[int]:
    return [line.fork for line in load_experiment(folder).lines if line.kind == "fork"]


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    """Of the last fork, some places are missing, or all but a few episodes."""
    folder = write_experiment(tmp_path)
    rows, num_episodes = (folder / ROWS_NAME).read_bytes().splitlines(keepends=True), SETTINGS["num_eval_episodes"]
    assert forks_of(folder) == [0, 1, 2, 3]
    cases = 0
    for places_left in (1, 3, SETTINGS["alpha_points"] - 1):
        missing = (SETTINGS["alpha_points"] - places_left) * num_episodes
        (folder / ROWS_NAME).write_bytes(b"".join(rows[:-missing]))
        assert forks_of(folder) == [0, 1, 2]
        cases += 1
    assert cases == 3
    few = [row for row in rows if b'"fork":3' not in row or orjson.loads(row)["episode"] < MIN_EPISODES - 1]
    (folder / ROWS_NAME).write_bytes(b"".join(few))
    assert forks_of(folder) == [0, 1, 2]
    (folder / ROWS_NAME).write_bytes(b"".join(rows[:-1]))  # the last episode lacks its last place
    last = load_experiment(folder).lines[3]
    assert last.main.gains.shape == (1, num_episodes - 1, SETTINGS["alpha_points"])


@pytest.mark.parametrize("write", [write_experiment, write_line_experiment], ids=["run_env", "run_mop"])
def test_the_same_seed_twice_is_one_parent(tmp_path, write):
    """Both are named; the page shows the first, and says why it leaves the other out."""
    first, twin, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "a", seed=2)
    refusal(pooled_groups, map(load_experiment, (first, other, twin)))
    (points,) = pooled_groups(map(load_experiment, (first, other))).values()
    assert {len(point.lines) for point in points} == {2}
    words = [folder.relative_to(tmp_path).as_posix() for folder in (first, other, twin)]
    several, problems = app.load_several(tmp_path, words, load_shown(tmp_path, words[0]))
    assert [shown.word for shown in several] == words[:2]
    assert len(problems) == 1 and "have the same seed" in problems[0]


@pytest.mark.parametrize("write", [write_experiment, write_line_experiment], ids=["run_env", "run_mop"])
def test_damaged_measures_of_a_path_are_named(tmp_path, write):
    folder = write(tmp_path)
    (folder / "paths" / "independent.json").write_bytes(b'{"distance": ')
    assert "independent.json" in refusal(load_shown, tmp_path, folder.relative_to(tmp_path).as_posix())


def test_a_damaged_neighbour_of_another_seed_does_not_keep_an_experiment_from_going_on(tmp_path):
    """Of both kinds; one of the same seed may be the experiment itself, and is not passed over."""
    rl = tiny(
        **SETTINGS, fork_points=list(FORKS), seed=1, resume=True, experiment_name="demo", output_dir=str(tmp_path)
    )
    flags = OF_LINES | {"seed": 1, "fork_points": list(HEIGHTS), "resume": True, "output_dir": str(tmp_path)}
    whole = write_experiment(tmp_path / "results", experiment_name="demo")
    whole_line = write_line_experiment(tmp_path / "results")
    for content in ("{", '{"settings": {}}', '{"imitation": {"children": 2}}'):
        for folder in (whole, whole_line):
            for seed in (1, 2):
                beside = folder.with_name(f"seed_{seed}_20270101_000000")
                beside.mkdir(exist_ok=True)
                (beside / CONFIG_NAME).write_text(content)
        for config, folder in ((rl, whole), (resolve_mop(flags), whole_line)):
            damaged = folder.with_name("seed_1_20270101_000000")
            assert str(damaged) in refusal(begin_or_resume, config)
            shutil.rmtree(damaged)
            assert begin_or_resume(config)[1].results.name == folder.name


def test_rows_that_are_of_no_line_are_refused_in_one_line(tmp_path):
    folder = write_experiment(tmp_path)
    path = folder / "episodes.jsonl"
    lines = path.read_bytes().splitlines()
    number = next(k for k, line in enumerate(lines) if b'"fork":0' in line)
    row, count = orjson.loads(lines[number]), 0
    changes = {"children": [True, -1, [1], [1, "x"], {}], "kind": [[], {}, None, "forks", "random"]}
    changes |= {"alpha": [None, "x", -1, 2, True], "episode": ["x", None, 1.5, True], "fork": [True, "0", -1, None]}
    changes |= {"return": [None, "x", 1e999], "part": [3, []], "aligned": [1, "x"]}
    for name, values in changes.items():
        for value in values:
            changed = orjson.dumps(row | {name: value}).replace(b"null", b"1e999" if value == 1e999 else b"null")
            path.write_bytes(b"\n".join([*lines[:number], changed, *lines[number + 1 :], b""]))
            line = refusal(load_experiment, folder)
            assert f"{path}, line {number + 1}" in line and len(line) < 700, (name, value)
            count += 1
    assert count == 30
    rows = [orjson.loads(line) for line in lines]
    moved = [row | {"fork": 99} if row["fork"] == 0 else row for row in rows]
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in moved))
    assert str(folder) in refusal(load_experiment, folder)


def test_an_archive_of_another_form_is_refused_in_one_line(tmp_path):
    archive(write_line_experiment(tmp_path / "whole"), tmp_path / "kept", OF_LINES["alpha_points"])
    path = tmp_path / "kept" / "lines.npz"
    arrays, count = dict(np.load(path)), 0
    changes = {"places": [arrays["places"][1:], arrays["places"] * np.nan, arrays["places"].astype(str)]}
    changes |= {"worlds": [arrays["worlds"][:2], arrays["worlds"] + 1, -arrays["worlds"]]}
    changes |= {
        "keys": [np.array("[1]"), np.array("{"), np.array('[["fork", null, [1, 2], "all", false]]'), np.array(3)]
    }
    changes |= {"lpc": [arrays["lpc"][:, 1:], arrays["lpc"] * np.nan], "cross_entropy": [arrays["cross_entropy"][1:]]}
    for name, ways in changes.items():
        for changed in ways:
            np.savez(path, **arrays | {name: changed})
            assert str(path) in refusal(load_experiment, tmp_path / "kept"), name
            count += 1
    assert count == 13


def test_a_part_alone_has_no_connectivity(tmp_path):
    """Its second end is a hybrid that nobody trained. All weights, aligned or not, have one in every place."""
    folder = write_line_experiment(tmp_path)
    loaded = load_experiment(folder)
    head, rows = table_of(pooled_groups([loaded]))
    column = [k for k, name in enumerate(head) if name == "connectivity"]
    part, found = head.index("part"), {}
    for row in rows:
        found.setdefault(row[part], set()).update(row[k] for k in column)
    assert found.keys() == {"all", "all, aligned", "routers", "experts"}
    assert found["routers"] == found["experts"] == {"–"}
    assert found["all"] <= {*VERDICTS} and found["all, aligned"] <= {*VERDICTS}
    for line in loaded.lines:
        says = summary_of_part(line)["cross_entropy_verdict"]
        assert (says == "–") == (line.part != "all")
    shown = load_shown(tmp_path, folder.relative_to(tmp_path).as_posix())
    choices = app.Choices(str(tmp_path), shown, "0", (shown,), "routers")
    assert "barrier" not in app.draw_path(choices).get_suptitle().replace("\n", " ")
    texts = [box.text for box in boxes_of(app.draw_several(choices, "barrier", app.POOLED))]
    assert texts and not any(word in text for text in texts for word in (", connected", ", undecided", ", barrier,"))


def test_names_say_what_differs(tmp_path):
    """Experiments of another size are another group, and its name says in what it differs."""
    one, other = (load_experiment(write_line_experiment(tmp_path / str(k))) for k in range(2))
    other.config.run["num_updates"] = 40
    names = names_of([one.config, other.config])
    assert names == [f"BabyAI-GoToObj-v0, lpc_alpha 0, num_updates {n}" for n in (20, 40)]
