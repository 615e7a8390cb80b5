"""How simulators of a kind of world are judged: what `fidelity` must know of it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # of each measure, two arrays (T, N): see `fidelity.sums_of`


class Judge(NamedTuple):
    """One for each domain of `adapters`."""

    measures: Mapping[str, str]  # name -> what it is
    actors: tuple[str, ...]  # who acts in trials
    run_trials: Callable[..., Any]  # as `trials.run_trials`
    load_forecasts: Callable[..., Any]  # as `fidelity.load_forecasts`
    sums_of: Callable[..., Sums]  # of trials and a forecast
