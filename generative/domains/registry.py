"""The kinds of worlds by name, and what a command opens of any kind: policies, simulators, scenes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generative.attribution.loop_inputs import LearnedScenes, Scenes
from generative.domains.babyai.domain import BABYAI
from generative.domains.base import Domain, Policy
from generative.domains.coinrun.domain import COINRUN
from generative.recordings.format import Recording, find_policy
from generative.simulators.base import EXACT
from generative.simulators.world_model import WorldModel, make_world_model
from mop.artifacts.checkpoints import load_checkpoint, quick_config
from mop.common.errors import InputError
from mop.common.reading import reading
from mop.training.loop import FINAL_NAME

DOMAINS: dict[str, Domain] = {domain.name: domain for domain in (BABYAI, COINRUN)}


def domain_of(config: Mapping) -> Domain:
    """Return the domain of the encoding of a recording, or of a simulator's config; BabyAI where it says nothing."""
    name = config.get("domain", BABYAI.name)
    if name not in DOMAINS:
        raise InputError(f"there is no kind of world {name!r}; there are: {', '.join(DOMAINS)}")
    return DOMAINS[name]


def domain_of_recording(recording: Recording) -> Domain:
    """Return the domain of a recording."""
    return domain_of(recording.config["encoding"])


def domain_of_checkpoint(path: str | Path) -> Domain:
    """Return the domain of a policy's checkpoint."""
    kind = quick_config(path).get("kind")
    return next((domain for domain in DOMAINS.values() if domain.checkpoint_kind == kind), BABYAI)


def load_recorded_policy(
    recording: Recording,
    path: str | Path | None = None,
    flag: str = "--agent_file (--checkpoint of an analysis)",
) -> tuple[Policy, Path]:
    """Load the policy of a recording, which holds what the policy is given of each mission; and its checkpoint's path.

    path: where the checkpoint lies now, if it was moved; flag: which says so.
    """
    path = find_policy(recording, path, flag)
    return domain_of_recording(recording).load_policy(path, needs_encoder=False)[0], path


def load_simulator(path: str | Path) -> tuple[WorldModel, dict[str, Any]]:
    """Load a trained world model with frozen parameters; returns it and its config.

    path: the simulator's folder.
    """
    path = Path(path) / FINAL_NAME
    if not path.exists():
        raise InputError(f"{path} is missing; name a simulator's folder, or train one with generative.train_gen_model")
    checkpoint = load_checkpoint(path)
    config = checkpoint["config"]
    if config.get("kind") != "world_model":
        raise InputError(f"{path} is a checkpoint, but not a simulator's; train one with generative.train_gen_model")
    with reading(path, "simulator"):
        model = make_world_model(config, domain_of(config))
        # the training loop saves what it trains under one key, be it a policy or a world model
        model.load_state_dict(checkpoint["policy_state_dict"])
    return model.eval().requires_grad_(False), config


def load_simulator_of(recording: Recording, name: str) -> tuple[WorldModel, dict[str, Any]] | None:
    """Load the simulator of this name, which must be of the recording's policy and task; None for the exact one."""
    if name == EXACT:
        return None
    model, config = load_simulator(name)
    own = (recording.config["encoding"]["task_id"], recording.config["checkpoint"]["sha256"])
    if (config["task_id"], config["agent"]["sha256"]) != own:
        raise InputError(f"{name} was learned of another policy or task than {recording.folder} was recorded of")
    return model, config


def open_scenes(name: str, recording: Recording) -> Scenes:
    """Open the scenes of a recording in the simulator of this name: "exact", or the folder of a learned one."""
    encoding = recording.config["encoding"]
    learned = load_simulator_of(recording, name)
    if learned is not None:
        model, config = learned
        return LearnedScenes(model, config["settings"]["num_initializing_steps"], encoding)
    domain = domain_of(encoding)
    if domain.exact_scenes is None:
        raise InputError(f"there is no exact simulator of {domain.title}; name the folder of a learned one")
    return domain.exact_scenes(domain, encoding)
