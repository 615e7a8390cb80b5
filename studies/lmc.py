"""When does a policy commit to its basin? Experiments of linear mode connectivity, and what is published of them.

    python studies/lmc.py rl                  SAC and DDPG on the double pendulum, buffers copied and frozen
    python studies/lmc.py mop                 pathways policies on two tasks, lpc_alpha 0 and 1e-5, and between these
    python studies/lmc.py rl mop --dry_run    prints the commands of the experiments, and runs nothing
    python studies/lmc.py --report            archives what is finished, and draws it; runs nothing
    python studies/lmc.py --report --also ../elsewhere      the same, with what another clone has finished

Three parents each. Every experiment is one command; its files stay under results/lmc/<task>/ and model_weights/lmc/,
which are not in git. Ctrl-C at any time: the same command goes on. Of each finished experiment, what figures and tables
need lies in results/lmc/archive/, 200 kB or less. From that alone come results/lmc/<task>/ (instability.md, figures,
and between.md of the lines between values of lpc_alpha) and docs/lmc.png, both curves beside each other.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from matplotlib.figure import Figure

from lmc_rl.analysis.archive import archive
from lmc_rl.analysis.lost_figures import plot_lost
from lmc_rl.analysis.report import table_of, write_report
from lmc_rl.analysis.results import ExperimentPaths, load_lines, pool
from lmc_rl.analysis.table import has_rows
from lmc_rl.analysis.units import SHARE, SHARE_OF_LOSS
from lmc_rl.app.catalog import ALL, ShownExperiment, load_shown
from lmc_rl.app.page import POOLED, Choices, curves_of_groups
from lmc_rl.comparison import compare
from lmc_rl.config import CONFIG_NAME, MopConfig, load_config, resolve_mop, resolve_rl
from lmc_rl.experiment import is_finished, run
from mop.common.cli import as_flags, parse, setting
from mop.common.errors import InputError, run_script
from mop.common.files import write_atomic, write_figure
from mop.common.tables import markdown_table

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "results" / "lmc"
ARCHIVE = OUT / "archive"
SEEDS = (1, 2, 3)
NUM_PLACES, TOLERANCE = 21, 0.05  # of each line; the default of both

STRATEGIES = {"copy": "self,independent", "frozen": "none"}  # the controls are the same for both: once is enough
OF_RL = {
    "env": "InvertedDoublePendulum-v5", "total_steps": "20000", "train_freq": "1", "batch_size": "64",
    "learning_rate": "0.001", "learning_starts": "1000", "eval_freq": "2000", "eval_episodes": "5",
    "fork_points": "0.05,0.2,0.4,0.6,0.8,0.9", "alpha_points": str(NUM_PLACES), "num_eval_episodes": "16",
    "experiment_name": "lmc",
}  # fmt: skip

ALPHAS = ("0", "1e-5")  # lpc_alpha
NUM_UPDATES = {"BabyAI-UnlockPickup-v0": "100", "BabyAI-GoToLocal-v0": "300"}
OF_MOP = {
    "replay": "8", "input_encoder": "linear", "lang_dim": "32", "lr_decay": "true", "teacher_mix": "0.5",
    "replay_size": "1000", "lang_encoder": "vocab", "fork_points": "0,0.02,0.05,0.1,0.2,0.4,0.6,0.8",
    "alpha_points": str(NUM_PLACES), "num_trajectories": "64", "num_eval_episodes": "128", "experiment_name": "lmc",
}  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """One command of `lmc_rl`."""

    module: str  # run_env, run_mop
    flags: dict[str, str]

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["python", "-m", f"lmc_rl.{self.module}", *as_flags(self.flags), "--resume"])

    def run(self, jobs: int) -> None:
        """Do what is missing of it."""
        resolve = resolve_rl if self.module == "run_env" else resolve_mop
        run(resolve(self.flags | {"output_dir": str(ROOT), "jobs": jobs, "resume": True, "device": "cpu"}))


@dataclass(frozen=True)
class Comparison:
    """The line from a final policy of one lpc_alpha to one of another."""

    task: str
    seeds: tuple[int, int]

    @property
    def name(self) -> str:
        """Its folder."""
        return "seed_{}_alpha_{}_seed_{}_alpha_{}".format(*(x for end in self._ends for x in end))

    @property
    def group(self) -> str:
        """What it is pooled with."""
        same = "the same seed" if self.seeds[0] == self.seeds[1] else "different seeds"
        return f"{self.task}, lpc_alpha {ALPHAS[0]} to {ALPHAS[1]}, {same}"

    @property
    def command(self) -> str:
        """As it is typed, with the folders of the experiments for their times."""
        files = [f"model_weights/lmc/{self.task}/mop/<seed {s}, lpc_alpha {alpha}>/final.pt" for s, alpha in self._ends]
        sizes = [
            f"--num_eval_episodes {OF_MOP['num_eval_episodes']}",
            f"--out results/lmc/{self.task}/between/{self.name}",
        ]
        return " ".join(["python -m lmc_rl.compare", *files, *sizes])

    def run(self, jobs: int) -> None:
        """Measure it, where both of the two are trained."""
        flags = {name: OF_MOP[name] for name in ("num_trajectories", "num_eval_episodes")} | {"jobs": jobs}
        compare(*(_final(self.task, *end) for end in self._ends), OUT / self.task / "between" / self.name, flags)

    @property
    def _ends(self) -> list[tuple[int, str]]:
        return list(zip(self.seeds, ALPHAS, strict=True))


def _final(task: str, seed: int, alpha: str) -> Path:
    for path in sorted((OUT / task / "mop").glob(f"seed_{seed}_*/{CONFIG_NAME}")):
        config = load_config(path.parent)
        if isinstance(config, MopConfig) and config.run["lpc_alpha"] == float(alpha):
            return ExperimentPaths.of_results(path.parent).weights / "final.pt"
    raise InputError(f"there is no run of {task} with seed {seed} and lpc_alpha {alpha}; `python studies/lmc.py mop`")


def of_rl() -> list[Experiment]:
    """The experiments of reinforcement learning; all of one strategy before those of the next, then of one seed."""
    return [
        Experiment(
            "run_env", OF_RL | {"algo": algo, "seed": str(seed), "fork_buffer_strategy": strategy, "controls": c}
        )
        for (strategy, c), seed, algo in product(STRATEGIES.items(), SEEDS, ("SAC", "DDPG"))
    ]


def of_mop() -> list[Experiment | Comparison]:
    """The experiments of pathways policies, task after task, and the lines between values of lpc_alpha."""
    found = []
    for task, num_updates in NUM_UPDATES.items():
        for alpha, seed in product(ALPHAS, SEEDS):
            flags = {"task_id": task, "num_updates": num_updates, "lpc_alpha": alpha, "seed": str(seed)}
            found.append(Experiment("run_mop", flags | OF_MOP))
        found += comparisons(task)
    return found


def comparisons(task: str) -> list[Comparison]:
    """Of each seed to the same one, and to the next one."""
    return [Comparison(task, (seed, other)) for ends in (SEEDS, SEEDS[1:] + SEEDS[:1])
            for seed, other in zip(SEEDS, ends, strict=True)]  # fmt: skip


FAMILIES = {"rl": of_rl, "mop": of_mop}


# --- the archive ------------------------------------------------------------------------------------------------------


def archive_finished(roots: Iterable[Path]) -> None:
    """Archive what is finished below results/lmc of these folders and is not archived yet."""
    for below in (root / "results" / "lmc" for root in roots):
        experiments = [path.parent for path in sorted(below.glob(f"*/*/seed_*/{CONFIG_NAME}"))]
        for path in [*experiments, *sorted(below.glob("*/between/seed_*"))]:
            folder = ARCHIVE / path.relative_to(below)
            is_new = not (folder / CONFIG_NAME).exists() and not (path not in experiments and has_rows(folder))
            if is_new and (is_finished(path) if path in experiments else _is_compared(path)):
                archive(path, folder, NUM_PLACES)
                print(f"archived: {folder}")


def _is_compared(folder: Path) -> bool:
    """Whether a comparison is finished: the line to the aligned end is the last that is played."""
    lines = load_lines(folder, (), NUM_PLACES, TOLERANCE) if has_rows(folder) else ()
    return any(line.is_aligned and "success" in line.profiles for line in lines)


def archived() -> list[ShownExperiment]:
    """All archived experiments."""
    words = [path.parent.relative_to(ARCHIVE).as_posix() for path in sorted(ARCHIVE.glob(f"*/*/seed_*/{CONFIG_NAME}"))]
    if not words:
        raise InputError("no experiment is finished; leave --report out")
    return [load_shown(ARCHIVE, word) for word in words]


# --- what is published ------------------------------------------------------------------------------------------------


def publish() -> None:
    """Write tables and figures from the archive."""
    by_task: dict[str, list[ShownExperiment]] = {}
    for shown in archived():
        by_task.setdefault(shown.word.split("/")[0], []).append(shown)
    for task, several in by_task.items():
        write_report(several, OUT / task)
        of_single_ones = ["interp_*.png", *([] if several[0].is_rl else ["all_interpolations*.png"])]
        for path in (path for pattern in of_single_ones for path in (OUT / task).glob(pattern)):
            path.unlink()  # the page shows them
    for task in NUM_UPDATES:
        publish_comparisons(task)
    figure = draw_both([shown for several in by_task.values() for shown in several])
    print(f"both curves: {write_figure(ROOT / 'docs' / 'lmc.png', figure)}")


def publish_comparisons(task: str) -> None:
    """The table of the lines between values of lpc_alpha, as far as they are archived."""
    groups: dict[str, dict] = {}
    for comparison in comparisons(task):
        folder = ARCHIVE / task / "between" / comparison.name
        for line in load_lines(folder, (), NUM_PLACES, TOLERANCE) if has_rows(folder) else ():
            groups.setdefault(comparison.group, {}).setdefault(line.key, []).append(line)
    if groups:
        table = table_of({name: [pool(own) for own in lines.values()] for name, lines in groups.items()})
        write_atomic(OUT / task / "between.md", lambda file: file.write(markdown_table(*table).encode()))


def draw_both(several: Sequence[ShownExperiment]) -> Figure:
    """B against the fork point, of reinforcement learners and of pathways policies, as shares of what was learned."""
    panels = []
    for title, is_rl, unit in (
        ("return of SAC and DDPG", True, SHARE),
        ("cross-entropy of pathways policies", False, SHARE_OF_LOSS),
    ):
        own = tuple(shown for shown in several if shown.is_rl == is_rl)
        if own:
            panels.append((title, curves_of_groups(Choices(str(ARCHIVE), own[0], "", own, ALL), POOLED, unit)))
    return plot_lost(panels)


# --- the command ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is done."""

    families: tuple[str, ...] = setting(
        tuple(FAMILIES), "which experiments", choices=tuple(FAMILIES), positional=True, nargs="*", metavar="rl|mop"
    )
    jobs: int = setting(1, "processes of an experiment", low=1)
    dry_run: bool = setting(False, "print the commands")
    report: bool = setting(False, "run nothing more: archive and draw what is finished")
    also: tuple[str, ...] = setting((), "archive what other clones have finished, too", metavar="DIR")


def main() -> int:
    """Run what is missing, and report after each experiment."""
    settings = parse(Settings, __doc__)
    if missing := [name for name in settings.also if not (Path(name) / "results" / "lmc").is_dir()]:
        raise InputError(f"--also: {missing[0]} has no folder results/lmc")
    roots = [ROOT, *map(Path, settings.also)]
    for work in (work for name in settings.families or FAMILIES for work in FAMILIES[name]()):
        if settings.dry_run:
            print(work.command)
        elif not settings.report:
            work.run(settings.jobs)
            archive_finished(roots)
            publish()
    if settings.report:
        archive_finished(roots)
        publish()
    return 0


if __name__ == "__main__":
    run_script(main)
