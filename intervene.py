"""Does routing matter? Take experts out of a policy, or change its routers' weights, in the same fixed worlds.

    python intervene.py --checkpoint results/zoo/BabyAI-UnlockPickup-v0/trial_2/seed_0/checkpoint_final.pt
    python intervene.py --checkpoint FILE --what "lesion 1.2" "lesion 1.2 in carrying the key" --num_episodes 200
    python intervene.py --checkpoint FILE --what argmax "threshold 0.1" --variants gate-only,frozen,zeroed
    python intervene.py --checkpoint FILE --what "swap OTHER/checkpoint_final.pt"

The interventions (layers L and experts E count from 0, S is a size of experts, T and V are from 0 to 1):
    none            nothing: the identical episodes
    lesion L.E      the expert has weight 0, the rest is scaled up
    lesion_size S   the same of all experts of a size
    threshold T     weights below T become 0, the rest is scaled up; the heaviest always stays
    argmax          only the heaviest expert of each layer stays
    clamp L.E=V     the expert has weight V, the rest is scaled
    mean L          the layer has its mean weights of the intact episodes, whatever it sees
    uniform L       all experts of the layer have the same weight
    shuffle L       the layer has the weights of a random step of the intact episodes
    swap FILE       the routers of another checkpoint with the same sizes
Several but the first and the last are made together where " + " joins them: "lesion 0.1 + clamp 2.0=0.5".
Behind each but the first and the last may stand "in PHASE": it is made only while the task is in that phase. The
memory of an expert at a step at which its weight is 0: it goes on (gate-only), is frozen, or is zeroed (--variants).

Without --what, a standard battery: every expert and size, every layer's mean, uniform and shuffle, argmax and four
thresholds, every expert in every phase. Each (intervention, variant) becomes a line of
evaluation_cache/<run>/interventions.jsonl as soon as it is there; what has one is skipped, so a run that was cut off
goes on when it is given again, and several may work at once. All lines are merged into intervention_results.csv.
Use against need is drawn in plots/<run>/use_and_need.png. A policy of several tasks has both for each of them, in
<run>/<task>/. See docs/interventions.md.
"""

from mop.common.cli import Parser
from mop.common.configuration import check_flags
from mop.common.errors import InputError, run_script
from mop.common.routing_edits import GATE_ONLY, VARIANTS, parse, parse_variants
from mop.common.values import MAX_ENVS, MAX_EPISODES, integer
from mop.evaluation.batch import from_flags
from mop.evaluation.intervention_batch import Settings, intervene


def parser() -> Parser:
    """The command line of this script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="checkpoint_final.pt or checkpoint_<U>.pt of a mixture")
    parser.add_argument("--task", help="of a policy that was trained on several (default: each of them)")
    parser.add_argument("--what", nargs="+", action="extend", metavar="TEXT", help="interventions (default: a battery)")
    parser.add_argument("--variants", help=f"with --what: of {', '.join(VARIANTS)} (default: {GATE_ONLY})")
    parser.add_argument("--phases", help="what is a phase, such as by_key_phase or by_carrying (default: the task's)")
    parser.add_argument("--num_episodes", default=Settings.num_episodes, help="one per world (default: %(default)s)")
    parser.add_argument("--num_envs", default=Settings.num_envs, help="episodes side by side (default: %(default)s)")
    parser.add_argument("--eval_seed", default=Settings.eval_seed, help="the first world (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="make again what has been made")
    parser.add_argument("--results_path", default=Settings.results_path, help="the table (default: %(default)s)")
    parser.add_argument("--cache_dir", default=Settings.cache_dir, help="where the lines go (default: %(default)s)")
    parser.add_argument("--plots_dir", default=Settings.plots_dir, help="where the figure goes (default: %(default)s)")
    parser.add_argument("--lang_encoder", help="where the recorded mission encoder lies on this machine")
    parser.add_argument("--device", default=Settings.device, help="auto (cuda if there is one), cpu, cuda, ...")
    return parser


def main() -> int:
    """Check the flags, make what is missing, and print the table."""
    args = parser().parse_args()
    check_flags(
        args, num_episodes=integer(1, MAX_EPISODES), num_envs=integer(1, MAX_ENVS), eval_seed=integer(0, 2**32 - 1)
    )
    if args.what is None and args.variants is not None:
        raise InputError("--variants is for --what: the standard battery has its own")
    variants = parse_variants(args.variants or GATE_ONLY)
    what = args.what and [(intervention, variant) for variant in variants for intervention in map(parse, args.what)]
    return intervene(args.checkpoint, what and list(dict.fromkeys(what)), from_flags(Settings, args), args.force)


if __name__ == "__main__":
    run_script(main)
