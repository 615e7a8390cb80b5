"""A recorded step of a game attributed to all patches at all earlier steps, made into a `FrameExplanation`.

One straight line leads from the frame to a black one, and all patches share it: each gets the integrated gradient of
its own points. A line for each patch, as cells of BabyAI have it, would cost 64 times as much. So a patch has its share
of what blackness as a whole would change, not the effect of its own absence; that effect, in the simulator, is beside
it (`gap`), as is the one to the real agent.
Axis letters: C = 64 patches.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generative.agreement import MIN_EDITS, compare
from generative.attribution import predict_effects
from generative.causes import PATHS
from generative.explanations import FrameExplanation
from generative.frozen_agents import FrozenAgent
from generative.game_objects import objects_of
from generative.game_scenes import FrameScenes, answer_after
from generative.inputs import recorded_values
from generative.patches import COLUMNS, NUM_PATCHES, frames_without, kinds_of_patches, patches_of, sums_by_patch
from generative.pixels import frame_views
from generative.recordings import Episode, Recording
from generative.scenes import Place, loop_from, memory_at
from generative.targets import Target
from mop.measures.bootstrap import bootstrap_means

NUM_POINTS = 8  # of the integral
_EACH = [[k] for k in range(NUM_PATCHES)]


def explain_frames(
    policy: FrozenAgent,
    scenes: FrameScenes,
    recording: Recording,
    episode: int,
    step: int,
    horizon: int,
    target: Target,
    kind: str,
    method: str = "integrated",
    num_points: int = NUM_POINTS,
    is_own: bool = True,
) -> FrameExplanation:
    """As `explaining.explain`; kind: VIEW, there is no other."""
    rows, lags = recording.episode(episode), range(min(horizon, step) + 1)
    steps = step - np.array(lags)
    kinds = kinds_of_patches(objects_at(recording, rows, step)[steps])
    found = []
    for lag in lags:
        place, start = Place(episode, step, lag), step - lag
        scene = scenes.at(rows, start, kind)
        memory = memory_at(policy, policy, rows, start, frame_views)
        loop = loop_from(policy, scenes, scene, rows, memory, place, is_own)
        (joint,) = predict_effects(loop, scene.there, scene.black(), [target], method, num_points)
        by_path = np.stack([sums_by_patch(joint.by_path[path]["view"].numpy())[0] for path in PATHS], 1)
        with torch.no_grad():
            (alone,) = loop.values(scene.without(_EACH), [target])
        found.append(
            {
                "lag": np.full(NUM_PATCHES, lag),
                "things": np.array(patches_of(kinds[lag])),
                "attribution": -by_path[..., None],
                "gap": alone.numpy() - joint.before - by_path.sum(1),
                "contribution": hidden_from_agent(policy, rows, place, target, memory),
                "simulated": np.array([joint.before]),
                "lacking": joint.gap.numpy(),
            }
        )
    values = recorded_values(rows, target, [])
    return FrameExplanation(
        episode=np.array(episode), seed=np.array(rows.seed), step=np.array(step), target=np.array(target.name),
        value=np.array(float(values[step])), obs=np.array(rows["obs"])[steps],
        **{name: np.concatenate([of_lag[name] for of_lag in found]) for name in found[0]},
    )  # fmt: skip


def objects_at(recording: Recording, episode: Episode, last: int) -> np.ndarray:
    """What was on screen (last + 1, 64, 64) from the first frame of an episode to frame `last`: see `game_objects`."""
    encoding = recording.config["encoding"]
    return objects_of(encoding, episode.seed, [encoding["actions"][action] for action in episode["action"][:last]])


def hidden_from_agent(agent: FrozenAgent, episode: Episode, place: Place, target: Target, memory: Tensor) -> np.ndarray:
    """What each patch contributes, (C, 2), to the real agent: minus the change of the target where it is hidden.

    It is hidden in that frame alone; all later frames are as they were recorded, so only what is seen in that frame and
    remembered can differ. That is the second number; the first is NaN, as nobody can take a patch out of the real game
    and see how it goes on. memory (1, S): before the frame.
    """
    start, stop = place.step - place.lag, place.step + 1
    frame, *later = np.array(episode["obs"][start:stop])
    later = [one[None] for one in later]
    as_it_was = target(answer_after(agent, [frame[None], *later], memory))
    without = target(answer_after(agent, [frames_without(frame, _EACH), *later], memory))
    forced = (as_it_was - without).numpy()
    return np.stack([np.full_like(forced, np.nan), forced], 1)


def agreement_of_patches(found: Sequence[FrameExplanation]) -> pd.DataFrame:
    """How well attribution ranks the patches of a frame by what hiding each alone does: Spearman's rho.

    A case is a lag of a step; ranked are its patches that are not black, if there are MIN_EDITS of them, and the truth
    differs between them. A line for each prediction, truth and lag, and for all lags: columns prediction, truth, lag,
    rho, its 95 % interval over episodes, cases, episodes. Truths: the real agent, from which a patch is hidden in that
    frame alone (nothing goes through the world), and the simulator, in which it is absent from then on.
    """
    cases = []
    for explanation in found:
        for lag in range(len(explanation.obs)):
            rows = np.flatnonzero(explanation.lag == lag)
            is_seen = sums_by_patch(explanation.obs[lag].reshape(-1).astype(np.int64)) > 0
            rows = rows[is_seen[explanation.things[rows, 1] * COLUMNS + explanation.things[rows, 0]]]
            at_once = explanation.by_path[rows][:, [PATHS.index("direct"), PATHS.index("memory")]].sum(1)
            total, real = explanation.total[rows], explanation.contribution[rows, 1]
            simulated = total - explanation.gap[rows]
            for prediction, truth, predicted, true in (
                ("seen and remembered", "real agent", at_once, real),
                ("all paths", "real agent", total, real),
                ("all paths", "simulator", total, simulated),
            ):
                if len(rows) >= MIN_EDITS and np.ptp(true) > 0:
                    rho = compare(predicted, true)["rho"]
                    cases.append((prediction, truth, lag, int(explanation.episode), rho))
    names = ["prediction", "truth", "lag", "episode", "rho"]
    table, lines = pd.DataFrame(cases, columns=names), []
    for (prediction, truth), of_pair in table.groupby(["prediction", "truth"], sort=False):
        for lag, group in [("all", of_pair), *of_pair.groupby("lag")]:
            means = bootstrap_means(group[["rho"]].to_numpy(), group["episode"].to_numpy())
            line = {"prediction": prediction, "truth": truth, "lag": lag, **means.numbers(0, 0, "rho")}
            line["cases"] = line.pop("steps")
            lines.append(line)
    return pd.DataFrame(lines)
