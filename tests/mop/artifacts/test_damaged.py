"""Files and flags that somebody damaged: one line that names them, and nothing is run, trained or replaced."""

import copy
import gzip
import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checks import contents, refusal
from damage import FOREIGN, PICKLES, torch_archive
from file_kinds import RUN, prepare_run, resume
from training import train_with

from mop.artifacts.checkpoints import load_checkpoint, load_training_state, quick_config
from mop.artifacts.results import load_result
from mop.artifacts.run_paths import RunKey
from mop.common import reading
from mop.common.cli import Parser
from mop.common.errors import InputError, exit_code
from mop.common.reading import read_array, read_bytes, read_csv, read_gzip, read_json, read_npz
from mop.common.train_config import parse_config, read_config
from mop.envs.missions import load_encoder
from mop.evaluation.evaluate import load_for_evaluation
from mop.training.imitation import ImitationRun, check_memory
from mop.training.policies import policy_from_checkpoint


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a small finished run with its evaluation."""
    folder = tmp_path_factory.mktemp("finished")
    prepare_run(folder)
    return folder


@pytest.fixture
def run_folder(finished) -> Path:
    """The folder of the run, which is whole again after the test."""
    folder = finished / RUN
    before = contents(folder)
    yield folder
    for path in folder.iterdir():
        path.unlink()
    for name, content in before.items():
        (folder / name).write_bytes(content)


READERS = (load_checkpoint, load_training_state, load_result, read_json, read_npz, read_array, read_gzip, read_config)


@pytest.mark.parametrize("reader", READERS)
def test_each_reader_names_a_foreign_file_a_folder_a_pipe_and_one_that_is_missing(tmp_path, reader):
    os.mkfifo(tmp_path / "pipe")
    paths = [tmp_path, tmp_path / "pipe", tmp_path / "missing"]
    for number, content in enumerate((*FOREIGN, pickle.dumps({"a": 1}), bytes(range(256)))):
        paths.append(tmp_path / f"foreign_{number}")
        paths[-1].write_bytes(content)
    refused = 0
    for path in paths:
        try:
            reader(path)
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
            refused += 1
    assert refused >= len(paths) - 3, "an empty file may be an empty config, and some bytes are JSON or a number"
    for path in paths[:3]:
        refusal(reader, path)


def test_what_unpacks_to_more_than_the_bound_is_refused(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**5))
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(10**5)))
    assert len(read_npz(tmp_path / "a.npz")["a"]) == len(read_gzip(tmp_path / "a.gz")) == 10**5
    monkeypatch.setattr(reading, "MAX_UNPACKED", 10**5 - 1)
    for reader, name in ((read_npz, "a.npz"), (read_gzip, "a.gz")):
        assert name in refusal(reader, tmp_path / name)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**50,)})
    for name, content in (("more", header.getvalue()), ("objects", header.getvalue().replace(b"<i4", b"|O8"))):
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w") as archive:
            archive.writestr("a.npy", content)
        assert name in refusal(read_npz, tmp_path / f"{name}.npz")
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    assert "pickled" in refusal(read_array, tmp_path / "pickled.npy")


def test_a_table_and_bytes_name_their_file(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    assert read_csv(tmp_path / "a.csv")["b"].tolist() == [2] and read_bytes(tmp_path / "a.csv")[:3] == b"a,b"
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2,3,4\n1,\xff")
    assert "a.csv" in refusal(read_csv, tmp_path / "a.csv")


FLAGS = {
    "--num_updates": "9" * 20, "--unroll_len": "9" * 5000, "--num_envs": "65537", "--trial": "010",
    "--expert_hidden_sizes": "[" * 100_000, "--mop_layers": "0;" * 300, "--checkpoint_dir": "a\nb",
    "--results_path": "a\udcff", "--task_id": "a\0", "--lr": "-00x",
}  # fmt: skip
YAML = {
    "lr": "[" * 100_000, "trial": "9" * 5000, "expert_hidden_sizes": "{0: 16}", "checkpoint_dir": '"a\\0b"',
    "seed": "2001-99-99", "#": "#" * 2**21,
}  # fmt: skip


def test_flags_and_yaml_of_no_use_are_one_line(tmp_path):
    for name, value in FLAGS.items():
        assert len(refusal(parse_config, "", [name, value])) < 700, name
    path = tmp_path / "mine.yaml"
    for name, value in YAML.items():
        path.write_text(f"{name}: {value}\n")
        line = refusal(read_config, path)
        assert str(path) in line and len(line) < 700, name
    path.write_text("trial: 1_000\nlr: 1e-3\nexpert_hidden_sizes:\n- [0, 16]\n")
    assert read_config(path) == {"trial": 1000, "lr": 1e-3, "expert_hidden_sizes": [[0, 16]]}


def test_a_message_is_one_line_and_a_lack_of_memory_no_traceback(capsys):
    def fails(error):
        raise error

    assert exit_code(lambda: fails(InputError("a\nb"))) == exit_code(lambda: fails(MemoryError())) == 2
    assert capsys.readouterr().err == "error: a b\nerror: there is not enough memory\n"
    assert "control" in refusal(Parser().parse_args, ["a\x1b"])


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused_at_once(tmp_path, name):
    path = tmp_path / "checkpoint_final.pt"
    path.write_bytes(torch_archive(PICKLES[name]))
    for load in (load_checkpoint, load_training_state):
        line = refusal(load, path)
        assert "checkpoint_final" in line and len(line) < 1000
    assert quick_config(path) == {}


def test_every_flipped_bit_of_a_stored_tensor_is_noticed(run_folder):
    path = run_folder / "checkpoint_final.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if "/data/" in member.filename and member.file_size > 8]
    for member in members:
        header = member.header_offset
        lengths = [int.from_bytes(whole[header + k : header + k + 2], "little") for k in (26, 28)]  # of name, padding
        broken = bytearray(whole)
        broken[header + 30 + sum(lengths) + member.file_size // 2] ^= 64
        path.write_bytes(broken)
        assert "checkpoint_final" in refusal(load_checkpoint, path)
    assert len(members) > 20
    path.write_bytes(whole)
    load_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, zipfile.ZipFile(io.BytesIO(whole)) as old:
        for name in old.namelist():
            archive.writestr(name, old.read(name))
    refusal(load_checkpoint, path)


def checkpoint_changes() -> dict:
    """Changes of a checkpoint after which it cannot be used."""

    def config(**changes):
        return lambda content: content["config"].update(changes)

    def weight(change):
        return lambda content: content["policy_state_dict"].update({"head.bias": change})

    return {
        "not finite": weight(torch.full((7,), torch.nan)),
        "not finite in Adam": lambda c: c["optimizer_state_dict"]["state"][0].update(exp_avg=torch.tensor(torch.inf)),
        "expanded": weight(torch.zeros(1).expand(10**12)),
        "sparse": weight(torch.zeros(7).to_sparse()),
        "width": config(intermediate_dim=10**15),
        "experts": config(expert_hidden_sizes=[[65536] * 200] * 3),
        "too many layers": config(expert_hidden_sizes=[[1]] * 300),
        "update": lambda c: c.update(update=2**70),
        "trial": config(trial=2**63),
        "task": config(task_id="a\0b"),
        "name": lambda c: c["policy_state_dict"].update({7: torch.zeros(1)}),
        "no sizes": lambda c: c["config"].pop("expert_hidden_sizes"),
        "mission": lambda c: c["lang_proj_state_dict"].update(weight=torch.zeros(1)),
    }


@pytest.mark.parametrize("name", checkpoint_changes())
def test_a_changed_checkpoint_is_one_line(run_folder, name):
    path = run_folder / "checkpoint_final.pt"
    content = copy.deepcopy(torch.load(path, weights_only=True))
    checkpoint_changes()[name](content)
    torch.save(content, path)
    line = refusal(lambda: policy_from_checkpoint(load_for_evaluation(path)))
    assert "checkpoint_final" in line and len(line) < 2000


STATE_CHANGES = (
    ("update", "3"), ("stream_seed", "x"), ("minigrid_version", 3), ("hidden", torch.zeros(4, 3)), ("hidden", [1.0]),
    ("env", []), ("env.world", torch.zeros(4)), ("env.length", torch.full((4,), 2**62)), ("env.seed", torch.zeros(5)),
    ("env.actions", torch.zeros(3)), ("policy_state_dict.head#bias", torch.zeros(8)), ("policy_state_dict.x", 1),
    ("lang_proj_state_dict.bias", torch.zeros(5).double()), ("optimizer_state_dict.state.0.exp_avg", torch.zeros(2)),
    ("optimizer_state_dict.state.0.step", torch.zeros(2)), ("optimizer_state_dict.state", []), ("counts", {}),
    ("counts.episodes", "x"), ("recent", [["x"]]), ("recent", [[1.0] * 7]), ("waiting", [[1.0]]),
    ("begun", [1] * 7), ("has_bot", [1, 2]),
    ("replay", 3), ("replay.obs", torch.zeros(2)), ("replay.first_hidden", torch.zeros(2)), ("replay.missions", [[]]),
    ("unfinished_row", {"loss": "x"}), ("config", None), ("config.num_envs", 2**70), ("config.num_envs", 5),
    ("config.intermediate_dim", 10**12), ("config.lr", None), ("config.x", 1), ("config.policy", 3),
)  # fmt: skip


def test_a_changed_state_names_its_file_and_nothing_is_written(run_folder):
    path = run_folder / "training_state.pt"
    whole = path.read_bytes()
    for place, value in STATE_CHANGES:
        content = torch.load(io.BytesIO(whole), weights_only=True)
        *parents, last = [int(key) if key == "0" else key.replace("#", ".") for key in place.split(".")]
        target = content
        for key in parents:
            target = target[key]
        target[last] = value
        torch.save(content, path)
        before = contents(run_folder)
        line = refusal(resume, run_folder, path)
        assert len(line) < 1000 and str(path) in line, place
        assert contents(run_folder) == before, place
    path.write_bytes(whole)
    resume(run_folder, path)
    assert load_training_state(path)["update"] == 7


def test_a_run_that_no_memory_holds_is_refused():
    large = (
        ("--unroll_len", 10**10),
        ("--intermediate_dim", 10**6),
        ("--num_updates", 10**12, "--replay_size", 10**12),
    )
    for words in large:
        config = parse_config("", [*map(str, words), "--replay", "1"])[0] | {"policy": "mop"}
        assert "memory" in refusal(check_memory, config)
    check_memory(parse_config("", [])[0] | {"policy": "mop"})


def test_weights_that_stop_being_finite_end_the_training_and_the_state_stays(tmp_path):
    words = ["--task_id", "BabyAI-GoToObj-v0", "--num_updates", "3", "--lang_encoder", "vocab", "--device", "cpu"]
    for flags in (("--lr", "1e308"), ("--lpc_alpha", "1e38")):
        root = tmp_path / flags[0]
        assert "--lr" in refusal(train_with, *words, *flags, "--checkpoint_dir", root)
        folder = RunKey("BabyAI-GoToObj-v0", 0).folder(root)
        assert [p.name for p in folder.iterdir()] == ["training_state.pt"]
        assert load_training_state(folder / "training_state.pt")["update"] == 0


def test_a_world_that_ends_within_its_saved_actions_is_no_saved_world(run_folder):
    state = load_training_state(run_folder / "training_state.pt")
    run = ImitationRun(state["config"] | {"max_steps": 1}, load_encoder("vocab"), torch.device("cpu"))
    refusal(run.load_state, state)
    run.close()


def test_damaged_logs_are_named(run_folder):
    path = run_folder / "training_log.csv"
    whole = path.read_text()
    lines = whole.splitlines()
    cases = {
        "semicolons": whole.replace(",", ";"),
        "no seconds": whole.replace("seconds", "hours"),
        "text": whole.replace(lines[1].split(",")[2], "many", 1),
        "order": "\n".join([lines[0], *reversed(lines[1:])]),
        "ragged": f"{whole}1,2,3{',4' * 50}\n",
        "binary": "\0\1\2",
    }
    for content in cases.values():
        path.write_text(content)
        assert (
            refusal(resume, run_folder, run_folder / "training_state.pt").startswith(str(path))
            and path.read_text() == content
        )
    assert len(cases) == 6
