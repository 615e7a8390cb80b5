"""How true a simulator is: what it shows in unseen worlds, by the number of steps, and what the policy makes of it.

    python -m generative.fidelity --simulator simulators/X --data_dir recordings/X
    python -m generative.fidelity --simulator exact --data_dir recordings/X --out plots/exact
    python -m generative.fidelity --simulator simulators/X --data_dir recordings/X --num_trials 50 --out plots/quick

In worlds of the test split, the simulator is shown three frames of a recorded history. From there an actor acts in the
real world: the trained policy, an untrained one, or one that always goes ahead; the simulator is given the same
actions, and the policy sees what it shows. Compared with it: the last frame again and again, of each part of a view
what most often follows it given the action (markov), and the simulator with the actions of other trials (shuffled).
Of a game: the trained agent acts, one at random, or one that always goes right and jumps; compared are the last frame,
the mean picture, and shuffled actions.

Writes fidelity.json, fidelity.md and fidelity.png to the simulator's folder, or to --out. The analyses read the first
one, and refuse a simulator that is not good enough. They ask for the trained actor in 100 episodes of the test split or
more; what has less goes to --out.
"""

import argparse
import functools
import shlex
from pathlib import Path

import torch

from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy, load_simulator_of
from generative.recordings.format import SPLITS, open_recording
from generative.simulators.base import EXACT
from generative.simulators.evaluation import (
    MODEL,
    VIEW_SHARES,
    evaluate,
    fidelity_line,
    shares_of,
    view_share,
    write_fidelity,
)
from mop.common.configuration import Parser, check_flags, choice, integer, number
from mop.common.errors import run_script
from mop.common.files import check_writable, whole_digest


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.fidelity", description=__doc__)
    parser.add_argument("--simulator", required=True, help="folder of a learned simulator, or exact")
    parser.add_argument("--data_dir", required=True, help="folder of the recording of the policy's worlds")
    parser.add_argument("--agent_file", help="checkpoint of the recorded policy (default: the one that was recorded)")
    parser.add_argument("--num_trials", default=300, help="episodes, each once (default: %(default)s)")
    parser.add_argument("--num_horizons", default=24, help="steps (default: %(default)s)")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: %(default)s)")
    everyone = "; ".join(f"{','.join(one.fidelity.actors)} (of {one.name})" for one in DOMAINS.values())
    parser.add_argument("--actors", help=f"who acts, with commas (default: {everyone})")
    parser.add_argument("--seed", default=0, help="of moments and random actions (default: %(default)s)")
    parser.add_argument(
        "--min_fidelity", default=0.0, help="refuse what is below, as analyses do (default: %(default)s)"
    )
    parser.add_argument("--horizon", default=8, help="steps ahead up to which that is asked (default: %(default)s)")
    parser.add_argument("--out", help="folder of what is written (default: the simulator's; plots/fidelity_exact/X)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    return parser


def _actors_of(everyone: tuple[str, ...], value: str) -> list[str]:
    """Names of some actors with commas between them, in their order. Raises ValueError."""
    names = [name.strip() for name in value.split(",")]
    if not names or not set(names) <= set(everyone):
        raise ValueError(f"must be some of {', '.join(everyone)} with commas between them")
    return [name for name in everyone if name in names]


def command_of(args: argparse.Namespace, parser: Parser) -> str:
    """The command with all flags that are not at their defaults, as they were given."""
    words = ["python", "-m", "generative.fidelity"]
    for name, value in vars(args).items():
        words += [] if str(value) == str(parser.get_default(name)) else [f"--{name}", str(value)]
    return shlex.join(words)


def main() -> int:
    """Run the trials, write and print what they show."""
    args = parser().parse_args()
    command = command_of(args, parser())
    recording = open_recording(args.data_dir)
    domain = domain_of_recording(recording)
    args.actors = args.actors or ",".join(domain.fidelity.actors)
    check_flags(
        args, num_trials=integer(2, 100_000), num_horizons=integer(1, 1000), split=choice(*SPLITS), seed=integer(0),
        actors=functools.partial(_actors_of, domain.fidelity.actors), min_fidelity=number(0, high=1),
        horizon=integer(1),
    )  # fmt: skip
    args.horizon = min(args.horizon, args.num_horizons)
    of_exact = Path("plots/fidelity_exact", recording.folder.resolve().name)
    folder = Path(args.out or (of_exact if args.simulator == EXACT else args.simulator))
    policy, agent = load_recorded_policy(recording, args.agent_file, args.lang_encoder)
    learned = load_simulator_of(recording, args.simulator)
    check_writable(folder, "--out")
    torch.set_num_threads(1)
    result = evaluate(
        domain, args.simulator, learned, recording, policy, actors=args.actors, num_horizons=args.num_horizons,
        split=args.split, num_trials=args.num_trials, seed=args.seed,
        must_be_reliable=folder.resolve() == Path(args.simulator).resolve(),
    )  # fmt: skip
    result["agent_sha256"] = whole_digest(agent)
    what = f"simulator {Path(args.simulator).name}, recording {recording.folder.name}"
    title = f"{what}, {result['settings']['num_trials']} episodes of the {args.split} split"
    write_fidelity(folder, result, f"`{command}`", title, domain.fidelity.measures)
    if "trained" in result["actors"]:
        numbers = result["actors"]["trained"][MODEL]
        views = VIEW_SHARES[view_share(numbers)]
        print(fidelity_line(args.simulator, shares_of(numbers), args.horizon, args.min_fidelity, views))
    return 0


if __name__ == "__main__":
    run_script(main)
