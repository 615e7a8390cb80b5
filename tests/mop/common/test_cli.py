"""A setting is one field: parser, checks, help, files and given keys follow from it."""

import json
from dataclasses import dataclass

import pytest
from checks import refusal

from mop.common import cli
from mop.common.cli import required, setting
from mop.common.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Base:
    num_envs: int = setting(16, "environments side by side", low=1, high=64)
    device: str = setting("auto", "cpu, cuda, ...", group="machine")


@dataclass(frozen=True, kw_only=True)
class Toy(Base):
    checkpoint: str = required("a policy's file", metavar="FILE", also=("model_file",))
    lr: float = setting(1e-3, "learning rate", above=0)
    max_steps: int | None = setting(None, "step limit (default: the task's)", low=1)
    policy: str = setting("argmax", "who acts", choices=("argmax", "sampled"))
    policies: tuple[str, ...] = setting(("a", "b"), "several", choices=("a", "b", "c"), commas=True)
    what: tuple[str, ...] | None = setting(None, "interventions")
    film: tuple[int, ...] | None = setting(None, "from and to", nargs=2)
    sizes: list[list[int]] = setting([[0, 16]], "layers", parse=json.loads)
    names: list[str] = setting(["x"], "names", parse=lambda text: [str(int(text))])
    source: str | None = setting(None, "a direction", flag="from")
    families: tuple[str, ...] = setting((), "which", positional=True, nargs="*", choices=("rl", "mop"))
    lr_decay: float = setting(0.0, "share of the updates, 100 % is all", alone="1", low=0, high=1)
    resume: bool = setting(False, "go on")
    detach: bool = setting(True, "cut the graph")

    def __post_init__(self):
        if self.resume and self.source:
            raise InputError("give --resume or --from")


def toy(line, config=None):
    return cli.parse(Toy, "a toy", ["--checkpoint", "x.pt", *line.split()], config)


def test_defaults_and_given():
    assert toy("") == Toy(checkpoint="x.pt") and toy("").sizes == [[0, 16]]
    assert toy("").sizes is not toy("").sizes
    given = cli.given_values(Toy, "", ["--model_file", "x.pt", "--num_envs", "4"])
    assert given == {"checkpoint": "x.pt", "num_envs": 4}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--num_envs 4", "num_envs", 4), ("--lr 1e-4", "lr", 1e-4), ("--max_steps 5", "max_steps", 5),
        ("--max_steps null", "max_steps", None), ("--policy sampled", "policy", "sampled"),
        ("--policies c,a", "policies", ("c", "a")), ("--what x y --what z", "what", ("x", "y", "z")),
        ("--film 3 9", "film", (3, 9)), ("--sizes [[1],[2]]", "sizes", [[1], [2]]),
        ("--names 7", "names", ["7"]),
        ("--from k", "source", "k"), ("rl mop", "families", ("rl", "mop")), ("--lr_decay", "lr_decay", 1.0),
        ("--lr_decay 0.5", "lr_decay", 0.5), ("--resume", "resume", True), ("--resume false", "resume", False),
        ("--detach false", "detach", False), ("--device cpu", "device", "cpu"),
    ],
)  # fmt: skip
def test_flags(line, name, value):
    found = getattr(toy(line), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--num_envs 0", "--num_envs"), ("--num_envs 65", "64"),
        ("--num_envs 010", "--num_envs"), ("--num_envs 1.5", "--num_envs"), ("--lr 0", "--lr"), ("--lr nan", "--lr"),
        ("--policy best", "--policy"), ("--policies a,d", "--policies"), ("--policies a,a", "--policies"),
        ("--film 3", "--film"), ("--from", "--from"), ("gru", "families"), ("--resume maybe", "--resume"),
        ("--num_env 4", "--num_env"), ("--resume --from k", "--resume or --from"), ("--nothing", "--nothing"),
        ("--names ,", "--names"), ("--max_steps 9223372036854775808", "--max_steps"),
    ],
)  # fmt: skip
def test_bad_flags_are_named_in_one_line(line, named):
    assert named in refusal(toy, line)


def test_a_flag_that_is_not_there_is_answered_with_one_that_is():
    assert "--num_envs?" in refusal(toy, "--num_env=4") and "--checkpoint?" in refusal(toy, "--chekpoint y")
    assert "generative.train_agent" in refusal(toy, "--exp_name=x --env_name coinrun")
    assert len(refusal(toy, "--" + 5000 * "9")) < 400 and len(refusal(toy, 5000 * "9")) < 400


def test_what_is_required_is_named():
    assert "--checkpoint" in refusal(cli.parse, Toy, "a toy", [])


def test_a_file_gives_values_below_flags(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lr: 3e-4\nnum_envs: 8\npolicies: [c]\nresume: true\n")
    settings = toy(f"--config {path} --num_envs 2", config="a file")
    assert (settings.lr, settings.num_envs, settings.policies, settings.resume) == (3e-4, 2, ("c",), True)


@pytest.mark.parametrize(
    ("content", "named"),
    [("num_env: 4", "num_env"), ("lr: [1]", "lr"), ("- a", ""), ("a: [", ""), ("resume: 1", "resume"),
     ("model_file: x\ncheckpoint: y", "checkpoint"), ("policy: 7", "policy")],
)  # fmt: skip
def test_bad_files_name_the_file_and_the_key(tmp_path, content, named):
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    line = refusal(toy, f"--config {path}", config="a file")
    assert named in line and "bad.yaml" in line


def test_help_has_ranges_choices_and_defaults():
    text = " ".join(cli.parser_of(Toy, "What it does.", config="a file").format_help().split())
    for part in (
        "What it does.", "--config YAML", "--num_envs INTEGER environments side by side; from 1 to 64 (default: 16)",
        "machine:", "learning rate; above 0 (default: 0.001)", "step limit; at least 1 (default: the task's)",
        "--policy argmax|sampled", "(default: a,b)", "--resume [true|false] go on", "cut the graph (default: true)",
        "--checkpoint FILE", "--model_file FILE", "100 % is all", "--from TEXT",
    ):  # fmt: skip
        assert part in text, part


def test_settings_as_plain_values():
    plain = cli.as_dict(toy("--policies c"), leave_out=("device",))
    assert json.loads(json.dumps(plain)) == plain and plain["policies"] == ["c"] and "device" not in plain
    assert cli.as_flags({"lr": 1, "policy": "argmax"}) == ["--lr", "1", "--policy", "argmax"]


def test_a_switch_is_typed_as_its_flag_alone():
    changed = {"resume": True, "detach": False, "num_envs": 2, "max_steps": None, "policies": ("c",)}
    words = cli.as_flags(changed)
    assert words == ["--resume", "--detach", "false", "--num_envs", "2", "--policies", "c"]
    assert toy(" ".join(words)) == Toy(checkpoint="x.pt", **changed)
