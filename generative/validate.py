"""Hold attribution against truth: objects are changed in the cloned real world, and the true effects ranked.

    python -m generative.validate --data_dir recordings/unlock_pickup
    python -m generative.validate --data_dir recordings/unlock_pickup --simulators exact,simulators/unlock_pickup
    python -m generative.validate --data_dir recordings/unlock_pickup --of lpc,routing:2.2 --lags 0,1,2,4,8,16
    python -m generative.validate --data_dir recordings/unlock_pickup --out plots/...      after Ctrl-C, a kill, ...

In episodes of recorded test worlds, at steps drawn by chance and k steps before each: every legal edit of an object
(removed, of another colour or type, a door opened, closed or locked), alone. The true effect is the change of the
target at the step in the real world, edited and played on: with the policy acting on what it sees ("acting"), and with
the recorded actions ("forced"). The prediction is the attribution of the edit
(generative/attribution/integrated_gradients.py): in each
simulator, by integrated gradients and by the gradient alone, through the policy's own actions and with the recorded
ones, with and without the path through the world; and of controls: untrained policies, random numbers, effects that
are shuffled. For each case Spearman's rank correlation; means with 95 % intervals over episodes.
{targets}

Writes config.json, cases.jsonl (a line for each case, added as they are measured: the same command goes on where it was
stopped), agreement.csv, agreement.md and agreement.png to --out.
"""

from pathlib import Path

from generative.attribution.agreement import MIN_EDITS
from generative.attribution.counterfactuals import KINDS
from generative.attribution.integrated_gradients import METHODS
from generative.attribution.validation import Study, make_predictors, measure, plan_cases, read_rows, report
from generative.domains.babyai.targets import TARGETS_HELP
from generative.domains.registry import domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import BEHAVIOURS, SPLITS, open_recording
from generative.representations.storage import open_directions
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from mop.common.configuration import Parser, check_flags, choice, integer, number, words
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, settle_folder, whole_digest

CASES = "cases.jsonl"
_RUNTIME = ("out", "data_dir", "checkpoint", "lang_encoder", "min_fidelity")


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m generative.validate", description=__doc__.format(targets=f"Targets: {TARGETS_HELP}.")
    )
    parser.add_argument("--data_dir", required=True, help="folder of a recording (python -m generative.record)")
    parser.add_argument("--checkpoint", help="the recorded policy, if it lies elsewhere now")
    parser.add_argument("--of", default="action:chosen,lpc", help="targets, with commas (default: %(default)s)")
    parser.add_argument("--simulators", default=EXACT, help="exact, folders of learned ones (default: %(default)s)")
    parser.add_argument("--min_fidelity", default=MIN_FIDELITY, help="of learned ones (default: %(default)s)")
    parser.add_argument("--lags", default="0,1,2,4,8", help="steps before the step (default: %(default)s)")
    parser.add_argument("--num_episodes", default=40, help="episodes at most (default: %(default)s)")
    parser.add_argument("--steps_per_episode", default=2, help="steps of each that are explained (default: 2)")
    parser.add_argument("--kinds", default="remove,color,type,state", help="of edits (default: %(default)s)")
    parser.add_argument("--max_edits", default=24, help="of a case; of more, so many are drawn (default: 24)")
    parser.add_argument("--num_points", default=8, help="of the integral of a gradient (default: %(default)s)")
    parser.add_argument("--methods", default=",".join(METHODS), help="of attribution (default: %(default)s)")
    parser.add_argument("--actions", default="own,recorded", help="of the loop (default: %(default)s)")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: %(default)s)")
    parser.add_argument("--policies", default="argmax", help="who acted, with commas (default: %(default)s)")
    parser.add_argument("--directions", help="file of directions, for direction:K")
    parser.add_argument("--seed", default=0, help="of steps, edits and controls (default: %(default)s)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--out", help="folder of the results (default: plots/validation/<recording>)")
    return parser


def lags_of(value: str) -> list[int]:
    """Numbers of steps with commas between them, in their order."""
    return sorted({integer(0, 1000)(word) for word in value.split(",")})


def main() -> int:
    """Measure what is missing, then report all."""
    args = parser().parse_args()
    check_flags(
        args, of=words(), simulators=words(), lags=lags_of, num_episodes=integer(1), steps_per_episode=integer(1),
        kinds=words(*KINDS), max_edits=integer(MIN_EDITS), num_points=integer(1, 1024), methods=words(*METHODS),
        actions=words("own", "recorded"), split=choice(*SPLITS), policies=words(*BEHAVIOURS), seed=integer(0),
        min_fidelity=number(0, high=1),
    )  # fmt: skip
    recording = open_recording(args.data_dir)
    domain = domain_of_recording(recording)
    if domain.exact_scenes is None:
        raise InputError(f"{args.data_dir} is a recording of {domain.title}, whose real worlds cannot be edited")
    policy, path = load_recorded_policy(recording, args.checkpoint, args.lang_encoder)
    digest = recording.config["checkpoint"]["sha256"]
    directions = open_directions(args.directions, digest, recording.folder)
    fidelity = [check_fidelity(name, max(1, *args.lags), args.min_fidelity, digest) for name in args.simulators]
    names = [domain.parse_target(text, policy, directions, chosen=0).name for text in args.of]
    simulators = {name: open_scenes(name, recording) for name in args.simulators}
    predictors = make_predictors(simulators, policy, recording, args.actions, args.methods, args.seed)
    episodes = recording.episodes(args.split, args.policies)[: args.num_episodes]
    places = plan_cases(recording, episodes, args.steps_per_episode, args.lags, args.seed)
    if not places:
        raise InputError(f"{args.data_dir} has no episode of --split {args.split} and --policies that is long enough")
    out = Path(args.out or Path("plots") / "validation" / recording.folder.resolve().name)
    check_writable(out, "--out")
    settings = {name: value for name, value in vars(args).items() if name not in (*_RUNTIME, "directions")}
    if args.directions is not None:
        settings["directions"] = whole_digest(args.directions)
    of = {"checkpoint": digest, "fidelity": fidelity, "task_id": recording.config["encoding"]["task_id"]}
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works in {out}; choose another --out")
        settle_folder(out, {"settings": settings, "targets": names, "num_cases": len(places), **of})
        print("\n".join(fidelity))
        study = Study(
            recording, policy, args.of, predictors, args.kinds, args.max_edits, args.num_points, args.seed, directions
        )
        measure(study, places, out / CASES)
        title = f"{of['task_id']}, {path.parent.parent.name}: rank correlation of attribution and true effect"
        report(read_rows(out / CASES), out, title)
    return 0


if __name__ == "__main__":
    run_script(main)
