"""Move the memory of a policy or of a game's agent along a direction in the real world, and see what it does otherwise.

    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --null router_0.pca.3
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --from 12 --to 40
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --clamp all.ica.2=1.5
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --add 7=-2 --num_random 100
    python -m generative.intervene --checkpoint model_<t>.pt --directions DIR/directions.npz --add "probe.saw ahead=2"
    python -m generative.intervene --checkpoint model_<t>.pt --directions DIR/directions.npz --num_worlds 200 \
        --from "probe.saw ahead" --to "probe.crate ahead"

K is the number of a direction, its name, in directions.csv, or the end of its name. After each step of the policy:
    --from K --to K   what the step added along the first goes along the second
    --null K          the coordinate is that of the mean memory
    --clamp K=VALUE   the coordinate is VALUE, in standard deviations from its mean
    --add K=VALUE     VALUE standard deviations are added to the coordinate
The policy acts greedily in the same worlds without and with it, and with its memory moved by the same amounts, step by
step, along random directions of the block. Told are paired differences with 95 % intervals over worlds, and how many
random directions change as much. The action of a step is chosen before the memory is moved. An agent of CoinRun plays
levels that no training with a bounded number of levels draws; told are jumps, where they are, and how episodes end.

Writes a table of episodes for each run, effects.csv, and effect.png. A run that was cut off goes on when it is given
again. See docs/generative.md.
"""

import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from generative.domains.registry import domain_of_checkpoint
from generative.figures.direction_figures import plot_effects
from generative.representations.direction_sets import Directions, open_directions
from generative.representations.effects import effect_rows, random_effects
from generative.representations.steering import Arena, Move, Operation, Replay
from mop.common.configuration import MAX_ENVS, Parser, check_flags, choice, integer, number, optional, shown
from mop.common.errors import InputError, run_script
from mop.common.files import (
    check_writable,
    claimed,
    settle_folder,
    whole_digest,
    write_csv,
    write_figure,
    write_together,
)
from mop.evaluation.evaluate import NUM_ENVS
from mop.training.devices import use_device

LEAST_RANDOM = 20
MOST_SD = 100.0  # standard deviations that a coordinate may be sent from its mean
PLAIN, MOVED = "plain", "moved"
OF_GAMES = ("policy", "max_steps")  # flags


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.intervene", description=__doc__)
    parser.add_argument(
        "--checkpoint", "--model_file", required=True, metavar="FILE", help="the policy or agent that was recorded"
    )
    parser.add_argument("--directions", required=True, help="directions.npz of generative.directions")
    parser.add_argument("--from", dest="source", metavar="K", help="with --to: direction that is moved to another")
    parser.add_argument("--to", metavar="K", help="with --from: the other one")
    parser.add_argument("--null", metavar="K", help="direction whose coordinate is removed")
    parser.add_argument("--clamp", metavar="K=VALUE", help="direction whose coordinate is held")
    parser.add_argument("--add", metavar="K=VALUE", help="direction along which the memory is pushed")
    parser.add_argument("--num_worlds", default=500, help="one episode each in every run (default: %(default)s)")
    parser.add_argument("--num_random", default=50, help=f"random directions, {LEAST_RANDOM} at least (default: 50)")
    parser.add_argument(
        "--eval_seed", default=0, help="seed of the first world; of levels, counted from 2^30 (default: 0)"
    )
    parser.add_argument("--seed", default=0, help="of random directions, and of sampled actions (default: 0)")
    parser.add_argument("--num_envs", default=NUM_ENVS, help="side by side: speed and rounding (default: %(default)s)")
    parser.add_argument("--out", help="folder of what is written (default: plots/intervene/<what is done>)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--cache_dir", default="evaluation_cache", help="where the bot's own results are kept")
    of_game = parser.add_argument_group("of agents of games")
    of_game.add_argument("--policy", metavar="argmax|sampled", help="how it acts (default: argmax)")
    of_game.add_argument("--max_steps", metavar="N", help="actions until an episode is cut short (default: 1000)")
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
    name, _, value = given.rpartition("=")
    try:
        if not name:
            raise ValueError
        return Operation(kind, directions.number(name), None, number(-MOST_SD, high=MOST_SD)(value))
    except ValueError:
        raise InputError(
            f"--{kind} must be K=VALUE such as 3=1.5, from {-MOST_SD:g} to {MOST_SD:g}, not {shown(given)}"
        ) from None


def open_arena(args: Namespace) -> Arena:
    """Open the worlds of a policy."""
    domain = domain_of_checkpoint(args.checkpoint)
    given = {name: getattr(args, name) for name in OF_GAMES if getattr(args, name) is not None}
    foreign = next((name for name in given if name not in domain.arena_flags), None)
    if foreign is not None:
        raise InputError(f"--{foreign}: {args.checkpoint} is a policy of {domain.title}; leave it out")
    policy, config = domain.load_policy(args.checkpoint, args.lang_encoder)
    return domain.open_arena(
        policy, config, num_worlds=args.num_worlds, first_seed=args.eval_seed, num_envs=args.num_envs,
        cache_dir=args.cache_dir, seed=args.seed, **given,
    )  # fmt: skip


class Runs:
    """The runs of an intervention, a table of episodes for each: without it, with it, along random directions."""

    def __init__(self, arena: Arena, out: Path):
        self._arena, self.folder = arena, out / "episodes"

    def play_missing(self, operation: Operation, directions: Directions, num_random: int, seed: int) -> None:
        """Play each run that has no table yet; those along random directions after the one that they copy."""
        names = [PLAIN, MOVED, *(random_name(k) for k in range(num_random))]
        missing = [name for name in names if not self._path(name).exists()]
        with tqdm(total=len(missing) * self._arena.num_worlds, unit="episode", dynamic_ncols=True) as bar:
            for name, move in {PLAIN: None, MOVED: operation.move(directions)}.items():
                if name in missing:
                    self._play(name, move, bar)
            replay = Replay(np.load(self._amounts, allow_pickle=False), self.read(MOVED)["steps"].astype(np.int64))
            for k in range(num_random):
                if random_name(k) in missing:
                    self._play(random_name(k), operation.random_move(directions, replay, seed, k), bar)

    def read(self, name: str) -> dict[str, np.ndarray]:
        """The table of a run, name -> (W,) float64."""
        table = pd.read_csv(self._path(name))
        return {column: table[column].to_numpy(np.float64) for column in table}

    @property
    def _amounts(self) -> Path:
        return self.folder / f"{MOVED}_amounts.npy"

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.csv"

    def _play(self, name: str, move: Move | None, bar: tqdm) -> None:
        bar.set_description(name)
        played = self._arena.play(move, bar.update)
        content = pd.DataFrame(played.table).to_csv(index=False).encode()
        files = [(self._path(name), lambda file: file.write(content))]  # the last vouches for the others
        if name == MOVED:
            files.insert(0, (self._amounts, lambda file: np.save(file, played.amounts, allow_pickle=False)))
        write_together(files)


def random_name(number: int) -> str:
    """The name of the run along a random direction."""
    return f"random_{number:03d}"


def report(runs: Runs, arena: Arena, num_random: int, out: Path, title: str) -> str:
    """Write the effects and their figure; the table for the screen."""
    plain, moved, randoms = runs.read(PLAIN), runs.read(MOVED), [runs.read(random_name(k)) for k in range(num_random)]
    rows = effect_rows(plain, moved, randoms, arena.measures)
    write_csv(out / "effects.csv", pd.DataFrame(rows))
    main_rows = [
        row for row in rows if row["measure"] in arena.main[:-1]
    ]  # the last, how far it is moved, is no effect
    write_figure(out / "effect.png", plot_effects(main_rows, random_effects(plain, randoms, arena.measures), title))
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
        if row["measure"] in arena.main
        or row["measure"].startswith("weight")
        or max(row["plain"], row["moved"]) >= 0.01
    ]
    return pd.DataFrame(lines).to_string(index=False)


def main() -> int:
    """Check the flags, play what is missing, tell."""
    args = parser().parse_args()
    counts = {"num_worlds": integer(5, 10**6), "num_random": integer(LEAST_RANDOM, 10**4)}
    check_flags(args, **counts, eval_seed=integer(0, 2**32 - 1), seed=integer(0), num_envs=integer(1, MAX_ENVS))
    check_flags(args, policy=optional(choice("argmax", "sampled")), max_steps=optional(integer(1)))
    digest = whole_digest(args.checkpoint)
    directions = open_directions(args.directions, digest, args.checkpoint)
    use_device("cpu")
    arena = open_arena(args)
    operation = operation_of(args, directions)
    title = operation.describe(directions)
    slug = re.sub(r"[^\w.+-]+", "_", title)
    out = Path(args.out or Path("plots/intervene") / Path(args.directions).resolve().parent.name / slug)
    check_writable(out, "--out")
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {out}; choose another --out")
        settings = {name: getattr(args, name) for name in ("num_worlds", "num_random", "eval_seed", "seed")}
        record = {"operation": operation._asdict(), "words": title, "settings": settings | arena.settings}
        settle_folder(out, record | {"checkpoint": digest, "directions": whole_digest(args.directions)})
        runs = Runs(arena, out)
        runs.play_missing(operation, directions, args.num_random, args.seed)
        print(report(runs, arena, args.num_random, out, f"{title}\n{arena.words}: differences from the run without it"))
    print(f"{title}; table and figure: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
