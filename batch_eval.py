"""Evaluate every checkpoint that has no result yet, then merge all results into evaluation_results.csv.

    python batch_eval.py                                   everything missing under checkpoints/ and modal_checkpoints/
    python batch_eval.py --task BabyAI-GoToRedBall-v0 --trial 0
    python batch_eval.py --num_episodes 200 --skip_routing   faster: no routing caches
    python batch_eval.py --temperature 0.7 --cache_dir drawn_cache --results_path drawn.csv   actions drawn, not greedy
    python batch_eval.py --force                           evaluate again

For each checkpoint it writes evaluation_cache/<task_id>/trial_<N>/.../result.json and routing_data.json as soon as they
are there; for one that was trained on several tasks, those of each task. A checkpoint that has changed since its result
was made counts as missing; one whose result was made with other --num_episodes, --eval_seed or --temperature does not
(--force makes it anew). Several of these processes may work on one tree.
Exit code 0: every checkpoint asked for has its result, or another process is making it; 1: some could not be evaluated,
or a result cannot be read (they are listed, the others' results stand), or there was nothing to do but what other
processes are doing; 2: the command itself cannot be carried out.
"""

from dataclasses import dataclass

from mop.artifacts.run_paths import DEFAULT_ROOTS, RESULTS_TABLE
from mop.common.cli import parse, setting
from mop.common.errors import InputError, run_script
from mop.evaluation import settings
from mop.evaluation.batch import evaluate_missing


@dataclass(frozen=True)
class Settings(settings.Filters, settings.Settings):
    """The flags."""

    checkpoint_dir: str | None = setting(None, f"tree of checkpoints (default: {' and '.join(DEFAULT_ROOTS)})")
    results_path: str = setting(RESULTS_TABLE, "the table")
    force: bool = setting(False, "evaluate again what has a result")
    plots: bool = setting(False, "draw a routing heatmap of each checkpoint asked for")
    jobs: int = setting(1, "processes, a checkpoint each", low=1, high=1024)

    def __post_init__(self):
        if self.plots and self.skip_routing:
            raise InputError("--plots draws the routing that --skip_routing leaves out; give one of them")


def main() -> int:
    """Evaluate what is missing, and print the table."""
    flags = parse(Settings, __doc__)
    roots = [flags.checkpoint_dir] if flags.checkpoint_dir else DEFAULT_ROOTS
    return evaluate_missing(roots, flags, flags, flags.results_path, flags.force, flags.jobs, flags.plots)


if __name__ == "__main__":
    run_script(main)
