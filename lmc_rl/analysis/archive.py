"""The compact archive of a finished experiment: what every figure and table needs, without weights.

It is the folder of the experiment without what is large: config.json, the log of the parent, the measures of each pair
of policies, and the table of measures. It is read like the experiment itself.
"""

from pathlib import Path

from lmc_rl.analysis.table import archive_measurements
from lmc_rl.config import CONFIG_NAME
from mop.common.files import write_atomic


def archive(results: Path, folder: Path, num_alphas: int) -> None:
    """Write the archive of an experiment, or of a comparison, to a folder; last its config.json, if there is one."""
    archive_measurements(results, folder, num_alphas)
    for pattern in ("training/parent/training_log.csv", "paths/*.json", CONFIG_NAME):
        for path in sorted(results.glob(pattern)):
            content = path.read_bytes()
            write_atomic(folder / path.relative_to(results), lambda file, content=content: file.write(content))
