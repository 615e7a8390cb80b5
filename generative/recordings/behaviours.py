"""Who acts in an episode: `CHOOSE`, a function for each behaviour.

Each takes what the policy and the bot say in N episodes, as rows (N,) of a recording, two uniform numbers in [0, 1) for
each of them (N, 2), and epsilon; it returns actions (N,) int. Axis letters: N episodes, A actions.
"""

from collections.abc import Callable

import numpy as np

FLATTER, NOISY_BOUNDS = 0.7, (-1.8, 0.8)  # of the noisy behaviour: factor of the preferences, their bounds after it
_LEAST_LOG_PROB = -30.0  # so that one impossible action does not decide about the mean


def _drawn(preferences: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Actions (N,) drawn by the softmax of preferences (N, A)."""
    ends = np.exp(preferences.astype(np.float64)).cumsum(-1)
    return (ends[:, :-1] <= draws[:, :1] * ends[:, -1:]).sum(-1)


def _random(rows: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    return (draws[:, 1] * rows["log_probs"].shape[1]).astype(np.int64)


def noisy(rows: np.ndarray, draws: np.ndarray, epsilon: float, fixed: np.ndarray | float = np.nan) -> np.ndarray:
    """fixed (A,): preferences that do not depend on the policy, NaN for the others."""
    flat = np.clip(rows["log_probs"].astype(np.float64), _LEAST_LOG_PROB, None)
    preferences = np.clip(FLATTER * (flat - flat.mean(-1, keepdims=True)), *NOISY_BOUNDS)
    return _drawn(np.where(np.isnan(fixed), preferences, fixed), draws)


CHOOSE: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "argmax": lambda rows, draws, epsilon: rows["student"],  # the policy's likeliest action
    "sampled": lambda rows, draws, epsilon: _drawn(rows["log_probs"], draws),  # by the policy's probabilities
    # argmax, but with probability epsilon any action, each as likely
    "epsilon": lambda rows, draws, epsilon: np.where(
        draws[:, 0] < epsilon, _random(rows, draws, epsilon), rows["student"]
    ),
    "bot": lambda rows, draws, epsilon: rows["bot"],
    "random": _random,  # any action, each as likely
    "noisy": noisy,  # drawn by the policy's preferences (their mean is 0), made flatter and bounded
}
