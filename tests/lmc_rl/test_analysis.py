"""What is read of the rows of experiments, what is left out, and what is refused."""

import orjson
import pytest
from lmc_files import FORKS, HEIGHTS, OF_LINES, SETTINGS, write_experiment, write_line_experiment
from lmc_settings import tiny

from lmc_rl import experiment, imitation, imitation_settings, line_analysis, page
from lmc_rl.analysis import load_experiment, pooled_groups
from lmc_rl.instability import VERDICTS
from lmc_rl.line_analysis import load_line_experiment, pooled_lines
from lmc_rl.records import CONFIG_NAME, ROWS_NAME
from lmc_rl.settings import MIN_EPISODES
from lmc_rl.studies import load_study
from mop.common.errors import InputError
from mop.plotting.hover import boxes_of


def test_a_walk_that_was_cut_off_is_left_out(tmp_path):
    """Of the last fork, some places are missing, or all but a few episodes."""
    folder = write_experiment(tmp_path)
    rows, num_episodes = (folder / ROWS_NAME).read_bytes().splitlines(keepends=True), SETTINGS["num_eval_episodes"]
    assert [result.fork for result in load_experiment(folder).forks] == [0, 1, 2, 3]
    cases = 0
    for places_left in (1, 3, SETTINGS["alpha_points"] - 1):
        missing = (SETTINGS["alpha_points"] - places_left) * num_episodes
        (folder / ROWS_NAME).write_bytes(b"".join(rows[:-missing]))
        assert [result.fork for result in load_experiment(folder).forks] == [0, 1, 2]
        cases += 1
    assert cases == 3
    few = [row for row in rows if b'"fork":3' not in row or orjson.loads(row)["episode"] < MIN_EPISODES - 1]
    (folder / ROWS_NAME).write_bytes(b"".join(few))
    assert [result.fork for result in load_experiment(folder).forks] == [0, 1, 2]
    (folder / ROWS_NAME).write_bytes(b"".join(rows[:-1]))  # the last episode lacks its last place
    last = load_experiment(folder).forks[3]
    assert last.returns.shape == (1, num_episodes - 1, SETTINGS["alpha_points"])


@pytest.mark.parametrize(
    ("write", "load", "pooled"),
    [
        (write_experiment, load_experiment, pooled_groups),
        (write_line_experiment, load_line_experiment, pooled_lines),
    ],
    ids=["run_env", "run_mop"],
)
def test_the_same_seed_twice_is_one_parent(tmp_path, write, load, pooled):
    """Both are named; the page shows the first, and says why it leaves the other out."""
    first, twin, other = write(tmp_path / "a"), write(tmp_path / "b"), write(tmp_path / "a", seed=2)
    with pytest.raises(InputError, match=r"a/demo\S+ and \S+b/demo\S+ have the same seed .* leave one of them out$"):
        pooled([load(first), load(other), load(twin)])
    (points,) = pooled([load(first), load(other)]).values()
    assert {len(point.results) for point in points} == {2}
    words = [folder.relative_to(tmp_path).as_posix() for folder in (first, other, twin)]
    studies, problems = page.load_several(tmp_path, words, load_study(tmp_path, words[0]))
    assert [study.word for study in studies] == words[:2]
    assert len(problems) == 1 and "have the same seed" in problems[0]


@pytest.mark.parametrize("write", [write_experiment, write_line_experiment], ids=["run_env", "run_mop"])
def test_damaged_measures_of_a_path_are_named(tmp_path, write):
    folder = write(tmp_path)
    (folder / "paths" / "independent.json").write_bytes(b'{"distance": ')
    with pytest.raises(InputError, match=r"independent\.json is damaged"):
        load_study(tmp_path, folder.relative_to(tmp_path).as_posix())


def test_a_damaged_neighbour_does_not_keep_an_experiment_from_going_on(tmp_path, capsys):
    """Of both kinds: the latest folder is damaged, the one before it is found."""
    settings, line_settings = (
        tiny(**SETTINGS, fork_points=list(FORKS), seed=1, resume=True, experiment_name="demo"),
        imitation_settings.settle(OF_LINES | {"seed": 1, "fork_points": list(HEIGHTS), "resume": True})[0],
    )
    whole = write_experiment(tmp_path / "results", experiment_name="demo")
    whole_line, covered = write_line_experiment(tmp_path / "results"), 0
    for content in ("{", '{"settings": {}}', '{"imitation": {"children": 2}}'):
        for folder in (whole, whole_line):
            beside = folder.with_name("seed_1_20270101_000000")
            beside.mkdir(exist_ok=True)
            (beside / CONFIG_NAME).write_text(content)
            covered += 1
        _, places = experiment._begin_or_continue(settings | {"output_dir": str(tmp_path)}, {"seed"})
        assert places.results.name == whole.name
        places = imitation._places_of(line_settings | {"output_dir": str(tmp_path)})
        assert places.results.name == whole_line.name
    assert covered == 6 and capsys.readouterr().out.count("passed over: ") == 4


def test_a_part_alone_has_no_verdict(tmp_path):
    """Its second end is a hybrid that nobody trained. All weights, aligned or not, have one in every place."""
    folder = write_line_experiment(tmp_path)
    loaded = load_line_experiment(folder)
    rows = line_analysis.table_of(pooled_lines([loaded]))
    column = [k for k, name in enumerate(line_analysis.HEAD) if name == "verdict"]
    part, told = line_analysis.HEAD.index("part"), {}
    for row in rows:
        told.setdefault(row[part], set()).update(row[k] for k in column)
    assert told.keys() == {"all", "all, aligned", "routers", "experts"}
    assert told["routers"] == told["experts"] == {"–"}
    assert told["all"] <= {*VERDICTS} and told["all, aligned"] <= {*VERDICTS}
    for line in loaded.lines:
        says = line.summary()["cross_entropy_verdict"]
        assert (says == "–") == (line.part != "all")
    study = load_study(tmp_path, folder.relative_to(tmp_path).as_posix())
    choices = page.Choices(str(tmp_path), study, "0", (study,), "routers")
    assert "barrier" not in page.draw_path(choices).get_suptitle().replace("\n", " ")
    texts = [box.text for box in boxes_of(page.draw_several(choices, "barrier", page.POOLED))]
    assert texts and not any(word in text for text in texts for word in (", connected", ", undecided", ", barrier,"))
