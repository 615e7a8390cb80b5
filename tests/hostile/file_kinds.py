"""The kinds of files that are read: small finished work that has them, and what reads each."""

from mop import cloud

import hashlib
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from generative_data import record_tiny, tiny_checkpoint
from generative_game_data import tiny_agent
from lmc_files import OF_LINES, write_experiment, write_line_experiment
from lmc_settings import learner, tiny
from pytest import MonkeyPatch
from scripts import TINY_FLAGS, TINY_TASK, run_script, the_error_line
from study_tables import STUDIES
from training import train_with

from generative import directions as directions_command
from generative import intervene, plot_training_csv, saliency, train_gen_model, validate
from generative.agents.networks import load_agent
from generative.app.catalog import find_recordings
from generative.attribution.agreement import rank_cases
from generative.attribution.hazard_study import Measured, load_measured
from generative.attribution.validation import cases_file
from generative.domains.babyai.causes import WorldExplanation
from generative.domains.registry import load_simulator
from generative.recordings import format as recordings
from generative.recordings.session import table_of
from generative.representations import decompositions
from generative.simulators.evaluation import MODEL, check_fidelity
from lmc_rl import compare
from lmc_rl.analysis.archive import archive
from lmc_rl.analysis.report import alignments_of
from lmc_rl.analysis.report import table_of as table_of_lines
from lmc_rl.analysis.results import ExperimentPaths, load_experiment, pooled_groups
from lmc_rl.app.catalog import find_experiments, load_shown
from lmc_rl.config import MopConfig, resolve_mop, resolve_rl
from lmc_rl.experiment import run as do_experiment
from lmc_rl.forking import child_of
from lmc_rl.learners.imitation import ImitationLearner
from mop.apps import comparison_page, runs, samples
from mop.apps.example_worlds import episode_frame
from mop.artifacts.checkpoints import find_checkpoints, load_training_state, quick_config, save_training_state
from mop.artifacts.intervention_rows import COLUMNS, in_words, load_rows, merge_rows
from mop.artifacts.records import write_record
from mop.artifacts.results import load_result, merge_results
from mop.artifacts.routing_cache import load_cache
from mop.common.errors import InputError
from mop.common.files import file_digest, open_output_dir, write_json
from mop.common.reading import read_csv, reading
from mop.common.train_config import parse_config
from mop.envs.bot_paths import BotPaths
from mop.evaluation import settings as of_evaluation
from mop.evaluation.batch import evaluate_checkpoint
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.plotting.curves import plot_episode_routing
from mop.training.loop import CURVE_NAME, STATE_NAME
from mop.training.policies import policy_from_checkpoint

RUN = f"checkpoints/{TINY_TASK}/trial_0"
CACHE = f"cache/{TINY_TASK}/trial_0"


@dataclass(frozen=True)
class Kind:
    """A kind of file: the prepared folder that has it, where it lies there, and what reads it."""

    root: str
    pattern: str
    reader: Callable[[Path, Path], object]  # of that folder and the file
    has_sums: bool = False  # damaged bytes are noticed, or change nothing


def fingerprint(value: Any) -> str:
    """A digest of nested dictionaries and lists of arrays, tensors and plain values."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        found = f"{value.dtype} {value.shape} {value.tobytes()!r}"
    elif isinstance(value, Mapping):
        found = repr(sorted((str(key), fingerprint(item)) for key, item in value.items()))
    elif isinstance(value, list | tuple):
        found = repr([fingerprint(item) for item in value])
    else:
        found = repr(value)
    return hashlib.sha256(found.encode(errors="replace")).hexdigest()


def call(main: Callable[[], int | None], *words: object) -> None:
    """Call a command here; it raises what it raises."""
    before = sys.argv
    sys.argv = ["command", *map(str, words)]
    try:
        assert not main()
    finally:
        sys.argv = before


# --- runs and their evaluations ---------------------------------------------------------------------------------------


def prepare_run(root: Path) -> None:
    """A small finished run, its evaluation, and rows of interventions."""
    train_with(*TINY_FLAGS, "--replay", "2", "--checkpoint_dir", root / "checkpoints")
    settings = of_evaluation.Settings(num_episodes=4, cache_dir=str(root / "cache"), device="cpu")
    evaluate_checkpoint(find_checkpoints([root / "checkpoints"])[0], settings)
    merge_results(root / "cache", root / "results.csv")
    numbers = dict.fromkeys(COLUMNS, 1) | {"checkpoint_path": "x", "task_id": TINY_TASK, "variant": "running"}
    rows = [numbers | {"intervention": name, "phases": [[1, 2]]} for name in ("none", "lesion")]
    (root / CACHE / "interventions.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    (root / "mine.yaml").write_text("lr: 0.001\ntrial: 2\nexpert_hidden_sizes:\n- [0, 16]\n- [0, 8]\n")
    (root / "tasks.yaml").write_text("BabyAI-GoToObj-v0: 1\nBabyAI-OpenDoor-v0: 2.5\n")
    with open_output_dir(root / "out", {"seed": 1}):
        pass
    (root / "lmc.yaml").write_text("algo: DDPG\nseed: 3\nfork_points: [0.1, 0.5]\nhidden_sizes: [16, 16]\n")


def read_checkpoint(root: Path, path: Path) -> object:
    quick_config(path)
    runs.label_of(next(iter(runs.find_runs([root / "checkpoints"], str(root / "cache")).values())))
    checkpoint = load_for_evaluation(path)
    with reading(path):
        policy_from_checkpoint(checkpoint)
        encoder_for(checkpoint)
    return checkpoint


def resume(root: Path, path: Path) -> object:
    words = ("--task_id", TINY_TASK, "--resume", "--num_updates", "7", "--num_workers", "0", "--device", "cpu")
    train_with(*words, "--checkpoint_dir", path.parents[2], "--wandb_project", "null")
    return load_training_state(path)


def evaluate(root: Path, path: Path) -> None:
    """The whole command, in a process of its own."""
    result = run_script("eval_mop.py", "--checkpoint", path, "--num_episodes", 2, "--device", "cpu", cwd=root)
    assert result.returncode in (0, 2), result.stderr
    if result.returncode == 2:
        line = the_error_line(result.stderr).removeprefix("error: ")
        assert "not enough memory" not in line, line
        raise InputError(line)


def read_training_log(root: Path, path: Path) -> None:
    read_csv(path)
    resume(root, path.with_name(STATE_NAME))


def read_cache(root: Path, path: Path) -> None:
    """The JSON alone, with what a page shows of it."""
    path.with_suffix(".npz").unlink(missing_ok=True)
    cache = load_cache(path)
    with reading(path):
        runs.describe_metrics(cache)
        episode_frame(cache, 0, 0)
        plot_episode_routing(cache, 0)


def read_arrays(root: Path, path: Path) -> object:
    """Arrays never matter: where something is wrong with them, the JSON beside them is read."""
    cache = load_cache(path.with_suffix(".json"))
    return cache.header, cache.episodes, cache.steps.columns()


def read_interventions(root: Path, path: Path) -> None:
    """The rows of a page; and the table of all, which leaves out what it cannot read."""
    merge_rows(root / "cache", root / "interventions.csv", lambda line: None)
    for row in load_rows(path):
        in_words(row)


def read_results(root: Path, path: Path) -> None:
    """The comparison of runs, and their table written anew over this one."""
    (root / CACHE / "result.json").unlink()
    table, problems = comparison_page.load_table(str(root / "cache"), [path])
    asked = comparison_page.Settings(worlds=comparison_page.common_worlds(table)[0], lpc_alpha=comparison_page.ALL)
    rows = comparison_page.filtered(asked, table)
    comparison_page.plot_tradeoff(rows, "lpc_alpha" if rows["lpc_alpha"].notna().any() else "task", None)
    merge_results(root / "cache", path, lambda line: None)
    if problems:
        raise InputError(problems[0])


def read_result(root: Path, path: Path) -> object:
    merge_results(root / "cache", root / "results.csv", lambda line: None)
    samples.tasks_asked(str(root / "cache"), None)
    return load_result(path)


def read_bot_paths(root: Path, path: Path) -> None:
    """Everything in it can be found again."""
    BotPaths(TINY_TASK, None, root / "cache").solvable(0, 2)


def draw_log(root: Path, path: Path) -> None:
    call(plot_training_csv.main, "--datapath", path, "--out", root / "drawn")


def go_on_in_folder(root: Path, path: Path) -> None:
    with open_output_dir(path.parent, {"seed": 1}):
        pass


# --- linear mode connectivity -----------------------------------------------------------------------------------------


def prepare_lmc(root: Path) -> None:
    """Experiments of both kinds, what is kept of them, and a snapshot."""
    returns, lines = write_experiment(root / "whole"), write_line_experiment(root / "lines")
    for name, folder in (("returns", returns), ("lines", lines)):
        archive(folder, root / f"kept_{name}" / "a", OF_LINES["alpha_points"])
        shutil.rmtree(folder / "training" / "child_0_1", ignore_errors=True)
    save_training_state(root / "snapshot.pt", learner(tiny(), 60).state())


def read_experiment(root: Path, path: Path) -> None:
    """What the table, the page and the report read."""
    top = root / path.relative_to(root).parts[0]
    folder = next(parent for parent in path.parents if parent.name == "a" or parent.name.startswith("seed_"))
    find_experiments(top)
    experiment = load_experiment(folder)
    table_of_lines(pooled_groups([experiment]))
    alignments_of([experiment])
    load_shown(top, folder.relative_to(top).as_posix())


def read_snapshot(root: Path, path: Path) -> None:
    with reading(path):
        child_of(tiny(), load_training_state(path), 60, 0, torch.device("cpu"))


def prepare_imitation(root: Path) -> None:
    """A finished experiment of imitation runs, and two of its policies compared."""
    do_experiment(of_imitation(root))
    compare_again(root, root)


def of_imitation(root: Path) -> MopConfig:
    flags = dict(zip((flag.removeprefix("--") for flag in TINY_FLAGS[::2]), TINY_FLAGS[1::2], strict=True))
    flags |= {"fork_points": "0.5", "alpha_points": 3, "num_trajectories": 5, "num_eval_episodes": 5, "seed": 5}
    return resolve_mop(flags | {"replay": 1, "controls": "none", "resume": True, "output_dir": str(root)})


def go_on_with_experiment(root: Path, path: Path) -> None:
    do_experiment(of_imitation(root))


def compare_again(root: Path, path: Path) -> None:
    """The command, which finds what it has measured."""
    ends = sorted(root.glob("model_weights/**/fork?_0.pt"))
    call(compare.main, *ends, "--out", root / "compared", "--alpha_points", 3, "--num_eval_episodes", 5)


def go_on_from_snapshot(root: Path, path: Path) -> None:
    results = next(root.glob("results/**/config.json")).parent
    ImitationLearner(of_imitation(root), ExperimentPaths.of_results(results)).fork(0, 1).close()


# --- studies ----------------------------------------------------------------------------------------------------------


def prepare_studies(root: Path) -> None:
    """The tables of each study, in a folder of its name."""
    for name, study in STUDIES.items():
        (root / name).mkdir()
        study.prepare(root / name)


def read_study(root: Path, path: Path) -> None:
    """The whole command, with its figures."""
    name = path.relative_to(root).parts[0]
    with MonkeyPatch.context() as patch:
        STUDIES[name].place(root / name, patch)
        call(STUDIES[name].main, *STUDIES[name].flags)


# --- generative -------------------------------------------------------------------------------------------------------


def prepare_recording(root: Path, num_steps: int = 900) -> None:
    """A recording."""
    checkpoint = tiny_checkpoint(root / "policy", max_steps=24)
    record_tiny(checkpoint, root / "recording", policies="argmax,random", num_steps=num_steps)


def prepare_simulator(root: Path) -> None:
    """A recording, and a simulator in the middle of its training."""
    prepare_recording(root)
    call(train_gen_model.main, *_learning(root))
    folder = root / "simulators" / "a"
    numbers = {"mean": [0.99] * 8, "low": [0.98] * 8, "high": [1.0] * 8}
    measured = {"action": numbers, "cells": numbers, "exact_view": numbers}
    result = {"settings": {"split": "test", "num_trials": 500}, "actors": {"trained": {MODEL: measured}}}
    result |= {"horizons": [*range(8)], "agent_sha256": "x"}
    result["simulator"] = {"digest": file_digest(folder / "checkpoint_final.pt")}
    write_json(folder / "fidelity.json", result)


def _learning(root: Path) -> tuple[object, ...]:
    words = ("--data_dir", root / "recording", "--agent_file", next((root / "policy").rglob("*.pt")))
    words += ("--output_dir", root / "simulators", "--tgm_exp_name", "a", "--param_name", "small")
    words += ("--batch_size", 4, "--num_sim_steps", 4, "--num_initializing_steps", 2, "--log_interval", 1)
    return *words, "--num_updates", 3, "--resume"


def prepare_memory(root: Path) -> None:
    """A recording, directions of its hidden state, and a run of an operation on one."""
    prepare_recording(root, 3000)
    decompositions._NUM_UPDATES = 20
    call(directions_command.main, *_studying(root))
    call(intervene.main, *_moving(root))


def _studying(root: Path) -> tuple[object, ...]:
    words = ("--data_dir", root / "recording", "--out", root / "found", "--blocks", "router_0")
    return *words, "--num_seeds", 1, "--num_components", 3, "--max_rows", 300


def _moving(root: Path) -> tuple[object, ...]:
    words = ("--checkpoint", next((root / "policy").rglob("*.pt")), "--directions", root / "found" / "directions.npz")
    words += ("--out", root / "moved", "--null", 0, "--num_worlds", 5, "--num_random", 20)
    return *words, "--cache_dir", root / "cache"


def prepare_answers(root: Path) -> None:
    """What studies of a recording keep to go on from."""
    prepare_recording(root)
    words = ("--data_dir", root / "recording", "--checkpoint", next((root / "policy").rglob("*.pt")))
    call(validate.main, *words, "--num_episodes", 4, "--steps_per_episode", 2, "--out", root / "validated")
    call(saliency.main, *words, "--horizon", 3, "--num_points", 2, "--out", root / "salient")
    scalars = {"episode": 3, "step": 5, "level": 9, "has_jump": True}
    patches = dict.fromkeys(("trained", "without_world", "untrained"), np.ones((2, 4)))
    measured = Measured(**scalars, kinds=np.ones((2, 4), int), **patches, hidden=np.ones((2, 2)))  # ty: ignore
    write_record(root / "hazard.npz", measured)


def read_cases(root: Path, path: Path) -> None:
    rank_cases(cases_file(path).read())


def read_explanation(root: Path, path: Path) -> None:
    explanation = WorldExplanation.load(path)
    with reading(path):
        explanation.rows()


def read_recording(root: Path, path: Path) -> object:
    """All that is read of a recording to learn from it."""
    folder = root / "recording"
    find_recordings(str(folder))
    recording = recordings.open_recording(folder)
    with reading(path):
        windows = recording.windows(5)
        found = recording.config, recording.index, recording.lang, recording.missions
        table = table_of(folder, np.dtype(np.int8)).to_json()
        return *found, table, windows.batch(range(len(windows))), recording.distinct(range(len(recording)))


def read_simulator(root: Path, path: Path) -> object:
    model, config = load_simulator(path.parent)
    return model.state_dict(), config


def resume_simulator(root: Path, path: Path) -> object:
    (path.parent / CURVE_NAME).unlink()
    call(train_gen_model.main, *_learning(root))
    return load_training_state(path)["weights"]


def move_again(root: Path, path: Path) -> None:
    """The command, to which a run along a random direction is left."""
    (root / "moved" / "episodes" / "random_019.csv").unlink(missing_ok=True)
    call(intervene.main, *_moving(root))


KINDS = {
    "checkpoint": Kind("run", f"{RUN}/checkpoint_final.pt", read_checkpoint, has_sums=True),
    "command": Kind("run", f"{RUN}/checkpoint_final.pt", evaluate),
    "state": Kind("run", f"{RUN}/training_state.pt", resume),
    "log": Kind("run", f"{RUN}/training_log.csv", read_training_log),
    "cache": Kind("run", f"{CACHE}/routing_data.json", read_cache),
    "arrays": Kind("run", f"{CACHE}/routing_data.npz", read_arrays, has_sums=True),
    "result": Kind("run", f"{CACHE}/result.json", read_result),
    "results": Kind("run", "results.csv", read_results),
    "interventions": Kind("run", f"{CACHE}/interventions.jsonl", read_interventions),
    "bot_paths": Kind("run", f"cache/{TINY_TASK}/teacher.json", read_bot_paths),
    "config": Kind("run", "mine.yaml", lambda root, path: parse_config("", ["--config", str(path)])),
    "tasks": Kind("run", "tasks.yaml", lambda root, path: parse_config("", ["--tasks", str(path), "--name", "two"])),
    "drawn_log": Kind("run", f"{RUN}/training_log.csv", draw_log),
    "cloud_results": Kind("run", "results.csv", lambda root, path: cloud._rows(str(path))),
    "out_config": Kind("run", "out/config.json", go_on_in_folder),
    "lmc_settings": Kind("run", "lmc.yaml", lambda root, path: resolve_rl({}, str(path))),
    "lmc_config": Kind("lmc", "[wl]*/**/config.json", read_experiment),
    "lmc_rows": Kind("lmc", "[wl]*/**/*.jsonl", read_experiment),
    "lmc_measures": Kind("lmc", "[wl]*/**/paths/*.json", read_experiment),
    "lmc_log": Kind("lmc", "[wl]*/**/training_log.csv", read_experiment),
    "lmc_archive": Kind("lmc", "kept_*/a/*.[ng][pz]*", read_experiment),
    "lmc_snapshot": Kind("lmc", "snapshot.pt", read_snapshot),
    "lmc_mop_snapshot": Kind("imitation", "results/**/snapshot_*.pt", go_on_from_snapshot),
    "lmc_sums": Kind("imitation", "**/sums.json", go_on_with_experiment),
    "lmc_compared": Kind("imitation", "compared/paths/other.json", compare_again),
    **{f"study_{name}": Kind("studies", f"{name}/**/*.csv", read_study) for name in STUDIES},
    "recording_config": Kind("recording", "recording/config.json", read_recording),
    "recording_arrays": Kind("recording", "recording/shard_*/*.npy", read_recording, has_sums=True),
    "recording_episodes": Kind("recording", "recording/shard_*/*.json", read_recording),
    "agent": Kind("agent", "*.pt", lambda root, path: load_agent(path)[0].state_dict(), has_sums=True),
    "simulator": Kind("simulator", "simulators/a/checkpoint_final.pt", read_simulator, has_sums=True),
    "simulator_state": Kind("simulator", "simulators/a/training_state.pt", resume_simulator),
    "fidelity": Kind("simulator", "simulators/a/fidelity.json", lambda r, path: check_fidelity(path.parent, 4)),
    "directions": Kind("memory", "found/directions.npz", move_again),
    "directions_part": Kind(
        "memory", "found/parts/*.npz", lambda root, path: call(directions_command.main, *_studying(root))
    ),
    "moved": Kind("memory", "moved/episodes/*[!9].*", move_again),
    "cases": Kind("answers", "validated/cases.jsonl", read_cases),
    "explanations": Kind("answers", "salient/**/*.npz", read_explanation),
    "hazards": Kind("answers", "hazard.npz", lambda root, path: load_measured(path)),
}
PREPARE: dict[str, Callable[[Path], object]] = {
    "run": prepare_run, "lmc": prepare_lmc, "imitation": prepare_imitation, "studies": prepare_studies,
    "recording": prepare_recording, "agent": tiny_agent, "simulator": prepare_simulator, "memory": prepare_memory,
    "answers": prepare_answers,
}  # fmt: skip
