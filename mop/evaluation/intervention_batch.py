"""Which interventions on a checkpoint's routing lack a row, and making it; the table of all of them."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from mop.analysis.groups import GROUPINGS
from mop.artifacts.checkpoints import FoundCheckpoint, by_task, load_checkpoint
from mop.artifacts.intervention_rows import SAME, add_row, comparable, in_words, load_rows, merge_rows
from mop.artifacts.run_paths import RunKey, interventions_path
from mop.common.errors import InputError
from mop.common.files import check_writable, file_digest, folder_lock, remove_leftovers, write_figure
from mop.common.intervention_grammar import GATE_ONLY, NONE, VARIANTS, Intervention
from mop.common.values import shown
from mop.evaluation.batch import open_checkpoint, prepare_table
from mop.evaluation.settings import InterventionSettings

if TYPE_CHECKING:
    from mixture_of_experts import RecurrentPolicy
    from mop.evaluation.intervention_runs import Study

Asked = tuple[Intervention, str]  # with its memory variant
THRESHOLDS = (0.05, 0.1, 0.2, 0.33)


def standard_battery(
    expert_hidden_sizes: Sequence[Sequence[int]], phases: Sequence[str]
) -> list[tuple[Intervention, str]]:
    """The interventions that are made where none is named, each with a memory variant.

    Each expert and each size left out, each layer's weights replaced, thresholds, only the heaviest; then each expert
    left out in each of the phases. The memory of an expert that is left out for good is read by nothing, so there the
    variants are the same; they are made only where experts come and go.
    """
    layers = [layer for layer, sizes in enumerate(expert_hidden_sizes) if len(sizes) > 1]
    experts = [(layer, expert) for layer in layers for expert in range(len(expert_hidden_sizes[layer]))]
    sizes = sorted({size for of_layer in expert_hidden_sizes for size in of_layer})
    removable = [size for size in sizes if all(set(of_layer) != {size} for of_layer in expert_hidden_sizes)]
    once = [Intervention(NONE)]
    once += [Intervention("lesion", layer, expert) for layer, expert in experts]
    once += [Intervention("lesion_size", size=size) for size in removable]
    once += [Intervention(kind, layer) for layer in layers for kind in ("mean", "uniform", "shuffle")]
    passing = [Intervention("argmax"), *(Intervention("threshold", value=value) for value in THRESHOLDS)]
    phased = [Intervention("lesion", *place, phase=phase) for place in experts for phase in phases]
    return [
        *((intervention, GATE_ONLY) for intervention in once),
        *((intervention, variant) for intervention in passing for variant in VARIANTS),
        *((intervention, variant) for variant in VARIANTS for intervention in phased),
    ]


def with_intact(what: Sequence[Asked]) -> list[Asked]:
    """What is asked for, behind the intact episodes, which are played anyway and which the others are held against."""
    return list(dict.fromkeys([(Intervention(NONE), GATE_ONLY), *what]))


def intervene(
    checkpoint: str, what: Sequence[Asked] | None, settings: InterventionSettings, force: bool = False
) -> int:
    """Make the rows that are missing of the interventions asked for, tell them all, draw use against need.

    Of a policy of several tasks, for each of them, or for `settings.task`. what: None for `standard_battery`; what is
    asked for has the intact episodes before it; force: also those that have a row. Returns 0.
    """
    evaluations = by_task(FoundCheckpoint(RunKey.from_checkpoint(checkpoint), Path(checkpoint)))
    keys = [found.key for found in evaluations if settings.task is None or found.key.is_of(settings.task)]
    if not keys:
        load_checkpoint(checkpoint)  # of a file that cannot be read, the tasks are not known: this says so
        task_ids = ", ".join(found.key.task_id for found in evaluations)
        raise InputError(f"--task: {checkpoint} was trained on {task_ids}, not on {settings.task}")
    for key in keys:
        _intervene_on(key, checkpoint, what, settings, force)
    return 0


def _intervene_on(
    key: RunKey, checkpoint: str, what: Sequence[Asked] | None, settings: InterventionSettings, force: bool
) -> None:
    _prepare_places(settings, key)
    rows_path = interventions_path(settings.cache_dir, key)
    try:
        study, about = open_study(Path(checkpoint), key, settings)
        phases = study.phases if study.group_by != "overall" else []
        asked = standard_battery(study.policy.expert_hidden_sizes, phases) if what is None else with_intact(what)
        for intervention, _ in asked:
            study.check(intervention)
        swaps = _open_swaps(study, {intervention.file for intervention, _ in asked if intervention.file})
        missing = [item for item in asked if force or not is_done(load_rows(rows_path), item, about, swaps)]
        print(f"{key.label}: {len(asked)} interventions, {len(missing)} to make")
        elsewhere = make_rows(study, missing, rows_path, about, swaps, force)
    finally:  # also after Ctrl-C: what is made is in the table
        table = merge_rows(settings.cache_dir, settings.results_path, print)
    wanted = {(str(intervention), variant): number for number, (intervention, variant) in enumerate(asked)}
    rows = [row for row in load_rows(rows_path) if (row["intervention"], row["variant"]) in wanted]
    print(format_rows(sorted(rows, key=lambda row: wanted[row["intervention"], row["variant"]])))
    _draw(load_rows(rows_path), about, key, settings)
    print(f"rows: {rows_path}, table of all checkpoints: {settings.results_path} (rows: {len(table)})")
    if elsewhere:
        print(f"{len(elsewhere)} of these are being made by another process")


def open_study(path: Path, key: RunKey, settings: InterventionSettings) -> "tuple[Study, dict]":
    """Play the intact episodes of a checkpoint; also returns the columns that all of its rows share."""
    from mop.evaluation.intervention_runs import Study

    if settings.phases is not None and settings.phases not in GROUPINGS:
        raise InputError(f"--phases: there is no grouping {shown(settings.phases)}; choose from {', '.join(GROUPINGS)}")
    checkpoint, encoder, bot_paths, device, about = open_checkpoint(FoundCheckpoint(key, path), settings)
    with tqdm(total=settings.num_episodes, desc="intact", leave=False, delay=1, dynamic_ncols=True) as bar:
        study = Study(
            checkpoint, encoder, bot_paths, settings.num_episodes, settings.eval_seed, settings.num_envs, device,
            settings.phases, progress=bar.update,
        )  # fmt: skip
    about |= {
        "lpc_alpha": checkpoint["config"].get("lpc_alpha"),
        "phases_by": study.group_by,
        "expert_hidden_sizes": study.policy.expert_hidden_sizes,
        "checkpoint_sha256": file_digest(path),
    }
    return study, about


def is_done(rows: Sequence[Mapping], asked: Asked, about: Mapping, swaps: "Mapping[str, Swap]") -> bool:
    """Whether there is a row of an intervention from this very checkpoint, in these worlds, with these phases."""
    intervention, variant = asked
    wanted = {"intervention": str(intervention), "variant": variant} | {name: about[name] for name in SAME}
    wanted["swap_sha256"] = swaps.get(intervention.file, _NO_SWAP).digest
    return any(all(row.get(name) == value for name, value in wanted.items()) for row in rows)


def make_rows(
    study: "Study", missing: Sequence[Asked], path: Path, about: Mapping, swaps: "Mapping[str, Swap]", force: bool
) -> list[Asked]:
    """Make rows and add each to the file as soon as it is there; returns what another process is making."""
    elsewhere = []
    with tqdm(missing, unit="intervention", dynamic_ncols=True, disable=not missing) as bar:
        for intervention, variant in bar:
            bar.set_description(f"{intervention} ({variant})")
            name = hashlib.sha256(f"{intervention}\n{variant}".encode()).hexdigest()[:16]
            with folder_lock(path.with_name(f"intervention-{name}")) as is_ours:
                if not is_ours:
                    elsewhere.append((intervention, variant))
                elif force or not is_done(load_rows(path), (intervention, variant), about, swaps):
                    digest, routers = swaps.get(intervention.file, _NO_SWAP)
                    names = {"intervention": str(intervention), "variant": variant, "swap_sha256": digest}
                    now = {"evaluated_at": datetime.now(UTC).isoformat(timespec="seconds")}
                    add_row(path, {**about, **names, **study.run(intervention, variant, routers), **now})
    return elsewhere


class Swap(NamedTuple):
    """The checkpoint of a `swap`."""

    digest: str | None
    routers: "RecurrentPolicy | None"


_NO_SWAP = Swap(None, None)


def _open_swaps(study: "Study", files: set[str]) -> dict[str, Swap]:
    from mop.evaluation.evaluate import load_for_evaluation
    from mop.evaluation.intervention_runs import with_routers_of
    from mop.training.policies import policy_from_checkpoint

    swaps = {}
    for file in sorted(files):
        routers = policy_from_checkpoint(load_for_evaluation(file))[0]
        with_routers_of(study.policy, routers)
        swaps[file] = Swap(file_digest(file), routers)
    return swaps


def _prepare_places(settings: InterventionSettings, key: RunKey) -> None:
    prepare_table(Path(settings.results_path))
    check_writable(settings.cache_dir, "--cache_dir")
    check_writable(settings.plots_dir, "--plots_dir")
    remove_leftovers(key.artefacts(settings.cache_dir).glob(".*.tmp"))


def _draw(rows: Sequence[Mapping], about: Mapping, key: RunKey, settings: InterventionSettings) -> None:
    """Draw use against need where lesions and the intact policy have rows, of each variant that was made in a phase."""
    rows = comparable(rows, about)
    if not any(row["intervention"] == NONE for row in rows):
        return
    from mop.plotting import bars as figures  # here: who only plans rows does not wait for matplotlib

    for name, variant in figures.use_and_need_files(rows).items():
        path = key.artefacts(settings.plots_dir) / f"{name}.png"
        print(f"figure: {write_figure(path, figures.plot_use_and_need(rows, key.label, variant))}")


def format_rows(rows: Sequence[Mapping]) -> str:
    """Interventions for a terminal: success, what changed with its intervals, agreement."""
    if not rows:
        return "no interventions yet"
    return pd.DataFrame(map(in_words, rows)).to_string(index=False)
