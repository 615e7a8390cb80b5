"""The page's policy against Python's on recorded steps: one equation, two languages.

    RECORDED_STEPS=10000 python -m pytest -s tests/mop/microscope/test_policy_js.py -k recorded

takes that many steps, of every policy of results/zoo, and prints the differences.
"""

import json
import os

import numpy as np
import pytest
import torch
from eval_helpers import UNLOCK, as_checkpoint, toy_config
from javascript import page_with
from recorded_in_page import MODULES, REPLAY, distance
from recorded_steps import record
from scripts import REPOSITORY
from tiny_encoder import build_tiny_encoder

from mop.artifacts.checkpoints import load_checkpoint
from mop.common.intervention_grammar import parse
from mop.envs.missions import MAX_WORDS, PROBE_MISSION, WORDS, load_encoder
from mop.evaluation.evaluate import encoder_for, prepare
from mop.evaluation.routing_gates import Gates, apply_state_policy, experts_of_units
from mop.microscope.pack_policy import pack_policy
from mop.training.policies import build_lang_proj, build_policy

NUM_STEPS = int(os.environ.get("RECORDED_STEPS", 300))
ZOO = REPOSITORY / "results" / "zoo"
TRAINED = {"film": f"{UNLOCK}/trial_30/seed_0", "linear": f"{UNLOCK}/trial_0/seed_0"}
if "RECORDED_STEPS" in os.environ:
    places = (path.parent.relative_to(ZOO).as_posix() for path in sorted(ZOO.rglob("checkpoint_final.pt")))
    TRAINED |= {place: place for place in places if place not in TRAINED.values()}
FILM = {"obs_encoding": "one_hot", "input_encoder": "film", "film_cell_dim": 5, "film_features": 3}
UNTRAINED = {
    "baseline": {"policy": "gru", "lang_encoder": "words", "obs_encoding": "one_hot"},
    "baseline, film": {"policy": "gru", "lang_encoder": "none", **FILM},
    "residual": {"residual": True, "lang_encoder": "words", **FILM},
    "raw": {"residual": True},
}


@pytest.fixture(scope="module")
def page(browser):
    with page_with(browser, *MODULES, "interventions", more=REPLAY) as page:
        yield page


def untrained(**changes) -> dict:
    """A checkpoint of a small policy with random weights, large enough that its logits differ by more than rounding."""
    config = toy_config(UNLOCK, **changes)
    encoder = load_encoder(config["lang_encoder"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy, lang_proj = build_policy(config), build_lang_proj(encoder.name, encoder.dim, config["lang_dim"])
        torch.nn.init.normal_(policy.head.weight)
    return as_checkpoint(policy, lang_proj, config)


def checkpoint_of(kind: str) -> dict:
    if kind in UNTRAINED:
        return untrained(**UNTRAINED[kind])
    return load_checkpoint(ZOO / TRAINED[kind] / "checkpoint_final.pt")


def packed_as_json(checkpoint: dict, *args) -> dict:
    return json.loads(json.dumps(pack_policy(checkpoint, [], *args)))


@pytest.mark.parametrize("kind", [*TRAINED, *UNTRAINED])
def test_recorded_episodes_are_those_of_python(page, kind):
    checkpoint = checkpoint_of(kind)
    recorded = record(checkpoint, NUM_STEPS, num_envs=max(8, NUM_STEPS // 150))
    found = distance(page, packed_as_json(checkpoint), recorded)
    print(kind, found, f"mean length {NUM_STEPS / len(recorded.lengths):.1f}")
    assert found.num_steps == NUM_STEPS and sum(recorded.lengths) == NUM_STEPS and max(recorded.lengths) > 5
    assert found.other_actions == 0
    assert found.logits < 1e-4 and found.routing < 1e-5 and found.hidden < 1e-4, found


def langs(page, packed: dict, texts: list[str]) -> list:
    """What the page's policy sees of missions, or why it cannot read one."""
    program = """([packed, texts]) => {
      const policy = new Policy(packed);
      return texts.map((text) => policy.missions.error(text) || Array.from(policy.lang(text)));
    }"""
    return page.evaluate(program, [packed, texts])


@pytest.mark.parametrize("kind", ["film", "linear", "baseline, film"])
def test_missions_that_were_never_recorded_are_read(page, kind):
    checkpoint, rng = checkpoint_of(kind), np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, length)) for length in [1, 2, 5, 12, 37, MAX_WORDS]]
    texts += ["Pick up the RED ball,then open  the door ", PROBE_MISSION.replace("your left", "the left")]
    _, missions = prepare(checkpoint, encoder_for(checkpoint))
    found = langs(page, packed_as_json(checkpoint), texts)
    np.testing.assert_allclose(found, missions.lang(texts).numpy(), rtol=0, atol=1e-5)


def test_missions_that_cannot_be_read_are_told(page):
    too_long = " ".join(["ball"] * (MAX_WORDS + 1))
    for kind in ("baseline", "raw"):  # words, vocab
        found = langs(page, packed_as_json(checkpoint_of(kind)), ["", "  ", "open the window", too_long, "the ball"])
        assert all(isinstance(answer, str) for answer in found[:4]) and isinstance(found[4], list)
        assert "window" in found[2]
    assert isinstance(langs(page, packed_as_json(checkpoint_of("baseline, film")), [""])[0], str)
    program = "packed => { try { new Policy(packed).lang('the window'); return 'read' } catch { return 'refused' } }"
    assert page.evaluate(program, packed_as_json(checkpoint_of("raw"))) == "refused"


def test_a_model_that_reads_missions_stays_behind_but_its_missions_come(page, tmp_path):
    encoder = load_encoder(str(build_tiny_encoder(tmp_path / "encoder")))
    checkpoint = untrained(lang_encoder=encoder.name)
    texts = ["go to the red ball", "open the door"]
    found = langs(page, packed_as_json(checkpoint, texts, encoder), [*texts, "go to the blue ball", "toString"])
    _, missions = prepare(checkpoint, encoder)
    np.testing.assert_allclose(found[:2], missions.lang(texts).numpy(), rtol=0, atol=1e-6)
    assert isinstance(found[2], str) and isinstance(found[3], str)


def test_a_changed_policy_takes_the_steps_of_python(page):
    """Gates and memory within the steps of a policy, from one to the next."""
    checkpoint = untrained(lang_encoder="words", **FILM)
    recorded = record(checkpoint, 60, num_envs=2)
    policy, missions = prepare(checkpoint, encoder_for(checkpoint))
    experts = experts_of_units(policy.hidden_layout, policy.expert_hidden_sizes)
    program = """([packed, text, variant, mission, obs]) => {
      const policy = new Policy(packed), lang = policy.lang(mission);
      const gates = new Gates(parse(text), policy.sizes, packed.mean_routing);
      let hidden = policy.zeroHidden();
      return obs.map((row, t) => {
        const made = policy.step(Float32Array.from(row), lang, hidden, gates.at(0, t));
        hidden = applyMemory(variant, policy, made.routing, hidden, made.hidden);
        return [made.logits, hidden].map((list) => Array.from(list));
      });
    }"""
    obs, lang = recorded.obs[: recorded.lengths[0]].astype(np.float32), missions.lang(recorded.missions[:1])
    assert len(obs) > 10
    for text, variant in (("argmax", "zeroed"), ("lesion_size 8 + clamp 1.0=0.3", "frozen"), ("none", "gate-only")):
        gates, hidden = Gates(parse(text), policy.expert_hidden_sizes), policy.initial_hidden(1)
        asked = [packed_as_json(checkpoint), text, variant, recorded.missions[0], obs.tolist()]
        for t, (logits, states) in enumerate(page.evaluate(program, asked)):
            intervene = gates.at(np.zeros(1, int), np.array([t]))
            row = torch.from_numpy(obs[t : t + 1])
            expected, routing, after = policy.get_routing_info(row, lang, hidden, intervene=intervene)
            hidden = apply_state_policy(variant, experts, routing, hidden, after)
            np.testing.assert_allclose(logits, expected[0], rtol=0, atol=1e-4)
            np.testing.assert_allclose(states, hidden[0], rtol=0, atol=1e-5)


def test_what_minigrid_does_not_have_is_refused(page):
    program = """([packed, place, value]) => {
      const policy = new Policy(packed), obs = new Float32Array(152);
      obs[place] = value;
      try { return policy.step(obs, policy.lang("ball"), policy.zeroHidden()).logits.length; } catch { return 0; }
    }"""
    for kind in ("residual", "baseline"):
        packed = packed_as_json(checkpoint_of(kind))
        answers = [page.evaluate(program, [packed, *case]) for case in ((0, 10), (0, 11), (49, 6), (98, 3), (98, -1))]
        assert answers == [7, 0, 0, 0, 0]


def test_a_policy_of_the_default_size_is_small():
    size = len(json.dumps(pack_policy(checkpoint_of("film"), [])))
    assert 1_000_000 < size < 1_100_000
