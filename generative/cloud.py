"""The jobs of `modal_app.py::train_agent` and `::train_gen_model`, without Modal: which they are, what each does.

Their flags are those of the scripts. In a container the volumes are at logs/, recordings/, simulators/ and
modal_checkpoints/, so that a path means the same file on both sides.
"""

import argparse
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from generative import train_agent, train_gen_model
from generative.agents.config import Settings
from generative.domains.coinrun.games import GAMES, MODES, check_playable
from generative.recordings.format import CONFIG
from mop.cloud.cloud_jobs import (
    AGENTS_DIR,
    AGENTS_VOLUME,
    CHECKPOINT_DIR,
    RECORDINGS_DIR,
    RECORDINGS_VOLUME,
    SIMULATORS_DIR,
    STATE_NAME,
    ZOO_DIR,
    Job,
    Result,
)
from mop.cloud.hardware import parse_gpu
from mop.common.cli import Parser, as_dict, check_values, declared, parser_of
from mop.common.errors import InputError

SCRIPTS = {"train_agent": train_agent, "train_gen_model": train_gen_model}
CHECKS = {
    "train_agent": lambda args: Settings(
        **check_values(Settings, {field.name: getattr(args, field.name) for field in declared(Settings)})
    ),
    "train_gen_model": train_gen_model.check_given,
}
VOLUMES = {RECORDINGS_DIR: RECORDINGS_VOLUME, AGENTS_DIR: AGENTS_VOLUME}  # on which recordings lie
NOT_FREE = {  # flag -> why it cannot be given
    "output_dir": "what is made lies on its volume",
    "lang_encoder": "a container has no folder of this machine",
}
PLACES = {  # flag -> the folders of a container in which its path can lie
    "data_dir": (RECORDINGS_DIR, AGENTS_DIR),
    "agent_file": (AGENTS_DIR, RECORDINGS_DIR, CHECKPOINT_DIR, ZOO_DIR),
    "model_file": (AGENTS_DIR,),
}


@dataclass(frozen=True)
class Plan:
    """A job with what its container gets: a GPU or none, names of secrets such as "a,b"."""

    job: Job
    gpu: str | None
    secrets: str
    is_dry_run: bool


# --- planning -------------------------------------------------------------------------------------------------------


def parser(name: str, default_gpu: str) -> Parser:
    """The command line of a script with the flags of the cloud."""
    parser = _parser_of(name)
    parser.prog = f"modal_app.py::{name}"
    _add_own_flags(parser.add_argument_group("in the cloud"), default_gpu)
    return parser


def _parser_of(name: str) -> Parser:
    """The command line of a script."""
    if name != "train_agent":
        return SCRIPTS[name].parser()
    parser = parser_of(Settings, train_agent.__doc__)
    parser.set_defaults(**as_dict(Settings()))
    return parser


def _add_own_flags(group, default_gpu: str) -> None:
    group.add_argument("--gpu", default=default_gpu, help="none, T4, A10G, ... (default: %(default)s)")
    group.add_argument("--secrets", default="", help='names of secrets of your account, such as "a,b"')
    group.add_argument("--dry-run", action="store_true", help="only print the job and its price")


def plan(name: str, words: Sequence[str], default_gpu: str) -> Plan:
    """The job that `words` ask for: flags of a script, and those of the cloud.

    The script computes on the container's GPU, if there is one, unless --device says otherwise. Raises InputError where
    a flag is wrong, or asks for something that a container lacks.
    """
    args = parser(name, default_gpu).parse_args(words)
    gpu, device = parse_gpu(args.gpu), args.device
    CHECKS[name](args)
    _check_for_container(args, _parser_of(name))
    own = Parser(add_help=False)
    _add_own_flags(own, default_gpu)
    _, words = own.parse_known_args(words)
    words = [word for word in words if word != "--resume"]
    is_chosen = any(word.partition("=")[0] == "--device" for word in words)
    if is_chosen and device == "cpu":
        gpu = None  # it would be idle
    elif is_chosen and device != "auto" and gpu is None:
        raise InputError(f"--device {device} needs a GPU, and --gpu none asks for none; leave one of them out")
    elif not is_chosen and gpu is not None:
        words += ["--device", "gpu"]
    label, folder = _run_of(name, args)
    return Plan(Job(label, (name, label, folder, words)), gpu, args.secrets, args.dry_run)


def _check_for_container(args: argparse.Namespace, script: Parser) -> None:
    for flag, reason in NOT_FREE.items():
        if getattr(args, flag, None) != script.get_default(flag):
            raise InputError(f"--{flag} is not free in the cloud: {reason}")
    for flag, places in PLACES.items():
        path = Path(getattr(args, flag, None) or places[0])
        if not any(path.is_relative_to(place) for place in places) or ".." in path.parts:
            below = " or ".join(f"{place}/" for place in places)
            raise InputError(f"--{flag} must be a path below {below} in the cloud, not {path}")


def _run_of(name: str, args: argparse.Namespace) -> tuple[str, str]:
    """What a run is called, and its folder."""
    if name == "train_agent":
        folder = Path(AGENTS_DIR, "procgen", args.env_name, args.exp_name, f"seed_{args.seed}")
        return f"{args.env_name} {args.exp_name} seed {args.seed}", folder.as_posix()
    label = args.tgm_exp_name or Path(args.data_dir).name
    return f"simulator {label}", f"{SIMULATORS_DIR}/{label}"


# --- in containers --------------------------------------------------------------------------------------------------


def train(name: str, label: str, folder: str, words: Sequence[str], on_save: Callable[[], object]) -> Result:
    """Train, or go on from the last state; `on_save` is called whenever the run's files are worth keeping."""
    try:
        _check_on_volume(_parser_of(name).parse_args(words))
        code = SCRIPTS[name].main([*words, "--resume"], on_save)
    except InputError as error:
        return Result(label, error=str(error))
    if code:
        raise KeyboardInterrupt  # its state is saved: the next attempt goes on
    made = [path for path in sorted(Path(folder).rglob("*")) if path.is_file() and path.name != STATE_NAME]
    return Result(label, tuple(path.relative_to(Path(folder).parts[0]).as_posix() for path in made))


def _check_on_volume(args: argparse.Namespace) -> None:
    """Raises InputError where the recording is not on its volume."""
    if hasattr(args, "data_dir") and not Path(args.data_dir, CONFIG).is_file():
        root, *parts = Path(args.data_dir).parts
        there, volume = f"/{'/'.join(parts)}", VOLUMES[root]
        way_out = shlex.join(["modal", "volume", "put", volume, args.data_dir, there])
        raise InputError(f"{there} is not on volume {volume}; upload it: {way_out}")


def check_games() -> None:
    """Raises InputError where a game cannot be played: an image that lacks something is not used."""
    for env_name in GAMES:
        for mode in MODES:
            check_playable(env_name, mode)
