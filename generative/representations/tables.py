"""Tables of a study of directions, for files and for the screen. Axis letters: K directions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from generative.recordings.format import SPLITS
from generative.representations.decompositions import METHODS
from generative.representations.probes import above_chance
from generative.representations.storage import Directions
from generative.representations.study import PROBE, Part
from mop.common.tables import interval_text
from mop.statistics.intervals import Interval

METHOD_COLUMNS = ("block", "units", "method", "directions", "explained", "stability", "chance", "converged", "fits")
PROBE_COLUMNS = ("property", "block", "chance", "shuffled", "accuracy", "best", "best_accuracy", "selectivity")


def method_rows(parts: Mapping[str, Part]) -> list[dict]:
    """A row for each block and method: how much it explains in other worlds, and how stable it is."""
    rows = []
    for block, part in parts.items():
        for method in METHODS:
            explained = Interval(*part[f"{method} explained"].tolist())
            stability = part[f"{method} stability"]
            row = {"block": block, "units": part["units"].shape[1], "method": method, "directions": len(stability)}
            row |= {"explained": explained.value, "low": explained.low, "high": explained.high}
            row |= {"stability": float(stability.mean()), "chance": float(part[f"{method} chance"])}
            row |= {"least_stable": float(stability.min()), "converged": int(part[f"{method} converged"].sum())}
            rows.append(row | {"fits": len(part[f"{method} converged"])})
    return rows


def probe_rows(parts: Mapping[str, Part], directions: Directions) -> list[dict]:
    """A row for each property and block: balanced accuracy of the whole block, of its best direction, of the control.

    The best direction is the best in the validation worlds, without those of the probes; every accuracy is of the test
    worlds. selectivity: its accuracy above chance there (0 chance, 1 perfect), minus the largest one for another
    property.
    """
    rows, singles = [], scores_of(parts)
    for label in singles:
        for block, part in parts.items():
            first = directions.blocks.tolist().index(block)
            best, classes = first + int(part[f"{label} best"]), part[f"{label} classes"]
            row = {"property": label, "block": block, "classes": len(classes), "chance": 1 / len(classes)}
            for key in ("accuracy", "shuffled", "best accuracy"):
                value, low, high = part[f"{label} {key}"].tolist()
                name = key.replace(" ", "_")
                row |= {name: value, f"{name}_low": low, f"{name}_high": high}
            others = [scores[best] for name, scores in singles.items() if name != label]
            selectivity = singles[label][best] - max(others, default=0.0)
            row |= {"best": directions.names[best], "best_number": best, "selectivity": selectivity}
            rows.append(row | {"validation": float(part[f"{label} singles"][int(part[f"{label} best"]), 0])})
    return rows


def scores_of(parts: Mapping[str, Part]) -> dict[str, np.ndarray]:
    """Accuracy above chance of each direction alone in the test worlds, property -> (K,): 0 chance, 1 perfect."""
    ending, column = " singles", SPLITS[1:].index("test")
    names = [key.removesuffix(ending) for key in next(iter(parts.values())) if key.endswith(ending)]
    return {
        name: np.concatenate(
            [above_chance(part[name + ending][:, column], len(part[f"{name} classes"])) for part in parts.values()]
        )
        for name in names
    }


def direction_rows(parts: Mapping[str, Part], directions: Directions) -> list[dict]:
    """A row for each direction: standard deviation, stability, and accuracies above chance in test worlds."""
    stability = np.concatenate([part[f"{method} stability"] for part in parts.values() for method in (*METHODS, PROBE)])
    scores = scores_of(parts)
    return [
        {"number": k, "name": name, "sd": sd, "stability": stable} | {label: scores[label][k] for label in scores}
        for k, (name, sd, stable) in enumerate(zip(directions.names, directions.sd, stability, strict=True))
    ]


def screen_table(table: pd.DataFrame, columns: tuple[str, ...]) -> str:
    """Some columns of a table for the screen, with their intervals."""
    shown = {}
    for name in columns:
        values = table[name]
        low, high = ("low", "high") if name == "explained" else (f"{name}_low", f"{name}_high")
        if low in table and name != "shuffled":
            shown[name] = [interval_text(*row) for row in zip(values, table[low], table[high], strict=True)]
        else:
            shown[name] = [f"{value:.3f}" for value in values] if values.dtype.kind == "f" else values
    return pd.DataFrame(shown).to_string(index=False)
