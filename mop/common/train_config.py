"""The settings of a training run, and the config which its checkpoints carry.

`TrainConfig` declares each setting of train_mop.py and train.py once. config.yaml repeats the defaults and the help for
the user, who may edit it (a test compares the two). Later values win: config.yaml, the file of --config, flags.
The config of a checkpoint is a plain dict with the keys of `RunConfig`.
"""

import ast
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mop.common import cli
from mop.common.cli import required, setting
from mop.common.errors import InputError
from mop.common.task_mix import name_of_run
from mop.common.values import MAX_ENVS, folder_name, integer, number, or_word, share, shown, text

DEFAULTS_FILE = Path(__file__).parents[2] / "config.yaml"
MAX_LAYERS = MAX_EXPERTS = 256  # of a policy, of a layer: far more than a figure can show
PAPER_EXPERT_DROPOUT = 0.8  # arXiv 2506.02813: 0.8 (1 - w / 0.1) where w < 0.1


def expert_sizes(value: Any) -> list[list[int]]:
    """Layers of expert sizes: [[0, 16], [0, 32]], a flat list for one layer, "0,16;0,32" or ["0,16", "0,32"]."""
    form = 'must be layers of expert sizes such as "[[0,16,32],[0,64]]" or "0,16,32;0,64"'
    try:
        if isinstance(value, str):
            is_literal = value.strip().startswith("[")
            value = ast.literal_eval(value.strip()) if is_literal else value.strip().strip(";").split(";")
        if isinstance(value, list | tuple) and value and not any(isinstance(x, list | tuple | str) for x in value):
            value = [value]
        layers = [layer.split(",") if isinstance(layer, str) else layer for layer in value]
        if not all(isinstance(layer, list | tuple) for layer in (value, *layers)):
            raise ValueError  # a mapping, a set: their order and repetitions say nothing
        sizes = [[integer(0, 65536)(size) for size in layer] for layer in layers]
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: brackets without end
        raise ValueError(form) from None
    if not sizes or not all(sizes):
        raise ValueError(form + ", with at least one expert in each layer")
    if len(sizes) > MAX_LAYERS or max(map(len, sizes)) > MAX_EXPERTS:
        raise ValueError(f"{form}, with at most {MAX_LAYERS} layers of {MAX_EXPERTS} experts")
    return sizes


def task_weights(value: Any) -> list[list]:
    """Tasks with weights, [[task_id, weight], ...], also given as {task_id: weight} or as a list of ids of weight 1."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list | tuple):
        pairs = [item if isinstance(item, list | tuple) else (item, 1.0) for item in value]
    else:
        pairs = []
    if not pairs or not all(len(pair) == 2 for pair in pairs):
        raise ValueError("must be tasks with weights, `task_id: weight` lines, or a list of tasks")
    tasks = []
    for task_id, weight in pairs:
        try:
            tasks.append([text(task_id), number(above=0, high=1e6)(weight)])
        except ValueError as error:
            raise ValueError(f"must be tasks with weights; of {shown(task_id)}, it {error}") from None
    task_ids = [task_id for task_id, _ in tasks]
    if twice := [task_id for task_id in task_ids if task_ids.count(task_id) > 1]:
        raise ValueError(f"must name each task once, and {twice[0]} is there {task_ids.count(twice[0])} times")
    return tasks


def tasks_or_file(value: Any) -> list[list]:
    """`task_weights` of a value, of a JSON text, or of the YAML file which a text names."""
    tasks = value
    try:
        if isinstance(value, str):
            tasks = json.loads(value) if value[:1] in ("[", "{") else cli.load_yaml(value)
        return task_weights(tasks)
    except ValueError as error:
        raise InputError(f"--tasks {value if isinstance(value, str) else ''}: it {error}") from None


def numbers(value: Any) -> list[float]:
    """A list of finite numbers."""
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of finite numbers")
    return [number()(item) for item in value]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Every setting of a training run.

    before: what the absence of a key means in a file which is older than the key; is_runtime: whether it belongs to the
    machine and the moment, so that it may differ when a run is resumed.
    """

    task_id: str = setting(
        "BabyAI-GoToObj-v0", 'a registered BabyAI id, such as BabyAI-UnlockPickup-v0; several: "A,B,C"',
        section="what is learned", replaces="tasks",
    )  # fmt: skip
    tasks: list | None = setting(
        None, "several tasks with weights, `task_id: weight`; as a flag: a YAML file that holds them",
        parse=tasks_or_file, replaces="task_id", before=None,
    )  # fmt: skip
    name: str | None = setting(
        None, "what a run of several tasks is called on disk; null: made of the names of the tasks", parse=folder_name
    )
    trial: int = setting(0, "number of the setting or replicate; part of the run's path", low=0)
    seed: int | None = setting(
        None, "seeds everything (weights, worlds); null: the trial number; given, it is part of the path",
        low=0, before=None,
    )  # fmt: skip
    max_steps: int | None = setting(None, "step limit of an episode; null: the task's own", low=1, before=None)

    num_updates: int = setting(
        1000, "updates; each learns from num_envs x unroll_len new environment steps", low=1, section="imitation",
        is_runtime=True,
    )  # fmt: skip
    num_envs: int = setting(16, "environments side by side", low=1, high=MAX_ENVS)
    num_workers: int = setting(
        0, "processes in which the student acts; 0: this one; results do not depend on it", low=0, high=1024,
        is_runtime=True,
    )  # fmt: skip
    unroll_len: int = setting(32, "environment steps between updates; back-propagation is truncated to them", low=1)
    lr: float = setting(0.001, "Adam's learning rate", above=0)
    lr_decay: float = setting(
        0.25, "over this last part of the updates the learning rate falls linearly to 0; true: all", parse=share,
        alone="true", metavar="SHARE", before=0.0,
    )  # fmt: skip
    teacher_mix: float = setting(
        2.0, "the share of steps in which the bot acts falls from 1 to 0 over this part of the updates; 2: to 1/2",
        low=0, high=1000, before=0.0,
    )  # fmt: skip
    replay: int = setting(
        2, "further optimiser steps of an update, each on the unroll of an earlier one", low=0, before=0
    )
    replay_size: int = setting(
        6000, "unrolls kept for them, the latest: about 0.16 KB for each of their steps, also in the state", low=1,
        before=1,
    )  # fmt: skip
    grad_clip: float = setting(0.5, "the gradient's norm is clipped to this; 0: never", low=0)

    input_dim: int = setting(
        152, "numbers of an observation: image 147, direction 4, carrying 1", low=152, high=152, section="policy"
    )
    num_actions: int = setting(7, "actions of BabyAI", low=7, high=7)
    intermediate_dim: int = setting(64, "width between the layers", low=1, also=("mop_intermediate_dim",))
    expert_hidden_sizes: list[list[int]] = setting(
        [[0, 16, 32], [0, 16, 32], [0, 16, 32]], 'experts of each layer, 0 = skip; also "0,16,32;0,64"',
        parse=expert_sizes, also=("mop_layers",),
    )  # fmt: skip
    router_hidden_size: int = setting(64, "GRU units of each router", low=1, also=("mop_router_dim",))
    obs_encoding: str = setting(
        "one_hot", "raw: Minigrid's integers as numbers; one_hot: each type, colour and state a column",
        choices=("raw", "one_hot"), before="raw",
    )  # fmt: skip
    input_encoder: str = setting(
        "film", "film: the mission scales and shifts the features of each cell; linear: both in one linear map",
        choices=("film", "linear"), before="linear",
    )  # fmt: skip
    film_cell_dim: int = setting(32, "of film: numbers of a cell's embedding", low=1, high=4096, before=32)
    film_features: int = setting(8, "of film: numbers that become of a cell", low=1, high=4096, before=8)
    residual: bool = setting(
        False, "true: the paper's block, LayerNorm(x + layer(x)); false: layer(x) alone", before=False
    )
    expert_gain: float = setting(
        10.0, "how much the untrained experts say: their projections' first weights, times torch's", above=0, before=1.0
    )
    expert_dropout: float = setting(
        0.0, "while learning, experts of small router weight are left out: highest probability; paper: 0.8",
        parse=or_word(number(0, 1), paper=PAPER_EXPERT_DROPOUT), before=0.0,
    )  # fmt: skip
    expert_dropout_below: float = setting(
        0.1, "router weight from which on no expert is left out", above=0, high=1, before=0.1
    )
    gru_hidden_size: int = setting(64, "GRU units of the baseline (train.py)", low=1)

    lang_encoder: str = setting(
        "words", "words: BabyAI's, which the policy learns to read; vocab: a code of any words; none: no mission; or a "
        "Hugging Face id or folder, as distilbert-base-uncased",
        section="language",
    )  # fmt: skip
    lang_dim: int = setting(64, "numbers that the policy sees of the mission", low=1)
    train_lang_proj: bool = setting(
        True, "train the projection encoder -> lang_dim with the policy; false: frozen at random"
    )

    lpc_alpha: float = setting(0.0, "weight of the layered parameter cost in the loss", low=0, section="complexity")
    normalize_lpc: bool = setting(False, "the paper's form: lpc_alpha x LPC / (cross-entropy + lpc_eps)")
    lpc_eps: float = setting(0.01, "floor of that denominator", above=0)
    lpc_detach: bool = setting(False, "no gradient through that denominator")

    log_interval: int = setting(
        10, "updates between rows of training_log.csv", low=1, section="housekeeping", is_runtime=True
    )
    checkpoint_interval: int = setting(
        0, "updates between checkpoints checkpoint_<U>.pt; 0: only the final one", low=0, is_runtime=True
    )
    checkpoint_dir: str = setting(
        "checkpoints", "root of the run's folder <task_id>/trial_<N>[/seed_<S>]", is_runtime=True
    )
    resume: bool = setting(
        False, "continue a run that was cut off (from its start where nothing was saved)", is_runtime=True
    )
    overwrite: bool = setting(False, "train anew where a finished or begun run exists", is_runtime=True)
    device: str = setting("auto", "auto (cuda if there is one), cpu, cuda, cuda:1, ...", is_runtime=True)
    wandb_project: str | None = setting(
        None, "log to this Weights & Biases project too (needs `pip install wandb`)", before=None, is_runtime=True
    )

    def recorded(self) -> dict[str, Any]:
        """The config as plain values, as checkpoints carry it: `task_id` is the run's name on disk."""
        try:
            tasks = self.tasks or task_weights([part.strip() for part in self.task_id.split(",")])
        except ValueError as error:
            raise InputError(f"--task_id {error}, not {shown(self.task_id)}") from None
        task_ids = [task_id for task_id, _ in tasks]
        name = name_of_run(task_ids, self.name)
        several = None if task_ids == [name] else tasks
        return cli.as_dict(self, leave_out=("name",)) | {"task_id": name, "tasks": several}


@dataclass(frozen=True, kw_only=True)
class RunConfig(TrainConfig):
    """The keys of the config which checkpoints carry: settings, and what the program adds."""

    tasks: list | None = setting(None, "several tasks with weights", parse=task_weights, before=None)
    policy: str = setting(
        "mop", "mop: mixture of pathways (train_mop.py); gru: baseline (train.py)", choices=("mop", "gru"), before="mop"
    )
    scheduled_updates: int = required(
        "num_updates when the run began: lr_decay and teacher_mix go by it, also where the run is continued", low=1
    )
    encoder_dim: int = required("numbers of the encoder's embedding of a mission", low=1)
    encoder_fingerprint: list[float] = required(
        "first numbers of the embedding of a fixed mission, to know the encoder again", parse=numbers
    )


FLAGS = tuple(field.name for field in cli.declared(TrainConfig))
KEYS = tuple(field.name for field in cli.declared(RunConfig))
RUNTIME_KEYS = tuple(field.name for field in fields(TrainConfig) if field.metadata.get("is_runtime"))
BEFORE = {field.name: field.metadata["before"] for field in fields(RunConfig) if "before" in field.metadata}


def read_config(path: str | Path) -> dict[str, Any]:
    """The checked values of a YAML file of settings."""
    return cli.check_values(TrainConfig, cli.read_yaml(path), str(path))


def parse_config(description: str, argv: Sequence[str] | None = None) -> tuple[dict[str, Any], set[str]]:
    """The run's config from config.yaml, --config and flags, later ones winning; and the names which the user gave."""
    defaults = read_config(DEFAULTS_FILE)
    given = cli.given_values(
        TrainConfig, description, argv, config="file with keys that differ from config.yaml", defaults=defaults
    )
    return TrainConfig(**cli.merged(TrainConfig, defaults, given)).recorded(), set(given)


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what the absence of its missing keys means; None is taken for absence.

    Keys of which nothing can be assumed stay absent. Keys that are not ours are kept.
    """
    known = {name: value for name, value in config.items() if value is not None}
    scheduled = {"scheduled_updates": known["num_updates"]} if "num_updates" in known else {}
    return BEFORE | scheduled | known


def check_recorded(config: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The completed config of a checkpoint or state, made here or elsewhere, with the values of declared keys checked.

    The loaders of `mop.artifacts.checkpoints` call it, so that every config in memory is complete.
    """
    declared = {name: value for name, value in config.items() if name in KEYS and value is not None}
    return complete({**config, **cli.check_values(RunConfig, declared, source)})


def check_declared(config: Collection[str]) -> None:
    """Raises KeyError, as it is a bug, where a config which is about to be written has an undeclared key."""
    if undeclared := sorted(set(config) - set(KEYS)):
        raise KeyError(f"RunConfig does not declare {', '.join(undeclared)}")
