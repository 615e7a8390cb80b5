"""The page's policy against Python's on recorded steps: one equation, two languages."""

import json

import pytest
import torch
from eval_helpers import UNLOCK, as_checkpoint, toy_config
from javascript import page_with
from recorded_in_page import MODULES, REPLAY, distance
from recorded_steps import record
from scripts import REPOSITORY

from mop.artifacts.checkpoints import load_checkpoint
from mop.envs.missions import load_encoder
from mop.microscope.pack_policy import pack_policy
from mop.training.policies import build_lang_proj, build_policy

NUM_STEPS = 300
ZOO = {"film": f"{UNLOCK}/trial_30/seed_0", "linear": f"{UNLOCK}/trial_0/seed_0"}
FILM = {"obs_encoding": "one_hot", "input_encoder": "film", "film_cell_dim": 5, "film_features": 3}
UNTRAINED = {
    "baseline": {"policy": "gru", "lang_encoder": "words", "obs_encoding": "one_hot"},
    "baseline, film": {"policy": "gru", "lang_encoder": "none", **FILM},
    "residual": {"residual": True, "lang_encoder": "words", **FILM},
    "raw": {"residual": True},
}


@pytest.fixture(scope="module")
def page(browser):
    with page_with(browser, *MODULES, more=REPLAY) as page:
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
    return load_checkpoint(REPOSITORY / "results" / "zoo" / ZOO[kind] / "checkpoint_final.pt")


@pytest.mark.parametrize("kind", [*ZOO, *UNTRAINED])
def test_whole_episodes_are_those_of_python(page, kind):
    checkpoint = checkpoint_of(kind)
    packed = json.loads(json.dumps(pack_policy(checkpoint, [])))
    recorded = record(checkpoint, NUM_STEPS, num_envs=8)
    found = distance(page, packed, recorded)
    assert found.num_steps == NUM_STEPS and max(recorded.lengths) > 10
    assert found.other_actions == 0
    assert found.logits < 1e-4 and found.routing < 1e-5 and found.hidden < 1e-4, found


def test_a_policy_of_the_default_size_is_small():
    size = len(json.dumps(pack_policy(checkpoint_of("film"), [])))
    assert 1_000_000 < size < 1_100_000
