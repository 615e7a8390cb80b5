"""Where the time of a training update goes: milliseconds of each stage, exclusive of the stages inside it.

    python benchmarks/profile_update.py                                  the table of benchmarks/README.md
    python benchmarks/profile_update.py --tasks BabyAI-GoTo-v0 --updates 10

Stages are timed by wrapping their functions (a fraction of a microsecond a call); means over the updates,
because worlds end together: an update generates none, or a dozen.
"""

import statistics
import time

from benchmarks.throughput import TASKS, WARM_UP_UPDATES, make_run
from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import run_script
from mop.common.values import integer


class Stages:
    """Exclusive wall-clock seconds by stage: entering one pauses the one around it."""

    def __init__(self):
        self.seconds, self._open, self._since = {}, ["other"], time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    def wrap(self, owner, name: str, stage: str) -> None:
        """Charge the calls of `owner.name` to `stage`."""
        function = getattr(owner, name)

        def timed(*args, **kwargs):
            self._charge()
            self._open.append(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self._charge()
                self._open.pop()

        setattr(owner, name, timed)

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        self._charge()
        seconds, self.seconds = self.seconds, {}
        return seconds


def watch() -> Stages:
    """Timers around the stages of `ImitationRun.step_update`."""
    import torch

    from mixture_of_experts import RecurrentPolicy
    from mop.envs.babyai import World
    from mop.envs.missions import MissionEncoder
    from mop.envs.vector_env import Slots
    from mop.fast.policy_step import CompiledPolicy
    from mop.training.imitation import ImitationRun

    stages = Stages()
    for owner, name, stage in (
        (World, "reset", "world generation"),
        (World, "step", "game rules and view"),
        (World, "label", "bot"),
        (Slots, "step", "slots"),
        (MissionEncoder, "embed", "mission encoder"),
        (CompiledPolicy, "step", "policy, step by step"),
        (ImitationRun, "act", "rollout's own"),
        (RecurrentPolicy, "get_routing_info", "policy, sequence forward"),
        (torch.Tensor, "backward", "policy, backward"),
        (torch.optim.Adam, "step", "optimiser"),
    ):
        stages.wrap(owner, name, stage)
    return stages


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--tasks", default=TASKS, help="task ids, separated by commas (default: %(default)s)")
    parser.add_argument("--updates", default=60, help="training updates timed (default: %(default)s)")
    args = parser.parse_args()
    check_flags(args, updates=integer(1))
    table, stages = {}, watch()
    for task_id in args.tasks.split(","):
        run = make_run(task_id, 0, 16)
        for _ in range(WARM_UP_UPDATES):
            run.step_update()
        stages.take()
        updates = []
        for _ in range(args.updates):
            run.step_update()
            updates.append(stages.take())
        run.close()
        names = {name for update in updates for name in update}
        table[task_id] = {name: 1e3 * statistics.mean(u.get(name, 0.0) for u in updates) for name in names}
        table[task_id]["all"] = 1e3 * statistics.mean(sum(u.values()) for u in updates)
    rows = sorted({name for column in table.values() for name in column}, key=lambda n: table[task_id].get(n, 0.0))
    print("| ms an update | " + " | ".join(table) + " |\n|---|" + "---:|" * len(table))
    for name in reversed(rows):
        print(f"| {name} | " + " | ".join(f"{column.get(name, 0.0):.1f}" for column in table.values()) + " |")
    return 0


if __name__ == "__main__":
    run_script(main)
