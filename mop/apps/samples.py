"""The runs of a task that are one sample of trainings: which of them count, and why the others do not."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mop.analysis.actions import DEFAULT_STATE
from mop.analysis.groups import GROUPINGS
from mop.analysis.many_runs import NOT_PHASES
from mop.apps.runs import Run, load_routing
from mop.artifacts.run_paths import CACHE_DIR, RunKey, find_caches, result_path, task_folder
from mop.common.cli import as_flags, changes_of
from mop.common.errors import InputError
from mop.common.files import find_files
from mop.common.train_config import FLAGS, RUNTIME_KEYS, complete

AUTO_PHASES, NO_PHASES = "auto", "none"
_FREE = {"task_id", "trial", "seed", "lpc_alpha"}  # what runs of one sample may differ in
_SETTINGS = [
    *(name for name in FLAGS if name not in _FREE and (name not in RUNTIME_KEYS or name == "num_updates")),
    "policy",
]
_WORLDS = ("num_episodes", "eval_seed", "minigrid_version")


@dataclass(frozen=True)
class Asked:
    """What is to be analysed: the runs of one task, and how their steps are split."""

    task_id: str
    phases: str = AUTO_PHASES  # of GROUPINGS; NO_PHASES; AUTO_PHASES: the first of PHASE_GROUPINGS that suits
    state: tuple[str, ...] = DEFAULT_STATE
    action: str | None = None  # only the steps of this action
    update: int | None = None  # periodic checkpoints of this update; None: final ones
    where: tuple[tuple[str, str], ...] = ()  # settings that runs must have, as texts
    cache_dir: str = CACHE_DIR

    @property
    def flags(self) -> list[str]:
        """The flags of SCRIPT that ask the same."""
        changes = changes_of(self, ("task_id",))
        if self.where:
            changes["where"] = [f"{name}={value}" for name, value in self.where]
        return as_flags({"task": self.task_id} | changes)


class LeftOut(NamedTuple):
    """A run that does not count, or a part of one that could not be measured, and why."""

    run: str
    reason: str


class Unit(NamedTuple):
    """A run that counts: one training."""

    run: Run
    lpc_alpha: float
    seed: int


def tasks_with_runs(cache_dir: str) -> list[str]:
    """The tasks of which there is a routing cache, those of policies of several tasks as `<list>/<task>`."""
    return sorted({key.task for key in find_caches(cache_dir)})


def tasks_asked(cache_dir: str, names: Sequence[str] | None) -> list[str]:
    """The tasks that are meant: those of `tasks_with_runs`, where a list stands for its tasks; None: all of them."""
    known = tasks_with_runs(cache_dir)
    if names is None:
        return known
    tasks = []
    for name in names:
        of_list = [task for task in known if task.startswith(f"{name}/")]
        tasks += [name] if name in known else of_list or [name]
    return list(dict.fromkeys(tasks))


def phase_words() -> dict[str, str]:
    """What a page calls each way to split the steps into phases -> its word, AUTO_PHASES the one that suits."""
    named = {f"by {grouping.title}": name for name, grouping in GROUPINGS.items() if name not in NOT_PHASES}
    return {"what suits the task": AUTO_PHASES, **named, "none": NO_PHASES}


def choose_units(asked: Asked) -> tuple[list[Unit], list[LeftOut]]:
    """The runs of a task that are one sample, sorted by lpc_alpha and seed, and the others with the reason.

    They are evaluated mixtures with equal settings but for lpc_alpha, trial and seed, in equal worlds; of several such
    samples the one with the most runs, and `Asked.where` chooses another. A run with the same settings and seed as
    another one is a copy of it, no further sample.
    """
    left_out, fitting = [], []
    for key in _keys(asked):
        run = Run(key, asked.cache_dir)
        about, reason = _about(run, asked)
        if reason is None:
            fitting.append((run, about, tuple(_as_text(about.get(name)) for name in (*_SETTINGS, *_WORLDS))))
        else:
            left_out.append(LeftOut(key.label, reason))
    units: dict[tuple[float, int], Unit] = {}
    most = Counter(settings for _, _, settings in fitting).most_common(1)
    for run, about, settings in fitting:
        unit = Unit(run, float(about["lpc_alpha"]), run.key.trial if run.key.seed is None else run.key.seed)
        if others := _differences(settings, most[0][0]):
            left_out.append(LeftOut(run.key.label, f"other settings: {others}"))
        elif (first := units.setdefault(unit[1:], unit)) is not unit:
            left_out.append(LeftOut(run.key.label, f"a copy: settings and seed of {first.run.key.label}"))
    if not units:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in count_reasons(left_out).items())
        raise InputError(
            f"no run of {asked.task_id} under {asked.cache_dir}/ can be analysed"
            + (f": {reasons}" if reasons else ": `python batch_eval.py` makes routing caches")
        )
    return [units[place] for place in sorted(units)], left_out


def count_reasons(left_out: Sequence[LeftOut]) -> dict[str, int]:
    """How often each reason occurs, the most frequent first."""
    return dict(Counter(reason for _, reason in left_out).most_common())


def _keys(asked: Asked) -> list[RunKey]:
    """The runs of the task with a routing cache or a result."""
    keys = set(find_caches(asked.cache_dir))
    name = asked.task_id.split("/")[0]
    folder = task_folder(asked.cache_dir, name)
    for path in find_files(folder, "result.json"):
        try:
            key = RunKey.from_artefacts(Path(name, path.parent.relative_to(folder)))
        except InputError:  # a result of something else
            continue
        keys |= {key} if result_path(asked.cache_dir, key) == path else set()
    return sorted(key for key in keys if key.task == asked.task_id)


def _about(run: Run, asked: Asked) -> tuple[dict, str | None]:
    """What is known of a run, and why it does not count; None if it may."""
    update = run.key.update
    if update != asked.update:
        wanted = "the final one" if asked.update is None else f"update {asked.update}"
        return {}, f"another checkpoint than {wanted}"
    if not run.has_cache:
        return {}, "no routing cache: `python batch_eval.py --force` without --skip_routing makes one"
    about = run.result
    if not about:  # an older cache may lie alone
        try:
            header = load_routing(run).header
        except InputError as error:
            return {}, f"it cannot be read: {reason_of(error, run)}"
        about = {**(header.get("config") or {}), **header}
    about = complete(about)
    if about.get("policy", "mop") != "mop":
        return about, "a GRU baseline: it has no routers, and no lpc_alpha"
    if about.get("lpc_alpha") is None:
        return about, "its lpc_alpha is not known"
    for name, value in asked.where:
        if _as_text(about.get(name)) != value:
            return about, f"not asked for: {name} is not {value}"
    return about, None


def _as_text(value: object) -> str:
    """A setting as a person writes it: numbers in their shortest form, "" where it is not known."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "" if value is None else f"{value:g}" if is_number else str(value).lower().replace(" ", "")


def parse_where(words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Settings that are asked for, from words such as "num_updates=300"."""
    found = []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or name not in (*_SETTINGS, *_WORLDS):
            raise InputError(
                f"--where takes settings such as num_updates=300, not {word!r:.60}; settings are "
                f"{', '.join((*_SETTINGS, *_WORLDS))}"
            )
        try:
            found.append((name, _as_text(float(value))))
        except ValueError:
            found.append((name, value.lower().replace(" ", "")))
    return tuple(found)


def reason_of(error: InputError, run: Run) -> str:
    """The message without the path, so that equal reasons are equal."""
    return str(error).removeprefix(f"{run.cache_path}: ").partition("; `")[0]


def _differences(settings: Sequence[str], usual: Sequence[str]) -> str:
    """Where two settings differ; what is not known of one may be equal."""
    pairs = zip((*_SETTINGS, *_WORLDS), settings, usual, strict=True)
    return ", ".join(f"{name} {one} (not {other})" for name, one, other in pairs if one != other and one and other)
