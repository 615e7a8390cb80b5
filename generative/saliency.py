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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from generative.attribution.agreement import as_markdown
from generative.attribution.explanations import Explanation, FrameExplanation, load_explanation, short_number
from generative.attribution.integrated_gradients import METHODS, NUM_POINTS
from generative.domains.babyai.causes import PATHS
from generative.domains.babyai.explaining import explain
from generative.domains.babyai.scenes import VIEW, WORLD
from generative.domains.babyai.targets import CHOSEN, TARGETS_HELP, Target, parse_target
from generative.domains.base import BABYAI, GAMES, domain_of
from generative.domains.coinrun.explaining import NUM_POINTS as NUM_FRAME_POINTS
from generative.domains.coinrun.explaining import agreement_of_patches, explain_frames
from generative.domains.coinrun.targets import GAME_TARGETS_HELP, parse_game_target
from generative.domains.inputs import open_directions, open_scenes, recorded_values, settings_of
from generative.domains.registry import load_recorded_policy
from generative.figures.saliency_figures import plot_horizon, plot_map, plot_strip
from generative.recordings.format import BEHAVIOURS, SPLITS, Recording, open_recording
from generative.simulators.base import EXACT
from generative.simulators.evaluation import MIN_FIDELITY, check_fidelity
from mop.common.configuration import Parser, check_flags, choice, integer, number, optional
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, settle_folder, write_atomic, write_csv, write_figure
from mop.statistics.bootstrap import bootstrap_means

_RUNTIME = ("out", "data_dir", "checkpoint", "lang_encoder", "min_fidelity", "num_causes", "num_episodes")


class Explainer(NamedTuple):
    """What this command must know of a kind of world."""

    parse_target: Callable[..., Target]  # as `targets.parse_target`
    explain: Callable[..., Explanation]  # as `explaining.explain`
    num_points: int  # of the integral, by default


EXPLAINERS = {
    BABYAI.name: Explainer(parse_target, explain, NUM_POINTS),
    GAMES.name: Explainer(parse_game_target, explain_frames, NUM_FRAME_POINTS),
}


def parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="python -m generative.saliency",
        description=__doc__.format(targets=f"Targets: {TARGETS_HELP}. In a game: {GAME_TARGETS_HELP}."),
    )
    parser.add_argument("--data_dir", required=True, help="folder of a recording (python -m generative.record)")
    parser.add_argument("--checkpoint", help="the recorded policy, if it lies elsewhere now")
    parser.add_argument("--of", default=CHOSEN, help="the target (default: %(default)s)")
    parser.add_argument("--horizon", default=8, help="steps back (default: %(default)s)")
    parser.add_argument("--simulator", default=EXACT, help="exact, or the folder of a learned one (default: exact)")
    parser.add_argument("--min_fidelity", default=MIN_FIDELITY, help="of a learned one (default: %(default)s)")
    parser.add_argument("--what", help="world or view is varied (default: world if exact, else view)")
    parser.add_argument("--method", default="integrated", help=f"{', '.join(METHODS)} (default: %(default)s)")
    parser.add_argument("--num_points", help=f"of the integral (default: {NUM_POINTS}, in a game {NUM_FRAME_POINTS})")
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


def choose_steps(args, recording: Recording, parse: Callable[[int], Target]) -> list[tuple[int, int, Target]]:
    """Episodes and steps, and the target at each. Raises InputError where there is no such episode or step.

    parse: the target, for the likeliest action of a step.
    """
    if args.episode is None:
        episodes = recording.distinct(recording.episodes(args.split, [args.policy]))[: args.num_episodes]
        if not episodes:
            raise InputError(f"{args.data_dir} has no episode of --split {args.split} and --policy {args.policy}")
    elif args.episode >= len(recording):
        raise InputError(f"--episode {args.episode}: {args.data_dir} has the episodes 0 to {len(recording) - 1}")
    else:
        episodes = [args.episode]
    found, sizes = [], recording.config["encoding"]["expert_hidden_sizes"]
    for k in episodes:
        rows = recording.episode(k)
        num_steps = len(rows["action"]) - 1
        if args.step is not None and args.step >= num_steps:
            raise InputError(f"--step {args.step}: episode {k} has the steps 0 to {num_steps - 1}")
        targets = [parse(int(chosen)) for chosen in rows["student"][:num_steps]]
        values = [float(recorded_values(rows, target, sizes)[t]) for t, target in enumerate(targets)]
        step = int(np.argmax(values)) if args.step is None else args.step
        found.append((k, step, targets[step]))
    return found


def main() -> int:
    """Explain what is missing, then tell all."""
    args = parser().parse_args()
    check_flags(
        args, horizon=integer(0, 1000), min_fidelity=number(0, high=1), what=optional(choice(WORLD, VIEW)),
        method=choice(*METHODS), num_points=optional(integer(1, 1024)), actions=choice("own", "recorded"),
        episode=optional(integer(0)), num_episodes=integer(1), step=optional(integer(0)), split=choice(*SPLITS),
        policy=choice(*BEHAVIOURS), num_causes=integer(1),
    )  # fmt: skip
    recording = open_recording(args.data_dir)
    explainer = EXPLAINERS[domain_of(recording.config["encoding"]).name]
    digest = recording.config["checkpoint"]["sha256"]
    policy, _ = load_recorded_policy(recording, args.checkpoint, args.lang_encoder)
    directions = open_directions(args.directions, digest, recording.folder)
    fidelity = check_fidelity(args.simulator, max(1, args.horizon), args.min_fidelity, digest)
    scenes = open_scenes(args.simulator, recording)
    args.what, args.num_points = args.what or scenes.kinds[0], args.num_points or explainer.num_points
    if args.what not in scenes.kinds:
        raise InputError(f"--what {args.what} is for the exact simulator; a learned one is given what is seen: view")
    steps = choose_steps(args, recording, lambda chosen: explainer.parse_target(args.of, policy, directions, chosen))
    name = f"{recording.folder.resolve().name}_{re.sub('[^a-z0-9]+', '_', args.of.lower())}"
    out = Path(args.out or Path("plots") / "saliency" / name)
    check_writable(out, "--out")
    settings = settings_of(args, _RUNTIME)
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works in {out}; choose another --out")
        settle_folder(out, {"settings": settings, "checkpoint": digest, "fidelity": fidelity})
        print(fidelity)
        paths = []
        for episode, step, target in tqdm(steps, unit="step", disable=len(steps) == 1):
            paths.append(out / f"episode_{episode:06d}_step_{step:04d}.npz")
            if not paths[-1].exists():
                ways = (args.what, args.method, args.num_points, args.actions == "own")
                moment = (recording, episode, step, args.horizon)
                explainer.explain(policy, scenes, *moment, target, *ways).write(paths[-1])
        report([load_explanation(path) for path in paths], paths, out, args.num_causes, fidelity)
    return 0


def report(found: Sequence[Explanation], paths: Sequence[Path], out: Path, num_causes: int, fidelity: str) -> None:
    """Write pictures and tables, and tell the largest causes."""
    for explanation, path in zip(found, paths, strict=True):
        write_figure(path.with_name(f"{path.stem}_map.png"), plot_map(explanation))
        write_figure(path.with_name(f"{path.stem}_strip.png"), plot_strip(explanation))
    table = pd.DataFrame([row for explanation in found for row in explanation.rows()])
    kinds, sizes = amounts_by_kind(found), sizes_by_lag(found)
    checked = table[table["true_forced"].notna()]
    for name, of_name in (("causes", table), ("checked", checked), ("kinds", kinds), ("sizes", sizes)):
        write_csv(out / f"{name}.csv", of_name, "%.6g")
    lines = []
    for explanation in found:
        lines += [headline(explanation), "", *(f"- {sentence}" for sentence in explanation.sentences(num_causes)), ""]
    text = "\n".join(lines)
    write_atomic(out / "causes.md", lambda file: file.write(f"{text}\n{fidelity}\n".encode()))
    of = str(found[0].target)
    write_figure(out / "horizon.png", plot_horizon(sizes, kinds, f"{of}, {len(found)} steps"))
    print(text)
    if isinstance(found[0], FrameExplanation):
        agreement = agreement_of_patches(found)
        write_csv(out / "agreement.csv", agreement, "%.4f")
        print(as_markdown(agreement[agreement["lag"] == "all"]))
    if len(found) > 1:
        print(kinds.round(3).to_string(index=False))
    print(f"arrays, tables and pictures: {out}")


def amounts_by_kind(found: Sequence[Explanation]) -> pd.DataFrame:
    """Attribution by kind of thing and lag, summed over the things of a kind: mean over steps with 95 % intervals.

    Columns kind, lag, total, low, high, steps; and of those things alone that can be taken out of the real world, their
    attribution (removable) and what they truly contribute (true_acting, true_forced). A step counts where it has a
    thing of the kind.
    """
    rows = pd.DataFrame([row for explanation in found for row in explanation.rows()])
    rows["removable"] = rows["total"].where(rows["true_forced"].notna())
    columns = ["total", "removable", "true_acting", "true_forced"]
    sums = rows.groupby(["kind", "lag", "episode", "step"])[columns].sum(min_count=1).reset_index()
    lines = []
    for (kind, lag), group in sums.groupby(["kind", "lag"]):
        means = bootstrap_means(group[["total"]].to_numpy(), group["episode"].to_numpy())
        line = {"kind": kind, "lag": lag, **means.numbers(0, 0, "total")}
        lines.append(line | group[columns[1:]].mean().to_dict())
    return pd.DataFrame(lines)


def headline(explanation: Explanation) -> str:
    """What is explained, in one line."""
    return (
        f"## {explanation.target} at step {int(explanation.step)} of episode {int(explanation.episode)} "
        f"({explanation.world[1]}): {short_number(float(explanation.value), 4)}"
    )


def sizes_by_lag(found: Sequence[Explanation]) -> pd.DataFrame:
    """The sum of the sizes of all attributions by path and lag: mean over steps, with 95 % intervals over episodes.

    Columns path, lag, mean, low, high, and share: of the means of all paths at this lag.
    """
    sums = [
        (lag, number, np.abs(explanation.by_path[explanation.lag == lag]).sum(0))
        for number, explanation in enumerate(found)
        for lag in range(len(explanation.obs))
    ]
    lag, episode, values = (np.array(part) for part in zip(*sums, strict=True))
    means = bootstrap_means(values, episode, lag, int(lag.max()) + 1)
    return pd.DataFrame(
        {
            "path": path,
            "lag": k,
            "mean": means.mean[k, p],
            "low": means.low[k, p],
            "high": means.high[k, p],
            "share": means.mean[k, p] / means.mean[k].sum(),
        }
        for k in range(len(means.mean))
        for p, path in enumerate(PATHS)
    )


if __name__ == "__main__":
    run_script(main)
