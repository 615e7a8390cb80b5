"""The attribution of a recorded step to all things at all earlier steps, made into a `WorldExplanation`."""

from collections.abc import Sequence

import numpy as np
import torch

from generative.attribution import NUM_POINTS, predict_effects
from generative.causes import PATHS, Thing
from generative.counterfactuals import effects, legal_edits
from generative.explanations import WorldExplanation
from generative.inputs import recorded_values
from generative.policies import FrozenPolicy
from generative.recordings import Recording
from generative.scenes import Place, Scenes, loop_from, memory_at, real_case, real_world
from generative.targets import Target


def explain(
    policy: FrozenPolicy,
    scenes: Scenes,
    recording: Recording,
    episode: int,
    step: int,
    horizon: int,
    target: Target,
    kind: str,
    method: str = "integrated",
    num_points: int = NUM_POINTS,
    is_own: bool = True,
) -> WorldExplanation:
    """The causes of a target at a step of a recorded episode, from that step back to `horizon` steps earlier.

    kind: of scene, one of `scenes.kinds`; is_own: the policy acts in the loop; else the recorded actions are executed.
    """
    rows, found, lags = recording.episode(episode), [], range(min(horizon, step) + 1)
    for lag in lags:
        place = Place(episode, step, lag)
        scene = scenes.at(rows, step - lag, kind)
        loop = loop_from(policy, scenes, scene, rows, memory_at(policy, policy, rows, step - lag), place, is_own)
        (predicted,) = predict_effects(loop, scene.there, scene.without(scene.things), [target], method, num_points)
        by_path = torch.stack([scene.by_channel(predicted.by_path[path]) for path in PATHS], 1)
        found.append(
            {
                "lag": np.full(len(scene.things), lag),
                "things": np.array([(x, y, *code, *at) for x, y, code, *at in scene.things], np.int64).reshape(-1, 8),
                "attribution": -by_path.numpy(),
                "gap": predicted.gap.numpy(),
                "contribution": true_contributions(policy, recording, place, scene.things, target),
                "simulated": np.array([predicted.before]),
            }
        )
    steps = step - np.array(lags)
    values = recorded_values(rows, target, policy.policy.expert_hidden_sizes)
    return WorldExplanation(
        episode=np.array(episode), seed=np.array(rows.seed), step=np.array(step), target=np.array(target.name),
        kind=np.array(kind), mission=np.array(rows.mission), value=np.array(float(values[step])),
        **{name: np.array(rows[name])[steps] for name in ("obs", "grid", "position", "carried")},
        **{name: np.concatenate([of_lag[name] for of_lag in found]) for name in found[0]},
    )  # fmt: skip


def true_contributions(
    policy: FrozenPolicy, recording: Recording, place: Place, things: Sequence[Thing], target: Target
) -> np.ndarray:
    """Minus the true effect (C, 2) of taking each thing out of the cloned real world, NaN where that is not legal.

    With the policy acting on what it sees, and with the recorded actions. NaN too where the episode is then over before
    the step.
    """
    world = real_world(recording, place)
    removals = {(edit.x, edit.y): edit for edit in legal_edits(world, ["remove"])}
    at = [thing.place_in_world(world.position, world.direction) for thing in things]
    known = [number for number, cell in enumerate(at) if cell in removals]
    found = np.full((len(things), 2), np.nan)
    if known:
        edits = [removals[at[number]] for number in known]
        case = real_case(world, policy, recording.episode(place.episode), place, edits)
        (true,) = effects(policy, [case], [target])
        found[known] = -np.stack([true.acting[:, 0], true.forced[:, 0]], 1)
    return found
