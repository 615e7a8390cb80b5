"""Copy a recording to a Minari dataset, for programs that read those. Minari is not among this project's requirements.

    pip install "minari[hdf5]==0.5.4"
    python -m generative.export_minari --data_dir recordings/mine --dataset_id unlock-pickup-v0

An episode's rows become its observations, and the other arrays its infos; seed, behaviour, split and mission are its
metadata. The dataset comes to MINARI_DATASETS_PATH, or to Minari's own folder (~/.minari/datasets).
"""

import re
from dataclasses import dataclass

from generative.recordings.format import open_recording
from generative.recordings.minari import export, import_minari
from mop.common.cli import parse, required
from mop.common.errors import run_script


def dataset_name(value: str) -> str:
    """A Minari id without a namespace. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+-v\d+", value):
        raise ValueError("must be letters, digits, - and _, with a version at the end, such as unlock-pickup-v0")
    return value


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an export."""

    data_dir: str = required("folder of a finished recording")
    dataset_id: str = required("name of the dataset, with its version: NAME-v0", parse=dataset_name)


def main() -> int:
    """Copy a recording, and print where it is."""
    settings = parse(Settings, __doc__)
    import_minari()
    recording = open_recording(settings.data_dir)
    print(f"{len(recording):,} episodes: {export(recording, settings.dataset_id)}")
    return 0


if __name__ == "__main__":
    run_script(main)
