"""A third kind of world, made here in a few lines, is recorded, simulated and attributed."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generative.attribution.loop_inputs import VIEW, LearnedScenes, Place
from generative.attribution.recorded_steps import explain
from generative.domains import registry
from generative.domains.base import Answer, Domain, Policy, Start, Step, Target
from generative.recordings.session import open_source, record
from generative.simulators.training import SimulatorRun, make_config, resolve_settings, train
from mop.artifacts.records import write_record

NUM_STEPS = 8  # of an episode


class Ring:
    """The worlds: a light on a ring of four cells, which an action moves to either side."""

    def __init__(self, config, num_slots, max_steps):
        self.versions = {}
        self.encoding = {"domain": "ring", "task_id": "ring", "max_steps": NUM_STEPS, "actions": ["left", "right"]}
        self.obs = np.zeros((num_slots, 4), np.uint8)
        self.steps = np.zeros(num_slots, int)

    def fields(self):
        return [("obs", np.uint8, (4,))]

    def begin(self, slot, seed_of):
        self.steps[slot], self.obs[slot] = 0, np.eye(4)[seed_of(0) % 4]
        return Start(seed_of(0), "", {})

    def step(self, slot, action):
        self.obs[slot] = np.roll(self.obs[slot], 2 * action - 1)
        self.steps[slot] += 1
        return Step(float(self.obs[slot, 0]), False, self.steps[slot] == NUM_STEPS, None)

    def show(self, rows, slots):
        rows["obs"] = self.obs


class Follower(Policy):
    """The policy: it remembers where the light was, and prefers the side that it went to."""

    hidden_size, num_actions = 4, 2

    def step(self, views: Tensor, lang: Tensor, hidden: Tensor) -> Answer:
        right = (views * hidden.roll(1, -1)).sum(-1)
        return Answer(torch.stack([1 - right, 2 * right], -1), [], views)


class RingDecoder(nn.Module):
    """The simulator's observation model: views are normally distributed."""

    def __init__(self, sizes):
        super().__init__()
        self.encode, self.heads = nn.Linear(4, sizes["encoded"]), nn.Linear(sizes["width"], 4)

    def forward(self, features):
        return self.heads(features)

    def decode(self, logits):
        return logits

    def nats(self, logits, views):
        return (logits - views).square().sum(-1) / 2


class Light(NamedTuple):
    """A cause: a cell of the ring."""

    x: int
    y: int = 0
    kind = "light"

    @property
    def numbers(self):
        return (self.x, self.y)


RING = Domain(
    name="ring",
    load_policy=lambda path, encoder=None, needs_encoder=True: (Follower(), {}),
    open_worlds=Ring,
    to_views=lambda obs: torch.as_tensor(obs).float(),
    make_decoder=RingDecoder,
    presets={"tiny": {"deterministic": 24, "groups": 2, "classes": 4, "width": 24, "encoded": 12}},
    find_causes=lambda encoding: lambda episode, step: [Light(int(x)) for x in np.flatnonzero(episode["obs"][step])],
    remove_causes=lambda obs, causes: np.stack([np.where(np.arange(4) == one.x, 0, obs) for one in causes]),
    parse_target=lambda text, *_: Target(text, lambda answer: answer.logits[:, 1]),
)


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.setitem(registry.DOMAINS, "ring", RING)
    (tmp_path / "policy.pt").write_bytes(b"of a toy")
    source = open_source(RING, tmp_path / "policy.pt", None, num_slots=5, max_steps=None, world={})
    settings = {"num_steps": 800, "seed": 0, "epsilon": 0.2, "policies": ["argmax", "random"]}
    return record(source, tmp_path / "recording", settings)


def test_it_is_recorded(recording):
    episode = recording.episode(int(recording.episodes(behaviours=["argmax"])[0]))
    assert len(recording) == 100 and len(episode["action"]) == NUM_STEPS + 1
    assert registry.domain_of_recording(recording) is RING
    assert np.array_equal(episode["hidden"][1:], episode["obs"][:-1]), "the hidden state follows what was seen"
    moved = np.roll(episode["obs"][0], 2 * int(episode["action"][0]) - 1)
    assert np.array_equal(episode["obs"][1], moved)


def test_it_is_simulated_and_attributed(recording, tmp_path):
    given = {"num_updates": 60, "num_sim_steps": 5, "batch_size": 16, "lr": 1e-2, "loss_scale_obs": 20.0}
    settings = resolve_settings(RING, "tiny", given)
    config = make_config(RING, settings, "tiny", recording, tmp_path / "policy.pt")
    train(SimulatorRun(RING, config, Follower(), recording), tmp_path / "ring", "ring")
    model, config = registry.load_simulator(tmp_path / "ring")
    assert config["domain"] == "ring" and model.num_actions == 2

    k = int(recording.episodes("validation", ["random"])[0])
    scenes = LearnedScenes(model, config["num_initializing_steps"], recording.config["encoding"])
    target = RING.parse_target("right")
    explanation = explain(
        RING, Follower(), scenes, recording, Place(k, 5, 1), target, VIEW, num_points=64, is_own=False
    )
    write_record(tmp_path / "one.npz", explanation)
    again = RING.explanation.load(tmp_path / "one.npz")
    assert np.array_equal(again.total, explanation.total) and again.lag.tolist() == [0, 1]
    direct, memory = (explanation.by_path[lag] for lag in (0, 1))
    went_right = recording.episode(k)["action"][4] == 1
    assert direct[0] == pytest.approx(2 * went_right, abs=1e-4), "what is seen now counts only where it came from there"
    assert not memory[0] and (memory[1:] != 0).any()
