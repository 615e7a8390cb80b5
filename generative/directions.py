"""Find directions in the hidden state of a recorded policy, and what can be read from them.

    python -m generative.directions --data_dir recordings/UnlockPickup
    python -m generative.directions --data_dir recordings/UnlockPickup --blocks router_0,expert_2_2 --num_seeds 10
    python -m generative.directions --data_dir recordings/UnlockPickup --behaviours argmax,sampled
    python -m generative.directions --data_dir recordings/coinrun

Methods, properties and what is reported: docs/generative.md, docs/coinrun.md. Writes directions.npz, which
generative.intervene and direction:K take, methods.csv, probes.csv, directions.csv and two figures. An interrupted run
continues with the next block when the command is given again.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from generative.domains.registry import domain_of_recording
from generative.figures.representations import plot_probes, plot_stability
from generative.recordings.format import BEHAVIOURS, SPLITS, open_recording
from generative.representations.decompositions import METHODS
from generative.representations.storage import Directions, block_slices
from generative.representations.study import PROBE, Part, StudySettings, join_parts, read_rows, study_blocks
from generative.representations.tables import (
    METHOD_COLUMNS,
    PROBE_COLUMNS,
    direction_rows,
    method_rows,
    probe_rows,
    screen_table,
)
from mop.artifacts.records import write_record
from mop.common.cli import parse, required, setting, some_of
from mop.common.errors import run_script
from mop.common.files import open_output_dir, write_csv, write_figure
from mop.training.devices import choose_device

NAME = "directions.npz"


@dataclass(frozen=True, kw_only=True)
class Settings(StudySettings):
    """The flags."""

    data_dir: str = required("folder of a recording (generative.record)")
    out: str = setting("", "output folder (default: plots/directions/<the recording's name>)")
    blocks: tuple[str, ...] | None = setting(None, "some of them, with commas (default: every block)", commas=True)
    behaviours: tuple[str, ...] | None = setting(None, "whose episodes, with commas (default: all)", commas=True)
    max_rows: int = setting(20_000, "steps of each split at most", low=100)


def write_report(out: Path, parts: dict[str, Part], directions: Directions, title: str) -> str:
    """Write tables and figures; the text for the screen."""
    methods, probes = pd.DataFrame(method_rows(parts)), pd.DataFrame(probe_rows(parts, directions))
    write_csv(out / "methods.csv", methods)
    write_csv(out / "probes.csv", probes)
    write_csv(out / "directions.csv", pd.DataFrame(direction_rows(parts, directions)))
    write_figure(out / "stability.png", plot_stability(methods, title))
    texts = [screen_table(methods, METHOD_COLUMNS)]
    if len(probes):
        write_figure(out / "probes.png", plot_probes(probes, title))
        texts.append(screen_table(probes, PROBE_COLUMNS))
    return "\n\n".join(texts)


def main() -> int:
    """Study the blocks that are missing, join them, and report."""
    settings = parse(Settings, __doc__)
    recording = open_recording(settings.data_dir)
    name = Path(settings.data_dir).resolve().name
    out = Path(settings.out or Path("plots/directions") / name)
    layout = recording.config["encoding"]["hidden_layout"]
    blocks = block_slices({name: slice(*ends) for name, ends in layout.items()})
    chosen = {
        **{name: getattr(settings, name) for name in ("num_components", "num_seeds", "max_rows", "seed")},
        "blocks": some_of(settings.blocks, blocks, "--blocks"),
        "behaviours": some_of(settings.behaviours, BEHAVIOURS, "--behaviours"),
    }
    choose_device("cpu")  # one thread
    record = {"recording": recording.config["checkpoint"], "of": recording.config["settings"]}
    with open_output_dir(out, {"settings": chosen, "methods": [*METHODS, PROBE], **record}):
        label = domain_of_recording(recording).labeller(recording.config["encoding"])
        rows = {
            split: read_rows(recording, split, chosen["behaviours"], settings.max_rows, settings.seed, label)
            for split in SPLITS
        }
        parts = study_blocks(rows, {name: blocks[name] for name in chosen["blocks"]}, settings, out / "parts")
        directions = join_parts(parts, blocks, rows["train"], recording.config["checkpoint"]["sha256"])
        write_record(out / NAME, directions)
        print(write_report(out, parts, directions, f"{name}, worlds of the test split"))
    print(f"{len(directions)} directions: {out / NAME}; tables and figures: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
