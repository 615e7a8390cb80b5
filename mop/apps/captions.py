"""What a saved figure shows, of which run and which data, and the command that makes it again."""

import shlex
from dataclasses import dataclass

from mop.apps.export import Export
from mop.apps.run_selection import Run
from mop.artifacts.routing_cache import RoutingCache
from mop.artifacts.run_names import run_name
from mop.artifacts.run_paths import PLOTS_DIR
from mop.common.files import file_digest
from mop.plotting.style import counted


@dataclass(frozen=True)
class Shown:
    """Which data a page or a script shows: of which run, and which part of them."""

    run: Run
    num_fresh: int | None = None  # episodes of a fresh evaluation; None: its routing cache
    action: str | None = None  # the action of all steps; None: any
    min_steps: int = 1  # of a cell

    @property
    def part(self) -> str:
        """What the names of files say of it: figures of other parts of the data are other files."""
        part = "" if self.action is None else f"_{self.action.replace(' ', '_')}"
        return part if self.min_steps == 1 else f"{part}_min_{self.min_steps}_steps"

    @property
    def flags(self) -> list[str]:
        """The flags of the apps that show the same."""
        words = [*self.run.flags, *self.run.places]
        words += [] if self.num_fresh is None else ["--fresh", "--num_episodes", str(self.num_fresh)]
        words += [] if self.action is None else ["--action", self.action]
        return words + ([] if self.min_steps == 1 else ["--min_steps", str(self.min_steps)])


def caption_of(
    app: str, shown: Shown, data: RoutingCache, name: str, about: str, export: Export, plots_dir: str = PLOTS_DIR
) -> str:
    """The caption of a figure of one run, in lines.

    app: the file of the app that saves it; data: the steps that are shown; name: of the figure; about: what it shows.
    """
    whole = data if data.whole is None else data.whole
    words = ["python", app, *shown.flags, "--only", name, *export.flags]
    words += [] if plots_dir == PLOTS_DIR else ["--plots_dir", plots_dir]
    lines = [
        f"{about.rstrip('.')}.",
        f"Run: {_describe_run(shown, data)}.",
        f"Data: {_describe_data(shown, whole)}.",
        f"Shown: {_describe_part(shown, data)}.",
        f"Command: {shlex.join(words)}",
    ]
    return "\n".join(lines)


def _describe_run(shown: Shown, data: RoutingCache) -> str:
    header, run = data.header, shown.run
    digest = run.result.get("checkpoint_sha256") if shown.num_fresh is None else file_digest(run.checkpoint)
    parts = [run_name({**header, "is_final": True})]
    parts += [f"update {header['update']}"] if header.get("update") is not None else []
    parts += [f"checkpoint {header['checkpoint_path']}"] if header.get("checkpoint_path") else []
    return ", ".join([*parts, *([] if digest is None else [f"its SHA-256 begins with {digest}"])])


def _describe_data(shown: Shown, whole: RoutingCache) -> str:
    header = whole.header
    parts = [
        f"{counted(len(whole.steps), 'step')} in {counted(header.get('num_episodes', len(whole.episodes)), 'world')}"
    ]
    parts += [f"eval_seed {header['eval_seed']}"] if header.get("eval_seed") is not None else []
    parts += [f"Minigrid {header['minigrid_version']}"] if header.get("minigrid_version") else []
    kind = "evaluated" if shown.num_fresh is None else "evaluated for this figure, not kept,"
    parts += [f"{kind} {header['evaluated_at']}"] if header.get("evaluated_at") else []
    return ", ".join(parts)


def _describe_part(shown: Shown, data: RoutingCache) -> str:
    steps = (
        "all steps" if shown.action is None else f"the {counted(len(data.steps), 'step')} with action: {shown.action}"
    )
    return steps if shown.min_steps == 1 else f"{steps}; in maps, cells with {shown.min_steps} steps or more"
