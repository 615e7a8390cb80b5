"""What is computed for a page, with torch, and kept: the causes of a target, and what a simulator shows."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from generative.attribution.loop_inputs import Place, Scenes
from generative.attribution.recorded_steps import explain
from generative.domains.babyai.causes import WorldExplanation
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.render import simulate
from generative.domains.playing import Span
from generative.domains.registry import load_recorded_policy, open_scenes
from generative.recordings.format import Recording

NUM_POINTS = 8  # of an integral: twice as many change an attribution by some percent


@functools.lru_cache(maxsize=4)
def open_policy(recording: Recording, checkpoint: str | None) -> FrozenPolicy:
    """Open the policy of a recording; checkpoint: where it lies now, if it was moved."""
    torch.set_num_threads(1)  # matrices are small: more threads wait for each other
    policy, _ = load_recorded_policy(recording, checkpoint, "--checkpoint")
    assert isinstance(policy, FrozenPolicy)  # the page shows no games
    return policy


@functools.lru_cache(maxsize=4)
def open_simulator(recording: Recording, simulator: str) -> Scenes:
    """Open the scenes of a simulator."""
    return open_scenes(simulator, recording)


@functools.lru_cache(maxsize=256)
def find_causes(
    recording: Recording, checkpoint: str | None, simulator: str, place: Place, target: str, is_own: bool
) -> WorldExplanation:
    """Explain a target by all that was there but walls; is_own: the policy acts in between."""
    policy, scenes = open_policy(recording, checkpoint), open_simulator(recording, simulator)
    asked = BABYAI.parse_target(target, policy)
    how: dict[str, Any] = {"num_points": NUM_POINTS, "is_own": is_own}
    found = explain(BABYAI, policy, scenes, recording, place, asked, scenes.kinds[0], is_cause=_is_no_wall, **how)
    assert isinstance(found, WorldExplanation)  # the domain's
    return found


def _is_no_wall(thing: Any) -> bool:
    return thing.kind != "wall"


@functools.lru_cache(maxsize=64)
def find_future(
    recording: Recording, checkpoint: str | None, simulator: str, k: int, span: Span
) -> Mapping[str, np.ndarray]:
    """The rows of a simulation of episode k."""
    policy = open_policy(recording, checkpoint)
    return simulate(policy, open_simulator(recording, simulator), recording.episode(k), span)
