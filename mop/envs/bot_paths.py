"""The bot's own path in each fixed world of a task: computed once, and kept in a file."""

import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from mop.artifacts.run_paths import bot_paths_file
from mop.common.errors import InputError
from mop.common.files import write_json
from mop.common.reading import read_json, reading
from mop.envs.babyai import MAX_FAILURES_IN_A_ROW, MINIGRID_VERSION, World, bot_steps, check_task_id, unteachable
from mop.envs.teacher import TeacherFailure

SAVE_INTERVAL_S = 5.0  # between writes of the bot's results while they are computed


class BotPaths:
    """The bot's result in each fixed world of a task and step limit: its steps, or the kind of its failure.

    Results are kept under `cache_dir`, so that the bot is asked once for many checkpoints.
    """

    def __init__(self, task_id: str, max_steps: int | None, cache_dir: str | Path | None):
        """cache_dir None: keep nothing."""
        check_task_id(task_id)
        self.task_id, self.max_steps = task_id, max_steps
        self._path = bot_paths_file(cache_dir, task_id, max_steps) if cache_dir is not None else None
        self._results = self._load()
        self._num_kept = len(self._results)
        self._world: World | None = None

    def ask(self, seed: int) -> int | str:
        """Steps of the bot's episode in world `seed`, or one of FAILURE_KINDS."""
        if seed not in self._results:
            if self._world is None:
                self._world = World(self.task_id, self.max_steps)
            try:
                self._results[seed] = bot_steps(self._world, seed)
            except TeacherFailure as failure:
                self._results[seed] = failure.kind
        return self._results[seed]

    def solvable(self, first_seed: int, count: int) -> tuple[dict[int, int], int]:
        """The first `count` worlds from `first_seed` on that the bot solves (seed -> its steps); how many it cannot."""
        solved, failures, in_a_row, seed, saved_at = {}, 0, [], first_seed, time.monotonic()
        with tqdm(total=count, desc="the bot's paths", unit="world", leave=False, delay=2, dynamic_ncols=True) as bar:
            while len(solved) < count:
                if seed >= 2**32:
                    raise InputError("the worlds run past seed 2**32, where training's begin; lower --eval_seed")
                result = self.ask(seed)
                if time.monotonic() - saved_at > SAVE_INTERVAL_S:
                    self.save()
                    saved_at = time.monotonic()
                if isinstance(result, int):
                    solved[seed] = result
                    in_a_row = []
                    bar.update()
                else:
                    failures += 1
                    in_a_row.append(result)
                    if len(in_a_row) == MAX_FAILURES_IN_A_ROW:
                        raise InputError(unteachable(self.task_id, in_a_row, self.max_steps))
                seed += 1
        self.save()
        return solved, failures

    def save(self) -> None:
        """Write what is new, together with what another process has written meanwhile."""
        if self._path is None or len(self._results) == self._num_kept:
            return
        self._results |= self._load()  # of two processes that write at once, the file of either is right
        head = {"task_id": self.task_id, "max_steps": self.max_steps, "minigrid_version": MINIGRID_VERSION}
        write_json(self._path, head | {"results": {str(seed): self._results[seed] for seed in sorted(self._results)}})
        self._num_kept = len(self._results)

    def _load(self) -> dict[int, int | str]:
        """What is in the file; nothing if there is none, it is broken, or it is of another version of Minigrid.

        A broken file is no error, as everything in it can be computed again.
        """
        if self._path is None:
            return {}
        with suppress(InputError), reading(self._path):
            content = read_json(self._path)
            if content["minigrid_version"] != MINIGRID_VERSION:
                return {}
            results = {int(seed): result for seed, result in content["results"].items()}
            is_whole = all(type(result) is str or (type(result) is int and result > 0) for result in results.values())
            return results if is_whole else {}
        return {}
