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

from dataclasses import dataclass

from mop.common.cli import parse, required, setting
from mop.common.errors import InputError, run_script
from mop.common.intervention_grammar import GATE_ONLY, VARIANTS, parse_variants
from mop.common.intervention_grammar import parse as parse_intervention
from mop.evaluation.intervention_batch import intervene
from mop.evaluation.settings import InterventionSettings


@dataclass(frozen=True, kw_only=True)
class Settings(InterventionSettings):
    """The flags."""

    checkpoint: str = required("checkpoint_final.pt or checkpoint_<U>.pt of a mixture", metavar="FILE")
    what: tuple[str, ...] | None = setting(None, "interventions (default: a battery)")
    variants: str | None = setting(None, f"with --what: of {', '.join(VARIANTS)} (default: {GATE_ONLY})")
    force: bool = setting(False, "make again what has been made")

    def __post_init__(self):
        if self.what is None and self.variants is not None:
            raise InputError("--variants is for --what: the standard battery has its own")


def main() -> int:
    """Make what is missing, and print the table."""
    flags = parse(Settings, __doc__)
    variants = parse_variants(flags.variants or GATE_ONLY)
    if flags.what is None:
        return intervene(flags.checkpoint, None, flags, flags.force)
    edits = [parse_intervention(text) for text in flags.what]
    asked = dict.fromkeys((edit, variant) for variant in variants for edit in edits)
    return intervene(flags.checkpoint, list(asked), flags, flags.force)


if __name__ == "__main__":
    run_script(main)
