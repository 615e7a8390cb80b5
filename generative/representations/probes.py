"""Linear probes: how well a property of the world can be read from the hidden state, evaluated in other worlds.

Axis letters: M rows, D numbers of a row, C classes, B episodes.
"""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

from mop.statistics.bootstrap import bootstrap_interval
from mop.statistics.intervals import Interval


class Probe:
    """Logistic regression on standardised numbers, with every class of the same weight."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, freedom: float = 1.0, has_one_scale: bool = False):
        """x (M, D), labels (M,) int, of two classes at least.

        freedom: scikit-learn's C, the smaller, the smaller are the weights; has_one_scale: all numbers are divided by
        the same one, so that one that hardly varies cannot count much.
        """
        self._mean, self._sd = x.mean(0), x.std(0)
        if has_one_scale:
            self._sd = np.full_like(self._sd, np.sqrt(np.square(self._sd).mean()))
        self._sd = np.where(self._sd > 0, self._sd, 1.0)
        self._model = LogisticRegression(C=freedom, class_weight="balanced", max_iter=300, tol=1e-3)
        self._model.fit((x - self._mean) / self._sd, labels)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The class (M,) of each row of x (M, D)."""
        return self._model.predict((x - self._mean) / self._sd)

    @property
    def contrasts(self) -> np.ndarray:
        """The weights (C, D) of each class against the mean of the others; of two classes, only the second, (1, D)."""
        weights = self._model.coef_ / self._sd
        return weights if len(weights) == 1 else (weights - weights.mean(0)) * len(weights) / (len(weights) - 1)


def class_differences(x: np.ndarray, labels: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """The mean of the rows x (M, D) of each class, labels (M,), minus the mean of all other rows: (C, D).

    Of two classes, only the second, (1, D). 0 where a class, or all others, have no row.
    """
    differences = np.zeros((len(classes), x.shape[1]))
    for k, number in enumerate(classes):
        is_of_it = labels == number
        if is_of_it.any() and not is_of_it.all():
            differences[k] = x[is_of_it].mean(0) - x[~is_of_it].mean(0)
    return differences[1:] if len(classes) == 2 else differences


def balanced_accuracy(predicted: np.ndarray, labels: np.ndarray, episode: np.ndarray) -> Interval:
    """Balanced accuracy of predictions of labels (M,), with its 95 % interval from a bootstrap over episodes (M,) int.

    1 / C by chance, also if the commonest class is always predicted. The interval is NaN for fewer than MIN_EPISODES
    episodes, and leaves out resamples in which a class is missing.
    """
    classes, index = np.unique(labels, return_inverse=True)
    numbers, episode = np.unique(episode, return_inverse=True)
    num_classes, shape = len(classes), (len(numbers), len(classes))
    correct, total = (  # of each class in each episode, (B, C)
        np.bincount(episode * num_classes + index, weights, np.prod(shape)).reshape(shape).astype(np.float64)
        for weights in (predicted == labels, None)
    )

    def statistic(sums: np.ndarray) -> np.ndarray:
        return (sums[..., :num_classes] / sums[..., num_classes:]).mean(-1)

    return bootstrap_interval(np.concatenate([correct, total], 1), statistic)


def above_chance(accuracy: np.ndarray, num_classes: int) -> np.ndarray:
    """Rescale balanced accuracies (K,): 0 is chance, 1 perfect."""
    return (accuracy - 1 / num_classes) / (1 - 1 / num_classes)
