"""What is kept of a finished experiment once its weights and rows are gone: enough for every figure and table.

It is the folder of the experiment without what is large: config.json, the log of the parent, the measures of each path,
and the rows. Those of reinforcement learning are compressed (episodes.jsonl.gz), those of imitation runs packed
(lines.npz, `line_records`). `load_experiment` and `load_line_experiment` read it like any other.
"""

from pathlib import Path

from lmc_rl.imitation_settings import load_settings as load_imitation_settings
from lmc_rl.line_records import PACKED_NAME, read_records, write_packed
from lmc_rl.records import CONFIG_NAME, ROWS_NAME, pack_rows
from mop.common.files import write_atomic


def keep(results: Path, folder: Path) -> None:
    """Write what is kept of a finished experiment to a folder; last its config.json, which vouches for the rest.

    Raises InputError where its rows are damaged.
    """
    settings = load_imitation_settings(results)
    if settings is None:
        pack_rows(results / ROWS_NAME, folder / f"{ROWS_NAME}.gz")
    else:
        keep_lines(results, folder, settings["alpha_points"])
    _copy(results, folder, "training/parent/training_log.csv", "paths/*.json", CONFIG_NAME)


def keep_lines(results: Path, folder: Path, num_places: int) -> None:
    """Write what is kept of the lines between imitation runs, of an experiment or of `lmc_rl.compare`."""
    write_packed(folder / PACKED_NAME, read_records(results, num_places))
    _copy(results, folder, "paths/*.json")


def _copy(results: Path, folder: Path, *patterns: str) -> None:
    for path in [path for pattern in patterns for path in sorted(results.glob(pattern))]:
        content = path.read_bytes()
        write_atomic(folder / path.relative_to(results), lambda file, content=content: file.write(content))
