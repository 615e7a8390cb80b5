"""Give every command random flags with hostile values: each is refused in one line, or does what it does.

    python tests/hostile/flags.py                                    320 cases: ten minutes
    python tests/hostile/flags.py --cases 60 --seed 7 --kinds train_mop.py,generative.record

Numbers out of any range, texts of thousands of letters, paths that cannot be, characters of control, other languages'
digits; flags twice, without a value, of nobody. A case has a minute and six gigabytes. Exit code 1 where one failed.
"""

import contextlib
import io
import os
import random
import resource
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from cases import Case, run_hostile
from scripts import REPOSITORY, TINY_FLAGS, TINY_TASK

from mop.common.errors import run_script

LIMIT_S = 60
LIMIT_BYTES = 6 * 2**30
FULL_COUNT = 320
CHECKPOINT = f"checkpoints/{TINY_TASK}/trial_0/checkpoint_final.pt"  # of a policy of three updates
_NOWHERE = "--device nowhere"  # what would be trained for long ends where its flags have been read
_GENERATIVE = (
    *("directions", "evaluate_agent", "export_minari", "fidelity", "hazards", "intervene", "plot_training_csv"),
    *("render", "saliency", "train_gen_model", "validate", "visualise"),
)
COMMANDS = {  # how it is named -> the flags that every case has
    "train_mop.py": f"--trial 1 --overwrite {' '.join(TINY_FLAGS)} --num_updates 2",
    "train.py": f"--trial 2 --overwrite {' '.join(TINY_FLAGS)} --num_updates 2",
    "eval_mop.py": f"--checkpoint {CHECKPOINT} --num_episodes 2 --max_steps 8",
    "batch_eval.py": "--num_episodes 2 --max_steps 8 --device cpu --trial 0",
    "intervene.py": f"--checkpoint {CHECKPOINT} --num_episodes 2",
    **dict.fromkeys(("gallery.py", "seed_statistics.py", "lmc_viz.py", "simulator_viz.py"), ""),
    **dict.fromkeys(("routing_viz.py", "logit_viz.py", "cross_task_viz.py"), ""),
    **dict.fromkeys(("lmc_rl.run_env", "lmc_rl.run_mop", "lmc_rl.check_run", "generative.train_agent"), _NOWHERE),
    **dict.fromkeys(("lmc_rl.analyze", "lmc_rl.compare"), ""),
    "generative.record": f"--checkpoint {CHECKPOINT} --num_steps 20 --num_envs 2 --max_steps 8",
    **dict.fromkeys((f"generative.{name}" for name in _GENERATIVE), ""),
}
HOSTILE = (
    *("", " ", "-", "--", "-1", "0", "1.5", "010", "nan", "inf", "-inf", "1e400", "2147483648", "18446744073709551616"),
    *("9" * 5000, "x" * 5000, "x " * 20_000, "٣", "Ⅷ", "é", "🙂", "null", "true", "maybe"),
    *("[]", "{}", "[[]]", "[[0, -1]]", "[" * 500, "0,16;;", ",", "a,a", "1,0.5", "0.5,nan", "%s", "{0}", "a$^$b"),
    *(".", "..", "../../x", "/", "/dev/null", "/dev/null/x", "/nowhere/x", "con", ".hidden", "~", "x.pt", "x/y.yaml"),
    *("a\nb", "a\x1b[31mb", "\udc80", "lesion<" + " " * 40_000 + "x", "!!python/object:os.system", "javascript:x"),
)


@dataclass
class Command:
    """A case: a command with one or two flags of its own whose values are drawn from HOSTILE."""

    name: str
    folder: Path  # in which it runs
    always: list[str] = field(default_factory=list)

    @cached_property
    def flags(self) -> list[str]:
        """The flags that its help shows."""
        code, told = self.run(["--help"])
        assert code == 0, told
        found = {word for line in told.splitlines() for word in line.split()[:1] if word.startswith("--")}
        return sorted(word.rstrip(",") for word in found)

    def __call__(self, rng: random.Random) -> str:
        """Return "refused", "done" or "some failed"."""
        words = list(self.always)
        for _ in range(rng.choice((1, 1, 1, 2))):
            flag, value = rng.choice((*self.flags, "--nobody")), rng.choice(HOSTILE)
            words += rng.choice(([flag, value], [flag, value], [f"{flag}={value}"], [flag], [value]))
        code, told = self.run(words)
        shown = f"{[word[:80] for word in words[len(self.always) :]]}: code {code}\n{told[-3000:]}"
        assert "Traceback" not in told and code in (0, 1, 2), shown
        lines = [line.rpartition("\r")[2] for line in told.splitlines()]
        errors = [line for line in lines if line.startswith("error: ")]
        assert max(map(len, errors), default=0) < 1000, shown
        assert code != 2 or (len(errors) == 1 and lines[-1] == errors[0]), shown
        return {0: "done", 1: "some failed", 2: "refused"}[code]

    def run(self, words: list[str]) -> tuple[int, str]:
        """Run it in a child of this process; its exit code and all that it wrote."""
        path = self.folder / ".told"
        child = os.fork()
        if child == 0:
            with open(path, "wb") as told:
                os.dup2(told.fileno(), 1)
                os.dup2(told.fileno(), 2)
            os._exit(self._begin(words))
        code, told = _wait(child), path.read_text(errors="replace")
        return code, told

    def _begin(self, words: list[str]) -> int:
        """Run it in this process, which it may spoil; its exit code."""
        os.setsid()
        os.chdir(self.folder)
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", 0), errors="replace", write_through=True) for n in (1, 2)
        )
        sys.argv = [self.name, *words]
        try:
            if self.name.endswith(".py"):
                runpy.run_path(str(REPOSITORY / self.name), run_name="__main__")
            else:
                runpy.run_module(self.name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            return 1
        return 0


def _wait(child: int) -> int:
    """Wait for a child; its exit code, a signal's as a negative number. After LIMIT_S it is ended with its children."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError(f"it went on for more than {LIMIT_S} s")
        time.sleep(0.01)


@contextmanager
def commands(names: Collection[str] | None = None) -> Iterator[dict[str, Case]]:
    """A case for each command, or for those of some names, in a folder with a tiny policy."""
    import mop.evaluation.batch
    import mop.training.train  # noqa: F401, children have what takes long to load

    with tempfile.TemporaryDirectory() as folder:
        made, told = Command("train_mop.py", Path(folder)).run([*TINY_FLAGS, "--trial", "0"])
        assert made == 0, told
        yield {
            name: Command(name, Path(folder), words.split())
            for name, words in COMMANDS.items()
            if name in (names or COMMANDS)
        }


if __name__ == "__main__":
    run_script(partial(run_hostile, __doc__, COMMANDS, commands, FULL_COUNT))
