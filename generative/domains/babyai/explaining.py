"""The attribution of a recorded step to all things at all earlier steps, made into a `WorldExplanation`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from generative.attribution.counterfactuals import effects, legal_edits
from generative.attribution.explanations import WorldExplanation
from generative.attribution.integrated_gradients import NUM_POINTS, predict_effects
from generative.domains.babyai.causes import PATHS, Thing
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.scenes import Place, Scene, Scenes, loop_from, real_case, real_world
from generative.domains.babyai.targets import Target
from generative.domains.inputs import recorded_values
from generative.recordings.format import Episode, Recording


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
    rows = recording.episode(episode)
    found = causes_of(
        policy, scenes, rows, Place(episode, step, min(horizon, step)), target, kind, method, num_points, is_own,
        lambda place, scene, _: true_contributions(policy, recording, place, scene.things, target),
    )  # fmt: skip
    steps = step - np.arange(len(found["simulated"]))
    values = recorded_values(rows, target, policy.policy.expert_hidden_sizes)
    return WorldExplanation(
        kind=np.array(kind), mission=np.array(rows.mission), value=np.array(float(values[step])),
        **{name: np.array(rows[name])[steps] for name in ("obs", "grid", "position", "carried")}, **found,
    )  # fmt: skip


def causes_of(
    policy: FrozenPolicy,
    scenes: Scenes,
    rows: Episode,
    place: Place,
    target: Target,
    kind: str,
    method: str,
    num_points: int,
    is_own: bool,
    contributions: Callable[[Place, Scene, Tensor], np.ndarray],
) -> dict[str, np.ndarray]:
    """What an explanation of any kind of world says, by name: which step and target, and the causes.

    These are from that step back to `place.lag` steps earlier.

    contributions: the truth (C, 2) of the things of a scene, given the memory (1, S) there.
    """
    found = []
    for lag in range(place.lag + 1):
        start, here = place.step - lag, place._replace(lag=lag)
        scene, memory = scenes.at(rows, start, kind), torch.from_numpy(np.array(rows["hidden"][start]))[None]
        loop = loop_from(policy, scenes, scene, rows, memory, here, is_own)
        (predicted,) = predict_effects(loop, scene.there, scene.without(scene.things), [target], method, num_points)
        by_path = torch.stack([scene.by_channel(predicted.by_path[path]) for path in PATHS], 1)
        found.append(
            {
                "lag": np.full(len(scene.things), lag),
                "things": scene.fields(),
                "attribution": -by_path.numpy(),
                "gap": predicted.gap.numpy(),
                "contribution": contributions(here, scene, memory),
                "simulated": np.array([predicted.before]),
            }
        )
    about = {"episode": place.episode, "seed": rows.seed, "step": place.step, "target": target.name}
    causes = {name: np.concatenate([of_lag[name] for of_lag in found]) for name in found[0]}
    return {name: np.array(value) for name, value in about.items()} | causes


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
