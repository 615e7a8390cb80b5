"""Whether attribution puts the hazard before the jump: numbers of what `hazard_study` measured, in tables and words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from generative.attribution.agreement import as_markdown
from generative.attribution.hazard_study import BLACK, Measured
from generative.domains.coinrun.causes import HAZARD_NUMBERS
from generative.figures.attribution import plot_hazards
from mop.common.errors import InputError
from mop.common.files import write_atomic, write_csv, write_figure
from mop.common.seeding import stream_seed
from mop.common.tables import interval_text
from mop.statistics.bootstrap import MIN_EPISODES, bootstrap_interval, bootstrap_means

MEASURES = ("enrichment", "rank", "signed")
NUM_SHUFFLES = 32  # of a frame


def report(found: Sequence[Measured], out: Path, seed: int, fidelity: str) -> None:
    """Write tables, words and figure; print the words and the table of all lags. Refuses moments without a frame."""
    frames, losses = frames_of(found, seed), losses_of(found)
    if frames.empty:
        raise InputError("at no moment does a patch with a hazard stand out: raise --num_moments, or record more")
    table = pd.concat([summarise(frames, MEASURES), summarise(losses, ("loss",))], ignore_index=True)
    text = f"{answer(frames, losses)}\n"
    for name, content in (("frames", frames), ("hazards", table)):
        write_csv(out / f"{name}.csv", content, "%.6g")
    overall = table[table["lag"] == "before"].drop(columns="lag").round(3)
    whole = f"{text}\n{as_markdown(overall)}\n{fidelity}\n"
    write_atomic(out / "hazards.md", lambda file: file.write(whole.encode()))
    write_figure(out / "hazards.png", plot_hazards(table, text.split(". ")[0]))
    print(f"{text}\n{overall.to_string(index=False)}\nmoments, tables and figure: {out}")


# --- numbers ----------------------------------------------------------------------------------------------------------


def frames_of(found: Sequence[Measured], seed: int = 0) -> pd.DataFrame:
    """A row for each moment, reader and lag at which a hazard is in sight and something has a cause.

    Columns reader, moment, level, lag; enrichment: the hazards' share of the sizes of all attribution, by their share
    of the patches that are not black; rank: mean place of the hazards' sizes among all, from 0 to 1 (chance 1/2);
    signed: their attribution, of log-odds of a jump.
    """
    lines = []
    for moment, one in enumerate(found):
        rng = np.random.default_rng(stream_seed(seed, f"shuffled patches, {one.episode} {one.step}"))
        by_reader = {"trained": one.trained, "without world": one.without_world, "untrained": one.untrained}
        for lag, kinds in enumerate(one.kinds):
            is_seen = kinds != BLACK
            is_hazard = np.isin(kinds[is_seen], HAZARD_NUMBERS)
            if not is_hazard.any() or is_hazard.all():
                continue
            values = {name: part[lag][is_seen].astype(float) for name, part in by_reader.items()}
            if not one.has_jump:
                values = {"no jump": values["trained"]}
            for reader, amounts in values.items():
                if np.abs(amounts).sum() > 0:
                    place = {"reader": reader, "moment": moment, "level": int(one.level), "lag": lag}
                    lines.append(place | measures_of(amounts, is_hazard))
                    if reader == "trained":
                        shuffled = [measures_of(rng.permutation(amounts), is_hazard) for _ in range(NUM_SHUFFLES)]
                        means = {name: float(np.mean([drawn[name] for drawn in shuffled])) for name in MEASURES}
                        lines.append(place | {"reader": "shuffled"} | means)
    return pd.DataFrame(lines, columns=["reader", "moment", "level", "lag", *MEASURES])


def measures_of(amounts: np.ndarray, is_hazard: np.ndarray) -> dict[str, float]:
    """MEASURES of the attribution (C,) of the patches of a frame, some of which show a hazard."""
    sizes = np.abs(amounts)
    places = (rankdata(sizes) - 1) / (len(sizes) - 1)
    return {
        "enrichment": float(sizes[is_hazard].sum() / sizes.sum() / is_hazard.mean()),
        "rank": float(places[is_hazard].mean()),
        "signed": float(amounts[is_hazard].sum()),
    }


def losses_of(found: Sequence[Measured]) -> pd.DataFrame:
    """What the real agent's log-odds of a jump lose, of moments with a jump.

    Columns reader ("hazard hidden", "other patches hidden", "difference"), moment, level, lag, loss.
    """
    lines = []
    for moment, one in enumerate(found):
        for lag, (hazard, other) in enumerate(one.hidden.tolist()):
            if one.has_jump and np.isfinite([hazard, other]).all():
                place = {"moment": moment, "level": int(one.level), "lag": lag}
                parts = {"hazard hidden": hazard, "other patches hidden": other, "difference": hazard - other}
                lines += [{"reader": name, **place, "loss": loss} for name, loss in parts.items()]
    return pd.DataFrame(lines, columns=["reader", "moment", "level", "lag", "loss"])


def before(rows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """The mean over all lags from 1 on, a row for each reader and moment: what lies before the jump."""
    earlier = rows[rows["lag"] > 0]
    return earlier.groupby(["reader", "moment", "level"], sort=False)[list(measures)].mean().reset_index()


def summarise(rows: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Means over moments with 95 % intervals over levels, by reader and lag; lag "before": of all lags from 1 on.

    Columns reader, lag, measure, mean, low, high, moments, levels.
    """
    lines = []
    every = pd.concat([rows, before(rows, measures).assign(lag="before")])
    for (reader, lag), group in every.groupby(["reader", "lag"], sort=False):
        means = bootstrap_means(group[list(measures)].to_numpy(), group["level"].to_numpy())
        for place, measure in enumerate(measures):
            numbers = means.numbers(0, place)
            counts = {"moments": numbers.pop("steps"), "levels": numbers.pop("episodes")}
            lines.append({"reader": reader, "lag": lag, "measure": measure, **numbers, **counts})
    return pd.DataFrame(lines)


def answer(frames: pd.DataFrame, losses: pd.DataFrame) -> str:
    """The answer in a few sentences: whether attribution puts the hazard before the jump, and what the agent says.

    Yes, if enrichment before the jump is more than chance, than an untrained agent's, and than where the agent does not
    jump: the whole intervals of these differences are above 0. No, if one of them is below; else it is not shown.
    """
    by_moment = before(frames, MEASURES)
    trained = by_moment[by_moment["reader"] == "trained"]
    wide = by_moment.pivot(index=["moment", "level"], columns="reader", values="enrichment").reset_index()
    found = {"chance": _gain(trained["enrichment"] - 1, trained["level"])}
    for control in ("untrained", "without world"):
        both = wide.reindex(columns=["level", "trained", control]).dropna()
        found[control] = _gain(both["trained"] - both[control], both["level"])
    found["no jump"] = unpaired(by_moment)
    last = int(frames["lag"].max())
    share = _gain(trained["enrichment"], trained["level"])
    needed = {name: found[name] for name in ("chance", "untrained", "no jump")}
    failed = [name for name, (_, low, _) in needed.items() if not low > 0]
    if np.isnan(list(needed.values())).any():
        word, failed = "Not known (too few levels)", []
    else:
        word = "No" if any(high < 0 for _, _, high in needed.values()) else "Not shown" if failed else "Yes"
    differences = [
        f"{interval_text(*part, '+.2f')} from {_NAMES[name]}" for name, part in found.items() if not np.isnan(part[0])
    ]
    sentences = [
        f"{word}: 1 to {last} steps before a jump, hazards have {interval_text(*share, '.2f')} times their share of "
        f"the attribution ({len(trained)} moments in {trained['level'].nunique()} levels)"
    ]
    if differences:
        sentences.append(f"The difference is {', '.join(differences)}")
    if failed:
        sentences.append(f"So it is not shown to be more than {' or '.join(_NAMES[name] for name in failed)}")
    if len(trained):
        signed = interval_text(*_gain(trained["signed"], trained["level"]), "+.2f")
        sentences.append(f"Hazards are attributed {signed} log-odds of a jump in each frame")
    lost = before(losses, ["loss"])
    if len(lost):
        parts = {name: _gain(rows["loss"], rows["level"]) for name, rows in lost.groupby("reader")}
        names = ("hazard hidden", "other patches hidden", "difference")
        hazard, others, difference = (interval_text(*parts[name], ".2f") for name in names)
        sentences.append(
            f"The real agent loses {hazard} of its log-odds where the hazard is hidden from it in the last 2 to "
            f"{last + 1} frames, and {others} where as many other patches are: a difference of {difference}"
        )
    return ". ".join(sentences) + "."


_NAMES = {
    "chance": "chance",
    "untrained": "an untrained agent's",
    "no jump": "moments without a jump",
    "without world": "the same without the world's path",
}


def unpaired(by_moment: pd.DataFrame) -> tuple[float, float, float]:
    """By how much enrichment is larger before a jump than before none: mean, and its interval over levels."""
    kept = by_moment[by_moment["reader"].isin(["trained", "no jump"])]
    group = (kept["reader"] == "trained").to_numpy(int)
    names, levels = np.unique(kept["level"], return_inverse=True)
    sums = np.zeros((len(names), 2, 2))  # of each level and group: their enrichment, and how many there are
    np.add.at(sums, (levels, group), np.stack([kept["enrichment"], np.ones(len(kept))], 1))
    value, low, high = bootstrap_interval(sums.reshape(-1, 4), lambda s: s[..., 2] / s[..., 3] - s[..., 0] / s[..., 1])
    return (value if len(names) >= MIN_EPISODES else np.nan), low, high


def _gain(values: pd.Series, levels: pd.Series) -> tuple[float, float, float]:
    if values.empty:
        return np.nan, np.nan, np.nan
    numbers = bootstrap_means(values.to_numpy()[:, None], levels.to_numpy()).numbers(0, 0)
    return numbers["mean"], numbers["low"], numbers["high"]
