"""Interventions on routing -> a figure: how much each expert is needed in each phase, beside how much it is used."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mop.common.errors import InputError
from mop.common.routing_edits import GATE_ONLY, NONE, VARIANTS, Intervention
from mop.plotting.hover import add_note
from mop.plotting.panels import make_panels, render_matrix, set_title
from mop.plotting.style import expert_names, short_name

ALWAYS = "all steps"


def lesioned_variants(rows: Sequence[Mapping]) -> list[str]:
    """The memory variants in which experts were left out: those of which there is a figure."""
    lesioned = {row["variant"] for row in rows if row["intervention"].startswith("lesion ")}
    return [variant for variant in VARIANTS if variant in lesioned]


def matrix_name(variant: str) -> str:
    """The name of the file of `plot_use_and_need` without its ending."""
    return "use_and_need" + ("" if variant == GATE_ONLY else f"_{variant}")


def matrix_title(run: str, num_worlds: int, variant: str) -> str:
    """The title of `plot_use_and_need`; run: what the policy is called."""
    about = f"{num_worlds:,} worlds, memory of what is left out: {variant}"
    return f"{run}\n{about}\nchange of success in percentage points"


def plot_use_and_need(rows: Sequence[Mapping], title: str, variant: str = GATE_ONLY) -> Figure:
    """Change of success without each expert in each phase, and the mean weight that it has there: experts x phases.

    rows: of `mop.artifacts.intervention_rows`, of one checkpoint. The first column is that of all steps: there the
    expert is left out in the whole episode, in either memory variant. What was not measured is "-".
    Raises InputError where the row of the intact policy is missing.
    """
    need, use, names, phases = use_and_need(rows, variant)
    figure, axes = make_panels(1, 2, 1.0 + 0.95 * need.shape[1], 0.36 * len(names), extra_height=2.1, sharey=True)
    known = np.nan_to_num(need)
    texts = [[_text(value) for value in line] for line in need]
    render_matrix(axes[0, 0], np.clip(-known, 0, 1), texts)
    render_matrix(axes[0, 1], use, [[f"{value:.2f}" for value in line] for line in use])
    for ax, values, name in zip(axes[0], (need, use), ("change of success without it", "mean weight"), strict=True):
        ax.set_title(name, fontsize="medium", loc="left")
        ax.set_xticks(range(len(phases)), phases, rotation=30, ha="right", rotation_mode="anchor", fontsize="small")
        ax.set_yticks(range(len(names)), names, fontsize="small")
        for (row, column), value in np.ndenumerate(values):
            place = (column - 0.5, column + 0.5, row - 0.5, row + 0.5)
            about = {"expert": names[row], "phase": phases[column], "value": float(value)}
            add_note(ax, *place, f"{names[row]}, {phases[column]}: {name} {value:+.3f}", **about)
    set_title(figure, title)
    return figure


def use_and_need(
    rows: Sequence[Mapping], variant: str = GATE_ONLY
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Need and use (experts of all layers, 1 + P) float64, the names of experts, and those of "all steps" and phases.

    Need is `delta_success` of the lesion, NaN where there is no row. Raises InputError as `plot_use_and_need`.
    """
    found = {(row["intervention"], row["variant"]): row for row in rows}
    intact = next((row for row in rows if row["intervention"] == NONE), None)
    if intact is None:
        raise InputError(f"the use of experts is that of the intact policy: make its row with --what {NONE}")
    sizes, phases = intact["expert_hidden_sizes"], intact["phases"]
    steps = np.array([phase["steps"] for phase in phases], np.float64)
    layers = [np.array([phase["use"][layer] for phase in phases]) for layer in range(len(sizes))]  # (P, E_l) each
    use = np.concatenate([np.column_stack([steps @ of_layer / steps.sum(), of_layer.T]) for of_layer in layers])
    experts = [(layer, expert) for layer, of_layer in enumerate(sizes) for expert in range(len(of_layer))]
    need = np.full(use.shape, np.nan)
    for row, place in enumerate(experts):
        for column, phase in enumerate([None, *(phase["phase"] for phase in phases)]):
            lesion = str(Intervention("lesion", *place, phase=phase))
            # the variants of what is left out for good are the same
            row_found = found.get((lesion, variant)) or (found.get((lesion, GATE_ONLY)) if phase is None else None)
            if row_found is not None and row_found["delta_success"] is not None:
                need[row, column] = row_found["delta_success"]
    by_layer = expert_names({"expert_hidden_sizes": sizes}, layers)
    names = [f"{layer}.{expert} {short_name(by_layer[layer][expert])}" for layer, expert in experts]
    return need, use, names, [ALWAYS, *(phase["phase"] for phase in phases)]


def _text(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:+.1f}"
