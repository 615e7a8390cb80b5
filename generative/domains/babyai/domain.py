"""BabyAI as a `Domain`: observations of cells; all terms of a simulator's loss count in nats."""

from generative.domains.babyai.causes import WorldExplanation, find_causes, views_without
from generative.domains.babyai.decoder import SymbolicDecoder
from generative.domains.babyai.egocentric_map import EgocentricMap
from generative.domains.babyai.envs import PolicyActor, open_worlds
from generative.domains.babyai.labels import labeller
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.render import play_films, recorded_film, simulated_film
from generative.domains.babyai.rollouts import BabyAIArena
from generative.domains.babyai.scenes import ExactScenes, sum_channels, true_contributions
from generative.domains.babyai.targets import TARGETS_HELP, parse_target
from generative.domains.babyai.trials import PROTOCOL
from generative.domains.base import Domain
from generative.simulators.relaxation import to_simplex

_SIZES = {"deterministic": 192, "groups": 12, "classes": 12, "map_channels": 12, "width": 128, "encoded": 128}


BABYAI = Domain(
    name="babyai",
    title="BabyAI",
    load_policy=FrozenPolicy.load,
    open_worlds=open_worlds,
    actor=PolicyActor,
    behaviours=("argmax", "sampled", "epsilon", "bot", "random"),
    start_arrays=("obs", "position", "grid", "carried"),
    to_views=to_simplex,
    make_decoder=lambda sizes: SymbolicDecoder(sizes["width"], sizes["map_channels"], sizes["encoded"]),
    make_memory=lambda sizes, num_inputs: EgocentricMap(sizes["map_channels"], num_inputs, sizes["width"]),
    presets={"babyai": _SIZES, "small": _SIZES | {"deterministic": 64, "width": 48, "encoded": 48, "map_channels": 6}},
    extra_arrays=("routing",),
    view_score=lambda simulated, true: (simulated == true).all(-1).float(),
    score_name="exact",
    fidelity=PROTOCOL,
    find_causes=find_causes,
    remove_causes=views_without,
    sum_channels=sum_channels,
    true_contributions=true_contributions,
    explanation=WorldExplanation,
    exact_scenes=ExactScenes,
    parse_target=parse_target,
    targets_help=TARGETS_HELP,
    labeller=labeller,
    open_arena=BabyAIArena,
    play_films=play_films,
    recorded_film=recorded_film,
    simulated_film=simulated_film,
)
