"""What earlier steps made a policy choose, route or pay: attribution through its memory and through the world.

    python -m generative.saliency --data_dir recordings/unlock_pickup
    python -m generative.saliency --data_dir recordings/unlock_pickup --of routing:2.2 --episode 12 --step 7
    python -m generative.saliency --data_dir recordings/unlock_pickup --simulator simulators/unlock_pickup --of lpc
    python -m generative.saliency --data_dir recordings/unlock_pickup --of entropy --num_episodes 20 --horizon 12
    python -m generative.saliency --data_dir recordings/coinrun --simulator simulators/coinrun --of jump

Every thing that was there at the step and at each of --horizon steps before it is attributed what it contributes to the
target: minus the predicted effect of empty floor in its place. Integrated gradients through the closed loop of policy
and simulator, split by what carried the cause: the policy's memory, the world, or both
(generative/attribution/integrated_gradients.py).
Without --episode: recorded test episodes in their order; without --step: the step at which the target is largest.
{targets}

What can be taken out of the real world is: "truly" is what its absence then changes, with the recorded actions.

In a game, things are those of the 64 squares of a frame that are not black, and absent is what is black. A real game
cannot be edited. What can be known: each square is hidden from the real agent in that frame alone, and it watches the
recorded frames that follow. That is the truth of what is seen and remembered, not of what goes through the world;
agreement.csv holds attribution against it.

Writes to --out for each step an .npz (generative/attribution/explanations.py), a picture of the largest cause, and a
strip over
time; causes.csv with all causes, checked.csv with those whose truth is known, causes.md with the largest in words;
kinds.csv with sums by kind of thing and lag, sizes.csv with sizes by path and lag, horizon.png with both.
Steps that are there already are not computed again.
"""

import re
from pathlib import Path

from tqdm import tqdm

from generative.attribution.integrated_gradients import METHODS
from generative.attribution.saliency import choose_steps, explain, report
from generative.attribution.scenes import VIEW, WORLD, Place
from generative.attribution.targets import CHOSEN
from generative.domains.registry import DOMAINS, domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import BEHAVIOURS, SPLITS, Recording, open_recording
from generative.representations.storage import open_directions
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from mop.common.configuration import Parser, check_flags, choice, integer, number, optional
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, settle_folder, whole_digest

_RUNTIME = ("out", "data_dir", "checkpoint", "lang_encoder", "min_fidelity", "num_causes", "num_episodes")


def parser() -> Parser:
    """The command line."""
    points = ", ".join(f"{one.num_points} in {one.title}" for one in DOMAINS.values())
    targets = " ".join(f"Targets in {one.title}: {one.targets_help}." for one in DOMAINS.values())
    parser = Parser(
        prog="python -m generative.saliency",
        description=__doc__.format(targets=targets),
    )
    parser.add_argument("--data_dir", required=True, help="folder of a recording (python -m generative.record)")
    parser.add_argument("--checkpoint", help="the recorded policy, if it lies elsewhere now")
    parser.add_argument("--of", default=CHOSEN, help="the target (default: %(default)s)")
    parser.add_argument("--horizon", default=8, help="steps back (default: %(default)s)")
    parser.add_argument("--simulator", default=EXACT, help="exact, or the folder of a learned one (default: exact)")
    parser.add_argument("--min_fidelity", default=MIN_FIDELITY, help="of a learned one (default: %(default)s)")
    parser.add_argument("--what", help="world or view is varied (default: world if exact, else view)")
    parser.add_argument("--method", default="integrated", help=f"{', '.join(METHODS)} (default: %(default)s)")
    parser.add_argument("--num_points", help=f"of the integral (default: {points})")
    parser.add_argument("--actions", default="recorded", help="of the loop, own or recorded (default: %(default)s)")
    parser.add_argument("--episode", help="number of an episode (default: of the test split, in their order)")
    parser.add_argument("--num_episodes", default=1, help="without --episode, how many (default: %(default)s)")
    parser.add_argument("--step", help="of the episode, from 0 (default: where the target is largest)")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: %(default)s)")
    parser.add_argument("--policy", default="argmax", help=f"who acted: {', '.join(BEHAVIOURS)} (default: %(default)s)")
    parser.add_argument("--directions", help="file of directions, for direction:K")
    parser.add_argument("--num_causes", default=10, help="of each step that are told (default: %(default)s)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--out", help="folder of the results (default: plots/saliency/<recording>_<target>)")
    return parser


def episodes_of(args, recording: Recording) -> list[int]:
    """The episodes that are asked for."""
    if args.episode is None:
        episodes = recording.distinct(recording.episodes(args.split, [args.policy]))[: args.num_episodes]
        if not episodes:
            raise InputError(f"{args.data_dir} has no episode of --split {args.split} and --policy {args.policy}")
        return episodes
    if args.episode >= len(recording):
        raise InputError(f"--episode {args.episode}: {args.data_dir} has the episodes 0 to {len(recording) - 1}")
    return [args.episode]


def main() -> int:
    """Explain what is missing, then report all."""
    args = parser().parse_args()
    check_flags(
        args, horizon=integer(0, 1000), min_fidelity=number(0, high=1), what=optional(choice(WORLD, VIEW)),
        method=choice(*METHODS), num_points=optional(integer(1, 1024)), actions=choice("own", "recorded"),
        episode=optional(integer(0)), num_episodes=integer(1), step=optional(integer(0)), split=choice(*SPLITS),
        policy=choice(*BEHAVIOURS), num_causes=integer(1),
    )  # fmt: skip
    recording = open_recording(args.data_dir)
    domain = domain_of_recording(recording)
    digest = recording.config["checkpoint"]["sha256"]
    policy, _ = load_recorded_policy(recording, args.checkpoint, args.lang_encoder)
    directions = open_directions(args.directions, digest, recording.folder)
    fidelity = check_fidelity(args.simulator, max(1, args.horizon), args.min_fidelity, digest)
    scenes = open_scenes(args.simulator, recording)
    args.what = args.what or scenes.kinds[0]
    args.num_points = args.num_points or domain.num_points
    if args.what not in scenes.kinds:
        raise InputError(f"--what {args.what} is for the exact simulator; a learned one is given what is seen: view")
    steps = choose_steps(
        recording, episodes_of(args, recording), args.step,
        lambda chosen: domain.parse_target(args.of, policy, directions, chosen),
    )  # fmt: skip
    name = f"{recording.folder.resolve().name}_{re.sub('[^a-z0-9]+', '_', args.of.lower())}"
    out = Path(args.out or Path("plots") / "saliency" / name)
    check_writable(out, "--out")
    settings = {name: value for name, value in vars(args).items() if name not in (*_RUNTIME, "directions")}
    if args.directions is not None:
        settings["directions"] = whole_digest(args.directions)
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works in {out}; choose another --out")
        settle_folder(out, {"settings": settings, "checkpoint": digest, "fidelity": fidelity})
        print(fidelity)
        paths = []
        for episode, step, target in tqdm(steps, unit="step", disable=len(steps) == 1):
            paths.append(out / f"episode_{episode:06d}_step_{step:04d}.npz")
            if not paths[-1].exists():
                place, is_own = Place(episode, step, args.horizon), args.actions == "own"
                how = (args.what, args.method, args.num_points, is_own)
                explain(domain, policy, scenes, recording, place, target, *how).write(paths[-1])
        explanations = [domain.explanation.load(path) for path in paths]
        report(domain, explanations, paths, out, args.num_causes, fidelity)
    return 0


if __name__ == "__main__":
    run_script(main)
