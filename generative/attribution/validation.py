"""Attribution against truth: the predicted effect of an edit next to its effect in the cloned real world.

A case is an episode, a step t and a lag k: at t - k each of some legal edits of an object is made, alone. Its true
effect on the targets at t is measured in real worlds (`counterfactuals`), once with the policy acting on what it then
sees ("acting"), once with the recorded actions ("forced"). Its predicted effect is the attribution of the change that
it makes to the inputs (`integrated_gradients`), by each predictor, with and without the world's path.
A row of the file is one case; E edits, Q targets. Rows are only ever added, in the order of the plan.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from generative.attribution.agreement import (
    BY,
    MEASURES,
    MIN_EDITS,
    RANKED,
    as_markdown,
    count_outcomes,
    rank_cases,
    summarise,
)
from generative.attribution.closed_loop import untrained
from generative.attribution.counterfactuals import KINDS, Edit, clone, edit_world, effects, legal_edits
from generative.attribution.integrated_gradients import EVERY_PATH, MEMORY_ONLY, METHODS, attribute, total_of
from generative.attribution.loop_inputs import VIEW, Place, Scenes, closed_loop_from, hidden_at
from generative.attribution.settings import AnalysisSettings
from generative.domains.babyai.causes import code_of, thing_name
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.scenes import ExactScenes, real_case, real_world
from generative.domains.babyai.targets import parse_target
from generative.domains.base import Policy
from generative.figures.attribution import plot_agreement
from generative.recordings.format import BEHAVIOURS, Episode, Recording
from generative.representations.storage import Directions
from generative.simulators.base import EXACT
from generative.simulators.relaxation import to_simplex
from mop.artifacts.json_lines import JsonLines
from mop.common.cli import setting
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_csv, write_figure
from mop.common.reading import check_types
from mop.common.seeding import stream_seed
from mop.envs.babyai import World
from mop.envs.geometry import EMPTY
from mop.plotting.style import counted

ALL, WITHOUT_WORLD = "all", "without world"  # the paths that attribution goes along: both, or the memory alone
WAYS = {ALL: EVERY_PATH, WITHOUT_WORLD: MEMORY_ONLY}
_DIGITS = 6  # after the point: effects that differ by less are the same


@dataclass(frozen=True, kw_only=True)
class ValidationSettings(AnalysisSettings):
    """The settings of a validation."""

    of: tuple[str, ...] = setting(("action:chosen", "lpc"), "targets, with commas", commas=True)
    simulators: tuple[str, ...] = setting((EXACT,), "exact, folders of learned ones, with commas", commas=True)
    lags: tuple[int, ...] = setting((0, 1, 2, 4, 8), "steps back, with commas", low=0, high=1000, commas=True)
    num_episodes: int = setting(40, "episodes at most", low=1)
    steps_per_episode: int = setting(2, "steps of each that are explained", low=1)
    kinds: tuple[str, ...] = setting(("remove", "color", "type", "state"), "of edits", choices=KINDS, commas=True)
    max_edits: int = setting(24, "of a case; of more, so many are drawn", low=MIN_EDITS)
    num_points: int = setting(8, "of the integral of a gradient", low=1, high=1024)
    methods: tuple[str, ...] = setting(METHODS, "of attribution", choices=METHODS, commas=True)
    actions: tuple[str, ...] = setting(("own", "recorded"), "of the loop", choices=("own", "recorded"), commas=True)
    policies: tuple[str, ...] = setting(("argmax",), "who acted, with commas", choices=BEHAVIOURS, commas=True)
    directions: str | None = setting(None, "file of directions, for direction:K")
    seed: int = setting(0, "of steps, edits and controls", low=0)


@dataclass(frozen=True)
class Predictor:
    """One way to predict the effects of edits."""

    name: str
    policy_of: Callable[[int], Policy]  # of an episode: a control has another policy in each
    scenes: Scenes
    method: str  # of METHODS
    is_control: bool  # of another policy than the one that acts
    is_own: bool  # the loop's actions are the policy's own; else those that were recorded


def plan_cases(
    recording: Recording, episodes: Iterable[int], steps_per_episode: int, lags: Sequence[int], seed: int
) -> list[Place]:
    """The cases: of each episode some steps t >= 1 drawn without replacement, and at each all lags k <= t."""
    places = []
    for k in map(int, episodes):
        num_actions = int(recording.index["num_rows"][k]) - 1
        rng = np.random.default_rng(stream_seed(seed, f"steps of episode {k}"))
        steps = rng.permutation(np.arange(1, num_actions))[:steps_per_episode]
        places += [Place(k, int(step), lag) for step in sorted(steps) for lag in lags if lag <= step]
    return places


def make_predictors(
    simulators: Mapping[str, Scenes], policy: Policy, recording: Recording, settings: ValidationSettings
) -> list[Predictor]:
    """Make the predictors: each simulator in all ways, and in the first one untrained policies, another per episode.

    simulators: their scenes, by name.
    """

    @functools.lru_cache(maxsize=1)
    def untrained_of(episode: int) -> Policy:
        config = recording.config["checkpoint"]["config"]
        return untrained(policy, config, stream_seed(settings.seed, f"control of episode {episode}"))

    predictors = []
    for number, (name, scenes) in enumerate(simulators.items()):
        label = "exact" if name == EXACT else f"learned {Path(name).name}"
        for acting in settings.actions:
            is_own = acting == "own"
            for method in settings.methods:
                full = f"{label}{', gradient' * (method == 'gradient')}, {acting} actions"
                predictors.append(Predictor(full, lambda episode: policy, scenes, method, False, is_own))
            if number == 0:
                full = f"{label}, untrained policies, {acting} actions"
                predictors.append(Predictor(full, untrained_of, scenes, settings.methods[0], True, is_own))
    return predictors


@dataclass(frozen=True)
class Study:
    """What is measured of each case."""

    recording: Recording
    policy: FrozenPolicy  # the one that acts
    predictors: Sequence[Predictor]
    settings: ValidationSettings
    directions: Directions | None = None

    def measure(self, place: Place) -> dict:
        """The row of a case."""
        episode, world = self.recording.episode(place.episode), real_world(self.recording, place)
        edits = self._draw(place, legal_edits(world, self.settings.kinds))
        row: dict[str, Any] = place._asdict() | {"seed": episode.seed, "behaviour": episode.behaviour}
        row |= {"targets": list(self.settings.of), "edits": [list(edit) for edit in edits]}
        row |= {"kinds": [edit.kind for edit in edits], "words": [edit_name(world, edit) for edit in edits]}
        row |= {"acting": [], "forced": [], "predicted": {}}
        if not edits:
            return row
        chosen = int(episode["student"][place.step])
        targets = [parse_target(text, self.policy, self.directions, chosen) for text in self.settings.of]
        true = effects(self.policy, real_case(world, episode, place, edits), targets)
        row |= {name: _rounded(getattr(true, name).T) for name in ("acting", "forced")}
        seen = np.stack([edit_world(clone(world), edit).obs for edit in edits])
        for predictor in self.predictors:
            loop, inputs, counterfactuals = self._set_up(predictor, episode, place, world, edits, seen)
            row["predicted"][predictor.name] = predicted = {}
            for name, paths in WAYS.items():
                if name == ALL or not predictor.is_control:
                    found = attribute(
                        loop, inputs, counterfactuals, targets, paths, predictor.method, self.settings.num_points
                    )
                    predicted[name] = _rounded(torch.stack([total_of(numbers) for numbers in found]).numpy())
        return row

    def _set_up(self, predictor: Predictor, episode: Episode, place: Place, world: World, edits, seen: np.ndarray):
        """A predictor's loop, its inputs, and these after each edit; seen: the observations (E, O) then."""
        scenes, start = predictor.scenes, place.step - place.lag
        if isinstance(scenes, ExactScenes):
            scene = scenes.at_world(world)
            counterfactuals = scene.edited(edits)
        else:
            scene = scenes.at(episode, start, VIEW)
            counterfactuals = {VIEW: to_simplex(seen)}
        policy = predictor.policy_of(place.episode)
        hidden = hidden_at(policy, self.policy, episode, start, to_simplex)
        loop = closed_loop_from(policy, scenes, scene, episode, hidden, place, predictor.is_own)
        return loop, scene.inputs, counterfactuals

    def _draw(self, place: Place, edits: list[Edit]) -> list[Edit]:
        if len(edits) <= self.settings.max_edits:
            return edits
        rng = np.random.default_rng(stream_seed(self.settings.seed, f"edits of {tuple(place)}"))
        return [edits[k] for k in sorted(rng.permutation(len(edits))[: self.settings.max_edits])]


def edit_name(world: World, edit: Edit) -> str:
    """What an edit does, in words: "red key at 3, 4 removed"; places are x, y of the grid."""
    old, new = (thing_name(code_of(code)) for code in (edit.before, edit.after))
    where = "in the hand" if (edit.x, edit.y) == world.position else f"at {edit.x}, {edit.y}"
    if edit.after == EMPTY:
        return f"{old} {where} removed"
    return f"{new} put {where}" if edit.before == EMPTY else f"{old} {where} becomes {new}"


def _rounded(values: np.ndarray) -> list:
    return np.round(np.asarray(values, np.float64), _DIGITS).tolist()


# --- rows -----------------------------------------------------------------------------------------------------------


def cases_file(path: str | Path) -> JsonLines:
    """Open the file of cases, a row each."""
    return JsonLines(path, _check_case, "row of generative.validate", "make it with python -m generative.validate")


def _check_case(row: Mapping) -> None:
    check_types(row, dict.fromkeys(Place._fields, int))
    rank_cases([row])  # whatever the report asks of it


def measure(study: Study, places: Sequence[Place], path: Path) -> list[dict]:
    """Add the rows that a file lacks, each as soon as it is measured; returns all. Other cases in it are refused."""
    cases = cases_file(path)
    found = [Place(row["episode"], row["step"], row["lag"]) for row in (cases.read() if path.exists() else ())]
    done = len(found)
    if found != list(places[:done]):
        raise InputError(f"{path} holds other cases than these settings plan; give another --out")
    for place in tqdm(places[done:], initial=done, total=len(places), unit="case", smoothing=0.02):
        cases.append(study.measure(place))
    return cases.read()


def report(rows: Sequence[dict], out: Path, title: str) -> None:
    """Write the table and the figure, and print the table."""
    ranked = rank_cases(rows)
    if not (ranked["outcome"] == RANKED).any():
        raise InputError(
            f"none of {counted(len(rows), 'case')} has {MIN_EDITS} edits whose effects differ, so nothing can be "
            "ranked; give more --kinds, --num_episodes or other --lags, and another --out"
        )
    overall, by_target, by_lag = (summarise(ranked, (*BY, *more)) for more in ((), ("target",), ("lag",)))
    parts = [overall.assign(target="all", lag="all"), by_target.assign(lag="all"), by_lag.assign(target="all")]
    table = pd.concat(parts)[[*BY, "target", "lag", *MEASURES]]
    write_csv(out / "agreement.csv", table, "%.4f")
    text = f"# {title}\n\n{as_markdown(overall)}\n{as_markdown(count_outcomes(ranked).reset_index())}"
    write_atomic(out / "agreement.md", lambda file: file.write(text.encode()))
    write_figure(out / "agreement.png", plot_agreement(by_lag, title))
    print(f"{overall.round(3).to_string(index=False)}\n\n{count_outcomes(ranked).to_string()}")
    print(f"cases, table and figure: {out}")
