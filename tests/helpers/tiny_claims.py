"""studies/claims.py on two tiny tasks; as a command, in the current folder alone."""

from collections.abc import Callable
from pathlib import Path

import yaml
from scripts import REPOSITORY

import studies.claims as claims
import studies.claims_report as report
import studies.experiments as experiments
from mop.common.errors import run_script

TINY = {
    "num_updates": 2, "num_envs": 4, "unroll_len": 8, "max_steps": 12, "log_interval": 1, "replay": 0,
    "intermediate_dim": 8, "expert_hidden_sizes": "0,16,32;0,16,32", "router_hidden_size": 8, "lang_dim": 4,
}  # fmt: skip
TASKS = ("BabyAI-GoToObj-v0", "BabyAI-OpenRedDoor-v0")


def shrink_claims(change: Callable[[object, str, object], object], folder: Path, runs: Path, root: Path) -> None:
    """Leave a kind of policies with two seeds, two tasks, and files below a folder.

    change: `setattr`, or one that is undone; runs: where trainings are; root: where commands run.
    """
    (folder / "tasks.yaml").write_text(yaml.safe_dump(dict.fromkeys(TASKS, 1), sort_keys=False))
    for module in (claims, report):
        change(module, "FOLDER", folder)
    for module in (claims, experiments):
        change(module, "RUNS", runs)
        change(module, "ROOT", root)
    change(claims, "NUM_EPISODES", 6)
    change(claims, "NUM_TRAJECTORIES", 3)
    change(claims, "task_ids", lambda: list(TASKS))
    tasks = str(folder / "tasks.yaml")
    policies = [experiments.Training("claims", claims.NAME, "plain", 0, seed, TINY, tasks=tasks) for seed in (0, 1)]
    of_gru = {name: value for name, value in TINY.items() if name not in experiments.OF_THE_MIXTURE}
    alone = [experiments.Training("claims", task, "baseline", 0, 0, of_gru, "gru") for task in TASKS]
    change(claims, "policies", lambda: iter(policies))
    change(claims, "baselines", lambda: iter(alone))


if __name__ == "__main__":
    for name in ("train_mop.py", "train.py", "batch_eval.py", "intervene.py"):
        if not Path(name).exists():
            Path(name).symlink_to(REPOSITORY / name)
    shrink_claims(setattr, Path(), Path("runs"), Path())
    run_script(claims.main)
