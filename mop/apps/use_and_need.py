"""Use against need: the interventions of a run that were measured, as a matrix and a table."""

import shlex
from collections.abc import Mapping
from functools import partial

import marimo as mo

from mop.apps.elements import drawn, problem, table
from mop.apps.runs import Run, checkpoint_name
from mop.apps.template import Page, PageFigure
from mop.artifacts.intervention_rows import comparable, in_words, load_rows
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_paths import CACHE_DIR, PLOTS_DIR, interventions_path
from mop.common.cli import as_flags
from mop.common.errors import InputError
from mop.common.files import file_digest
from mop.common.intervention_grammar import GATE_ONLY, NONE
from mop.plotting.bars import plot_use_and_need, use_and_need_files
from mop.plotting.style import counted

TAB = "Use and need"
ABOUT = "What is lost without each expert, in each phase of the task, beside how much it is used there."


def rows_of(run: Run, data: RoutingData) -> list[Mapping]:
    """The rows of a run that belong together, the intact one first."""
    path, command = interventions_path(run.cache_dir, run.key), command_of(run, data)
    rows = load_rows(path)
    if not rows:
        raise InputError(f"`{path}`: there are no interventions of this run yet; `{command}` makes them")
    intact = next((row for row in reversed(rows) if row["intervention"] == NONE), None)
    same = [] if intact is None else comparable(rows, intact)
    others = [row for row in same if row["intervention"] != NONE]
    if intact is None or not others:
        raise InputError(
            f"`{path}`: of its {counted(len(rows), 'row')} none is of the intact policy with others of the same "
            f"checkpoint, worlds and phases; `{command}` makes them"
        )
    return [intact, *others]


def command_of(run: Run, data: RoutingData) -> str:
    """The command that measures the standard battery in the worlds of an evaluation."""
    key, header = run.key, data.header
    flags = {"checkpoint": checkpoint_name(run, data), "task": None if key.trained_on is None else key.task_id}
    flags |= {"num_episodes": header.get("num_episodes", len(data.episodes))}
    flags |= {"eval_seed": header.get("eval_seed") or None}
    flags |= {"cache_dir": None if run.cache_dir == CACHE_DIR else run.cache_dir}
    return shlex.join(["python", "intervene.py", *as_flags(flags)])


def other_checkpoint(run: Run, rows: list[Mapping], data: RoutingData) -> str | None:
    """What to say of rows that were made of another file than the checkpoint here; None if they were not."""
    if run.checkpoint is None or rows[-1]["checkpoint_sha256"] == file_digest(run.checkpoint):
        return None
    path, remake = interventions_path(run.cache_dir, run.key), command_of(run, data)
    return f"`{path}` was made from another checkpoint than `{run.checkpoint}`; `{remake}` makes a new one"


def matrix_page(run: Run, rows: list[Mapping], data: RoutingData, plots_dir: str = PLOTS_DIR) -> Page:
    """The page of the matrices, one for each memory variant in which experts were left out."""
    row, figures = rows[-1], []
    for name, variant in (use_and_need_files(rows) or {"use_and_need": GATE_ONLY}).items():
        about = f"Change of success without each expert in each phase, beside its mean weight there; memory: {variant}"
        draw = partial(plot_use_and_need, rows, run.name, variant)
        figures.append(PageFigure(name, about, draw, command=command_of(run, data)))
    lines = [
        f"Run: {run.name}, checkpoint {row['checkpoint_path']}, its SHA-256 begins with {row['checkpoint_sha256']}.",
        f"Data: {counted(row['num_episodes'], 'world')}, eval_seed {row['eval_seed']}, "
        f"Minigrid {row['minigrid_version']}, phases {row['phases_by']}.",
    ]
    return Page("routing_viz.py", (), run.key.artefacts(plots_dir), figures, lambda name: lines)


def shown(run: Run, data: RoutingData, plots_dir: str) -> mo.Html:
    """All matrices of a run above the table of its rows, or why there are none."""
    try:
        rows = rows_of(run, data)
    except (InputError, OSError) as error:
        return problem(error, "info")
    page, note = matrix_page(run, rows, data, plots_dir), other_checkpoint(run, rows, data)
    label = "**Interventions in all worlds**: differences paired by world, with 95 % intervals"
    in_numbers = table([in_words(row) for row in rows if "delta_success" in row], label=label)
    matrices = [drawn(page, name, f"{run.name}: {name}") for name in page.figures]
    return mo.vstack([*([problem(note, "warn")] if note else []), *matrices, in_numbers])
