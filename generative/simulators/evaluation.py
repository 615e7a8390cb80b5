"""How true a simulator is: what it shows in unseen worlds, by the number of steps, and what the policy makes of it.

`check_fidelity` is the gate of every analysis: it refuses a simulator that was not measured, or is not good enough.
Axis letters: N trials, T steps ahead, X numbers of a view.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import torch
from torch import Tensor

from generative.domains.babyai.trials import ACTORS, Trials, run_trials
from generative.domains.base import BABYAI, GAMES
from generative.domains.coinrun import trials as coinrun_trials
from generative.recordings.format import Recording
from generative.simulators.base import EXACT
from generative.simulators.exact import ExactSimulator
from generative.simulators.fidelity_protocol import Judge, Sums, load_judged
from generative.simulators.forecasts import Forecast, Markov, by_copy, by_exact, by_model, by_shuffled
from generative.simulators.relaxation import NUM_CELLS, harden
from mop.common.errors import InputError
from mop.common.files import file_digest, read_bytes, write_atomic, write_figure, write_json
from mop.fast.grid import IMAGE_SIZE
from mop.statistics.bootstrap import MIN_EPISODES, bounds, resample
from mop.training.loop import FINAL_NAME

RESULT = "fidelity.json"
MODEL, COPY, MARKOV, SHUFFLED = "simulator", "copy_last", "markov", "shuffled"
MIN_FIDELITY = 0.7  # share of equal actions, and of exact views one step ahead
MIN_TRIALS = 100  # of a measurement that analyses rely on: then the 95 % interval of a share of 0.7 is 0.18 wide
VIEW_SHARES = {"exact_view": "views exact", "nearer": "frames nearer to the truth than the last one seen"}
NUM_SHOWN = 3  # frames, where the simulator does not say what it was trained with
MEASURES = {  # name -> what it is
    "cells": "cells that are right in type, colour and state",
    "seen_cells": "of these, cells in view whose place was shown to the simulator",
    "new_cells": "of these, cells in view whose place was not",
    "exact_view": "observations that are right as a whole",
    "action": "steps in which the policy's likeliest action is the same",
    "routing": "routers whose likeliest expert is the same",
    "action_kl": "KL of the policy's actions, the true from the simulated, in nats",
    "routing_kl": "KL of the router's weights, the sum over layers, in nats",
    "hidden_r2": "share of the variance of the policy's memory that is explained",
}


# --- numbers ----------------------------------------------------------------------------------------------------------


def sums_of(trials: Trials, forecast: Tensor) -> Sums:
    """Of each measure what each trial brings, and of how many: two arrays (T, N) float64, 0 after an episode's end.

    forecast (T, N, X). The measure of a horizon is the ratio of the sums over trials.
    """
    policy, truth, mask = trials.policy, trials.answer, trials.mask
    answer = policy.run(forecast, trials.lang, trials.hidden)
    true, told = harden(trials.frames[trials.num_shown :]).numpy(), harden(forecast).numpy()
    same = true == told
    cells = same[..., :IMAGE_SIZE].reshape(*mask.shape, -1, NUM_CELLS).all(-2)
    variance = (truth.hidden - _mean_memory(truth.hidden, mask)).square().sum(-1)
    routing = list(zip(truth.routing, answer.routing, strict=True))
    found = {
        "cells": (cells.sum(-1), np.full(mask.shape, NUM_CELLS)),
        "seen_cells": ((cells & trials.is_seen).sum(-1), trials.is_seen.sum(-1)),
        "new_cells": ((cells & trials.is_new).sum(-1), trials.is_new.sum(-1)),
        "exact_view": (same.all(-1), np.ones(mask.shape)),
        "action": ((truth.logits.argmax(-1) == answer.logits.argmax(-1)).numpy(), np.ones(mask.shape)),
        "routing": (
            sum((mine.argmax(-1) == other.argmax(-1)).numpy().astype(float) for mine, other in routing),
            np.full(mask.shape, len(routing)),
        ),
        "action_kl": (_kl(truth.logits.softmax(-1), answer.logits.softmax(-1)), np.ones(mask.shape)),
        "routing_kl": (sum(_kl(mine, other) for mine, other in routing), np.ones(mask.shape)),
        "hidden_r2": ((variance - (truth.hidden - answer.hidden).square().sum(-1)).numpy(), variance.numpy()),
    }
    return {name: tuple(np.where(mask, np.asarray(part, float), 0.0) for part in both) for name, both in found.items()}


def _kl(true: Tensor, other: Tensor) -> np.ndarray:
    """KL (...) float64 in nats of probabilities (..., K), the other from the true."""
    true, other = true.double().clamp(min=1e-12), other.double().clamp(min=1e-12)
    return (true * (true / other).log()).sum(-1).clamp(min=0).numpy()


def _mean_memory(hidden: Tensor, mask: np.ndarray) -> Tensor:
    """The mean (T, 1, S) of memories (T, N, S) at each horizon over the trials that have not ended."""
    weights = torch.from_numpy(mask).float()[..., None]
    return (hidden * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1)


def measure(trials, forecast, sums: Callable[..., Sums] = sums_of) -> dict[str, dict[str, list[float]]]:
    """Each measure at each horizon: mean, low and high of its 95 % interval over episodes; NaN where none is left.

    sums: those of a judge. Bootstrap as in `mop.statistics.bootstrap`: a trial is an episode, and all measures share
    the draws.
    """
    return {name: interval_of_ratio(*both) for name, both in sums(trials, forecast).items()}


def interval_of_ratio(brought: np.ndarray, counts: np.ndarray) -> dict[str, list[float]]:
    """The ratio of the sums over trials of brought (T, N) to those of counts (T, N), with its 95 % interval."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = brought.sum(1) / counts.sum(1)
        drawn = resample(np.concatenate([brought, counts]).T)
        low, high = bounds(drawn[:, : len(brought)] / drawn[:, len(brought) :])
    is_enough = (counts > 0).sum(1) >= MIN_EPISODES
    low, high = (np.where(is_enough, bound, np.nan) for bound in (low, high))
    return {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}


# --- the gate ---------------------------------------------------------------------------------------------------------


def check_fidelity(
    simulator: str | Path, horizon: int, min_fidelity: float = MIN_FIDELITY, agent_sha256: str | None = None
) -> str:
    """A line on how true a simulator is, to be printed with what is computed in it.

    simulator: the folder of a learned one, or "exact", which needs no measuring; horizon: the steps over which it is
    used; min_fidelity: as `judge`; agent_sha256: of the policy's file, to make sure. Raises InputError where the
    simulator was not measured, too little or not in unseen worlds, was measured before it was trained on, is of another
    policy, or is not good enough.
    """
    if str(simulator) == EXACT:
        return "exact simulator: Minigrid's own rules"
    folder = Path(simulator)
    path = folder / RESULT
    again = f"give python -m generative.fidelity --simulator {folder} --data_dir ..."
    if not path.is_file():
        raise InputError(f"it is not known how true the simulator in {folder} is; {again}")
    try:
        found = orjson.loads(read_bytes(path))
        lacking = find_lack(found)
        numbers = None if lacking else found["actors"]["trained"][MODEL]
        shares = None if lacking else shares_of(numbers)
        is_of_this = found["simulator"]["digest"] == file_digest(folder / FINAL_NAME)
        agent, num_horizons = found["agent_sha256"], len(found["horizons"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged; {again}") from None
    if lacking is not None:
        raise InputError(f"{path} is no measure of unseen worlds: it {lacking}; {again}")
    if not is_of_this:
        raise InputError(f"{path} is of an earlier training of the simulator; {again}")
    if agent_sha256 not in (None, agent):
        raise InputError(f"the simulator in {folder} is of another policy; train one with generative.train_gen_model")
    if not 1 <= horizon <= num_horizons:
        raise InputError(f"{path} tells of horizons from 1 to {num_horizons}, not of {horizon}; {again}")
    return judge(str(folder), shares, horizon, min_fidelity, VIEW_SHARES[view_share(numbers)])


def find_lack(result: Mapping) -> str | None:
    """What a result, as in fidelity.json, lacks for analyses to rely on it, in words; None where it lacks nothing."""
    settings = result["settings"]
    if settings["split"] != "test":
        return f"is of the {settings['split']} split, not of the test split"
    if "trained" not in result["actors"]:
        return "has no trials of the trained policy"
    if settings["num_trials"] < MIN_TRIALS:
        return f"is of {settings['num_trials']} episodes, not of {MIN_TRIALS} or more"
    return None


def view_share(numbers: Mapping[str, Mapping[str, list]]) -> str:
    """Which of VIEW_SHARES a measurement has."""
    return next(name for name in VIEW_SHARES if name in numbers)


def shares_of(numbers: Mapping[str, Mapping[str, list]]) -> np.ndarray:
    """Of what `measure` found, equal actions and good views: mean, low and high at each horizon, (2, 3, T) float64."""
    parts = [[numbers[name][part] for part in ("mean", "low", "high")] for name in ("action", view_share(numbers))]
    return np.array(parts, float)


def judge(name: str, shares: np.ndarray, horizon: int, min_fidelity: float, views: str = "views exact") -> str:
    """The line on a simulator over 1 to `horizon` steps: the least share of equal actions, and of good views at once.

    shares: of `shares_of`; views: what good ones are. With growing horizon the least share can only fall, however few
    trials go on so long. Raises InputError where it, or the share of good views one step ahead, is below
    `min_fidelity` or has no interval; 0 for any.
    """
    (mean, low, high), view = shares[0, :, :horizon], shares[1, 0, 0]
    at = int(np.argmin(np.where(np.isnan(mean), np.inf, mean)))
    line = (
        f"simulator {name}: over 1 to {horizon} steps at least {_share(mean[at])} of the policy's actions are the same "
        f"({at + 1} ahead, {_share(low[at])} to {_share(high[at])}), {_share(view)} of {views} 1 step ahead"
    )
    if min_fidelity and np.isnan(low).any():
        too_far = np.argmax(np.isnan(low)) + 1
        raise InputError(
            f"{line}: too few trials go on for {too_far} steps to tell; choose fewer steps, more --num_trials of "
            "generative.fidelity, or --min_fidelity 0"
        )
    if min_fidelity and min(mean[at], view) < min_fidelity:
        raise InputError(f"{line}: below --min_fidelity {min_fidelity:g}; train it longer, or lower --min_fidelity")
    return line


def _share(share: float) -> str:
    return "not known" if np.isnan(share) else f"{share:.1%}"


# --- what is written --------------------------------------------------------------------------------------------------


def load_forecasts(simulator: str, recording: Recording) -> tuple[dict[str, Forecast], dict, int]:
    """The forecasts to be compared, by name; what is written of the simulator; the frames that it is shown.

    Raises InputError where there is no such simulator, or it is of another policy.
    """
    baselines = {COPY: by_copy, MARKOV: Markov.of(recording)}
    if simulator == EXACT:
        exact = ExactSimulator(tuple(recording.config["encoding"]["grid_shape"]))
        return {MODEL: functools.partial(by_exact, exact), **baselines}, {"name": EXACT}, NUM_SHOWN
    model, known, num_shown = load_judged(simulator, recording)
    forecasts = {MODEL: functools.partial(by_model, model), SHUFFLED: functools.partial(by_shuffled, model)}
    return {**forecasts, **baselines}, known, num_shown


JUDGES = {
    BABYAI.name: Judge(MEASURES, ACTORS, run_trials, load_forecasts, sums_of),
    GAMES.name: coinrun_trials.JUDGE,
}


def table_of(actors: Mapping[str, Mapping], horizons: tuple[int, ...]) -> pd.DataFrame:
    """The means of all measures at some horizons, a row for each actor, forecast and measure."""
    rows = []
    for actor, forecasts in actors.items():
        for forecast, measures in forecasts.items():
            for name, parts in measures.items():
                numbers = {f"{h}": _text(*(parts[part][h - 1] for part in ("mean", "low", "high"))) for h in horizons}
                rows.append({"actor": actor, "forecast": forecast, "measure": name, **numbers})
    return pd.DataFrame(rows)


def _text(mean: float, low: float, high: float) -> str:
    return "" if np.isnan(mean) else f"{mean:.3f}" + ("" if np.isnan(low) else f" ({low:.3f} to {high:.3f})")


def _markdown(table: pd.DataFrame, command: str, measures: Mapping[str, str]) -> bytes:
    """The table with what its columns are, as a file."""
    lines = ["# Fidelity", "", command, "", "Columns: steps ahead; 95 % intervals over episodes.", ""]
    lines += [f"- `{name}`: {meaning}" for name, meaning in measures.items()]
    lines += ["", "| " + " | ".join(table) + " |", "|" + "---|" * table.shape[1]]
    lines += ["| " + " | ".join(row) + " |" for row in table.astype(str).itertuples(index=False)]
    return ("\n".join(lines) + "\n").encode()


def write_fidelity(folder: Path, result: dict, command: str, title: str, measures: Mapping[str, str]) -> None:
    """Write a result and its table and figure to a folder, and print the table of the first actor."""
    from generative.figures.training_curves import plot_fidelity  # here: matplotlib takes most of a second to load

    horizons = tuple(h for h in (1, 2, 4, 8, 16, 24) if h in result["horizons"]) or (1,)
    table = table_of(result["actors"], horizons)
    write_atomic(folder / "fidelity.md", lambda file: file.write(_markdown(table, f"{title}: {command}", measures)))
    write_figure(folder / "fidelity.png", plot_fidelity(result, title))
    write_json(folder / RESULT, result, orjson.OPT_INDENT_2)
    first = next(iter(result["actors"]))
    print(table[table["actor"] == first].drop(columns="actor").to_string(index=False))
    print(f"all actors: {folder / 'fidelity.md'}")
