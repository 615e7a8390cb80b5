"""A recorded step of a game attributed to the patches of all earlier frames, made into a `FrameExplanation`.

Each patch has a line of its own, as cells of BabyAI have. One line for all, to a black frame, would cost a tenth, but
it tells little of a single patch: see docs/coinrun.md.
Axis letter: C patches.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from generative.attribution.agreement import MIN_EDITS, compare
from generative.attribution.explanations import FrameExplanation
from generative.domains.babyai.causes import PATHS
from generative.domains.babyai.explaining import causes_of
from generative.domains.babyai.scenes import Place
from generative.domains.babyai.targets import Target
from generative.domains.coinrun.policy import FrozenAgent
from generative.domains.coinrun.scenes import FrameScene, FrameScenes, answer_after
from generative.domains.inputs import recorded_values
from generative.recordings.format import Episode, Recording
from mop.statistics.bootstrap import bootstrap_means

NUM_POINTS = 2  # of the integral


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
    rows = recording.episode(episode)
    found = causes_of(
        policy, scenes, rows, Place(episode, step, min(horizon, step)), target, kind, method, num_points, is_own,
        lambda place, scene, memory: hidden_from_agent(policy, rows, place, scene, memory, target),
    )  # fmt: skip
    steps = step - np.arange(len(found["simulated"]))
    return FrameExplanation(
        value=np.array(float(recorded_values(rows, target, [])[step])), obs=np.array(rows["obs"])[steps], **found,
    )  # fmt: skip


def hidden_from_agent(
    agent: FrozenAgent, rows: Episode, place: Place, scene: FrameScene, memory: Tensor, target: Target
) -> np.ndarray:
    """What each patch contributes, (C, 2), to the real agent: minus the change of the target where it is hidden.

    It is hidden in that frame alone; all later frames are as they were recorded, so only what is seen in that frame and
    remembered can differ. That is the second number; the first is NaN, as nobody can take a patch out of the real game
    and see how it goes on. memory (1, S): before the frame.
    """
    later = [frame[None] for frame in np.array(rows["obs"][place.step - place.lag + 1 : place.step + 1])]
    films = np.concatenate([scene.frame[None], scene.frames_without(scene.things)])
    values = target(answer_after(agent, [films, *later], memory)).numpy()
    return np.stack([np.full(len(values) - 1, np.nan), values[0] - values[1:]], 1)


def agreement_of_patches(found: Sequence[FrameExplanation]) -> pd.DataFrame:
    """How well attribution ranks the patches of a frame by what hiding each alone does: Spearman's rho.

    A case is a lag of a step, if there are MIN_EDITS patches and the truth differs between them. A line for each
    prediction, truth and lag, and for all lags: columns prediction, truth, lag, rho, its 95 % interval over episodes,
    cases, episodes. Truths: the real agent, from which a patch is hidden in that frame alone (nothing goes through the
    world), and the simulator, in which it is absent from then on.
    """
    cases, at_once = [], [PATHS.index("direct"), PATHS.index("memory")]
    for explanation in found:
        for lag in range(len(explanation.obs)):
            rows = explanation.lag == lag
            total, real = explanation.total[rows], explanation.contribution[rows, 1]
            simulated = total - explanation.gap[rows]
            for prediction, truth, predicted, true in (
                ("seen and remembered", "real agent", explanation.by_path[rows][:, at_once].sum(1), real),
                ("all paths", "real agent", total, real),
                ("all paths", "simulator", total, simulated),
            ):
                if rows.sum() >= MIN_EDITS and np.ptp(true) > 0:
                    rho = compare(predicted, true)["rho"]
                    cases.append((prediction, truth, lag, int(explanation.episode), rho))
    table, lines = pd.DataFrame(cases, columns=["prediction", "truth", "lag", "episode", "rho"]), []
    for (prediction, truth), of_pair in table.groupby(["prediction", "truth"], sort=False):
        for lag, group in [("all", of_pair), *of_pair.groupby("lag")]:
            means = bootstrap_means(group[["rho"]].to_numpy(), group["episode"].to_numpy()).numbers(0, 0, "rho")
            means["cases"] = means.pop("steps")
            lines.append({"prediction": prediction, "truth": truth, "lag": lag, **means})
    return pd.DataFrame(lines)
