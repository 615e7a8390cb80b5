"""Files and flags that somebody damaged: one line that names the file and the key, and nothing is changed."""

import copy
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from checks import one_line
from fuzz_files import KINDS, Fuzzer, run_cases

from mop.artifacts.archives import check_array_headers, check_sums, open_archive
from mop.artifacts.checkpoints import load_checkpoint, load_training_state
from mop.artifacts.routing_cache import load_cache
from mop.artifacts.run_paths import RunKey
from mop.common.cli import Parser
from mop.common.errors import InputError, exit_code
from mop.common.train_config import parse_config, read_config
from mop.common.values import MAX_INTEGER
from mop.envs.missions import load_encoder
from mop.evaluation.evaluate import load_for_evaluation
from mop.training.imitation import ImitationRun
from mop.training.memory import check_memory, needed_memory
from mop.training.policies import build_policy, count_weights, hidden_units, policy_from_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Fuzzer:
    """A small finished run with its evaluation."""
    return Fuzzer(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def damaged(files) -> Fuzzer:
    """A copy of it to damage."""
    files.fresh()
    return files


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_random_damage_is_read_or_refused_in_one_line(files, kind):
    refused, wrong = run_cases(files, kind, seed=3, first=0, count=15)
    assert not wrong, "\n".join(wrong)
    assert refused >= 3 or kind == "arrays", "some of it must have been damage"


# --- flags, YAML, run keys ------------------------------------------------------------------------------------------

FLAGS = {
    ("--num_updates", "9" * 20): "--num_updates",
    ("--unroll_len", "9" * 5000): "unroll_len must be an integer",
    ("--num_envs", "65537"): "--num_envs",
    ("--trial", "010"): "trial must be an integer",
    ("--trial", "-00"): "trial must be an integer",
    ("--expert_hidden_sizes", "{0: 16}"): "expert_hidden_sizes must be layers",
    ("--expert_hidden_sizes", "0,016"): "expert_hidden_sizes must be layers",
    ("--expert_hidden_sizes", "[" * 100_000): "expert_hidden_sizes must be layers",
    ("--expert_hidden_sizes", "0;" * 300): "at most 256 layers",
    ("--checkpoint_dir", "a\nb"): "line break",
    ("--checkpoint_dir", "a\udcff"): "half a character",
    ("--task_id", "a\0"): "control character",
}


def test_flags_of_no_use_are_one_line():
    for (name, value), reason in FLAGS.items():
        with pytest.raises(InputError, match=reason.replace("^", r"\^")) as error:
            parse_config("", [name, value])
        assert len(one_line(error)) < 700, name
    assert len(FLAGS) == 12


YAML = {
    "lr: " + "[" * 100_000: "valid YAML",
    "trial: " + "9" * 5000: "valid YAML",
    "expert_hidden_sizes: {0: 16}\n": "expert_hidden_sizes must be layers",
    'checkpoint_dir: "a\\0b"\n': "checkpoint_dir must be a text of one line",
    "lr: 2001-99-99\n": "valid YAML",
    "#" * 2**21: "more than a million characters",
}


def test_yaml_of_no_use_is_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    for content, reason in YAML.items():
        path.write_text(content)
        with pytest.raises(InputError, match=reason) as error:
            read_config(path)
        assert len(one_line(error)) < 700 and str(path) in one_line(error), content[:50]
    assert len(YAML) == 6
    path.write_text("trial: 1_000\nlr: 0\n".replace("lr: 0", "lr: 1e-3"))
    assert read_config(path) == {"trial": 1000, "lr": 1e-3}
    path.write_text(yaml.dump({"expert_hidden_sizes": [[0, 16]], "num_envs": 16}))
    assert read_config(path) == {"expert_hidden_sizes": [[0, 16]], "num_envs": 16}


def test_names_and_numbers_that_no_path_or_table_can_hold():
    cases = 0
    for arguments in (("a\0", 0), ("a\n", 0), ("\ud800", 0), ("a", 2**63), ("a", 0, 2**63), ("a", 0, 0, 10**30)):
        with pytest.raises(InputError):
            RunKey(*arguments)
        cases += 1
    assert cases == 6 and RunKey("a", MAX_INTEGER).trial == MAX_INTEGER
    with pytest.raises(InputError, match="past 64 bits"):
        RunKey.from_checkpoint(f"a/trial_{'9' * 5000}/checkpoint_final.pt")


def test_a_message_is_one_line_and_a_lack_of_memory_no_traceback(capsys):
    def fails(error):
        raise error

    assert exit_code(lambda: fails(InputError("a\nb"))) == exit_code(lambda: fails(MemoryError())) == 2
    assert capsys.readouterr().err == "error: a b\nerror: there is not enough memory\n"
    with pytest.raises(InputError, match="control"):
        Parser().parse_args(["a\x1b"])


# --- memory ---------------------------------------------------------------------------------------------------------


def test_weights_and_memory_are_known_before_anything_is_made():
    cases = 0
    for policy in ("mop", "gru"):
        for words in ((), ("--residual",), ("--mop_layers", "0,5;7,0,3"), ("--obs_encoding", "raw", "--lang_dim", "3")):
            config = parse_config("", words)[0] | {"policy": policy}
            made = build_policy(config)
            assert count_weights(config) == sum(p.numel() for p in made.parameters())
            assert hidden_units(config) == made.hidden_size
            cases += 1
    assert cases == 8
    config = parse_config("", [])[0] | {"policy": "mop"}
    kept = 500 * (16 * 32 * 158 + 16 * 4 * hidden_units(config))
    of_weights = 16 * (count_weights(config) + 769 * 32)
    assert 0 < needed_memory(config, 768) - kept - of_weights < 16 * 32 * 1000
    check_memory(config, 768)
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    for words in (
        ("--unroll_len", 10**13),
        ("--intermediate_dim", 10**9),
        ("--num_updates", 10**12, "--replay_size", 10**12),
    ):
        config = parse_config("", [str(word) for word in words])[0] | {"policy": "mop"}
        with pytest.raises(InputError, match=rf"needs at least [\d,]+ GB of memory, this machine has {physical:,.0f}"):
            check_memory(config, 768)


# --- checkpoints and states -----------------------------------------------------------------------------------------


def repacked(data: bytes, compression: int = zipfile.ZIP_STORED, **replaced: bytes) -> bytes:
    """An archive once more, with other members and right checksums."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, replaced.get(name.rpartition("/")[2], old.read(name)))
    return packed.getvalue()


def test_every_flipped_bit_of_a_stored_tensor_is_noticed(damaged):
    path = damaged.run_folder / "checkpoint_final.pt"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if "/data/" in member.filename and member.file_size > 8]
    for member in members:
        header = member.header_offset
        lengths = int.from_bytes(whole[header + 26 : header + 28], "little") + int.from_bytes(
            whole[header + 28 : header + 30], "little"
        )  # of its name and of the padding
        broken = bytearray(whole)
        broken[header + 30 + lengths + member.file_size // 2] ^= 64
        path.write_bytes(broken)
        with pytest.raises(InputError, match="damaged: the checksum of"):
            load_checkpoint(path)
    assert len(members) > 20
    path.write_bytes(whole)
    load_checkpoint(path)


def test_archives_that_unpack_to_more_than_they_are(damaged):
    path = damaged.run_folder / "checkpoint_final.pt"
    whole = path.read_bytes()
    path.write_bytes(repacked(whole, zipfile.ZIP_DEFLATED))
    with pytest.raises(InputError, match="compressed"):
        load_checkpoint(path)
    path.write_bytes(repacked(whole))
    load_checkpoint(path)
    check_sums(open_archive(whole))
    with pytest.raises(ValueError, match="more than the file has"):
        end = whole.rindex(b"PK\x01\x02")  # the last entry of the table of contents: its sizes are at 20 and 24
        big = (2**31).to_bytes(4, "little")
        open_archive(whole[: end + 20] + big * 2 + whole[end + 28 :])


def checkpoint_cases() -> dict[str, tuple]:
    """What is changed in a checkpoint -> how, and what is said."""
    shared: list = [0]
    for _ in range(40):
        shared = [shared, shared]
    deep: list = []
    for _ in range(60):
        deep = [deep]

    def config(**changes):
        return lambda content: content["config"].update(changes)

    def weight(change):
        return lambda content: content["policy_state_dict"].update({"head.bias": change})

    return {
        "not finite": (weight(torch.full((7,), torch.nan)), "no finite numbers: its training diverged"),
        "adam": (lambda c: c["optimizer_state_dict"]["state"][0].update(exp_avg=torch.tensor(torch.inf)), "no finite"),
        "expanded": (weight(torch.zeros(1).expand(10**12)), "not stored number by number"),
        "sparse": (weight(torch.zeros(7).to_sparse()), "not stored number by number"),
        "deep": (lambda c: c.update(deep=deep), "hold each other without end"),
        "shared": (lambda c: c.update(shared=shared), "hold each other without end"),
        "width": (config(intermediate_dim=10**15), "the config describes"),
        "experts": (config(expert_hidden_sizes=[[65536] * 200] * 200), "the config describes"),
        "too many layers": (config(expert_hidden_sizes=[[1]] * 300), "expert_hidden_sizes must be layers"),
        "update": (lambda c: c.update(update=2**70), "'update' must be a number of updates"),
        "trial": (config(trial=2**63), "trial must be at least 0"),
        "task": (config(task_id="a\0b"), "task_id must be a text"),
        "name": (lambda c: c["policy_state_dict"].update({7: torch.zeros(1)}), "is no tensor"),
        "no sizes": (lambda c: c["config"].pop("expert_hidden_sizes"), "lacks 'expert_hidden_sizes'"),
    }


def test_damaged_checkpoints_are_one_line(damaged):
    path = damaged.run_folder / "checkpoint_final.pt"
    content, cases = torch.load(path, weights_only=True), checkpoint_cases()
    for name, (change, reason) in cases.items():
        changed = copy.deepcopy(content)
        change(changed)
        torch.save(changed, path)
        with pytest.raises(InputError, match=reason) as error:
            policy_from_checkpoint(load_for_evaluation(path))
        assert len(one_line(error)) < 2000 and "weights_only" not in one_line(error), name
    assert len(cases) == 14


def test_torch_s_advice_to_load_unsafely_is_not_passed_on(damaged):
    path = damaged.run_folder / "checkpoint_final.pt"
    path.write_bytes(repacked(path.read_bytes(), **{"data.pkl": b"\x80\x02c__builtin__\nset\nq\x00)\x8d."}))
    with pytest.raises(InputError, match=r"torch cannot load it|which no checkpoint needs") as error:
        load_checkpoint(path)
    assert "weights_only" not in one_line(error) and "trust" not in one_line(error)


def state_cases() -> dict[str, tuple]:
    """The key of a state that is damaged, with what is put there -> what is said."""
    zeros = torch.zeros
    return {
        ("update",): ("3", "update must be an integer"),
        ("update", 2): (-1, "update must be an integer"),
        ("stream_seed",): (2**70, "stream_seed must be"),
        ("minigrid_version",): (3, "minigrid_version is no text"),
        ("hidden",): (zeros(4, 3), "hidden is"),
        ("hidden", 2): ([1.0], "hidden is a list"),
        ("env",): ([], "env is no dictionary"),
        ("env", "world"): (zeros(4, dtype=torch.int64) - 1, "env: 'world'"),
        ("env", "length"): (torch.full((4,), 2**62), "env: 'actions'"),
        ("env", "actions"): (zeros(3), "env: 'actions'"),
        ("env", "seed"): (zeros(5, dtype=torch.int64), "env: 'seed'"),
        ("policy_state_dict", "head.bias"): (zeros(8), "policy_state_dict.head.bias is"),
        ("policy_state_dict", "x"): (zeros(8), "policy_state_dict has not the names"),
        ("lang_proj_state_dict", "bias"): (zeros(5).double(), "lang_proj_state_dict.bias is"),
        ("optimizer_state_dict", "state", 0, "exp_avg"): (zeros(2), r"state\.0\.exp_avg is"),
        ("optimizer_state_dict", "state", 0, "step"): (zeros(2), r"state\.0\.step is"),
        ("optimizer_state_dict", "state", 99): ({}, "another number of weights"),
        ("optimizer_state_dict", "param_groups"): ([], "not that of Adam"),
        ("optimizer_state_dict", "param_groups", 0, "betas"): ("x", "betas is 'x'"),
        ("optimizer_state_dict", "param_groups", 0, "params"): ([1], "another number of weights"),
        ("counts",): ({}, "counts is no dictionary"),
        ("counts", "episodes"): (-1, "counts.'episodes' must be an integer"),
        ("recent_success",): (["x"], "recent_success is no list"),
        ("recent_alone",): ([True] * 7, "recent_alone is no list"),
        ("bot_acted",): ([1, 2], "bot_acted is no list"),
        ("replay",): (3, "replay is no dictionary"),
        ("replay", "obs"): (zeros(2), "replay.obs is"),
        ("replay", "first_hidden"): (zeros(2), "replay.first_hidden is"),
        ("replay", "missions"): ([[]], "replay.missions is no list"),
        ("replay", "missions", 0): (["one"], "replay.missions|replay.mission has a number"),
        ("unfinished_row",): ({"loss": "x", "count": 1}, "unfinished_row is no dictionary"),
        ("unfinished_row", "count"): (0.5, "unfinished_row.count must be"),
        ("config",): (None, "config is no dictionary"),
        ("config", "num_envs"): (2**70, "num_envs must be from 1"),
        ("config", "intermediate_dim"): (10**12, "GB of memory"),
        ("config", "seed"): (None, "no config.seed"),
        ("config", "lr"): (None, "no config.lr"),
    }


def test_damaged_states_name_file_and_key_and_nothing_is_written(damaged):
    path, cases = damaged.run_folder / "training_state.pt", state_cases()
    whole = path.read_bytes()
    for place, (value, reason) in cases.items():
        place = tuple(key for key in place if key != 2)  # a second value for the same key
        content = torch.load(io.BytesIO(whole), weights_only=True)
        target = content
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        torch.save(content, path)
        before = tree(damaged.run_folder)
        with pytest.raises(InputError, match=reason) as error:
            damaged.resume()
        assert len(one_line(error)) < 1000, place
        assert "GB" in reason or str(path) in one_line(error), place
        assert tree(damaged.run_folder) == before, place
    assert len(cases) == 37
    path.write_bytes(whole)
    damaged.resume()
    assert load_training_state(path)["update"] == damaged.update + 1


def test_weights_that_stop_being_finite_end_the_training_and_the_state_stays(damaged):
    words = ["--task_id", "BabyAI-GoToObj-v0", "--num_updates", "3", "--lang_encoder", "vocab", "--device", "cpu"]
    cases = 0
    for flags in (("--lr", "1e308"), ("--lpc_alpha", "1e38"), ("--lr", "1e30", "--replay", "0")):
        root = damaged.copy / str(cases)
        with pytest.raises(InputError, match=r"training diverged at update \d: .*; lower --lr"):
            damaged.train([*words, *flags, "--checkpoint_dir", str(root)])
        folder = RunKey("BabyAI-GoToObj-v0", 0).folder(root)
        assert [p.name for p in folder.iterdir()] == ["training_state.pt"]
        assert load_training_state(folder / "training_state.pt")["update"] == 0
        cases += 1
    assert cases == 3


def test_a_world_that_ends_within_its_saved_actions_is_no_saved_world(damaged):
    state = load_training_state(damaged.run_folder / "training_state.pt")
    run = ImitationRun(state["config"] | {"max_steps": 1}, load_encoder("vocab"), torch.device("cpu"))
    with pytest.raises(InputError, match="end within the saved actions"):
        run.load_state(state)
    run.close()


# --- logs -----------------------------------------------------------------------------------------------------------


def test_damaged_logs_are_named(damaged):
    path = damaged.run_folder / "training_log.csv"
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
    for name, content in cases.items():
        path.write_text(content)
        with pytest.raises(InputError, match="is no training log") as error:
            damaged.resume()
        assert one_line(error).startswith(str(path)), name
        assert path.read_text() == content
    assert len(cases) == 6
    path.write_text(whole)
    damaged.resume()


# --- caches ---------------------------------------------------------------------------------------------------------


def test_damaged_caches_are_named(damaged):
    whole = json.loads(damaged.cache.read_bytes())
    cases = {
        "t_step": (2**31, "t_step"), "t_step ": (-1, "'t_step' is not from 0"), "t_step  ": (10**7, "'t_step' is not"),
        "action": (100, "'action' is not from 0 to 6"), "direction": (4, "'direction' is not from 0 to 3"),
        "position": ([20, 1], "outside the grid of its episode"), "position ": ([1, -1], "outside the grid"),
        "episode": (4, "'episode' is not from 0 to 3"),
    }  # fmt: skip
    damaged.cache.with_suffix(".npz").unlink()
    for name, (value, reason) in cases.items():
        content = copy.deepcopy(whole)
        content["routing_data"][3][name.strip()] = value
        damaged.cache.write_text(json.dumps(content))
        with pytest.raises(InputError, match=reason) as error:
            load_cache(damaged.cache)
        assert one_line(error).startswith(str(damaged.cache)), name
    assert len(cases) == 8
    content = copy.deepcopy(whole)
    for step in content["routing_data"]:
        step["layer_routing"] = {f"layer_{k}": [1.0] for k in range(3000)}
    for text, reason in ((json.dumps(content), "more than 256 layers"), ("[" * 100_000, "nested|JSON|list")):
        damaged.cache.write_text(text)
        with pytest.raises(InputError, match=reason):
            load_cache(damaged.cache)
    damaged.cache.write_text(json.dumps(whole))
    assert len(load_cache(damaged.cache).steps) == len(whole["routing_data"])


def test_arrays_are_as_large_as_they_say_or_are_not_read(damaged):
    path = damaged.cache.with_suffix(".npz")
    whole, expected = path.read_bytes(), load_cache(damaged.cache).steps
    check_array_headers(open_archive(whole))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i4", "fortran_order": False, "shape": (2**40,)})
    members = {
        "more": {"t_step.npy": header.getvalue()},
        "less": {"t_step.npy": header.getvalue()[:20]},
        "objects": {"t_step.npy": header.getvalue().replace(b"<i4", b"|O8")},
    }
    for name, replaced in members.items():
        data = repacked(whole, **replaced)
        with pytest.raises(ValueError):
            check_array_headers(open_archive(data))
        path.write_bytes(data)
        np.testing.assert_array_equal(load_cache(damaged.cache).steps.t_step, expected.t_step, name)
    assert len(members) == 3
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    for name, change in (("action", arrays["action"] + 100), ("t_step", arrays["t_step"][:-1]), ("episode", None)):
        np.savez(path, **{n: a for n, a in arrays.items() if n != name}, **({} if change is None else {name: change}))
        np.testing.assert_array_equal(getattr(load_cache(damaged.cache).steps, name), getattr(expected, name))
