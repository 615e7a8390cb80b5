"""Copy a recording to a Minari dataset, for programs that read those. Minari is not among this project's requirements.

    pip install "minari[hdf5]==0.5.4"
    python -m generative.export_minari --data_dir recordings/mine --dataset_id unlock-pickup-v0

An episode's rows become its observations, and the other arrays its infos; seed, behaviour, split and mission are its
metadata. The dataset comes to MINARI_DATASETS_PATH, or to Minari's own folder (~/.minari/datasets).
"""

import re

from generative.recordings.format import open_recording
from generative.recordings.minari import export, import_minari
from mop.common.configuration import Parser, check_flags
from mop.common.errors import run_script


def dataset_name(value: str) -> str:
    """A Minari id without a namespace. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+-v\d+", value):
        raise ValueError("must be letters, digits, - and _, with a version at the end, such as unlock-pickup-v0")
    return value


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.export_minari", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder of a finished recording")
    parser.add_argument("--dataset_id", required=True, help="name of the dataset, with its version: NAME-v0")
    return parser


def main() -> int:
    """Check the flags, copy, tell."""
    args = parser().parse_args()
    check_flags(args, dataset_id=dataset_name)
    import_minari()
    recording = open_recording(args.data_dir)
    print(f"{len(recording):,} episodes: {export(recording, args.dataset_id)}")
    return 0


if __name__ == "__main__":
    run_script(main)
