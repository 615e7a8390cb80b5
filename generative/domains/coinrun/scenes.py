"""What patches truly contribute to a real agent of a game, as far as that can be known, and how attribution agrees.

A real game cannot be edited. What can be known: a patch is hidden from the real agent in one frame, and it watches the
recorded frames that follow.
Axis letters: C patches, S hidden units.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from generative.attribution.agreement import MIN_EDITS, compare
from generative.attribution.explanations import PATHS
from generative.attribution.loop_inputs import Place, ViewScene
from generative.domains.base import Answer, Target
from generative.domains.coinrun.causes import FrameExplanation, without_each
from generative.domains.coinrun.policy import FrozenAgent
from generative.recordings.format import Recording
from mop.statistics.bootstrap import bootstrap_means


@torch.no_grad()
def answer_after(agent: FrozenAgent, frames: Sequence[np.ndarray], hidden: Tensor) -> Answer:
    """What a real agent says of the last frame of each of C films, which it watches without acting.

    frames: of each step (C, 3, 64, 64) uint8, or (1, 3, 64, 64) where all films show the same; hidden (1, S): before.
    """
    num_films = max(len(of_step) for of_step in frames)
    hidden = hidden.expand(num_films, -1)
    answer: Any = None
    for of_step in frames:
        features = agent.agent.features(torch.from_numpy(np.asarray(of_step)))
        answer = agent.agent.answer(features.expand(num_films, -1), hidden)
        hidden = answer.hidden
    return answer


def true_contributions(
    policy: FrozenAgent, recording: Recording, place: Place, scene: ViewScene, hidden: Tensor, target: Target
) -> np.ndarray:
    """Return what each patch contributes, (C, 2), to the real agent: minus the change of the target where it is hidden.

    It is hidden in that frame alone; all later frames are as they were recorded, so only what is seen in that frame and
    remembered can differ. That is the second number; the first is NaN, as nobody can take a patch out of the real game
    and see how it goes on. hidden (1, S): before the frame.
    """
    rows = recording.episode(place.episode)
    later = [frame[None] for frame in np.array(rows["obs"][place.step - place.lag + 1 : place.step + 1])]
    films = np.concatenate([scene.obs[None], without_each(scene.obs, scene.things)])
    values = target(answer_after(policy, [films, *later], hidden)).numpy()
    return np.stack([np.full(len(values) - 1, np.nan), values[0] - values[1:]], 1)


def agreement_of_patches(explanations: Sequence[FrameExplanation]) -> pd.DataFrame:
    """How well attribution ranks the patches of a frame by what hiding each alone does: Spearman's rho.

    A case is a lag of a step, if there are MIN_EDITS patches and the truth differs between them. A line for each
    prediction, truth and lag, and for all lags: columns prediction, truth, lag, rho, its 95 % interval over episodes,
    cases, episodes. Truths: the real agent, from which a patch is hidden in that frame alone (nothing goes through the
    world), and the simulator, in which it is absent from then on.
    """
    cases, at_once = [], [PATHS.index("direct"), PATHS.index("memory")]
    for explanation in explanations:
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
