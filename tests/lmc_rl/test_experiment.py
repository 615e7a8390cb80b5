"""Experiments of lmc_rl from beginning to end: interrupted anywhere, in several processes, and by their commands."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pandas as pd
import pytest
from checks import refusal
from dying import dying, run_until_it_lives
from lmc_settings import FLAGS, TINY, tiny
from scripts import PATIENCE_S, REPOSITORY, check_refused, in_process, refused, script_environment

from lmc_rl import analyze, check_run, compare, run_env, run_mop
from lmc_rl.analysis.figures import plot_all_lines, plot_path
from lmc_rl.analysis.lost_figures import plot_instability
from lmc_rl.analysis.report import table_of, write_summaries
from lmc_rl.analysis.results import ExperimentPaths, load_experiment, pooled_groups, read_measures
from lmc_rl.analysis.table import ROWS_NAME, read_rows
from lmc_rl.config import resolve_mop, resolve_rl
from lmc_rl.experiment import is_finished, run
from lmc_rl.learners.rl import PathSegment, RLLearner
from lmc_rl.learners.sac_ddpg import RLRun
from mop.artifacts.checkpoints import load_checkpoint, load_training_state, save_checkpoint, save_training_state
from mop.common.cli import as_flags, parser_of
from mop.plotting.hover import values_of

WEIGHTS = {"final.pt", "independent.pt", "self_1.pt", "fork1_0.pt", "fork2_0.pt", "fork1_1.pt", "fork2_1.pt"}


SHORT = {"total_steps": 120, "learning_starts": 24, "eval_freq": 40}


def do(folder: Path, **changes) -> ExperimentPaths:
    """An experiment of tiny settings below a folder."""
    return ExperimentPaths.of_results(run(tiny(output_dir=str(folder), **SHORT, **changes)))


def outcome(places: ExperimentPaths) -> dict[str, bytes]:
    """What must not depend on interruptions and processes: weights, snapshots, rows, measures."""
    files = [*places.weights.iterdir(), *places.results.glob("forks/*.pt"), *places.results.glob("paths/*.json")]
    found = {path.name: path.read_bytes() for path in [*files, places.results / ROWS_NAME]}
    return {name: content.replace(places.results.name.encode(), b"run") for name, content in found.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> ExperimentPaths:
    """A finished experiment that nobody interrupted; change only copies."""
    return do(tmp_path_factory.mktemp("whole"))


def test_an_experiment_leaves_its_files(whole):
    assert {path.name for path in whole.weights.iterdir()} == WEIGHTS
    assert {path.name for path in whole.results.iterdir()} == {"config.json", "training", "forks", "paths", ROWS_NAME}
    folders = {path.name for path in (whole.results / "training").iterdir()}
    assert folders == {"parent", "independent", "child_0_1", "child_0_2", "child_1_1", "child_1_2", "self_1"}
    for folder in folders:
        names = {path.name for path in (whole.results / "training" / folder).iterdir()}
        curve = {"training_curve.png"} if folder in ("parent", "independent") else set()
        assert names == {"training_log.csv", "sums.json"} | curve
    log = pd.read_csv(whole.results / "training" / "parent" / "training_log.csv")
    assert log["env_steps"].tolist() == [40, 80, 120] and log["eval_return"].notna().all()
    config = orjson.loads((whole.results / "config.json").read_bytes())
    assert config["settings"]["fork_points"] == [0.25, 0.5] and set(config["versions"]) >= {"torch", "mujoco"}
    assert whole.results.name.startswith("seed_5_") and whole.results.parent.name == "SAC"
    rows = read_rows(whole.results / ROWS_NAME)
    assert len(rows) == 6 + 4 * 5 * 6 and {row["run"] for row in rows} == {whole.results.name}
    assert {row["seed"] for row in rows} == set(range(10**6, 10**6 + 6))


def test_a_child_trained_twice_is_itself(whole):
    """The control of identical noise: equal weights, a barrier of exactly 0. Children with their own noise differ."""
    one, twin, other = (
        load_checkpoint(whole.weights / name)["policy_state_dict"] for name in ("fork1_1.pt", "self_1.pt", "fork2_1.pt")
    )
    assert all((one[name] == twin[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)
    controls = {line.kind: line for line in load_experiment(whole.results).lines if line.kind != "fork"}
    assert set(controls) == {"self", "independent"}
    found = controls["self"].main.barrier
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_killed_anywhere_it_ends_with_the_same_bytes(tmp_path, monkeypatch, whole):
    """It dies in the parent, in a child, while a path is evaluated, and while one is measured; each time it goes on."""
    monkeypatch.setattr("mop.training.loop.STATE_INTERVAL_S", 0.05)
    monkeypatch.setattr(RLRun, "learn", dying(RLRun.learn, (40, 110)))
    monkeypatch.setattr(PathSegment, "rows", dying(PathSegment.rows, (2,)))
    monkeypatch.setattr(RLLearner, "measures", dying(RLLearner.measures, (1,)))
    lock = tmp_path / whole.results.relative_to(whole.results.parents[4]).with_name(".seed_7_20260101_000000.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()  # of one with a seed of its own that was killed before it had a folder
    places, deaths = run_until_it_lives(tmp_path, lambda: do(tmp_path, resume=True))
    assert deaths == 4 and not list(tmp_path.rglob(".*.lock")) and len(list(tmp_path.rglob("config.json"))) == 1
    assert outcome(places) == outcome(whole)
    assert do(tmp_path, resume=True) == places and outcome(places) == outcome(whole)  # nothing is left to do


def test_it_says_how_much_there_is_to_do(tmp_path, whole, capsys):
    capsys.readouterr()
    do(tmp_path, controls="self", fork_points="0.5")
    out = capsys.readouterr().out
    rows = sum(len(path.read_bytes().splitlines()) for path in tmp_path.rglob(ROWS_NAME))
    assert f"4 runs of 120 steps (4 to train), 2 pairs of policies, {rows} episodes" in out


def copied(whole: ExperimentPaths, folder: Path) -> ExperimentPaths:
    """A copy of a finished experiment, that `do(folder, resume=True)` goes on with."""
    for place in (whole.results, whole.weights):
        root = place.parents[4]
        shutil.copytree(place, folder / place.relative_to(root))
    return ExperimentPaths.of_results(folder / whole.results.relative_to(whole.results.parents[4]))


def replaced(old: bytes, new: bytes, numbers: range) -> Callable[[list[bytes]], list[bytes]]:
    """Rows of which some say something else."""
    return lambda rows: [row.replace(old, new) if k in numbers else row for k, row in enumerate(rows)]


ROWS_LOST = {
    "one is lost": lambda rows: rows[:20] + rows[21:],
    "one is there twice": lambda rows: rows[:30] + rows[29:],
    "all are in reverse order": lambda rows: rows[::-1],
    "one is torn": lambda rows: [*rows[:9], rows[9][:40], rows[9][40:], *rows[10:]],
    "one says another fork": replaced(b'"fork":0', b'"fork":7', range(90, 91)),
    "some say another world": replaced(b'"seed":1000002', b'"seed":4', range(30)),
    "one has no return": replaced(b'"return"', b'"x"', range(40, 41)),
    "most are lost": lambda rows: rows[-3:],
}


@pytest.mark.parametrize("change", ROWS_LOST.values(), ids=ROWS_LOST)
def test_rows_are_known_by_what_they_say_and_made_again(tmp_path, whole, change):
    places = copied(whole, tmp_path)
    path = places.results / ROWS_NAME
    path.write_bytes(b"".join(line + b"\n" for line in change(path.read_bytes().splitlines())))
    assert path.read_bytes() != (whole.results / ROWS_NAME).read_bytes()
    assert do(tmp_path, resume=True) == places and outcome(places) == outcome(whole)


def test_a_lost_snapshot_is_made_again_where_a_child_needs_it(tmp_path, whole, monkeypatch):
    """By training the parent once more, only up to it; a kill meanwhile costs nothing."""
    monkeypatch.setattr("mop.training.loop.STATE_INTERVAL_S", 0.0)
    places = copied(whole, tmp_path)
    for lost in (places.snapshot(0), places.snapshot(1), places.child(1, 2)):
        lost.unlink()
    learned = []
    after_update = RLRun.after_update
    monkeypatch.setattr(RLRun, "after_update", lambda run: after_update(run) or learned.append(run.env_steps))
    monkeypatch.setattr(RLRun, "learn", dying(RLRun.learn, (20,)))
    _, deaths = run_until_it_lives(tmp_path, lambda: do(tmp_path, resume=True))
    assert deaths == 1 and max(learned[: learned.index(64) + 1]) == 64 and outcome(places) == outcome(whole)
    names = [{path.name for path in (one.results / "training").iterdir()} for one in (places, whole)]
    assert names[0] == names[1]
    places.snapshot(0).unlink()  # no child needs it
    learned.clear()
    do(tmp_path, resume=True)
    assert learned == [] and not places.snapshot(0).exists()


def test_weights_and_snapshots_are_those_that_were_written(tmp_path, whole):
    places = copied(whole, tmp_path)
    child = load_checkpoint(places.child(0, 1))
    next(iter(child["policy_state_dict"].values())).view(-1)[0] += 0.01
    snapshot = load_training_state(places.snapshot(1))
    snapshot["policy_state_dict"]["actor.mu.bias"] += 0.01
    for path, save in (
        (places.child(0, 1), lambda path: save_checkpoint(path, child)),
        (places.child(0, 2), lambda path: shutil.copy(places.child(1, 2), path)),
        (places.snapshot(1), lambda path: save_training_state(path, snapshot)),
    ):
        save(path)
        assert str(path) in refusal(do, tmp_path, resume=True)
        path.unlink()
        do(tmp_path, resume=True)
        if path != places.snapshot(1):  # which no child needs any more
            assert outcome(places) == outcome(whole)


def test_an_older_experiment_has_no_sums_and_gets_some(tmp_path, whole):
    places = copied(whole, tmp_path)
    for path in places.results.glob("training/*/sums.json"):
        path.unlink()
    assert do(tmp_path, resume=True) == places and outcome(places) == outcome(whole)


def test_nothing_is_begun_anew_beside_a_config_that_cannot_be_read(tmp_path, whole):
    places = copied(whole, tmp_path)
    (places.results / "config.json").write_bytes(b"{")
    line = refusal(do, tmp_path, resume=True)
    assert str(places.results / "config.json") in line and "move" in line
    (places.results / "config.json").unlink()
    refusal(do, tmp_path, resume=True)
    assert len(list(places.results.parent.iterdir())) == 1
    shutil.rmtree(places.results)
    places.results.mkdir()  # what a kill leaves in the first moment
    assert do(tmp_path, resume=True, controls="none", fork_points="none") != places


def test_a_damaged_measure_of_a_pair_is_made_again(tmp_path, whole):
    places = copied(whole, tmp_path)
    first, second, *_ = sorted((places.results / "paths").iterdir())
    first.write_bytes(b"{")
    shutil.copy(whole.results / "paths" / first.name, second)
    assert do(tmp_path, resume=True) == places and outcome(places) == outcome(whole)
    content, num_noticed = first.read_bytes(), 0
    for place in (place for place, byte in enumerate(content) if chr(byte).isdigit()):
        first.write_bytes(content[:place] + (b"5" if content[place] != ord("5") else b"6") + content[place + 1 :])
        if orjson.loads(first.read_bytes()) != orjson.loads(content):  # the 17th digit may be of the same number
            num_noticed += str(first) in refusal(read_measures, first)
    assert num_noticed > 50
    first.write_bytes(content.replace(b'"distance": ', b'"distance": 1'))
    assert do(tmp_path, resume=True) == places and first.read_bytes() == content
    earlier = {name: value for name, value in orjson.loads(content).items() if name != "sum"} | {"distance": 9.0}
    first.write_bytes(orjson.dumps(earlier))  # of a version without sums
    assert do(tmp_path, resume=True) == places and read_measures(first) == earlier


@pytest.mark.parametrize("strategy", ["shared", "split"])
def test_other_strategies_go_through(tmp_path, strategy):
    places = do(
        tmp_path, fork_buffer_strategy=strategy, algo="DDPG", controls="self", children=3 - (strategy == "shared")
    )
    _, first, control = load_experiment(places.results).lines
    assert first.pairs == ((1, 2), (1, 3), (2, 3))[: len(first.pairs)] and first.main.gains.shape[1:] == (6, 5)
    assert control.kind == "self" and control.main.barrier.value == 0


@pytest.mark.slow
def test_several_processes_end_with_the_same_bytes(tmp_path, whole):
    assert outcome(do(tmp_path, jobs=2)) == outcome(whole)


def test_analysis_and_figures(whole):
    loaded = load_experiment(whole.results)
    assert is_finished(whole.results)
    forks = [line for line in loaded.lines if line.kind == "fork"]
    assert [(line.fork, line.fraction) for line in forks] == [(0, 0.25), (1, 0.5)]
    write_summaries(loaded)
    written = orjson.loads((whole.results / "all_forks_results.json").read_bytes())["forks"]
    assert written[1] == orjson.loads((whole.results / "forks" / "instability_1.json").read_bytes())
    path = written[1]["paths"][0]
    rows = [row for row in read_rows(whole.results / ROWS_NAME) if row["kind"] == "fork" and row["fork"] == 1]
    first = [row["return"] for row in rows if row["alpha"] == 0]
    assert (
        path["fork1_return"] == pytest.approx(sum(first) / 6) == pytest.approx(path["interpolation"][0]["mean_return"])
    )
    assert path["measures"]["distance"] > 0 and len(path["measures"]["td_error"]) == 5

    groups = pooled_groups([loaded, replace(loaded, config=replace(loaded.config, seed=6))])
    (points,) = groups.values()
    assert [(point.first.kind, point.first.fraction, len(point.lines)) for point in points] == [
        ("fork", 0.25, 2), ("fork", 0.5, 2), ("self", 0.5, 2), ("independent", None, 2),
    ]  # fmt: skip
    assert len(table_of(groups)[1]) == 4
    rows = values_of(plot_path({"run": forks[0]}))
    assert sum("episode" in row for row in rows) == forks[0].main.gains.size
    drawn = [row for row in rows if "mean_return" in row]
    assert [row["alpha"] for row in drawn] == [0, 0.25, 0.5, 0.75, 1]
    assert [row["mean_return"] for row in drawn] == pytest.approx(forks[0].main.gains[0].mean(axis=0))
    drawn = values_of(plot_all_lines({"a": forks, "b": forks}))
    assert len(drawn) == 20 and {row["name"] for row in drawn} == {"25%", "50%"}
    shown = values_of(plot_instability(groups))
    known = [point for point in points if point.first.kind != "self" and point.barrier.value == point.barrier.value]
    assert len(shown) == 2 * len(known)


def test_analyze_pools_seeds(tmp_path, capsys, monkeypatch, whole):
    other = do(tmp_path, seed=6, controls="none")
    capsys.readouterr()
    args = ("--results_dir", whole.results, other.results, "--out", tmp_path / "out")
    assert in_process(analyze.main, *args) == 0
    out, err = capsys.readouterr()
    assert err == "" and "InvertedDoublePendulum-v5 SAC, copy  25%          2" in out
    names = {"all_interpolations.png", "interp_fork_0.png", "interp_fork_1.png", "instability_over_time.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"instability.md"}
    given = ("--results_dir", other.results, "--total_steps")
    assert in_process(analyze.main, *given, 120) == 0 and "25%" in capsys.readouterr().out
    assert (other.results / "fork_analysis" / "interp_fork_1.png").exists()
    summary = (other.results / "all_forks_results.json").read_bytes()
    line = refused(capsys, analyze.main, *given, 240)  # forks at half of where they are
    assert "--total_steps" in line and "120" in line and str(other.results) in line
    assert (other.results / "all_forks_results.json").read_bytes() == summary


def test_compare_two_policies(tmp_path, capsys, monkeypatch, whole):
    files, flags = [whole.weights / "final.pt"] * 2, ("--alpha_points", 5, "--num_eval_episodes", 5)
    flags += ("--out", tmp_path / "same")
    assert in_process(compare.main, *files, *flags) == 0 and "of the actors 0.00" in capsys.readouterr().out
    told = orjson.loads((tmp_path / "same" / "compare.json").read_bytes())
    assert told["barrier"]["value"] == 0
    rows = (tmp_path / "same" / ROWS_NAME).read_bytes()
    assert in_process(compare.main, *files, *flags) == 0
    assert (tmp_path / "same" / ROWS_NAME).read_bytes() == rows
    measures = tmp_path / "same" / "paths" / "other.json"
    content = measures.read_bytes()
    measures.write_bytes(content.replace(b'"distance"', b'"renamed"'))
    assert in_process(compare.main, *files, *flags) == 0 and measures.read_bytes() == content  # measured again
    measures.write_bytes(b'{"renamed": 1}')  # of a version without sums
    capsys.readouterr()
    assert in_process(compare.main, *files, *flags) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {measures}: ")
    measures.write_bytes(content)
    moved = tmp_path / "moved" / "final.pt"
    moved.parent.mkdir()
    shutil.copy(files[0], moved)
    assert in_process(compare.main, moved, *files[1:], *flags) == 0  # the same policy, wherever it lies
    assert (tmp_path / "same" / ROWS_NAME).read_bytes() == rows
    files[1] = whole.weights / "independent.pt"
    assert "same" in refused(capsys, compare.main, *files, *flags), "made with other settings"


def test_check_run(tmp_path, capsys, monkeypatch):
    names = {"total_steps", "learning_starts", "hidden_sizes", "batch_size", "eval_freq", "eval_episodes", "device"}
    flags = as_flags({name: (TINY | SHORT)[name] for name in sorted(names)})
    assert in_process(check_run.main, *flags, "--seeds", "0,1", "--output_dir", tmp_path, "--resume") == 0
    out = capsys.readouterr().out
    assert all(f"{algo}, seed {seed}" in out for algo in ("SAC", "DDPG") for seed in (0, 1))
    folder = tmp_path / "results" / "check_run" / "InvertedDoublePendulum-v5"
    assert {path.name for path in folder.iterdir()} == {
        "SAC", "DDPG", "learning_curves.png", "wall_clock.png", "check_run.md",
    }  # fmt: skip


def test_bad_flags_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cases = {
        ("--fork_points", "0,0.5"): "fork_points",
        ("--fork_points", "0.001"): "fork_points",
        ("--fork_points", "0.9", "--fork_buffer_strategy", "fresh"): "--fork_points",
        ("--fork_points", "0.95", "--fork_buffer_strategy", "split", "--buffer_size", "40"): "--fork_points",
        ("--noise_std", "0.1"): "noise_std",
        ("--perturb", "0.1", "--split_noise", "replay"): "--split_noise",
        ("--total_steps", "40"): "--learning_starts",
        ("--eval_freq", "81"): "--eval_freq",
        ("--buffer_size", "10"): "--buffer_size",
        ("--num_eval_episodes", "4"): "--num_eval_episodes",
        ("--experiment_name", "a/b"): "experiment_name",
        ("--env", "Hopper-v99"): "Hopper-v99",
        ("--env", "CartPole-v1"): "CartPole-v1",
        ("--config", "nowhere.yaml"): "nowhere.yaml",
    }
    check_refused(capsys, run_env.main, cases, *FLAGS)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # nothing that a page would list


def test_what_is_no_experiment_is_named(tmp_path, capsys, whole):
    (tmp_path / "config.json").write_text('{"settings": {}}')
    folders = (tmp_path, tmp_path / "nothing", whole.weights)
    check_refused(
        capsys, analyze.main, dict.fromkeys([(folder,) for folder in folders], "config.json"), "--results_dir"
    )
    assert "a.pt" in refused(capsys, compare.main, tmp_path / "a.pt", tmp_path / "b.pt", "--out", tmp_path / "o")
    assert "--seeds" in refused(capsys, check_run.main, "--seeds", "one")


def test_a_config_file_and_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("algo: DDPG\nnoise_std: 0.3\nfork_points: 0.5\ntotal_steps: 20000\n")
    config = resolve_rl({"noise_std": "0.2"}, str(path))
    assert (config.algo, config.noise_std, config.fork_points, config.learning_rate) == ("DDPG", 0.2, (0.5,), 0.001)
    assert config.ent_coef is None and "ent_coef" not in config.recorded()
    path.write_text("fork_points: 0\n")
    assert resolve_mop({}, str(path)).fork_points == (0.0,)
    path.write_text("speed: 3\n")
    line = refusal(resolve_rl, {}, str(path))
    assert "mine.yaml" in line and "speed" in line
    for foreign in ("0", "5", "[[1]]", "{self: 1}", "true"):
        path.write_text(f"controls: {foreign}\n")
        line = refusal(resolve_rl, {}, str(path))
        assert "mine.yaml" in line and "controls" in line


def test_steps_are_rounded_down_to_updates(capsys):
    assert resolve_rl({"total_steps": 200_001}).total_steps == 200_000
    assert "200000" in capsys.readouterr().out
    assert resolve_rl({"total_steps": 200_001, "train_freq": 1}).total_steps == 200_001
    assert resolve_rl({"total_steps": 200_000}).total_steps == 200_000 and capsys.readouterr().out == ""


def test_the_documented_defaults():
    """Those that the first readme of the tool tells."""
    settings = resolve_rl({}).recorded()
    documented = {
        "env": "InvertedDoublePendulum-v5", "algo": "SAC", "seed": None, "total_steps": 200_000, "eval_freq": 1000,
        "max_episode_steps": 1000, "fork_points": [0.01, 0.05, *(k / 10 for k in range(1, 9))], "train_freq": 2,
        "fork_buffer_strategy": "copy", "buffer_size": 1_000_000, "experiment_name": "base", "learning_starts": 10_000,
        "num_eval_episodes": 100, "alpha_points": 101, "eval_episodes": 10,
    }  # fmt: skip
    assert {name: settings[name] for name in documented} == documented


@pytest.mark.slow
def test_ctrl_c_and_resume_in_a_process(tmp_path):
    """A run that is stopped by a signal ends with 130 and goes on with --resume, though no seed was given."""
    flags = [*FLAGS, "--total_steps", "2000", "--eval_freq", "0", "--controls", "none", "--fork_points", "none"]
    seed = flags.index("--seed")
    del flags[seed : seed + 2]
    args = [sys.executable, "-m", "lmc_rl.run_env", *flags, "--output_dir", str(tmp_path), "--resume"]
    environment = script_environment()
    with subprocess.Popen(
        args, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + PATIENCE_S
        while not list(tmp_path.rglob("training_log.csv")) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert err.count(b"interrupted") == 1 and b"--resume" in err and b"interrupted" not in out
    result = subprocess.run(args, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 0 and "parent: return" in result.stdout, result.stderr
    assert len(list(tmp_path.rglob("config.json"))) == len(list(tmp_path.rglob("final.pt"))) == 1


def test_the_commands_of_the_document_are_understood():
    text = (REPOSITORY / "docs" / "lmc.md").read_text(encoding="utf-8")
    parsers = {"run_env": run_env.parser, "run_mop": run_mop.parser}
    for module in (check_run, analyze, compare):
        parsers[module.__name__.partition(".")[2]] = partial(parser_of, module.Settings, "")
    found = re.findall(r"^python -m lmc_rl\.(\w+)(.*)$", text, re.MULTILINE)
    for name, words in found:
        flags = vars(parsers[name]().parse_args(shlex.split(words, comments=True)))
        if name == "run_env":
            resolve_rl(flags, flags.pop("config"))
    assert len(found) == 12 and {name for name, _ in found} == set(parsers)
