"""Move a policy's memory along a direction in the real world, and see what it does otherwise.

    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --null router_0.pca.3
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --from 12 --to 40
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --clamp all.ica.2=1.5
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --add 7=-2 --num_random 100

K is the number of a direction or its name, in directions.csv. After each step of the policy:
    --from K --to K   what the step added along the first goes along the second
    --null K          the coordinate is that of the mean memory
    --clamp K=VALUE   the coordinate is VALUE, in standard deviations from its mean
    --add K=VALUE     VALUE standard deviations are added to the coordinate
The policy acts greedily in the same worlds without and with it, and with the same done along random directions of the
block, of the same length and the same spread. Told are paired differences with 95 % intervals over worlds, and how many
random directions change as much. The action of a step is chosen before the memory is moved.

Writes a table of episodes for each run, effects.csv, and effect.png. A run that was cut off goes on when it is given
again. See docs/generative.md.
"""

import hashlib
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from generative.direction_figures import plot_effects
from generative.direction_sets import Directions, load_directions
from generative.directions import check_same
from generative.effects import MAIN, effect_rows, random_effects
from generative.interventions import Move, Operation, play
from generative.policies import FrozenPolicy
from mop.base.configuration import MAX_ENVS, Parser, check_flags, integer, number, shown
from mop.base.errors import InputError, run_script
from mop.base.files import check_writable, claimed, read_bytes, write_atomic, write_figure
from mop.jobs.evaluation import NUM_ENVS
from mop.kernels.devices import use_device
from mop.worlds.bot_paths import BotPaths

LEAST_RANDOM = 20
PLAIN, MOVED = "plain", "moved"


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.intervene", description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="the policy that was recorded")
    parser.add_argument("--directions", required=True, help="directions.npz of generative.directions")
    parser.add_argument("--from", dest="source", metavar="K", help="with --to: direction that is moved to another")
    parser.add_argument("--to", metavar="K", help="with --from: the other one")
    parser.add_argument("--null", metavar="K", help="direction whose coordinate is removed")
    parser.add_argument("--clamp", metavar="K=VALUE", help="direction whose coordinate is held")
    parser.add_argument("--add", metavar="K=VALUE", help="direction along which the memory is pushed")
    parser.add_argument("--num_worlds", default=500, help="one episode each in every run (default: %(default)s)")
    parser.add_argument("--num_random", default=50, help=f"random directions, {LEAST_RANDOM} at least (default: 50)")
    parser.add_argument("--eval_seed", default=0, help="seed of the first world (default: %(default)s)")
    parser.add_argument("--seed", default=0, help="of the random directions (default: %(default)s)")
    parser.add_argument("--num_envs", default=NUM_ENVS, help="side by side: speed alone (default: %(default)s)")
    parser.add_argument("--out", help="folder of what is written (default: plots/intervene/<what is done>)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--cache_dir", default="evaluation_cache", help="where the bot's own results are kept")
    return parser


def operation_of(args, directions: Directions) -> Operation:
    """What the flags ask for. Raises InputError unless it is one thing, with directions that there are."""
    asked = [name for name in ("source", "null", "clamp", "add") if getattr(args, name) is not None]
    if len(asked) != 1 or (args.source is None) != (args.to is None):
        raise InputError("give one of --from K --to K, --null K, --clamp K=VALUE, --add K=VALUE (see --help)")
    kind, given = asked[0], getattr(args, asked[0])
    if kind == "source":
        return Operation("swap", directions.number(given), directions.number(args.to))
    if kind == "null":
        return Operation("null", directions.number(given))
    name, equals, value = given.rpartition("=")
    try:
        return Operation(kind, directions.number(name if equals else given), None, number(float("-inf"))(value))
    except ValueError:
        raise InputError(f"--{kind} must be K=VALUE such as 3=1.5, not {shown(given)}") from None


def load_matching(args) -> tuple[FrozenPolicy, dict, Directions, str]:
    """Policy, its config, directions, and the digest of the policy. Raises InputError where they do not fit."""
    directions = load_directions(args.directions)
    digest = hashlib.sha256(read_bytes(args.checkpoint)).hexdigest()
    if str(directions.checkpoint) != digest:
        raise InputError(f"{args.directions} was made of another policy than {args.checkpoint}; name the one it is of")
    return *FrozenPolicy.load(args.checkpoint, args.lang_encoder), directions, digest


def runs_of(operation: Operation, directions: Directions, num_random: int, seed: int) -> Iterator[tuple[str, Move]]:
    """The name of each run, and its move, None of the plain one."""
    yield PLAIN, None
    yield MOVED, operation.move(directions)
    for k in range(num_random):
        yield f"random_{k:03d}", operation.random_move(directions, seed, k)


def table_path(out: Path, run: str) -> Path:
    """Where the episodes of a run are."""
    return out / "episodes" / f"{run}.csv"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as a whole."""
    content = table.to_csv(index=False).encode()
    write_atomic(path, lambda file: file.write(content))


def play_missing(policy: FrozenPolicy, config: dict, runs, bot_steps: dict[int, int], out: Path, num_envs: int) -> None:
    """Play each run that has no table yet."""
    missing = [(name, move) for name, move in runs if not table_path(out, name).exists()]
    with tqdm(total=len(missing) * len(bot_steps), unit="episode", dynamic_ncols=True) as bar:
        for name, move in missing:
            bar.set_description(name)
            worlds = config["task_id"], config.get("max_steps"), list(bot_steps)
            table = pd.DataFrame(play(policy, *worlds, move, num_envs, bar.update))
            table.insert(3, "bot_steps", list(bot_steps.values()))
            write_table(table_path(out, name), table)


def report(out: Path, names: list[str], title: str) -> str:
    """Write the effects and their figure; the table for the screen."""
    read = partial(pd.read_csv, float_precision="round_trip")
    plain, moved, *randoms = (
        {column: values.to_numpy(float) for column, values in read(table_path(out, name)).items()} for name in names
    )
    rows = effect_rows(plain, moved, randoms)
    write_table(out / "effects.csv", pd.DataFrame(rows))
    main_rows = [row for row in rows if row["measure"] in MAIN]
    write_figure(out / "effect.png", plot_effects(main_rows, random_effects(plain, randoms), title))
    lines = [
        {
            "measure": row["measure"],
            **{name: f"{row[name]:.4g}" for name in ("plain", "moved")},
            "difference": f"{row['difference']:+.3g} ({row['low']:+.3g} to {row['high']:+.3g})",
            "random directions": f"{row['random_low']:+.3g} to {row['random_high']:+.3g}",
            "as strong": f"{row['stronger']} of {row['random']}",
            "p": f"{row['p']:.3f}",
        }
        for row in rows
        if row["measure"] in MAIN or row["measure"].startswith("weight") or max(row["plain"], row["moved"]) >= 0.01
    ]
    return pd.DataFrame(lines).to_string(index=False)


def main() -> int:
    """Check the flags, play what is missing, tell."""
    args = parser().parse_args()
    counts = {"num_worlds": integer(5, 10**6), "num_random": integer(LEAST_RANDOM, 10**4)}
    check_flags(args, **counts, eval_seed=integer(0, 2**32 - 1), seed=integer(0), num_envs=integer(1, MAX_ENVS))
    policy, config, directions, digest = load_matching(args)
    operation = operation_of(args, directions)
    title = operation.describe(directions)
    slug = re.sub(r"[^\w.+-]+", "_", title)
    out = Path(args.out or Path("plots/intervene") / Path(args.directions).resolve().parent.name / slug)
    check_writable(out, "--out")
    use_device("cpu")
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {out}; choose another --out")
        settings = {name: getattr(args, name) for name in ("num_worlds", "num_random", "eval_seed", "seed")}
        moved_by = hashlib.sha256(read_bytes(args.directions)).hexdigest()
        record = {"operation": operation._asdict(), "words": title, "settings": settings}
        check_same(out / "config.json", record | {"checkpoint": digest, "directions": moved_by})
        bot_paths = BotPaths(config["task_id"], config.get("max_steps"), args.cache_dir)
        bot_steps, _ = bot_paths.solvable(args.eval_seed, args.num_worlds)
        runs = list(runs_of(operation, directions, args.num_random, args.seed))
        play_missing(policy, config, runs, bot_steps, out, args.num_envs)
        where = f"{config['task_id']}, {args.num_worlds} worlds, {args.num_random} random directions"
        print(report(out, [name for name, _ in runs], f"{title}\n{where}"))
    print(f"{title}; table and figure: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
