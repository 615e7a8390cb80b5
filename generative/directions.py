"""Find directions in the memory of a recorded policy, and what they tell of the world.

    python -m generative.directions --data_dir recordings/UnlockPickup
    python -m generative.directions --data_dir recordings/UnlockPickup --blocks router_0,expert_2_2 --num_seeds 10
    python -m generative.directions --data_dir recordings/UnlockPickup --behaviours argmax,sampled
    python -m generative.directions --data_dir recordings/coinrun

For each block of the memory (each router, each expert, all), on worlds of the training split: PCA, ICA, NMF and a small
sparse autoencoder. On worlds of the test split: how much of the variance they hold; how well logistic regression reads
door, hand, goal in view, phase and room off the block, and off the one direction that reads it best in the validation
worlds; in CoinRun: saw, enemy, lava or crate ahead, coin in view, on the ground. Stability: |cosine| of each direction
with its partner in a fit on other episodes, from another seed. For each property there is a direction `probe` besides,
from the mean memory of one class to that of another: "router_0.probe.goal in view", "memory.probe.saw ahead".

Writes directions.npz, which generative.intervene and direction:K take, methods.csv, probes.csv, directions.csv and two
figures. A run that was cut off goes on with the next block when it is given again. See docs/generative.md.
"""

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from generative.domains.registry import domain_of_recording
from generative.figures.direction_figures import plot_probes, plot_stability
from generative.recordings.format import BEHAVIOURS, SPLITS, Recording, open_recording
from generative.representations.decompositions import METHODS
from generative.representations.direction_sets import Directions, block_slices, write_directions
from generative.representations.direction_study import (
    PROBE,
    Rows,
    Study,
    direction_rows,
    join_parts,
    method_rows,
    probe_rows,
    read_part,
    read_rows,
    write_part,
)
from mop.common.configuration import Parser, check_flags, integer, shown
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, settle_folder, write_csv, write_figure
from mop.training.devices import choose_device

NAME = "directions.npz"


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.directions", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder of a recording (generative.record)")
    parser.add_argument("--out", help="folder of what is written (default: plots/directions/<the recording's name>)")
    parser.add_argument("--blocks", default="every", help="some of them, with commas (default: every block)")
    parser.add_argument("--behaviours", default="every", help="whose episodes, with commas (default: everybody's)")
    parser.add_argument("--num_components", default=16, help="directions of each method (default: %(default)s)")
    parser.add_argument("--num_seeds", default=5, help="further fits, for the stability (default: %(default)s)")
    parser.add_argument("--max_rows", default=20_000, help="steps of each split at most (default: %(default)s)")
    parser.add_argument("--seed", default=0, help="of every random choice (default: %(default)s)")
    return parser


def chosen(text: str, known: list[str], flag: str) -> list[str]:
    """Some of the known names, with commas between them, in their order, or "every". Raises InputError."""
    names = known if text == "every" else [name.strip() for name in text.split(",")]
    if not set(names) <= set(known) or len(set(names)) < len(names):
        raise InputError(f"{flag} must be some of {', '.join(known)} with commas between them, not {shown(text)}")
    return [name for name in known if name in names]


def study(blocks: dict[str, slice], rows: dict[str, Rows], settings: dict, out: Path) -> dict[str, dict]:
    """Study the blocks that have no part in `out` yet; all parts by block. Raises InputError."""
    of_study = Study(rows, *(settings[name] for name in ("num_components", "num_seeds", "seed")))
    missing = [block for block in settings["blocks"] if not part_path(out, block).exists()]
    with tqdm(total=len(missing) * of_study.num_pieces, unit="fit", dynamic_ncols=True) as bar:
        for block in missing:
            bar.set_description(block)
            write_part(part_path(out, block), of_study.block(block, blocks[block], bar.update))
    return {block: read_part(part_path(out, block)) for block in settings["blocks"]}


def blocks_of(recording: Recording) -> dict[str, slice]:
    """The blocks of the recorded memory, and their columns."""
    return block_slices({name: slice(*ends) for name, ends in recording.config["encoding"]["hidden_layout"].items()})


def rows_of(recording: Recording, settings: dict) -> dict[str, Rows]:
    """The steps of each split that the directions are found on, chosen and judged by."""
    some = {name: settings[name] for name in ("behaviours", "max_rows", "seed")}
    some["label"] = domain_of_recording(recording).labeller(recording.config["encoding"])
    return {split: read_rows(recording, split, **some) for split in SPLITS}


def part_path(out: Path, block: str) -> Path:
    """Where the findings of a block are kept."""
    return out / "parts" / f"{block}.npz"


def write_report(out: Path, parts: dict[str, dict], directions: Directions, title: str) -> str:
    """Write tables and figures; the text for the screen."""
    methods, probes = pd.DataFrame(method_rows(parts)), pd.DataFrame(probe_rows(parts, directions))
    tables = {"methods": methods, "probes": probes, "directions": pd.DataFrame(direction_rows(parts, directions))}
    for name, table in tables.items():
        write_csv(out / f"{name}.csv", table)
    write_figure(out / "stability.png", plot_stability(methods, title))
    texts = [screen_table(methods, METHOD_COLUMNS)]
    if len(probes):
        write_figure(out / "probes.png", plot_probes(probes, title))
        texts.append(screen_table(probes, PROBE_COLUMNS))
    return "\n\n".join(texts)


METHOD_COLUMNS = (
    *("block", "units", "method", "directions", "explained", "low", "high", "stability", "chance"),
    *("converged", "fits"),
)
PROBE_COLUMNS = (
    *("property", "block", "chance", "shuffled", "accuracy", "accuracy_low", "accuracy_high"),
    *("best", "best_accuracy", "best_accuracy_low", "best_accuracy_high", "selectivity"),
)


def screen_table(table: pd.DataFrame, columns: tuple[str, ...]) -> str:
    """Some columns of a table for the screen; an interval stands behind its value."""
    shown_columns = {}
    for name in columns:
        prefix, _, end = name.rpartition("_")
        if name in ("low", "high") or (end in ("low", "high") and prefix in columns):
            continue
        low, high = ("low", "high") if name == "explained" else (f"{name}_low", f"{name}_high")
        values = table[name]
        if low in columns:
            ends = zip(values, table[low], table[high], strict=True)
            shown_columns[name] = [f"{value:.3f} ({a:.3f} to {b:.3f})" for value, a, b in ends]
        else:
            shown_columns[name] = [f"{v:.3f}" for v in values] if values.dtype.kind == "f" else values
    return pd.DataFrame(shown_columns).to_string(index=False)


def main() -> int:
    """Find what is missing, tell."""
    args = parser().parse_args()
    check_flags(
        args,
        num_components=integer(1, 1024),
        num_seeds=integer(1, 100),
        max_rows=integer(100),
        seed=integer(0),
    )
    recording = open_recording(args.data_dir)
    out = Path(args.out or Path("plots/directions") / Path(args.data_dir).resolve().name)
    settings = {name: getattr(args, name) for name in ("num_components", "num_seeds", "max_rows", "seed")}
    settings["blocks"] = chosen(args.blocks, list(blocks_of(recording)), "--blocks")
    settings["behaviours"] = chosen(args.behaviours, list(BEHAVIOURS), "--behaviours")
    check_writable(out, "--out")
    choose_device("cpu")  # one thread
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {out}; choose another --out")
        record = {"recording": recording.config["checkpoint"], "of": recording.config["settings"]}
        settle_folder(out, {"settings": settings, "methods": [*METHODS, PROBE], **record})
        blocks, rows = blocks_of(recording), rows_of(recording, settings)
        parts = study(blocks, rows, settings, out)
        directions = join_parts(parts, blocks, rows["train"], recording.config["checkpoint"]["sha256"])
        write_directions(out / NAME, directions)
        print(write_report(out, parts, directions, f"{Path(args.data_dir).resolve().name}, worlds of the test split"))
    print(f"{len(directions)} directions: {out / NAME}; tables and figures: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
