"""Walk along the line between any two policies, and say whether it has a barrier.

    python -m lmc_rl.compare A.pt B.pt
    python -m lmc_rl.compare model_weights/base/Hopper-v5/SAC/seed_1_*/final.pt model_weights/.../final.pt
    python -m lmc_rl.compare A.pt A.pt                       the control: a policy and itself have no barrier

The policies are two of SAC or DDPG, or two checkpoints of imitation runs (train_mop.py, train.py, lmc_rl.run_mop), of
the same task. Both are played in the same worlds, and so is every policy between them. Writes <out>/episodes.jsonl, a
row for each episode, compare.json and path.png; of imitation runs also trajectories.jsonl, and the aligned second
policy. An --out that holds another comparison is refused. Of imitation runs, defaults are those of lmc_rl.run_mop.
"""

from pathlib import Path

import orjson

from lmc_rl.analysis import HEAD, PathResult, as_text, pool, table_of
from lmc_rl.experiment import Probe
from lmc_rl.figures import plot_path
from lmc_rl.imitation import all_lines
from lmc_rl.imitation_settings import settle as settle_imitation
from lmc_rl.line_analysis import HEAD as HEAD_OF_LINES
from lmc_rl.line_analysis import LineResult, load_lines, pool_lines
from lmc_rl.line_analysis import table_of as table_of_lines
from lmc_rl.line_figures import plot_lines
from lmc_rl.lines import write_rows
from lmc_rl.pathways import check_comparable, is_imitation, load_pathways
from lmc_rl.policies import common_config, load_policy
from lmc_rl.records import Walk, read_rows, walks_of
from lmc_rl.settings import add_flags, defaults, settle
from lmc_rl.stages import Workers
from lmc_rl.walks import cut_to_whole, play, rows_of, stretches
from mop.common.configuration import Parser
from mop.common.errors import InputError, run_script
from mop.common.files import check_writable, claimed, file_digest, read_json, settle_folder, write_figure, write_json
from mop.training.devices import choose_device

FLAGS = ("alpha_points", "num_eval_episodes", "tolerance", "jobs")


def parser() -> Parser:
    """The command line."""
    parser = Parser(prog="python -m lmc_rl.compare", description=__doc__)
    parser.add_argument("policies", nargs=2, metavar="FILE", help="final.pt, fork1_3.pt, ... of lmc_rl.run_env")
    parser.add_argument("--out", default="plots/compare", help="folder of what is written (default: %(default)s)")
    add_flags(parser, FLAGS)
    return parser


def compare(first: Path, second: Path, out: Path, settings: dict) -> PathResult:
    """Walk from one policy to the other; what is in `out` of the same comparison already is not done again.

    Raises InputError where there is no line between them.
    """
    policies = [load_policy(path) for path in (first, second)]
    config = common_config(*policies)
    walk = Walk("other", None, None, first, second)
    record = {name: settings[name] for name in ("alpha_points", "num_eval_episodes")}
    record |= {"files": [str(first), str(second)], "digests": [file_digest(first), file_digest(second)]}
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {out}; choose another --out")
        settle_folder(out, record, "compared.json")
        arguments = (config["task_id"], config["max_episode_steps"], *(settings[name] for name in FLAGS[:2]))
        planned = list(stretches([Walk("random"), walk], *arguments))
        missing = planned[cut_to_whole(out / "episodes.jsonl", planned) :]
        with (out / "episodes.jsonl").open("ab") as file, Workers(settings["jobs"]) as workers:
            played = workers.in_order(play, missing, "walking along the path")
            for stretch, result in zip(missing, played, strict=True):
                file.write(rows_of(stretch, result, out.name))
                file.flush()
        probe = Probe(walk, out / "probe.json", settings["alpha_points"])
        if not probe.path.exists():
            probe.run()
        found = walks_of(read_rows(out / "episodes.jsonl"), settings["alpha_points"])
    places, returns = found["other", None, None]
    random_return = float(found["random", None, None][1].mean())
    measures = read_json(probe.path)
    return PathResult(
        "other", None, None, (None,), places, returns[None], random_return, settings["tolerance"], (measures,)
    )


def compare_imitation(first: Path, second: Path, out: Path, settings: dict) -> tuple[LineResult, ...]:
    """The lines between two imitation runs, of each part and to the aligned second; as `compare`.

    settings: of `imitation.settle`. Raises InputError where there is no line between them.
    """
    policies = [load_pathways(path) for path in (first, second)]
    check_comparable(*policies)
    config = policies[0].config
    record = {name: settings[name] for name in ("alpha_points", "num_trajectories", "num_eval_episodes")}
    record |= {"files": [str(first), str(second)], "digests": [file_digest(first), file_digest(second)]}
    with claimed(out) as is_ours:
        if not is_ours:
            raise InputError(f"another process works on {out}; choose another --out")
        settle_folder(out, record, "compared.json")
        lines = all_lines([Walk("other", None, None, first, second)], settings | {"run": config}, out)
        with Workers(settings["jobs"]) as workers:
            write_rows(lines, config, settings, out, workers)
        return load_lines(out, (), settings["alpha_points"], settings["tolerance"])


def _tell_imitation(first: Path, second: Path, out: Path, flags: dict) -> None:
    """Compare two imitation runs, and tell."""
    settings, _ = settle_imitation(flags)
    results = compare_imitation(first, second, out, settings)
    write_json(out / "compare.json", {"lines": [result.summary() for result in results]}, orjson.OPT_INDENT_2)
    write_figure(
        out / "path.png", plot_lines(results, " to ".join("/".join(path.parts[-2:]) for path in (first, second)))
    )
    print(as_text(HEAD_OF_LINES, table_of_lines({"the line": [pool_lines([result]) for result in results]})))
    found = read_json(out / "paths" / "other.json")
    print(f"distance {found['distance']:.3f}, aligned {found['alignment']['distance_after']:.3f}")
    print(f"figure and numbers: {out}")


def main() -> int:
    """Compare two policies, and tell."""
    args = vars(parser().parse_args())
    out, (first, second) = Path(args.pop("out")), map(Path, args.pop("policies"))
    check_writable(out, "--out")
    choose_device(defaults()["device"])
    kinds = [is_imitation(path) for path in (first, second)]
    if all(kinds):
        _tell_imitation(first, second, out, args)
        return 0
    if any(kinds):
        raise InputError(f"{first} and {second} are policies of different kinds: there is no line between them")
    settings, _ = settle(args)
    result = compare(first, second, out, settings)
    write_json(out / "compare.json", result.summary(), orjson.OPT_INDENT_2)
    title = f"{first} to {second}"
    write_figure(out / "path.png", plot_path({"": result}, title))
    print(as_text(HEAD, table_of({"the line": [pool([result])]})))
    print(f"distance {result.measures[0]['distance']:.2f}, of the actors {result.measures[0]['actor_distance']:.2f}")
    print(f"figure and numbers: {out}")
    return 0


if __name__ == "__main__":
    run_script(main)
