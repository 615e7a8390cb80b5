"""One HTML file in which a policy runs: act in its world, change its routers, edit what it sees, ask why.

    python microscope.py --checkpoint results/zoo/BabyAI-KeyCorridorS3R3-v0/trial_30/seed_0/checkpoint_final.pt
    python microscope.py --checkpoint FILE --compare OTHER --out pair.html

The file holds the policy, the fixed worlds of an evaluation and the code of both: it opens by double click, needs no
server, asks nobody for anything, and can be sent to others. Without --out it lies in plots/<run>/microscope.html.
"""

import mop  # noqa: F401  first: it answers Ctrl-C while all else is imported

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mop.artifacts.run_paths import CACHE_DIR, PLOTS_DIR, RunKey
from mop.common.cli import parse, required, setting
from mop.common.errors import run_script
from mop.common.files import check_writable, write_atomic
from mop.evaluation.evaluate import load_for_evaluation
from mop.microscope.document import microscope_document


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The flags."""

    checkpoint: str = required("checkpoint_final.pt or checkpoint_<U>.pt", metavar="FILE")
    compare: str | None = setting(None, "a second policy, in the same worlds beside the first", metavar="FILE")
    task_id: str | None = setting(None, "BabyAI id (default: the checkpoint's, the first of several)")
    num_worlds: int = setting(200, "worlds in the file", low=1, high=1000)
    eval_seed: int = setting(0, "the first world", low=0, high=2**32 - 1)
    lang_encoder: str | None = setting(None, "where the recorded mission encoder lies on this machine")
    cache_dir: str = setting(CACHE_DIR, "where the bot's own results are kept")
    out: str | None = setting(None, "the file to write (default: plots/<run>/microscope.html)", metavar="FILE")


def main() -> int:
    """Write the file."""
    flags = parse(Settings, __doc__)
    path = Path(flags.out or RunKey.from_checkpoint(flags.checkpoint).artefacts(PLOTS_DIR) / "microscope.html")
    check_writable(path.parent, "--out")
    paths = [flags.checkpoint, *([flags.compare] if flags.compare else [])]
    checkpoints = [load_for_evaluation(path) for path in paths]
    with tqdm(total=flags.num_worlds * len(checkpoints), unit="world", leave=False, dynamic_ncols=True) as bar:
        page = microscope_document(
            checkpoints,
            flags.task_id,
            flags.num_worlds,
            flags.eval_seed,
            flags.cache_dir,
            flags.lang_encoder,
            bar.update,
        )
    write_atomic(path, lambda file: file.write(page.encode()))
    print(f"{path}: {len(page.encode()) / 1e6:.1f} MB, open it in a browser")
    return 0


if __name__ == "__main__":
    run_script(main)
