"""Who acts in an episode: `CHOOSE`, a function for each behaviour.

Each takes what the policy and the bot say in N episodes, and two uniform numbers for each of them.
Axis letters: N episodes, A actions.
"""

from collections.abc import Callable

import numpy as np


def _argmax(log_probs: np.ndarray, bot: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    return log_probs.argmax(-1)


def _sampled(log_probs: np.ndarray, bot: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    ends = np.exp(log_probs.astype(np.float64)).cumsum(-1)
    return (ends[:, :-1] <= draws[:, :1] * ends[:, -1:]).sum(-1)


def _epsilon(log_probs: np.ndarray, bot: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    return np.where(draws[:, 0] < epsilon, _uniform(draws[:, 1], log_probs), log_probs.argmax(-1))


def _bot(log_probs: np.ndarray, bot: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    return bot.astype(np.int64)


def _random(log_probs: np.ndarray, bot: np.ndarray, draws: np.ndarray, epsilon: float) -> np.ndarray:
    return _uniform(draws[:, 1], log_probs)


def _uniform(draws: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    return (draws * log_probs.shape[1]).astype(np.int64)


# (log_probs (N, A) float32, the bot's actions (N,), draws (N, 2) in [0, 1), epsilon) -> actions (N,) int64
CHOOSE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]] = {
    "argmax": _argmax,  # the policy's likeliest action
    "sampled": _sampled,  # an action by the policy's probabilities
    "epsilon": _epsilon,  # argmax, but with probability epsilon any action
    "bot": _bot,
    "random": _random,  # any action
}
