"""Worlds that excite a quantity of a policy: levels optimised through policy and world, then played for real.

    python -m generative.visualise --checkpoint results/zoo/BabyAI-UnlockPickup-v0/trial_0/seed_0/checkpoint_final.pt
    python -m generative.visualise --checkpoint ... --maximise routing:2.2 --num_steps 6 --read last
    python -m generative.visualise --checkpoint ... --maximise action:toggle --prior 0.005 --films gif
    python -m generative.visualise --checkpoint ... --maximise lpc --simulator simulators/unlock_pickup
{targets}

Each level begins as a world of the task. What is in its cells and where the agent stands are distributions, whose
logits Adam moves so that the policy, acting in the simulator from there on, has more of the quantity at steps 0 to
num_steps - 1; generative/synthesis/search.py says what is maximised, generative/synthesis/levels.py what a level is.
Then the round
trip: the level is built as a real world and the policy plays it; what is achieved is reported beside what was
predicted, and as a percentile of random levels of the task. Survivors, levels that are legal and above
--min_percentile, are shown; how many are not is told. Two controls: the same search without gradients, and an
untrained policy in the levels that were found, among its own random levels.

Writes config.json, summary.json, levels.csv, levels.npz, search.png and, of each survivor, level_<n>.png (and a film)
to --out. Same flags, same bytes.
"""

import functools
import io
import re
import textwrap
from argparse import Namespace
from pathlib import Path

import numpy as np
import orjson
import torch

from generative.attribution.closed_loop import untrained
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.render import episode_film, outcome_of
from generative.domains.babyai.targets import TARGETS_HELP, parse_target
from generative.domains.registry import load_simulator
from generative.figures.film import WRITERS, draw_still, film_bytes
from generative.figures.level_figures import plot_search
from generative.representations.direction_sets import open_directions
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from generative.simulators.exact import ExactSimulator
from generative.simulators.world_model import WorldModel
from generative.synthesis.search import READINGS, Begin, Search
from generative.synthesis.study import Study, run_study
from generative.synthesis.transfer import Reader
from mop.common.configuration import Parser, check_flags, choice, integer, number, optional
from mop.common.errors import InputError, run_script
from mop.common.files import (
    check_writable,
    claimed,
    file_digest,
    settle_folder,
    whole_digest,
    write_atomic,
    write_csv,
    write_figure,
    write_json,
)
from mop.common.task_mix import task_name
from mop.envs.babyai import NUM_ACTIONS, World
from mop.plotting.film import find_encoder
from mop.plotting.style import counted

_BUDGET = {
    "num_restarts": ("16", "levels that are optimised at once"),
    "num_random": ("10000", "levels as they come, to compare with"),
    "min_percentile": ("95", "of these, that a survivor is above"),
}
_SEARCH = {
    "num_steps": "steps over which the quantity is read",
    "read": f"{' or '.join(READINGS)} of these steps",
    "iterations": "of the search",
    "lr": "learning rate of Adam on the logits",
    "prior": "what a nat of a level's log probability weighs, in standard deviations of the quantity",
    "mission": "what a thing weighs that the mission speaks of and is missing",
    "diversity": "what it weighs that levels are alike",
    "sureness": "the probability of what is in the world that a level begins as",
    "seed": "of worlds, search and controls",
}


# --- what is written --------------------------------------------------------------------------------------------------


def write_study(study: Study, out: Path, quantity: str, title: str, sizes, film_format: str | None) -> None:
    """Write table, arrays, figure and pictures."""
    table = study.table()
    write_csv(out / "levels.csv", table, "%.6g")
    arrays = {
        "codes": np.stack([level.codes for level in study.found.levels]),  # (N, H, W)
        "position": np.array([level.position for level in study.found.levels]),  # (N, 2)
        "direction": np.array([level.direction for level in study.found.levels]),
        "world_seed": np.array([level.seed for level in study.found.levels]),
        "predicted": study.found.predicted,
        "achieved": np.array([trip.achieved[0] for trip in study.trips]),
        "survives": study.survives,
        "curve": study.found.curve,  # (I, N)
        "curve_without_gradients": study.without_gradients.curve,
        "random_values": study.random.values[0],  # (M,)
    }
    write_atomic(out / "levels.npz", lambda file: np.savez_compressed(file, **arrays))
    curves = (study.found.curve, study.without_gradients.curve)
    figure = plot_search(*curves, arrays["random_values"], arrays["achieved"], study.survives, quantity)
    write_figure(out / "search.png", figure)
    write_json(out / "summary.json", {"quantity": quantity, **study.numbers()}, orjson.OPT_INDENT_2)
    for old in (path for ending in ("png", *WRITERS) for path in out.glob(f"level_*.{ending}")):
        old.unlink()
    for row in table[table.survives].itertuples():
        _write_level(study, row, out, quantity, title, sizes, film_format)


def _write_level(study: Study, row, out: Path, quantity: str, title: str, sizes, film_format: str | None) -> None:
    """The picture of a survivor, with its numbers, and its film."""
    rows = study.trips[row.level].rows
    bot = f"the bot needs {counted(row.bot, 'step')}" if isinstance(row.bot, int) else f"the bot fails ({row.bot})"
    lines = [
        f"{title}, level {row.level}: mission {row.mission}",
        f"{quantity}: {row.predicted:.4g} predicted, {row.achieved:.4g} achieved, more than {row.percentile:.4g} % of "
        f"random levels ({row.before:.4g} in the world that it began as); {bot}",
    ]
    film = episode_film(rows, lines, sizes, outcome_of(rows))
    draw_still(film, (0, study.search.num_steps)).save(content := io.BytesIO(), "PNG")
    write_atomic(out / f"level_{row.level}.png", lambda file: file.write(content.getvalue()))
    if film_format is not None:
        content = film_bytes(film, film_format)
        write_atomic(out / f"level_{row.level}.{film_format}", lambda file: file.write(content))


def summary(study: Study, quantity: str) -> str:
    """The result in lines, for the screen."""
    table, found = study.table(), study.numbers()
    lines = [
        table.drop(columns="world_seed").to_string(index=False, float_format="{:.4g}".format),
        "",
        "{quantity} of {num_random:,} random levels: mean {random_mean:.4g}, sd {random_sd:.3g}, 95 % are below "
        "{random_95:.4g}, all below or at {random_max:.4g}",
        "found: mean {achieved:.4g} achieved, {predicted:.4g} predicted (difference of {gap_median:.2g} in the median, "
        "{gap_max:.2g} at most), {before:.4g} before",
        "the same search without gradients: {without_gradients:.4g} predicted; gradients add {gain:.3g}"
        + (" ± {gain_half:.2g} (95 %, over levels)" if len(table) > 1 else ""),
    ]
    if "untrained_percentile" in table:
        lines.append(
            "an untrained policy in these levels: percentile {untrained_percentile:.3g} in the mean, "
            "{untrained_survive} of {num_levels} at {min_percentile:g} or above"
        )
    lines.append(
        "{survive} of {num_levels} survive (the bot cannot solve {unsolved} of these); of the others {illegal} are not "
        "legal, and {low} below percentile {min_percentile:g}"
    )
    if "seen" in found:
        shares = (f"{name} {share:.0%} ({of_random:.0%})" for name, (share, of_random) in found["seen"].items())
        lines.append(f"what the agent sees at first, of survivors (of random levels): {', '.join(shares)}")
    return "\n".join(lines[:2] + [line.format(quantity=quantity, **found) for line in lines[2:]])


# --- the command ------------------------------------------------------------------------------------------------------


def parser() -> Parser:
    """The command line."""
    targets = textwrap.fill(f"Targets: {TARGETS_HELP}.", 120)
    parser = Parser(prog="python -m generative.visualise", description=__doc__.format(targets=targets))
    add = parser.add_argument
    add("--checkpoint", "--model_file", required=True, metavar="FILE", help="the policy")
    add("--maximise", default="lpc", metavar="TARGET", help="the quantity (default: %(default)s)")
    add("--directions", metavar="FILE", help="file of directions, for direction:K")
    add("--task_id", metavar="TASK", help="the task of the levels (default: the one that the policy was trained on)")
    add("--simulator", default=EXACT, metavar="exact|DIR", help="through which it is optimised (default: %(default)s)")
    add("--min_fidelity", default=str(MIN_FIDELITY), help="of a learned simulator (default: %(default)s; 0: any)")
    for name, (default, meaning) in _BUDGET.items():
        add(f"--{name}", default=default, metavar="N", help=f"{meaning} (default: %(default)s)")
    for name, meaning in _SEARCH.items():
        add(f"--{name}", default=str(getattr(Search(), name)), metavar="X", help=f"{meaning} (default: %(default)s)")
    add("--films", metavar="gif|mp4", help="also a film of each survivor")
    add("--lang_encoder", metavar="FOLDER", help="where the checkpoint's mission encoder lies on this machine")
    add("--out", metavar="DIR", help="folder of what is written (default: plots/visualise/<task>/<target>)")
    return parser


_RUNTIME = ("out", "films", "lang_encoder", "checkpoint", "directions")


def checked(args: Namespace) -> Namespace:
    """The flags, parsed. Raises InputError."""
    check_flags(
        args,
        min_fidelity=number(0, high=1), num_restarts=integer(1, 1024), num_random=integer(20, 10**6),
        min_percentile=number(0, high=100), num_steps=integer(1, 100), read=choice(*READINGS),
        iterations=integer(1, 10**6), lr=number(0), prior=number(0), mission=number(0), diversity=number(0),
        sureness=number(0.05, high=0.999), seed=integer(0), films=optional(choice(*WRITERS)),
    )  # fmt: skip
    if args.films == "mp4":
        find_encoder()
    return args


def open_simulator(args: Namespace, task_id: str, grid_shape: tuple[int, int]):
    """The simulator of the flags, how levels begin in it, and a line that says how true it is. Raises InputError."""
    exact = ExactSimulator(grid_shape)
    agent = whole_digest(args.checkpoint)
    line = check_fidelity(args.simulator, max(1, args.num_steps - 1), args.min_fidelity, agent)
    if args.simulator == EXACT:
        return exact, lambda lang: lambda state: (state, None), line
    model, config = load_simulator(args.simulator)
    if config["task_id"] != task_id:
        raise InputError(f"--simulator {args.simulator} is of {config['task_id']}, not of {task_id}")

    return model, functools.partial(begin_learned, model, exact), line


def begin_learned(model: WorldModel, exact: ExactSimulator, lang: torch.Tensor) -> Begin:
    """How levels begin in a learned simulator: it is shown what the agent sees of them at first, and no more."""

    def begin(state):
        views = exact.view(state)
        return model.observe(views[:, None], views.new_zeros(len(views), 0, NUM_ACTIONS), lang), views

    return begin


def main() -> int:
    """Search, travel, tell."""
    args = checked(parser().parse_args())
    policy, config = FrozenPolicy.load(args.checkpoint, args.lang_encoder)
    task_id, max_steps = args.task_id or config["task_id"], config.get("max_steps")
    directions = open_directions(args.directions, whole_digest(args.checkpoint), args.checkpoint)
    search = Search(**{name: getattr(args, name) for name in _SEARCH})
    readers = [
        Reader(of, parse_target(args.maximise, of, directions), args.num_steps, args.read)
        for of in (policy, untrained(policy, config, args.seed))
    ]
    world = World(task_id, max_steps)
    simulator, make_begin, line = open_simulator(args, task_id, (world.env.height, world.env.width))
    quantity = readers[0].target.name
    folder = re.sub(r"[^\w.-]+", "_", quantity)
    out = Path(args.out or Path("plots") / "visualise" / task_name(task_id) / folder)
    check_writable(out, "--out")
    record = {name: value for name, value in vars(args).items() if name not in _RUNTIME}
    if args.directions is not None:
        record["directions"] = whole_digest(args.directions)
    record |= {"task_id": task_id, "checkpoint": file_digest(args.checkpoint)}
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works in {out}; choose another --out")
        settle_folder(out, record)
        study = run_study(
            lambda: World(task_id, max_steps), readers, simulator, make_begin, search, args.num_restarts,
            args.num_random, args.min_percentile,
        )  # fmt: skip
        write_study(study, out, quantity, task_name(task_id), policy.policy.expert_hidden_sizes, args.films)
    print(f"{line}\n{summary(study, quantity)}\ntable, arrays and pictures: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
