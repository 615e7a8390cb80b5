"""The attribution of a recorded step to all things at all earlier steps, and what is written of it.

Each thing has a line of its own. In a game, one line for all patches, to a black frame, would cost a tenth, but it
tells little of a single patch: see docs/coinrun.md.
Axis letters: T actions of an episode, C causes.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from generative.attribution.agreement import as_markdown
from generative.attribution.common_targets import recorded_values
from generative.attribution.explanations import PATHS, Explanation, short_number
from generative.attribution.integrated_gradients import predict_effects
from generative.attribution.loop_inputs import Place, Scenes, closed_loop_from
from generative.domains.base import Domain, Policy, Target
from generative.figures.attribution import plot_horizon, plot_map, plot_strip
from generative.recordings.format import Recording
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_csv, write_figure
from mop.statistics.bootstrap import bootstrap_means


def explain(
    domain: Domain, policy: Policy, scenes: Scenes, recording: Recording, place: Place, target: Target, kind: str,
    method: str = "integrated", num_points: int | None = None, is_own: bool = True,
    is_cause: Callable[[Any], bool] = lambda thing: True,
) -> Explanation:  # fmt: skip
    """Explain a target at a step of a recorded episode by its causes at that step and up to `place.lag` steps earlier.

    kind: of scene, one of `scenes.kinds`; num_points: of the integral (None: the domain's); is_own: the policy acts in
    the loop; else the recorded actions are executed; is_cause: which things are asked about.
    """
    rows = recording.episode(place.episode)
    by_lag, lags = [], range(min(place.lag, place.step) + 1)
    for lag in lags:
        start, here = place.step - lag, place._replace(lag=lag)
        scene, hidden = scenes.at(rows, start, kind), torch.from_numpy(np.array(rows["hidden"][start]))[None]
        scene.things = list(filter(is_cause, scene.things))
        loop = closed_loop_from(policy, scenes, scene, rows, hidden, here, is_own)
        without = scene.without(scene.things)
        effects = predict_effects(loop, scene.inputs, without, target, method, num_points or domain.num_points)
        by_path = torch.stack([scene.by_channel(effects.by_path[path]) for path in PATHS], 1)
        true = np.full((len(scene.things), 2), np.nan)
        if domain.true_contributions is not None:
            true = domain.true_contributions(policy, recording, here, scene, hidden, target)
        things = np.array([thing.numbers for thing in scene.things], np.int64)
        by_lag.append(
            {
                "lag": np.full(len(scene.things), lag),
                "things": things.reshape(-1, domain.explanation.width),
                "attribution": -by_path.numpy(),
                "gap": effects.gap.numpy(),
                "contribution": true,
                "simulated": np.array([effects.before]),
            }
        )
    known: dict[str, Any] = {name: np.concatenate([of_lag[name] for of_lag in by_lag]) for name in by_lag[0]}
    known |= {"episode": place.episode, "seed": rows.seed, "step": place.step, "kind": kind, "mission": rows.mission}
    value = float(recorded_values(rows, target, policy.expert_hidden_sizes)[place.step])
    known |= {"target": target.name, "value": value}
    steps = place.step - np.array(lags)
    names = [field.name for field in fields(domain.explanation)]
    return domain.explanation(
        **{name: np.array(known[name] if name in known else np.array(rows[name])[steps]) for name in names}
    )


def choose_steps(
    recording: Recording, episodes: Sequence[int], step: int | None, parse: Callable[[int], Target]
) -> list[tuple[int, int, Target]]:
    """Choose a step of each episode, by default where the target is largest; returns the target at each, too.

    parse: the target, for the likeliest action of a step.
    """
    chosen, sizes = [], recording.config["encoding"]["expert_hidden_sizes"]
    for k in episodes:
        rows = recording.episode(k)
        num_steps = len(rows["action"]) - 1
        if step is not None and step >= num_steps:
            raise InputError(f"--step {step}: episode {k} has the steps 0 to {num_steps - 1}")
        targets = [parse(int(action)) for action in rows["student"][:num_steps]]
        values = [float(recorded_values(rows, target, sizes)[t]) for t, target in enumerate(targets)]
        at = int(np.argmax(values)) if step is None else step
        chosen.append((k, at, targets[at]))
    return chosen


def report(
    domain: Domain,
    explanations: Sequence[Explanation],
    paths: Sequence[Path],
    out: Path,
    num_causes: int,
    fidelity: str,
) -> None:
    """Write pictures and tables, and print the largest causes."""
    for explanation, path in zip(explanations, paths, strict=True):
        write_figure(path.with_name(f"{path.stem}_map.png"), plot_map(explanation))
        write_figure(path.with_name(f"{path.stem}_strip.png"), plot_strip(explanation))
    table = pd.DataFrame([row for explanation in explanations for row in explanation.rows()])
    kinds, sizes = amounts_by_kind(explanations), sizes_by_lag(explanations)
    checked = table[table["true_forced"].notna()]
    for name, of_name in (("causes", table), ("checked", checked), ("kinds", kinds), ("sizes", sizes)):
        write_csv(out / f"{name}.csv", of_name, "%.6g")
    lines = []
    for explanation in explanations:
        lines += [headline(explanation), "", *(f"- {sentence}" for sentence in explanation.sentences(num_causes)), ""]
    text = "\n".join(lines)
    write_atomic(out / "causes.md", lambda file: file.write(f"{text}\n{fidelity}\n".encode()))
    of = str(explanations[0].target)
    write_figure(out / "horizon.png", plot_horizon(sizes, kinds, f"{of}, {len(explanations)} steps"))
    print(text)
    if domain.agreement is not None:
        agreement = domain.agreement(explanations)
        write_csv(out / "agreement.csv", agreement, "%.4f")
        print(as_markdown(agreement[agreement["lag"] == "all"]))
    if len(explanations) > 1:
        print(kinds.round(3).to_string(index=False))
    print(f"arrays, tables and pictures: {out}")


def amounts_by_kind(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """Sum attribution by kind of thing and lag: the mean over steps with 95 % intervals.

    Columns kind, lag, total, low, high, steps; and of those things alone that can be taken out of the real world, their
    attribution (removable) and what they truly contribute (true_acting, true_forced). A step counts where it has a
    thing of the kind.
    """
    rows = pd.DataFrame([row for explanation in explanations for row in explanation.rows()])
    rows["removable"] = rows["total"].where(rows["true_forced"].notna())
    columns = ["total", "removable", "true_acting", "true_forced"]
    sums = rows.groupby(["kind", "lag", "episode", "step"])[columns].sum(min_count=1).reset_index()
    lines = []
    for (kind, lag), group in sums.groupby(["kind", "lag"]):
        means = bootstrap_means(group[["total"]].to_numpy(), group["episode"].to_numpy())
        line = {"kind": kind, "lag": lag, **means.numbers(0, 0, "total")}
        lines.append(line | group[columns[1:]].mean().to_dict())
    return pd.DataFrame(lines)


def headline(explanation: Explanation) -> str:
    """Say what is explained, in one line."""
    return (
        f"## {explanation.target} at step {int(explanation.step)} of episode {int(explanation.episode)} "
        f"({explanation.world[1]}): {short_number(float(explanation.value), 4)}"
    )


def sizes_by_lag(explanations: Sequence[Explanation]) -> pd.DataFrame:
    """Sum the sizes of all attributions by path and lag: the mean over steps, with 95 % intervals over episodes.

    Columns path, lag, mean, low, high, and share: of the means of all paths at this lag.
    """
    sums = [
        (lag, number, np.abs(explanation.by_path[explanation.lag == lag]).sum(0))
        for number, explanation in enumerate(explanations)
        for lag in range(len(explanation.obs))
    ]
    lag, episode, values = (np.array(part) for part in zip(*sums, strict=True))
    means = bootstrap_means(values, episode, lag, int(lag.max()) + 1)
    return pd.DataFrame(
        {"path": path, "lag": k}
        | {name: getattr(means, name)[k, p] for name in ("mean", "low", "high")}
        | {"share": means.mean[k, p] / means.mean[k].sum()}
        for k in range(len(means.mean))
        for p, path in enumerate(PATHS)
    )
