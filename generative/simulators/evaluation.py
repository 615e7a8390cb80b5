"""How true a simulator is: what it shows in unseen worlds, by the number of steps, and what the policy makes of it.

`check_fidelity` is the gate of every analysis: it refuses a simulator that was not measured, or is not good enough.
Axis letters: N trials, I frames that are shown, T frames that follow, A actions, X numbers of a view, S hidden units, G
numbers of a mission.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from generative.attribution.closed_loop import untrained
from generative.domains.base import Domain, FidelityProtocol, Policy, Sums
from generative.recordings.format import SPLITS, Recording
from generative.simulators.base import EXACT
from generative.simulators.world_model import WorldModel
from mop.artifacts.checkpoints import quick_config
from mop.common.cli import required, setting
from mop.common.errors import InputError
from mop.common.files import file_digest, write_atomic, write_figure, write_json
from mop.common.reading import read_json, reading
from mop.common.seeding import stream_seed
from mop.common.tables import interval_text, markdown_table
from mop.statistics.bootstrap import MIN_EPISODES, bootstrap_intervals
from mop.training.loop import FINAL_NAME

RESULT = "fidelity.json"
MODEL, COPY, SHUFFLED = "simulator", "copy_last", "shuffled"  # forecasts
MIN_FIDELITY = 0.7  # share of equal actions, and of exact views one step ahead
MIN_TRIALS = 100  # of a measurement that analyses rely on: then the 95 % interval of a share of 0.7 is 0.18 wide
VIEW_SHARES = {"exact_view": "views exact", "nearer": "frames nearer to the truth than the last one seen"}
NUM_SHOWN = 3  # frames, where the simulator does not say what it was trained with

# --- trials -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moments:
    """Where trials begin: for each the episode, and the row that is the last one shown."""

    recording: Recording
    numbers: np.ndarray  # (N,) int64 of the episodes
    rows: np.ndarray  # (N,) int64
    num_shown: int  # I


def choose_moments(recording: Recording, split: str, num_trials: int, num_shown: int, seed: int) -> Moments:
    """A random moment in each of so many random episodes of a split, or of all that are long enough."""
    rng = np.random.default_rng(stream_seed(seed, "moments"))
    numbers = recording.episodes(split)
    numbers = numbers[recording.index["num_rows"][numbers] > num_shown]  # an action is left after what is shown
    if not len(numbers):
        raise InputError(f"{recording.folder} has no {split} episode of more than {num_shown} rows; record more steps")
    numbers = np.sort(rng.permutation(numbers)[:num_trials])
    rows = rng.integers(num_shown - 1, recording.index["num_rows"][numbers] - 1)
    return Moments(recording, numbers, rows, num_shown)


@dataclass(frozen=True)
class Trials:
    """N trials with one actor: some frames that are shown, and then T steps in real worlds.

    A trial begins with I frames of a recorded history of an unseen world, which a simulator is shown. From there an
    actor acts in the real world, and simulators are to show the same frames, given the same actions.
    """

    frames: Tensor  # (I + T, N, ...) observations or views
    actions: Tensor  # (I + T - 1, N) int64; of no meaning after the end of the episode
    mask: np.ndarray  # (T, N) bool, False after the end of the episode
    lang: Tensor  # (N, G)
    policy: Policy  # who watches: the actor, or the trained policy where the actor is none
    hidden: Tensor  # (N, S), its hidden state before the first frame that follows

    @property
    def num_shown(self) -> int:
        """I."""
        return len(self.frames) - len(self.mask)

    def views(self, which: int | slice) -> Tensor:
        """The views of some frames, counted from the first that is shown."""
        return self.frames[which]

    @property
    def one_hot_actions(self) -> Tensor:
        """(I + T - 1, N, A) float32."""
        return F.one_hot(self.actions, self.policy.num_actions).float()


class Forecast(NamedTuple):
    """What is predicted of the T frames that follow."""

    views: Tensor  # (T, N, X)
    outcomes: Tensor | None = None  # (T, N, 2), see `WorldModel.outcome`


# --- forecasts --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_model(model: WorldModel, trials: Trials, actions: Tensor | None = None) -> Forecast:
    """A learned simulator, with the likeliest z. actions (T, N, A): what follows, if not what was truly done."""
    num_shown, every = trials.num_shown, trials.one_hot_actions
    shown = trials.views(slice(num_shown)).transpose(0, 1)
    state = model.observe(shown, every[: num_shown - 1].transpose(0, 1), trials.lang)
    states = model.imagine(state, every[num_shown - 1 :] if actions is None else actions)
    return Forecast(torch.stack(list(map(model.view, states))), torch.stack(list(map(model.outcome, states))))


def by_shuffled(model: WorldModel, trials: Trials) -> Forecast:
    """A learned simulator that is given the actions of another trial: all but what follows from actions."""
    actions = trials.one_hot_actions[trials.num_shown - 1 :]
    order = np.random.default_rng(stream_seed(0, "shuffled actions")).permutation(actions.shape[1])
    return by_model(model, trials, actions[:, order])


def by_copy(trials: Trials) -> Forecast:
    """The last frame that was shown, again and again."""
    last = trials.views(trials.num_shown - 1)
    return Forecast(last.expand(len(trials.mask), *last.shape))


def make_forecasts(
    protocol: FidelityProtocol, simulator: str, learned: tuple[WorldModel, dict] | None, recording: Recording
) -> tuple[dict[str, Callable[[Trials], Forecast]], dict, int]:
    """Return the forecasts to be compared, by name; what is written of the simulator; the frames that it is shown.

    learned: the model and its config; None: the exact simulator.
    """
    baselines = protocol.baselines(recording)
    if learned is None:
        if protocol.exact is None:
            raise InputError("--simulator exact: there is none of these worlds; name the folder of a learned one")
        return {MODEL: protocol.exact(recording), **baselines}, {"name": EXACT}, NUM_SHOWN
    model, config = learned
    known = {"name": str(simulator), "digest": file_digest(Path(simulator) / FINAL_NAME)}
    forecasts = {MODEL: functools.partial(by_model, model), SHUFFLED: functools.partial(by_shuffled, model)}
    return {**forecasts, **baselines}, known, config["num_initializing_steps"]


# --- measures ---------------------------------------------------------------------------------------------------------


def measure(trials: "Trials", forecast: "Forecast", sums_of: Callable[..., Sums]) -> dict[str, dict[str, list[float]]]:
    """Each measure at each horizon: mean, low and high of its 95 % interval over episodes; NaN where none is left.

    sums_of: of a `FidelityProtocol`. Bootstrap as in `mop.statistics.bootstrap`: a trial is an episode, and all
    measures share the draws.
    """
    return {name: interval_of_ratio(*both) for name, both in sums_of(trials, forecast).items()}


def interval_of_ratio(brought: np.ndarray, counts: np.ndarray) -> dict[str, list[float]]:
    """The ratio of the sums over trials of brought (T, N) to those of counts (T, N), with its 95 % interval."""
    num_steps = len(brought)
    sums = np.concatenate([brought, counts]).T
    mean, low, high = bootstrap_intervals(sums, lambda sums: sums[..., :num_steps] / sums[..., num_steps:])
    is_enough = (counts > 0).sum(1) >= MIN_EPISODES
    low, high = (np.where(is_enough, bound, np.nan) for bound in (low, high))
    return {"mean": mean.tolist(), "low": low.tolist(), "high": high.tolist()}


# --- the gate ---------------------------------------------------------------------------------------------------------


def check_fidelity(
    simulator: str | Path, horizon: int, min_fidelity: float = MIN_FIDELITY, agent_sha256: str | None = None
) -> str:
    """A line on how true a simulator is, to be printed with what is computed in it.

    simulator: the folder of a learned one, or "exact", which needs no measuring; horizon: the steps over which it is
    used; min_fidelity: as `fidelity_line`; agent_sha256: of the policy's file, to make sure. Refused is a simulator
    that was not measured, too little or not in unseen worlds, or before its last training, that is of another policy,
    or that is not good enough.
    """
    if str(simulator) == EXACT:
        return "exact simulator: Minigrid's own rules"
    path = Path(simulator) / RESULT
    recording = quick_config(Path(simulator) / FINAL_NAME).get("recording", {}).get("path", "RECORDING")
    again = f"give python -m generative.fidelity --simulator {simulator} --data_dir {recording}"
    if not path.is_file():
        raise InputError(f"it is not known how true the simulator in {simulator} is; {again}")
    with reading(path, "measure of fidelity", again):
        result = read_json(path)
        if (lacking := find_lack(result)) is not None:
            raise InputError(f"{path} is no measure of unseen worlds: it {lacking}; {again}")
        numbers, num_horizons = result["actors"]["trained"][MODEL], len(result["horizons"])
        if result["simulator"]["digest"] != file_digest(path.with_name(FINAL_NAME)):
            raise InputError(f"{path} is of an earlier training of the simulator; {again}")
        if agent_sha256 not in (None, result["agent_sha256"]):
            raise InputError(f"{path} is of another policy; train a simulator with generative.train_gen_model")
        if not 1 <= horizon <= num_horizons:
            raise InputError(f"{path} tells of horizons from 1 to {num_horizons}, not of {horizon}; {again}")
        return fidelity_line(str(simulator), numbers, horizon, min_fidelity)


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


def fidelity_line(name: str, numbers: Mapping, horizon: int, min_fidelity: float) -> str:
    """The line on a simulator over 1 to `horizon` steps: the least share of equal actions, and of good views at once.

    numbers: of `measure`. With growing horizon the least share can only fall, however few trials go on so long. Refused
    where it, or the share of good views one step ahead, is below `min_fidelity` or has no interval; 0 for any.
    """
    view = next(name for name in VIEW_SHARES if name in numbers)
    mean, low, high = (np.array(numbers["action"][part], float)[:horizon] for part in ("mean", "low", "high"))
    of_views = float(np.array(numbers[view]["mean"], float)[0])
    at = int(np.argmin(np.where(np.isnan(mean), np.inf, mean)))
    line = (
        f"simulator {name}: over 1 to {horizon} steps at least {_share(mean[at])} of the policy's actions are the same "
        f"({at + 1} ahead, {_share(low[at])} to {_share(high[at])}), {_share(of_views)} of {VIEW_SHARES[view]} 1 step "
        "ahead"
    )
    if min_fidelity and np.isnan(low).any():
        too_far = np.argmax(np.isnan(low)) + 1
        raise InputError(
            f"{line}: too few trials go on for {too_far} steps to tell; choose fewer steps, more --num_trials of "
            "generative.fidelity, or --min_fidelity 0"
        )
    if min_fidelity and min(mean[at], of_views) < min_fidelity:
        raise InputError(f"{line}: below --min_fidelity {min_fidelity:g}; train it longer, or lower --min_fidelity")
    return line


def _share(share: float) -> str:
    return "not known" if np.isnan(share) else f"{share:.1%}"


# --- the whole measurement --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """Settings of the trials of a measurement."""

    simulator: str = required("folder of a learned simulator, or exact")
    data_dir: str = required("folder of the recording of the policy's worlds")
    num_trials: int = setting(300, "episodes, each once", low=2, high=100_000)
    num_horizons: int = setting(24, "steps", low=1, high=1000)
    split: str = setting("test", "split of the episodes", choices=SPLITS)
    seed: int = setting(0, "of moments and random actions", low=0)


def evaluate(
    domain: Domain,
    learned: tuple[WorldModel, dict] | None,
    recording: Recording,
    policy: Policy,
    actors: Sequence[str],
    settings: TrialSettings,
    must_be_reliable: bool = False,
) -> dict:
    """Measure a simulator in trials of each of some actors; returns the content of fidelity.json without the agent.

    must_be_reliable: refuse a measurement that analyses cannot rely on.
    """
    split, seed, num_horizons = settings.split, settings.seed, settings.num_horizons
    forecasts, known, num_shown = make_forecasts(domain.fidelity, settings.simulator, learned, recording)
    moments = choose_moments(recording, split, settings.num_trials, num_shown, seed)
    done = {"num_trials": len(moments.numbers), "split": split, "seed": seed, "shown": num_shown}
    lacking = find_lack({"settings": done, "actors": actors})
    if must_be_reliable and lacking is not None:
        reason = f"analyses cannot rely on this measurement: it {lacking}"
        raise InputError(f"{reason}; name another folder for it with --out")
    measured = {}
    for actor in actors:
        config = recording.config["checkpoint"]["config"]
        watcher = untrained(policy, config, seed) if actor == "untrained" else policy
        trials = domain.fidelity.run_trials(moments, actor, watcher, num_horizons, seed)
        measured[actor] = {
            name: measure(trials, make(trials), domain.fidelity.sums_of) for name, make in forecasts.items()
        }
    return {
        "simulator": known,
        "recording": str(recording.folder),
        "settings": done,
        "horizons": list(range(1, num_horizons + 1)),
        "actors": measured,
    }


# --- what is written --------------------------------------------------------------------------------------------------


def table_of(actors: Mapping[str, Mapping], horizons: tuple[int, ...]) -> pd.DataFrame:
    """The means of all measures at some horizons, a row for each actor, forecast and measure."""
    rows = []
    for actor, forecasts in actors.items():
        for forecast, measures in forecasts.items():
            for name, parts in measures.items():
                numbers = {}
                for h in horizons:
                    mean, low, high = (parts[part][h - 1] for part in ("mean", "low", "high"))
                    numbers[f"{h}"] = "" if np.isnan(mean) else interval_text(mean, low, high)
                rows.append({"actor": actor, "forecast": forecast, "measure": name, **numbers})
    return pd.DataFrame(rows)


def write_fidelity(folder: Path, result: dict, command: str, title: str, measures: Mapping[str, str]) -> None:
    """Write a result and its table and figure to a folder, and print the table of the first actor."""
    from generative.figures.simulators import plot_fidelity  # here: matplotlib takes most of a second to load

    horizons = tuple(h for h in (1, 2, 4, 8, 16, 24) if h in result["horizons"]) or (1,)
    table = table_of(result["actors"], horizons)
    lines = ["# Fidelity", "", f"{title}: {command}", "", "Columns: steps ahead; 95 % intervals over episodes.", ""]
    lines += [f"- `{name}`: {meaning}" for name, meaning in measures.items()]
    page = "\n".join([*lines, "", markdown_table(list(table), table.astype(str).itertuples(index=False))])
    write_atomic(folder / "fidelity.md", lambda file: file.write(page.encode()))
    write_figure(folder / "fidelity.png", plot_fidelity(result, title))
    write_json(folder / RESULT, result, orjson.OPT_INDENT_2)
    first = next(iter(result["actors"]))
    print(table[table["actor"] == first].drop(columns="actor").to_string(index=False))
    print(f"all actors: {folder / 'fidelity.md'}")
