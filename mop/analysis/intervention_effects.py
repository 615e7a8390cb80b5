"""What an intervention on routing changes: an evaluation with it against the same worlds without it.

Differences are paired by world, their 95 % intervals those of a bootstrap over worlds. A phase is a group of steps of
one of GROUPINGS. Axis letters: W worlds, S steps, P phases.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from mop.analysis.groups import Groups, group_routing_data
from mop.analysis.routing_data import checked_weights
from mop.artifacts.routing_cache import RoutingData, Steps
from mop.statistics.bootstrap import Means, bootstrap_layers, bootstrap_means


def join(one: RoutingData, other: RoutingData) -> RoutingData:
    """Append the episodes of `other` to an evaluation; columns that both have."""
    columns, more = one.steps.columns(), other.steps.columns()
    more = more | {"episode": np.asarray(more["episode"]) + len(one.episodes)}
    joined: dict[str, Any] = {
        name: [np.concatenate(pair) for pair in zip(values, more[name], strict=True)]
        if name == "layer_routing"
        else np.concatenate([values, more[name]])
        for name, values in columns.items()
        if name in more
    }
    return replace(one, episodes=[*one.episodes, *other.episodes], steps=Steps(**joined))


def exchange(data: RoutingData, part: RoutingData, places: np.ndarray) -> RoutingData:
    """Replace episodes of an evaluation: places (W',) int, where each episode of `part` belongs."""
    joined, count = join(data, part), len(data.episodes)
    target = np.concatenate([np.arange(count), places])  # of each of the joined episodes
    is_kept = np.concatenate([~np.isin(np.arange(count), places), np.ones(len(places), bool)])
    rows = np.flatnonzero(is_kept[joined.steps.episode])
    rows = rows[np.argsort(target[joined.steps.episode[rows]], kind="stable")]
    steps = joined.steps.take(rows)
    steps.episode = target[steps.episode].astype(data.steps.episode.dtype)
    episodes = list(data.episodes)
    for place, episode in zip(places.tolist(), part.episodes, strict=True):
        episodes[place] = episode
    return replace(data, episodes=episodes, steps=steps)


def phases_of_both(intact: RoutingData, changed: RoutingData, group_by: str) -> tuple[Groups, np.ndarray, np.ndarray]:
    """Find the phases of two evaluations together, and the phase of each step (S,) int of either.

    Together, because one alone may not show how its worlds can be split: if no door is ever unlocked, for instance.
    """
    groups = group_routing_data(join(intact, changed), group_by)
    first, second = np.split(groups.index, [len(intact.steps.episode)])
    return groups, first, second


def measure_effects(intact: RoutingData, changed: RoutingData, agrees: np.ndarray, group_by: str) -> dict:
    """Measure every effect of an intervention: one flat row, and a list of rows for its phases as `phases`.

    intact, changed: the same worlds in the same order, with `expert_steps`; agrees (S,) bool, of the steps of `intact`:
    the intervened policy takes the same action there. In the row, `delta_success`: change of the share of worlds that
    are solved; `delta_path_ratio`: mean change of the path ratio over the worlds that both solve; `agreement`: share of
    the steps. In a phase, `delta_success`: minus the change of the share of all worlds that are failed with the last
    step in this phase; `delta_path_ratio`: of the steps in this phase alone. So those of the phases sum to the row's.
    `use`: mean weights in this phase, L lists of E_l. Intervals are `_low` and `_high`, NaN of fewer than 5 worlds.
    """
    groups, before, after = phases_of_both(intact, changed, group_by)
    num_phases, num_worlds = len(groups), len(intact.episodes)
    solved = [np.array([bool(episode["success"]) for episode in data.episodes]) for data in (intact, changed)]
    lost = _failed(changed, after, solved[1], num_phases) - _failed(intact, before, solved[0], num_phases)
    success = bootstrap_means(-_with_sum(lost), np.arange(num_worlds))
    both = np.flatnonzero(solved[0] & solved[1])
    expert = np.array([episode["expert_steps"] for episode in intact.episodes], np.float64)[:, None]
    longer = (_counts(changed, after, num_phases) - _counts(intact, before, num_phases)) / expert
    ratio = bootstrap_means(_with_sum(longer[both]), both) if len(both) else None
    values, episode = agrees[:, None].astype(np.float64), np.asarray(intact.steps.episode)
    agreement, by_phase = bootstrap_means(values, episode), bootstrap_means(values, episode, before, num_phases)
    use = bootstrap_layers(checked_weights(changed.steps), np.asarray(changed.steps.episode), after, num_phases)
    row = {
        "worlds_lost": int((solved[0] & ~solved[1]).sum()),
        "worlds_gained": int((~solved[0] & solved[1]).sum()),
        "worlds_both": len(both),
        **_numbers("delta_success", success, 0, 0),
        **_numbers("delta_path_ratio", ratio, 0, 0),
        **_numbers("agreement", agreement, 0, 0),
    }
    row["phases"] = [
        {
            "phase": label,
            "steps": int(by_phase.steps[phase]),
            "worlds": int(by_phase.episodes[phase]),
            **_numbers("delta_success", success, 0, 1 + phase),
            **_numbers("delta_path_ratio", ratio, 0, 1 + phase),
            **_numbers("agreement", by_phase, phase, 0),
            "use": [means.mean[phase].tolist() for means in use],
        }
        for phase, label in enumerate(groups.labels)
    ]
    return row


def _failed(data: RoutingData, phase: np.ndarray, solved: np.ndarray, num_phases: int) -> np.ndarray:
    """Mark (W, P) with 1 where a world is failed with its last step in the phase."""
    episode = np.asarray(data.steps.episode)
    last = np.flatnonzero(np.append(episode[1:] != episode[:-1], True))
    failed = np.zeros((len(solved), num_phases))
    failed[episode[last], phase[last]] = ~solved[episode[last]]
    return failed


def _counts(data: RoutingData, phase: np.ndarray, num_phases: int) -> np.ndarray:
    """Count the steps of each world in each phase, (W, P)."""
    shape = (len(data.episodes), num_phases)
    flat = np.asarray(data.steps.episode, np.int64) * num_phases + phase
    return np.bincount(flat, minlength=np.prod(shape)).reshape(shape).astype(np.float64)


def _with_sum(values: np.ndarray) -> np.ndarray:
    """Put the sum in front: (W, P) -> (W, 1 + P)."""
    return np.column_stack([values.sum(1), values])


def _numbers(name: str, means: Means | None, group: int, value: int) -> dict[str, float]:
    """Return a mean under a name, with its interval; NaN where there is none."""
    found = (np.nan,) * 3 if means is None else means.interval(group, value)
    return {f"{name}{end}": number + 0.0 for end, number in zip(("", "_low", "_high"), found, strict=True)}
