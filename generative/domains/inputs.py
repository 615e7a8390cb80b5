"""What the commands of attribution share: simulators by name, directions of the same policy, recorded targets."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch

from generative.domains.babyai.policy import Answer
from generative.domains.babyai.scenes import ExactScenes, LearnedScenes, Scenes
from generative.domains.babyai.targets import Target
from generative.domains.base import BABYAI, domain_of
from generative.domains.coinrun.scenes import FrameScenes
from generative.recordings.format import Episode, Recording, open_recording
from generative.representations.direction_sets import Directions, load_directions
from generative.simulators.world_model import load_world_model
from mop.common.errors import InputError
from mop.common.files import whole_digest

EXACT = "exact"


def open_babyai_recording(folder: str | Path) -> Recording:
    """The finished recording in a folder. Raises InputError where there is none, or it is of a game."""
    recording = open_recording(folder)
    if domain_of(recording.config["encoding"]) is not BABYAI:
        raise InputError(f"{folder} is a recording of a game; only those of BabyAI's worlds can be used here")
    return recording


def open_scenes(name: str, recording: Recording) -> Scenes:
    """The scenes of a recording in the simulator of this name: "exact", or the folder of a learned one.

    Raises InputError where there is none, or it was learned of another policy or task.
    """
    if name == EXACT:
        if domain_of(recording.config["encoding"]) is not BABYAI:
            raise InputError("there is no exact simulator of a game; name the folder of a learned one")
        return ExactScenes(recording.config["encoding"]["grid_shape"])
    model, config = load_world_model(Path(name))
    mine = (recording.config["encoding"]["task_id"], recording.config["checkpoint"]["sha256"])
    if (config["task_id"], config["agent"]["sha256"]) != mine:
        raise InputError(f"{name} was learned of another policy or task than {recording.folder} was recorded of")
    num_frames = config["settings"]["num_initializing_steps"]
    if model.domain is BABYAI:
        return LearnedScenes(model, num_frames)
    return FrameScenes(model, num_frames, recording.config["encoding"])


def open_directions(path: str | None, sha256: str, policy: str | Path) -> Directions | None:
    """The directions of a file, None where none is named.

    sha256: of the checkpoint whose memory they must have been found in; policy: what a person calls it. Raises
    InputError where they are of another one.
    """
    if path is None:
        return None
    directions = load_directions(path)
    if str(directions.checkpoint) != sha256:
        raise InputError(f"--directions {path}: found in the memory of another policy than that of {policy}")
    return directions


def settings_of(args: Namespace, runtime: Sequence[str]) -> dict:
    """The flags that a folder of results is of: all but those of `runtime`, and the digest of --directions, if given.

    Raises InputError where the file cannot be read.
    """
    settings = {name: value for name, value in vars(args).items() if name not in (*runtime, "directions")}
    return settings | ({} if args.directions is None else {"directions": whole_digest(args.directions)})


def recorded_values(episode: Episode, target: Target, expert_hidden_sizes: Sequence[Sequence[int]]) -> torch.Tensor:
    """A target at each step (T,) of an episode of T actions, as it was recorded; no experts: of a game.

    Recorded are log-probabilities in place of logits: no target depends on what the two differ by.
    """
    names = [name for name in ("log_probs", "routing", "hidden", "value") if name in episode]
    parts = {name: torch.from_numpy(episode[name].copy()) for name in names}
    num_experts = [len(sizes) for sizes in expert_hidden_sizes]
    routing = [weights[:-1] for weights in parts["routing"].split(num_experts, -1)] if num_experts else []
    value = parts["value"][:-1] if "value" in parts else None
    return target(Answer(parts["log_probs"][:-1], routing, parts["hidden"][1:], value))
