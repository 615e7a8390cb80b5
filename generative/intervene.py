"""Move the hidden state of a policy along a direction in the real world, and measure the effects on its behaviour.

    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --null router_0.pca.3
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --from 12 --to 40
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --clamp all.ica.2=1.5
    python -m generative.intervene --checkpoint FILE --directions DIR/directions.npz --add 7=-2 --num_random 100
    python -m generative.intervene --checkpoint model_<t>.pt --directions DIR/directions.npz --add "probe.saw ahead=2"
    python -m generative.intervene --checkpoint model_<t>.pt --directions DIR/directions.npz --num_worlds 200 \
        --from "probe.saw ahead" --to "probe.crate ahead"

K is the number of a direction, its name, in directions.csv, or the end of its name; VALUE counts standard deviations.
The policy acts greedily in the same worlds without the move, with it, and moved as far along random directions; see
docs/generative.md and docs/coinrun.md.

Writes a table of episodes for each run, effects.csv, and effect.png. An interrupted run continues when the command is
given again.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from generative.domains.registry import domain_of_checkpoint
from generative.figures.representations import plot_effects
from generative.representations.steering import (
    Arena,
    ArenaSettings,
    Operation,
    Runs,
    effect_rows,
    effects_table,
    random_effects,
    run_names,
)
from generative.representations.storage import Directions, open_directions
from mop.common.cli import parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.files import open_output_dir, whole_digest, write_csv, write_figure
from mop.common.values import number, shown
from mop.training.devices import choose_device

LEAST_RANDOM = 20
MOST_SD = 100.0  # standard deviations that a coordinate may be sent from its mean


@dataclass(frozen=True, kw_only=True)
class Settings(ArenaSettings):
    """The flags."""

    checkpoint: str = required("the policy or agent that was recorded", also=("model_file",), metavar="FILE")
    directions: str = required("directions.npz of generative.directions", metavar="FILE")
    source: str | None = setting(None, "with --to: direction that is moved to another", flag="from", metavar="K")
    to: str | None = setting(None, "with --from: the other one", metavar="K")
    null: str | None = setting(None, "direction whose coordinate is removed", metavar="K")
    clamp: str | None = setting(None, "direction whose coordinate is held", metavar="K=VALUE")
    add: str | None = setting(None, "direction along which the hidden state is pushed", metavar="K=VALUE")
    num_random: int = setting(50, "random directions", low=LEAST_RANDOM, high=10**4)
    out: str = setting("", "output folder (default: plots/intervene/<the operation>)")
    lang_encoder: str | None = setting(None, "where the recorded mission encoder lies on this machine")


def operation_of(settings: Settings, directions: Directions) -> Operation:
    """The operation that the flags ask for."""
    asked = [name for name in ("source", "null", "clamp", "add") if getattr(settings, name) is not None]
    if len(asked) != 1 or (settings.source is None) != (settings.to is None):
        raise InputError("give one of --from K --to K, --null K, --clamp K=VALUE, --add K=VALUE (see --help)")
    kind = asked[0]
    given = getattr(settings, kind)
    if settings.to is not None:
        return Operation("swap", directions.number(given), directions.number(settings.to))
    if kind == "null":
        return Operation("null", directions.number(given))
    name, equals, value = given.rpartition("=")
    try:
        if not equals:
            raise ValueError
        return Operation(kind, directions.number(name), None, number(-MOST_SD, high=MOST_SD)(value))
    except ValueError:
        wanted = f"K=VALUE such as 3=1.5, from {-MOST_SD:g} to {MOST_SD:g}"
        raise InputError(f"--{kind} must be {wanted}, not {shown(given)}") from None


def open_arena(settings: Settings) -> Arena:
    """The policy in its worlds."""
    domain = domain_of_checkpoint(settings.checkpoint)
    domain.given_flags(settings, ("policy", "max_steps"), domain.arena_flags)
    return domain.open_arena(*domain.load_policy(settings.checkpoint, settings.lang_encoder), settings)


def write_report(runs: Runs, num_random: int, out: Path, title: str) -> str:
    """Write the effects and their figure; the table for the screen."""
    plain, moved, *randoms = map(runs.read, run_names(num_random))
    arena = runs.arena
    rows = effect_rows(plain, moved, randoms, arena.measures)
    write_csv(out / "effects.csv", pd.DataFrame(rows))
    shown_rows = [row for row in rows if row["measure"] in arena.main[:-1]]  # the last one is no effect
    write_figure(out / "effect.png", plot_effects(shown_rows, random_effects(plain, randoms, arena.measures), title))
    return effects_table(rows, arena.main)


def main() -> int:
    """Play the runs that are missing, and report."""
    settings = parse(Settings, __doc__)
    digest = whole_digest(settings.checkpoint)
    directions = open_directions(settings.directions, digest, settings.checkpoint)
    assert directions is not None  # the flag is required
    choose_device("cpu")
    arena = open_arena(settings)
    operation = operation_of(settings, directions)
    title = operation.describe(directions)
    slug = re.sub(r"[^\w.+-]+", "_", title)
    out = Path(settings.out or Path("plots/intervene") / Path(settings.directions).resolve().parent.name / slug)
    numbers = {name: getattr(settings, name) for name in ("num_worlds", "num_random", "eval_seed", "seed")}
    record = {"operation": operation._asdict(), "words": title, "settings": numbers | arena.settings}
    record |= {"checkpoint": digest, "directions": whole_digest(settings.directions)}
    with open_output_dir(out, record):
        runs = Runs(arena, out / "episodes")
        runs.play_missing(operation, directions, settings.num_random, settings.seed)
        heading = f"{title}\n{arena.words}: differences from the run without it"
        print(write_report(runs, settings.num_random, out, heading))
    print(f"{title}; table and figure: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
