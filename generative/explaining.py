"""The attribution of a recorded step to all things at all earlier steps, made into an `Explanation`."""

import numpy as np
import torch

from generative.attribution import NUM_POINTS, predict_effects
from generative.causes import PATHS
from generative.explanations import Explanation
from generative.inputs import recorded_values
from generative.policies import FrozenPolicy
from generative.recordings import Recording
from generative.scenes import Place, Scenes, loop_from, memory_at
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
) -> Explanation:
    """The causes of a target at a step of a recorded episode, from that step back to `horizon` steps earlier.

    kind: of scene, one of `scenes.kinds`; is_own: the policy acts in the loop; else the recorded actions are executed.
    """
    rows, found, lags = recording.episode(episode), [], range(min(horizon, step) + 1)
    for lag in lags:
        scene = scenes.at(rows, step - lag, kind)
        memory = memory_at(policy, policy, rows, step - lag)
        loop = loop_from(policy, scenes, scene, rows, memory, Place(episode, step, lag), is_own)
        (effects,) = predict_effects(loop, scene.there, scene.without(scene.things), [target], method, num_points)
        by_path = torch.stack([scene.by_channel(effects.by_path[path]) for path in PATHS], 1)
        things = np.array([(x, y, *code, *rest) for x, y, code, *rest in scene.things], np.int64).reshape(-1, 8)
        found.append((np.full(len(things), lag), things, -by_path.numpy(), effects.gap.numpy(), effects.before))
    lag, things, attribution, gap = (np.concatenate(parts) for parts in list(zip(*found, strict=True))[:4])
    steps = step - np.array(lags)
    values = recorded_values(rows, target, policy.policy.expert_hidden_sizes)
    return Explanation(
        episode=np.array(episode), seed=np.array(rows.seed), step=np.array(step), target=np.array(target.name),
        kind=np.array(kind), mission=np.array(rows.mission), value=np.array(float(values[step])),
        simulated=np.array([part[-1] for part in found]), lag=lag, things=things, attribution=attribution, gap=gap,
        **{name: np.array(rows[name])[steps] for name in ("obs", "grid", "position", "carried")},
    )  # fmt: skip
