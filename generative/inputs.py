"""What the commands of attribution share: simulators by name, recorded targets, the folder of a result."""

from collections.abc import Sequence
from pathlib import Path

import orjson
import torch

from generative.policies import Answer
from generative.recordings import Episode, Recording
from generative.scenes import ExactScenes, LearnedScenes, Scenes
from generative.targets import Target
from generative.world_model import load_world_model
from mop.base.errors import InputError
from mop.base.files import read_bytes, write_json

EXACT = "exact"
CONFIG = "config.json"


def open_scenes(name: str, recording: Recording) -> Scenes:
    """The scenes of a recording in the simulator of this name: "exact", or the folder of a learned one.

    Raises InputError where there is none, or it was learned of another policy or task.
    """
    if name == EXACT:
        return ExactScenes(recording.config["encoding"]["grid_shape"])
    model, config = load_world_model(Path(name))
    mine = (recording.config["encoding"]["task_id"], recording.config["checkpoint"]["sha256"])
    if (config["task_id"], config["agent"]["sha256"]) != mine:
        raise InputError(f"{name} was learned of another policy or task than {recording.folder} was recorded of")
    return LearnedScenes(model, config["settings"]["num_initializing_steps"])


def recorded_values(episode: Episode, target: Target, expert_hidden_sizes: Sequence[Sequence[int]]) -> torch.Tensor:
    """A target at each step (T,) of an episode of T actions, as it was recorded.

    Recorded are log-probabilities in place of logits: no target depends on what the two differ by.
    """
    parts = {name: torch.from_numpy(episode[name].copy()) for name in ("log_probs", "routing", "hidden")}
    routing = parts["routing"].split([len(sizes) for sizes in expert_hidden_sizes], -1)
    return target(Answer(parts["log_probs"][:-1], [weights[:-1] for weights in routing], parts["hidden"][1:]))


def settle_folder(out: Path, record: dict) -> None:
    """Make a folder that of these results: write what they are of, or find the same there.

    Raises InputError where the folder is of something else.
    """
    path = out / CONFIG
    if path.exists():
        if orjson.loads(read_bytes(path)) != orjson.loads(orjson.dumps(record)):
            raise InputError(f"{out} was made with other settings; choose another --out, or remove it")
    elif any(out.iterdir()):
        raise InputError(f"{out} holds something else; choose another --out")
    else:
        write_json(path, record, orjson.OPT_INDENT_2)
