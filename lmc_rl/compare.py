"""Measure the line between any two policies, and say whether it has a barrier.

    python -m lmc_rl.compare A.pt B.pt
    python -m lmc_rl.compare model_weights/base/Hopper-v5/SAC/seed_1_*/final.pt model_weights/.../final.pt
    python -m lmc_rl.compare A.pt A.pt                       the control: a policy and itself have no barrier

The policies are two of SAC or DDPG, or two checkpoints of imitation runs (train_mop.py, train.py, lmc_rl.run_mop), of
the same task. Both are played in the same worlds, and so is every policy between them. Writes <out>/episodes.jsonl, a
row for each episode, compare.json and path.png; of imitation runs also trajectories.jsonl, and the aligned second
policy. An --out that holds another comparison is refused. Of imitation runs, defaults are those of lmc_rl.run_mop.
"""

from dataclasses import dataclass
from pathlib import Path

import orjson

from lmc_rl.analysis.figures import plot_lines, plot_path
from lmc_rl.analysis.report import summary_of_part, summary_of_returns, table_of
from lmc_rl.analysis.results import pool, read_measures
from lmc_rl.comparison import compare
from lmc_rl.config import MAX_ALPHAS
from mop.common.cli import as_dict, parse, required, setting
from mop.common.errors import run_script
from mop.common.files import check_writable, write_figure, write_json
from mop.common.reading import reading
from mop.common.tables import text_table


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is compared, and how."""

    policies: tuple[str, ...] = required("two of final.pt, fork1_3.pt, ...", positional=True, nargs=2, metavar="FILE")
    out: str = setting("plots/compare", "folder of what is written")
    alpha_points: int | None = setting(
        None, "policies on the line (default: of lmc_rl.run_env, lmc_rl.run_mop)", low=3, high=MAX_ALPHAS
    )
    num_eval_episodes: int | None = setting(None, "episodes of each of them (default: likewise)", low=2)
    tolerance: float = setting(0.05, "the largest loss that counts as none, as a share", above=0, high=1)
    jobs: int = setting(1, "processes", low=1, high=1024)


def main() -> int:
    """Compare two policies, and print the result."""
    settings = parse(Settings, __doc__)
    out, files = Path(settings.out), tuple(map(Path, settings.policies))
    flags = {name: value for name, value in as_dict(settings, ("policies", "out")).items() if value is not None}
    check_writable(out, "--out")
    lines = compare(*files, out, flags)
    is_rl = "return" in lines[0].profiles
    if is_rl:
        summary = summary_of_returns(lines[0])
        figure = plot_path({"": lines[0]}, " to ".join(map(str, files)))
    else:
        summary = {"lines": [summary_of_part(line) for line in lines]}
        figure = plot_lines(lines, " to ".join("/".join(path.parts[-2:]) for path in files))
    write_json(out / "compare.json", {"files": settings.policies} | summary, orjson.OPT_INDENT_2)
    write_figure(out / "path.png", figure)
    print(text_table(*table_of({"the line": [pool([line]) for line in lines]})))
    print(_distances(out / "paths" / "other.json", is_rl))
    print(f"figure and numbers: {out}")
    return 0


def _distances(path: Path, is_rl: bool) -> str:
    """How far the policies are from each other, in words."""
    with reading(path):
        found = read_measures(path)
        if is_rl:
            return f"distance {found['distance']:.2f}, of the actors {found['actor_distance']:.2f}"
        return f"distance {found['distance']:.3f}, aligned {found['alignment']['distance_after']:.3f}"


if __name__ == "__main__":
    run_script(main)
