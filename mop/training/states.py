"""What a training state must hold, so that a run can continue from it and needs no checks of its own."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mop.common.errors import InputError
from mop.common.train_config import BEFORE, KEYS
from mop.common.values import MAX_INTEGER, shown
from mop.envs.babyai import NO_LABEL, NUM_ACTIONS, OBS_DIM
from mop.envs.vector_env import check_saved
from mop.training.replay import KEPT_AS

if TYPE_CHECKING:
    from mop.training.imitation import ImitationRun

_NEEDED = (
    "config", "update", "minigrid_version", "env", "hidden", "policy_state_dict", "lang_proj_state_dict",
    "optimizer_state_dict", "counts", "recent_success", "recent_path_ratio",
)  # fmt: skip
# what a run adds to the config, is told anew, or keeps under another key
_NOT_RECORDED = {"resume", "overwrite", "checkpoint_dir", "scheduled_updates", "encoder_dim", "encoder_fingerprint"}
_NOT_RECORDED |= {"name"}
_OF_MACHINE = {"lr", "params", "fused", "foreach", "capturable", "differentiable"}  # of Adam: they differ, and may


def check_settings(state: Mapping, source: str) -> None:
    """Raises InputError, naming source and key, unless a run can be made of the config of a state.

    state: of `load_training_state`, which has checked the values of the config's keys.
    """
    missing = [key for key in _NEEDED if key not in state]
    config = state.get("config")
    if isinstance(config, dict):
        needed = set(KEYS) - BEFORE.keys() - _NOT_RECORDED
        missing += [f"config.{key}" for key in sorted(needed - config.keys())]
        missing += ["config.seed"] * (type(config.get("seed")) is not int)
        if unknown := sorted(map(str, config.keys() - set(KEYS))):
            raise _refused(source, f"its config has {shown(', '.join(unknown))}")
    elif "config" in state:
        raise _refused(source, "config is no dictionary")
    if missing:
        raise _refused(source, f"it has no {', no '.join(missing)}")
    _check_count(state["update"], "update", source)


def check_state(state: Mapping, run: "ImitationRun", source: str) -> None:
    """Raises InputError, naming source and key, unless `run` can go on from a state.

    state: of `load_training_state` or `ImitationRun.state`. What an older state may lack is no fault.
    """
    missing = [key for key in _NEEDED if key not in state]
    if missing:
        raise _refused(source, f"it has no {', no '.join(missing)}")
    if not isinstance(state["minigrid_version"], str):
        raise _refused(source, "minigrid_version is no text")
    for key in ("update", "stream_seed"):
        _check_count(state.get(key, 0), key, source)
    _check_worlds(state["env"], run.config["num_envs"], source)
    _check_tensor(state["hidden"], tuple(run.hidden.shape), torch.float32, "hidden", source)
    _check_tensors(state["policy_state_dict"], run.policy.state_dict(), "policy_state_dict", source)
    _check_tensors(state["lang_proj_state_dict"], run.lang_proj.state_dict(), "lang_proj_state_dict", source)
    _check_adam(state["optimizer_state_dict"], run, source)
    _check_tally(state, run.tally.counts, run.config["num_envs"], source)
    _check_tallies_of_tasks(state.get("by_task", {}), run, source)
    _check_replay(state.get("replay", {}), run, source)
    _check_unfinished_row(state.get("unfinished_row"), source)


def _refused(source: str, why: str) -> InputError:
    return InputError(f"{source}: it is no training state of this run and version ({why}); train anew with --overwrite")


def _check_count(value: Any, key: str, source: str) -> None:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise _refused(source, f"{key} must be an integer of 0 or more, not {shown(value)}")


def _check_tensor(value: Any, shape: tuple, dtype: torch.dtype, key: str, source: str) -> None:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape or value.dtype != dtype:
        is_tensor = isinstance(value, Tensor)
        found = f"{tuple(value.shape)} {value.dtype}" if is_tensor else f"a {type(value).__name__}"
        raise _refused(source, f"{key} is {found}, not {shape} {dtype}")


def _check_tensors(values: Any, own: Mapping[str, Tensor], key: str, source: str) -> None:
    """Tensors of the names, shapes and dtypes of the run's own."""
    if not isinstance(values, dict) or values.keys() != own.keys():
        raise _refused(source, f"{key} has not the names of this policy's weights")
    for name, tensor in own.items():
        _check_tensor(values[name], tuple(tensor.shape), tensor.dtype, f"{key}.{name}", source)


def _check_worlds(env: Any, num_envs: int, source: str) -> None:
    if not isinstance(env, dict) or not all(isinstance(value, Tensor) for value in env.values()):
        raise _refused(source, "env is no dictionary of tensors")
    try:
        check_saved({name: tensor.numpy() for name, tensor in env.items()}, num_envs)
    except InputError as error:
        raise _refused(source, f"env: {error}") from None


def _check_adam(adam: Any, run: "ImitationRun", source: str) -> None:
    """Moments of the run's own weights, of all or none, and the settings with which Adam began."""
    key, own = "optimizer_state_dict", run.optimizer.state_dict()["param_groups"][0]
    groups, moments = (adam.get(part) if isinstance(adam, dict) else None for part in ("param_groups", "state"))
    if not (
        isinstance(groups, list) and len(groups) == 1 and isinstance(groups[0], dict) and isinstance(moments, dict)
    ):
        raise _refused(source, f"{key} is not that of Adam")
    if groups[0].get("params") != own["params"] or moments.keys() not in (set(), set(own["params"])):
        raise _refused(source, f"{key} is of another number of weights")
    for name in own.keys() & groups[0].keys() - _OF_MACHINE:
        given, known = (list(v) if isinstance(v, list | tuple) else v for v in (groups[0][name], own[name]))
        if type(given) is not type(known) or given != known:
            raise _refused(source, f"{key}: {name} is {shown(given)}, not {known}")
    for number, parameter in enumerate(run.parameters if moments else ()):
        of_weight = moments[number]
        if not isinstance(of_weight, dict) or not of_weight.keys() >= {"step", "exp_avg", "exp_avg_sq"}:
            raise _refused(source, f"{key}.state.{number} has not the numbers of Adam")
        _check_tensor(of_weight["step"], (), torch.float32, f"{key}.state.{number}.step", source)
        for name in ("exp_avg", "exp_avg_sq"):
            shape = tuple(parameter.shape)
            _check_tensor(of_weight[name], shape, parameter.dtype, f"{key}.state.{number}.{name}", source)


def _check_tally(state: Mapping, own_counts: Mapping, num_envs: int, source: str) -> None:
    counts = state["counts"]
    if not isinstance(counts, dict) or not counts.keys() >= own_counts.keys():
        raise _refused(source, f"counts is no dictionary of {', '.join(own_counts)}")
    for name, value in counts.items():
        _check_count(value, f"counts.{shown(name)}", source)
    for key in ("recent_success", "recent_path_ratio"):
        if not isinstance(state[key], list) or not all(_is_number(value) and value >= 0 for value in state[key]):
            raise _refused(source, f"{key} is no list of numbers")
    for key, length in (("recent_alone", len(state["recent_success"])), ("bot_acted", num_envs)):
        values = state.get(key, [False] * length)  # older states have none
        if not isinstance(values, list) or len(values) != length or not all(type(v) is bool for v in values):
            raise _refused(source, f"{key} is no list of {length} booleans")


def _check_tallies_of_tasks(by_task: Any, run: "ImitationRun", source: str) -> None:
    """A tally of each task, where there are several."""
    own = {task.task_id: range(run.config["num_envs"])[task.slots] for task, _ in run.tally.by_task}
    if not isinstance(by_task, dict) or by_task.keys() != own.keys():
        raise _refused(source, f"by_task has not the tasks {shown(', '.join(own))}")
    for task_id, slots in own.items():
        tally, needed = by_task[task_id], ("counts", "recent_success", "recent_path_ratio")
        if not isinstance(tally, dict) or not tally.keys() >= set(needed):
            raise _refused(source, f"by_task.{task_id} has no {', no '.join(needed)}")
        _check_tally(tally, run.tally.counts, len(slots), f"{source}, {task_id}")


def _check_replay(replay: Any, run: "ImitationRun", source: str) -> None:
    """None, or K unrolls of the run's shape, and the missions that each refers to."""
    if not isinstance(replay, dict):
        raise _refused(source, "replay is no dictionary")
    if not replay:
        return
    config, missions = run.config, replay.get("missions")
    is_list = isinstance(missions, list) and all(
        isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts) for texts in missions
    )
    if not is_list or len(missions) > config["replay_size"]:
        raise _refused(source, "replay.missions is no list of the texts of each unroll")
    axes = (len(missions), config["unroll_len"], config["num_envs"])
    shapes = {"obs": (*axes, OBS_DIM), "first_hidden": (len(missions), *run.hidden.shape)}
    for name, dtype in KEPT_AS.items():
        _check_tensor(replay.get(name), shapes.get(name, axes), dtype, f"replay.{name}", source)
    tops = torch.tensor([len(texts) for texts in missions]).view(-1, 1, 1)
    ranges = {"mission": (0, tops), "label": (NO_LABEL, NUM_ACTIONS)}
    for name, (low, end) in ranges.items():
        if not ((replay[name] >= low) & (replay[name] < end)).all():
            raise _refused(source, f"replay.{name} has a number that stands for nothing")


def _check_unfinished_row(row: Any, source: str) -> None:
    """The sums of a row of the log, NaN where a measure has none, and of how many updates they are."""
    if row is None:
        return
    if not isinstance(row, dict) or not all(isinstance(n, str) and type(v) in (int, float) for n, v in row.items()):
        raise _refused(source, "unfinished_row is no dictionary of numbers")
    _check_count(row.get("count"), "unfinished_row.count", source)
    if (row["count"] == 0) != (len(row) == 1):
        raise _refused(source, "unfinished_row has sums of no update, or none of some")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
