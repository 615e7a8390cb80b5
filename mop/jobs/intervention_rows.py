"""Which interventions on a checkpoint's routing lack a row, and making it; the table of all of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from tqdm import tqdm

from mop.base.configuration import shown
from mop.base.errors import InputError
from mop.base.files import check_writable, claimed, file_digest, remove_leftovers, write_figure
from mop.base.interventions import GATE_ONLY, NONE, VARIANTS, Intervention
from mop.measures.groups import GROUPINGS
from mop.plotting.interventions import plot_use_and_need
from mop.store.interventions import add_row, load_rows, merge_rows
from mop.store.run_keys import CACHE_DIR, INTERVENTIONS_TABLE, PLOTS_DIR, RunKey, interventions_path

if TYPE_CHECKING:
    from mixture_of_experts import RecurrentPolicy
    from mop.jobs.interventions import Study

Asked = tuple[Intervention, str]  # with its memory variant


@dataclass(frozen=True)
class Settings:
    """In which worlds the interventions of a checkpoint are made, and where their files go."""

    num_episodes: int = 1000
    num_envs: int = 64
    eval_seed: int = 0
    cache_dir: str = CACHE_DIR
    plots_dir: str = PLOTS_DIR
    results_path: str = INTERVENTIONS_TABLE
    lang_encoder: str | None = None
    device: str = "auto"
    phases: str | None = None  # of GROUPINGS


def intervene(checkpoint: str, what: Sequence[Asked] | None, settings: Settings, force: bool = False) -> int:
    """Make the rows that are missing of the interventions asked for, tell them all, draw use against need.

    what: None for `standard_battery`; force: also those that have a row. Returns 0. Raises InputError where something
    cannot be used, before any work is done for it.
    """
    path, key = Path(checkpoint), RunKey.from_checkpoint(checkpoint)
    _prepare_places(settings, key)
    rows_path = interventions_path(settings.cache_dir, key)
    study, about = open_study(path, key, settings)
    asked = list(what) if what is not None else _battery(study)
    for intervention, _ in asked:
        study.check(intervention)
    swaps = _open_swaps(study, {intervention.file for intervention, _ in asked if intervention.file})
    missing = [item for item in asked if force or not is_done(load_rows(rows_path), item, about, swaps)]
    print(f"{key.label}: {len(asked)} interventions, {len(missing)} to make")
    try:
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
    return 0


def open_study(path: Path, key: RunKey, settings: Settings) -> "tuple[Study, dict]":
    """The intact episodes of a checkpoint, and what every row of it says of where it comes from.

    Raises InputError where the checkpoint cannot be used.
    """
    from mop.jobs.evaluation import encoder_for, load_for_evaluation
    from mop.jobs.interventions import Study
    from mop.kernels.devices import use_device
    from mop.worlds.bot_paths import BotPaths
    from mop.worlds.world import MINIGRID_VERSION

    if settings.phases is not None and settings.phases not in GROUPINGS:
        raise InputError(f"--phases: there is no grouping {shown(settings.phases)}; choose from {', '.join(GROUPINGS)}")
    checkpoint = load_for_evaluation(path)
    config = checkpoint["config"]
    if config["task_id"] != key.task_id:
        raise InputError(f"{path} was trained on {config['task_id']}, not on {key.task_id} as its path says")
    bot_paths = BotPaths(config["task_id"], config["max_steps"], settings.cache_dir)
    encoder, device = encoder_for(checkpoint, settings.lang_encoder), use_device(settings.device)
    with tqdm(total=settings.num_episodes, desc="intact", leave=False, delay=1, dynamic_ncols=True) as bar:
        study = Study(
            checkpoint, encoder, bot_paths, settings.num_episodes, settings.eval_seed, settings.num_envs, device,
            settings.phases, progress=bar.update,
        )  # fmt: skip
    about = {
        "checkpoint_path": path.as_posix(),
        "task_id": config["task_id"],
        "trial": key.trial,
        "seed": key.seed,
        "update": checkpoint["update"],
        "lpc_alpha": config.get("lpc_alpha"),
        "num_episodes": settings.num_episodes,
        "eval_seed": settings.eval_seed,
        "phases_by": study.group_by,
        "expert_hidden_sizes": study.policy.expert_hidden_sizes,
        "minigrid_version": MINIGRID_VERSION,
        "checkpoint_sha256": file_digest(path),
    }
    return study, about


def _battery(study: "Study") -> list[Asked]:
    from mop.jobs.interventions import standard_battery

    phases = study.phases if study.group_by != "overall" else []
    return standard_battery(study.policy.expert_hidden_sizes, phases)


def is_done(rows: Sequence[Mapping], asked: Asked, about: Mapping, swaps: "Mapping[str, Swap]") -> bool:
    """Whether there is a row of an intervention from this very checkpoint, in these worlds, with these phases."""
    intervention, variant = asked
    names = ("checkpoint_sha256", "num_episodes", "eval_seed", "phases_by", "minigrid_version")
    wanted = {"intervention": str(intervention), "variant": variant} | {name: about[name] for name in names}
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
            with claimed(path.parent / f".intervention-{name}.claim") as is_ours:
                if not is_ours:
                    elsewhere.append((intervention, variant))
                elif force or not is_done(load_rows(path), (intervention, variant), about, swaps):
                    digest, routers = swaps.get(intervention.file, _NO_SWAP)
                    names = {"intervention": str(intervention), "variant": variant, "swap_sha256": digest}
                    now = {"evaluated_at": datetime.now(UTC).isoformat(timespec="seconds")}
                    add_row(path, about | names | study.run(intervention, variant, routers) | now)
    return elsewhere


class Swap(NamedTuple):
    """The checkpoint of a `swap`."""

    digest: str | None
    routers: "RecurrentPolicy | None"


_NO_SWAP = Swap(None, None)


def _open_swaps(study: "Study", files: set[str]) -> dict[str, Swap]:
    """The checkpoints whose routers are taken. Raises InputError where one cannot be read, or does not fit."""
    from mop.jobs.evaluation import load_for_evaluation
    from mop.jobs.interventions import with_routers_of
    from mop.learning.policies import policy_from_checkpoint

    swaps = {}
    for file in sorted(files):
        routers = policy_from_checkpoint(load_for_evaluation(file))[0]
        with_routers_of(study.policy, routers)
        swaps[file] = Swap(file_digest(file), routers)
    return swaps


def _prepare_places(settings: Settings, key: RunKey) -> None:
    """Raises InputError where something could not be written, before any work."""
    place = Path(settings.results_path).resolve()
    if place.suffix != ".csv" or (place.exists() and not place.is_file()):
        raise InputError(f"--results_path must name a .csv file, not {settings.results_path}")
    check_writable(place.parent, "--results_path")
    check_writable(settings.cache_dir, "--cache_dir")
    check_writable(settings.plots_dir, "--plots_dir")
    remove_leftovers(place.parent.glob(f".{place.name}.*"))
    remove_leftovers(key.artefacts(settings.cache_dir).glob(".*.tmp"))


def _draw(rows: Sequence[Mapping], about: Mapping, key: RunKey, settings: Settings) -> None:
    """Draw use against need where lesions and the intact policy have rows, of each variant that was made in a phase."""
    rows = [row for row in rows if all(row[name] == about[name] for name in ("checkpoint_sha256", "phases_by"))]
    if not any(row["intervention"] == NONE for row in rows):
        return
    for variant in VARIANTS:
        is_there = any(row["variant"] == variant and row["intervention"].startswith("lesion ") for row in rows)
        if is_there:
            name = "use_and_need" + ("" if variant == GATE_ONLY else f"_{variant}")
            worlds = f"{about['num_episodes']:,} worlds, memory of what is left out: {variant}"
            figure = plot_use_and_need(rows, f"{key.label}, {worlds}\nchange of success in percentage points", variant)
            print(f"figure: {write_figure(key.artefacts(settings.plots_dir) / f'{name}.png', figure)}")


def format_rows(rows: Sequence[Mapping]) -> str:
    """Interventions for a terminal: success, what changed with its intervals, agreement."""
    if not rows:
        return "no interventions yet"

    def change(row: Mapping, name: str, form: str) -> str:
        value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
        if value is None:
            return "-"
        return f"{value:{form}}" + ("" if low is None else f" ({low:{form}} to {high:{form}})")

    lines = [
        {
            "intervention": row["intervention"],
            "memory": row["variant"],
            "success": f"{row['success_rate']:.1%}",
            "change": change(row, "delta_success", "+.1%"),
            "lost": row["worlds_lost"],
            "gained": row["worlds_gained"],
            "path ratio": change(row, "delta_path_ratio", "+.3f"),
            "same action": change(row, "agreement", ".1%"),
        }
        for row in rows
    ]
    return pd.DataFrame(lines).to_string(index=False)
