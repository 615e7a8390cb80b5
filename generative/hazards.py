"""Does attribution through a simulator put the hazard before the jump? In recorded games, with all its controls.

    python -m generative.hazards --data_dir recordings/coinrun --simulator simulators/coinrun
    python -m generative.hazards --data_dir recordings/coinrun --simulator simulators/coinrun --num_moments 20

Moments are steps of test levels at which the agent begins a jump: its likeliest action has one, it stands, and a saw,
an enemy or lava is within --ahead points to its right (and not further up or down). The log-odds of a jump are
attributed to the patches of the frames 0 to --horizon steps earlier, as generative.saliency does it.

Of each frame: the share of the sizes of all attribution that is on patches that show a hazard, divided by their share
of the patches that are not black. Chance is 1. Beside it stand the same
  - without the path through the world;
  - where the agent stands before a hazard and does not jump;
  - of an untrained agent, another in each episode, in the same simulator;
  - with the attribution shuffled among the patches that are not black.
And the real agent: what its log-odds lose where the hazard is hidden from it in all of the last frames, and where as
many other patches are that show neither a hazard nor the agent. It only watches then: nothing in the game changes.

Writes to --out moments/ (an .npz for each), frames.csv (a row for each frame and reader), hazards.csv (means with 95 %
intervals over levels), hazards.md (the answer in words) and hazards.png. Moments that are there are not measured again.
"""

from pathlib import Path

from tqdm import tqdm

from generative.attribution.hazard_report import report
from generative.attribution.hazard_study import Study, draw_moments, find_moments, load_measured
from generative.domains.coinrun.causes import EpisodeObjects
from generative.domains.coinrun.domain import COINRUN
from generative.domains.coinrun.games import check_playable
from generative.domains.coinrun.targets import jumps_of
from generative.domains.registry import domain_of_recording, load_recorded_policy, open_scenes
from generative.recordings.format import BEHAVIOURS, SPLITS, open_recording
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from mop.common.configuration import Parser, check_flags, choice, integer, number, words
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, settle_folder

_RUNTIME = ("out", "data_dir", "checkpoint", "min_fidelity")


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m generative.hazards", description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder of a recording of CoinRun")
    parser.add_argument("--simulator", required=True, help="the folder of one that was learned of it")
    parser.add_argument("--checkpoint", help="the recorded agent, if it lies elsewhere now")
    parser.add_argument("--min_fidelity", default=MIN_FIDELITY, help="of the simulator (default: %(default)s)")
    parser.add_argument("--num_moments", default=100, help="with a jump, and without one (default: %(default)s)")
    parser.add_argument("--per_level", default=2, help="of each of them, at most (default: %(default)s)")
    parser.add_argument("--horizon", default=8, help="steps back (default: %(default)s)")
    parser.add_argument("--ahead", default=16, help="points within which a hazard is (default: %(default)s of 64)")
    parser.add_argument("--num_points", default=2, help="of the integral (default: %(default)s)")
    parser.add_argument("--split", default="test", help=f"{', '.join(SPLITS)} (default: %(default)s)")
    parser.add_argument("--policies", default="argmax,sampled", help="who acted, with commas (default: %(default)s)")
    parser.add_argument("--seed", default=0, help="of moments and controls (default: %(default)s)")
    parser.add_argument("--out", help="folder of the results (default: plots/hazards/<recording>)")
    return parser


def main() -> int:
    """Measure what is missing, then report all."""
    args = parser().parse_args()
    check_flags(
        args, min_fidelity=number(0, high=1), num_moments=integer(1), per_level=integer(1), horizon=integer(1, 100),
        ahead=integer(1, 64), num_points=integer(1, 1024), split=choice(*SPLITS), policies=words(*BEHAVIOURS),
        seed=integer(0),
    )  # fmt: skip
    recording = open_recording(args.data_dir)
    if domain_of_recording(recording) is not COINRUN:
        raise InputError(f"{args.data_dir} is no recording of a game, so nothing in it is a hazard or a jump")
    check_playable(recording.config["encoding"]["env_name"], recording.config["encoding"]["distribution_mode"])
    agent, _ = load_recorded_policy(recording, args.checkpoint)
    jumps_of(agent)
    digest = recording.config["checkpoint"]["sha256"]
    scenes = open_scenes(args.simulator, recording)
    fidelity = check_fidelity(args.simulator, args.horizon, args.min_fidelity, digest)
    out = Path(args.out or Path("plots") / "hazards" / recording.folder.resolve().name)
    check_writable(out, "--out")
    settings = {name: value for name, value in vars(args).items() if name not in _RUNTIME}
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works in {out}; choose another --out")
        settle_folder(out, {"settings": settings, "checkpoint": digest, "fidelity": fidelity})
        print(fidelity)
        numbers = recording.distinct(recording.episodes(args.split, args.policies))
        episodes = tqdm(numbers, desc="looking for hazards", unit="episode", leave=False)
        objects_of = EpisodeObjects(recording.config["encoding"])
        candidates = find_moments(recording, objects_of, agent, episodes, args.horizon, args.ahead)
        moments = draw_moments(candidates, args.num_moments, args.per_level, args.seed)
        if not any(moment.has_jump for moment in moments):
            raise InputError(
                f"in {len(numbers)} episodes of --split {args.split} and --policies, the agent never begins a jump "
                f"before a hazard within {args.ahead} points; record more, or give another --split or a larger --ahead"
            )
        config = recording.config["checkpoint"]["config"]
        study = Study(recording, scenes, objects_of, agent, config, args.horizon, args.num_points, args.seed)
        (out / "moments").mkdir(exist_ok=True)
        paths = [out / "moments" / f"episode_{one.episode:06d}_step_{one.step:04d}.npz" for one in moments]
        for moment, path in zip(tqdm(moments, unit="moment"), paths, strict=True):
            if not path.exists():
                study.measure(moment).write(path)
        report([load_measured(path) for path in paths], out, args.seed, fidelity)
    return 0


if __name__ == "__main__":
    run_script(main)
