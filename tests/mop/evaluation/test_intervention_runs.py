"""Interventions on routing: the grammar, known weights, identities, plain against compiled, phases, planted need."""

import numpy as np
import pytest
import torch
from checks import refusal
from eval_helpers import UNLOCK, as_checkpoint, random_checkpoint, taught_checkpoint, toy_config
from routing_data import EVERY_KIND
from torch import nn

from mixture_of_experts import MixtureOfExpertsPolicy
from mop.analysis.intervention_effects import phases_of_both
from mop.common.intervention_grammar import VARIANTS, Intervention, parse
from mop.envs.bot_paths import BotPaths
from mop.envs.missions import load_encoder
from mop.evaluation.evaluate import evaluate
from mop.evaluation.intervention_batch import standard_battery
from mop.evaluation.intervention_runs import Study, with_routers_of
from mop.evaluation.routing_gates import Gates, apply_state_policy, experts_of_units
from mop.fast import policy as fast
from mop.training import execution
from mop.training.policies import build_policy, policy_from_checkpoint

ENCODER = load_encoder("vocab")


@pytest.fixture(scope="module")
def taught() -> dict:
    """A policy that solves some worlds of UnlockPickup, which it knows by heart."""
    return taught_checkpoint(UNLOCK, 12, 120)


@pytest.fixture(scope="module")
def bot_paths() -> BotPaths:
    return BotPaths(UNLOCK, 40, None)


def make_study(checkpoint: dict, bot_paths: BotPaths, count: int = 12, **options) -> Study:
    return Study(checkpoint, ENCODER, bot_paths, count, num_envs=5, group_by="by_carrying", **options)


def assert_same(one, other) -> None:
    """The same episodes, and the same numbers of all steps, bit for bit."""
    assert one.episodes == other.episodes
    for name, values in one.steps.columns().items():
        pairs = [(values, getattr(other.steps, name))]
        pairs = zip(*pairs[0], strict=True) if name == "layer_routing" else pairs
        assert all(np.array_equal(left, right) for left, right in pairs), name


WEIGHTS = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1], [1.0, 0.0, 0.0]], np.float32)
KNOWN = {
    "none": [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1], [1, 0, 0]],
    "lesion 0.0": [[0, 0.375, 0.625], [0, 2 / 3, 1 / 3], [0, 0.5, 0.5]],
    "lesion 1.0": [[0.2, 0.3, 0.5], [0.7, 0.2, 0.1], [1, 0, 0]],  # of the other layer
    "lesion_size 16": [[2 / 7, 0, 5 / 7], [7 / 8, 0, 1 / 8], [1, 0, 0]],
    "threshold 0.25": [[0, 0.375, 0.625], [1, 0, 0], [1, 0, 0]],
    "threshold 0.9": [[0, 0, 1], [1, 0, 0], [1, 0, 0]],  # the heaviest stays
    "argmax": [[0, 0, 1], [1, 0, 0], [1, 0, 0]],
    "clamp 0.2=0.75": [[0.1, 0.15, 0.75], [7 / 36, 2 / 36, 0.75], [0.25, 0, 0.75]],
    "clamp 0.0=1": [[1, 0, 0], [1, 0, 0], [1, 0, 0]],
    "uniform 0": [[1 / 3] * 3] * 3,
    "mean 0": [[1.9 / 3, 0.5 / 3, 0.6 / 3]] * 3,
    "lesion 0.0 + lesion 0.1": [[0, 0, 1]] * 3,
    "lesion 0.0 + clamp 0.1=0.3": [[0, 0.3, 0.7]] * 3,
    "clamp 0.0=0.2 + clamp 0.1=0.3": [[0.2, 0.3, 0.5]] * 3,  # each has its own, whatever the order
    "clamp 0.0=0.9 + clamp 0.1=0.9": [[0.5, 0.5, 0]] * 3,  # more than there is: in proportion
    "lesion 0.0 + clamp 0.1=0.1 + clamp 0.2=0.3": [[0, 0.25, 0.75]] * 3,  # all of them: in proportion
    "lesion 0.0 + threshold 0.4": [[0, 0, 1], [0, 1, 0], [0, 0.5, 0.5]],
    "lesion 0.0 + threshold 0": [[0, 0.375, 0.625], [0, 2 / 3, 1 / 3], [0, 0.5, 0.5]],
    "lesion 0.1 + uniform 0 + argmax": [[1, 0, 0]] * 3,
    "lesion 0.0 + mean 0": [[0, 5 / 11, 6 / 11]] * 3,
    "lesion 1.0 + lesion_size 16": [[2 / 7, 0, 5 / 7], [7 / 8, 0, 1 / 8], [1, 0, 0]],
}


def test_weights_are_the_known_ones_for_arrays_and_tensors():
    episode, t_step = np.arange(3), np.array([4, 0, 300])
    for text, expected in KNOWN.items():
        gates = Gates(parse(text), [[0, 16, 32], [8, 0]], [WEIGHTS, WEIGHTS[:, :2]])
        own = gates.at(episode, t_step)(0, WEIGHTS)
        tensor = gates.at(episode, t_step)(0, torch.from_numpy(WEIGHTS))
        assert own.dtype == np.float32 and tensor.dtype == torch.float32
        np.testing.assert_allclose(own, expected, atol=1e-6, err_msg=text)
        np.testing.assert_array_equal(own, tensor.numpy(), err_msg=text)
        partly = gates.at(episode, t_step, np.array([True, False, True]))(0, torch.from_numpy(WEIGHTS)).numpy()
        np.testing.assert_array_equal(partly, np.where([[True], [False], [True]], own, WEIGHTS))
    assert len(KNOWN) == 21


def test_shuffled_weights_are_drawn_by_episode_and_step_from_the_whole_pool():
    pool = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32)
    gates = Gates(parse("shuffle 0"), [[0, 16, 32]], [pool], seed=3)
    episode, t_step = np.repeat(np.arange(20), 400), np.tile(np.arange(400), 20)
    drawn = gates.at(episode, t_step)(0, np.ones((8000, 3), np.float32))
    rows = (drawn[:, None] == pool[None]).all(-1).argmax(1)
    assert (pool[rows] == drawn).all() and np.bincount(rows, minlength=50).min() > 100
    order = np.random.default_rng(1).permutation(8000)  # another process, in another order
    again = Gates(parse("shuffle 0"), [[0, 16, 32]], [pool], seed=3).at(episode[order], t_step[order])
    assert np.array_equal(again(0, np.ones((8000, 3), np.float32)), drawn[order])
    other = Gates(parse("shuffle 0"), [[0, 16, 32]], [pool], seed=4).at(episode, t_step)
    assert not np.array_equal(other(0, np.ones((8000, 3), np.float32)), drawn)


def test_what_a_policy_has_not_is_told():
    for text in (
        *("lesion 2.0", "lesion 0.3", "lesion_size 5", "lesion 1.0", "lesion_size 32", "mean 7", "argmax + lesion 7.0"),
        *("lesion 0.0 + lesion 0.1 + lesion 0.2", "lesion_size 16 + clamp 0.1=0.3"),
    ):
        refusal(Gates, parse(text), [[0, 16, 32], [32]])
    refusal(Gates, parse("argmax"), [[64]])


def test_a_lesioned_expert_does_not_reach_the_logits():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = MixtureOfExpertsPolicy(10, 3, 13, [[0, 5, 9], [4, 0, 3]], 6, 5)
        inputs = torch.randn(7, 4, 13)
    checked = 0
    for layer, expert in ((0, 1), (0, 2), (1, 0), (1, 2)):
        gates = Gates(Intervention("lesion", layer, expert), policy.expert_hidden_sizes)
        policy.zero_grad()
        logits, routing, _ = policy.forward_encoded(
            inputs, policy.initial_hidden(4), intervene=gates.at(np.arange(4), np.zeros(4, int))
        )
        logits.square().sum().backward()
        assert (routing[layer][..., expert] == 0).all()
        for i, e in ((i, e) for i, of_layer in enumerate(policy.moe_layers) for e in range(3)):
            grads = [p.grad for p in policy.moe_layers[i].experts[e].parameters()]
            assert all(grad is not None and bool(grad.any()) != ((i, e) == (layer, expert)) for grad in grads)
            checked += len(grads)
    assert checked == 4 * 4 * 6


def test_the_memory_of_an_expert_without_weight_goes_on_or_is_frozen_or_zeroed():
    policy, _ = policy_from_checkpoint(random_checkpoint())
    experts, size = experts_of_units(policy.hidden_layout, policy.expert_hidden_sizes), policy.hidden_size
    assert experts.tolist() == [-1] * 6 + [1] * 8 + [2] * 16 + [-1] * 6 + [3] * 24
    before, after = torch.rand(2, size) + 1, torch.rand(2, size) + 3
    routing = [torch.tensor([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]]), torch.tensor([[0.4, 0.6], [0.0, 1.0]])]
    held = {variant: apply_state_policy(variant, experts, routing, before, after) for variant in VARIANTS}
    assert torch.equal(held["gate-only"], after)
    is_out = torch.zeros(2, size, dtype=torch.bool)
    is_out[0, 6:14] = is_out[1, 36:60] = True
    assert torch.equal(held["frozen"], torch.where(is_out, before, after))
    assert torch.equal(held["zeroed"], torch.where(is_out, 0, after))


def test_what_does_nothing_gives_the_identical_episodes(taught, bot_paths):
    """None, a threshold that no weight is below, and the routers that the policy has."""
    study, plain = make_study(taught, bot_paths), evaluate(taught, ENCODER, bot_paths, 12, num_envs=5)
    assert_same(study.intact, plain)
    own = policy_from_checkpoint(taught)[0]
    for text in ("none", "threshold 0.0", "threshold 0.0 in carrying", "swap own.pt"):
        for variant in VARIANTS:
            assert_same(study.episodes(parse(text), variant, own), study.intact)
            assert study.agrees(parse(text), variant, own).all()
    row = study.run(parse("none"))
    deltas = [row[name] for name in row if name.startswith("delta_")]
    assert len(deltas) == 6 and not any(deltas) and row["worlds_lost"] == row["worlds_gained"] == 0
    assert sum(episode["success"] for episode in study.intact.episodes) > 0


def test_weights_clamped_to_what_was_learned_change_nothing(taught, bot_paths):
    """Of a policy whose weights are always the same, by the text; of any policy, by the weights of each step."""
    checkpoint = dict(taught) | {"policy_state_dict": dict(taught["policy_state_dict"])}
    for layer in range(2):
        name = f"moe_layers.{layer}.router.fc.weight"
        checkpoint["policy_state_dict"][name] = torch.zeros_like(checkpoint["policy_state_dict"][name])
    study = make_study(checkpoint, bot_paths)
    for layer, sizes in enumerate(study.policy.expert_hidden_sizes):
        weights = study.intact.steps.layer_routing[layer]
        assert np.ptp(weights, axis=0).max() == 0
        for expert in range(len(sizes)):
            changed = study.episodes(parse(f"clamp {layer}.{expert}={float(weights[0, expert])!r}"))
            assert changed.episodes == study.intact.episodes
        assert study.episodes(parse(f"mean {layer}")).episodes == study.intact.episodes
    policy, _ = policy_from_checkpoint(taught)
    compiled, rng = fast.compile_policy(policy), np.random.default_rng(0)
    given = [rng.normal(size=(5, n)).astype(np.float32) for n in (152, 8, policy.hidden_size)]
    logits, routing, after = compiled.step(*given)
    for intervene in (lambda layer, weights: weights, lambda layer, weights: routing[layer]):
        own_logits, own_routing, own_after = compiled.step(*given, intervene)
        assert np.array_equal(own_logits, logits) and np.array_equal(own_after, after)
        assert all(np.array_equal(one, other) for one, other in zip(own_routing, routing, strict=True))


def test_a_lesion_is_a_router_that_can_never_choose_the_expert(taught, bot_paths):
    """Against another policy, which is simply evaluated: its router's bias keeps the expert from any weight."""
    study, changed_any = make_study(taught, bot_paths), False
    for layer, expert in ((0, 0), (0, 2), (1, 1)):
        checkpoint = dict(taught) | {"policy_state_dict": dict(taught["policy_state_dict"])}
        name = f"moe_layers.{layer}.router.fc.bias"
        bias = checkpoint["policy_state_dict"][name].clone()
        bias[expert] = -1e9
        checkpoint["policy_state_dict"][name] = bias
        expected = evaluate(checkpoint, ENCODER, bot_paths, 12, num_envs=5)
        lesioned = [study.episodes(Intervention("lesion", layer, expert), variant) for variant in VARIANTS]
        assert lesioned[0].episodes == expected.episodes
        np.testing.assert_allclose(lesioned[0].steps.action_logits, expected.steps.action_logits, atol=1e-4)
        for other in lesioned[1:]:  # nothing reads the memory of what is left out for good
            assert other.episodes == lesioned[0].episodes
            assert np.array_equal(other.steps.action_logits, lesioned[0].steps.action_logits)
        changed_any |= expected.episodes != study.intact.episodes
    assert changed_any


@pytest.mark.slow
@pytest.mark.parametrize("name", ["taught", "residual"])
def test_plain_and_compiled_agree_for_each_intervention(taught, bot_paths, name):
    """Every kind, in every memory variant; in a phase of worlds that have it."""
    checkpoint = taught if name == "taught" else random_checkpoint(1, UNLOCK, residual=True)
    other = policy_from_checkpoint(random_checkpoint(2, UNLOCK, residual=name == "residual"))[0]
    compiled = make_study(checkpoint, bot_paths, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "refusal", lambda policy: "not today")
        plain = make_study(checkpoint, bot_paths, 4)
    cases = [(text, variant) for text in EVERY_KIND for variant in VARIANTS if "in " not in text or name == "taught"]
    asked, original = [], MixtureOfExpertsPolicy.forward_encoded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixtureOfExpertsPolicy, "forward_encoded", lambda *given: asked.append(1) or original(*given))
        for text, variant in cases:
            patch.setattr(execution, "refusal", lambda policy: None)  # with the routers of another policy
            ways = [compiled.episodes(parse(text), variant, other)]
            patch.setattr(execution, "refusal", lambda policy: "not today")
            ways.append(plain.episodes(parse(text), variant, other))
            assert ways[0].episodes == ways[1].episodes, (text, variant)
            assert np.array_equal(ways[0].steps.action, ways[1].steps.action)
            for one, two in zip(ways[0].steps.layer_routing, ways[1].steps.layer_routing, strict=True):
                np.testing.assert_allclose(one, two, atol=1e-4)
            agree = [plain.agrees(parse(text), variant, other)]
            patch.setattr(execution, "refusal", lambda policy: None)
            assert np.array_equal(agree[0], compiled.agrees(parse(text), variant, other))
    assert len(cases) == (45 if name == "taught" else 36) and len(asked) > 1000


def test_routers_that_do_not_fit_are_refused():
    policy = build_policy(toy_config())
    for changes in ({"expert_hidden_sizes": [[0, 8, 16], [0, 24]]}, {"router_hidden_size": 7}, {"policy": "gru"}):
        refusal(with_routers_of, policy, build_policy(toy_config(**changes)))


def with_an_expert_for_the_hands(checkpoint: dict) -> dict:
    """The same policy behind a layer of three experts: two skips, and one that says the same whatever it sees.

    With empty hands both skips are used; while something is carried, only the first is, and the third is next. So
    without the first the policy is blind while it carries something, and at no other time.
    """
    config = dict(checkpoint["config"])
    width = config["intermediate_dim"]
    old = {name: value.clone() for name, value in checkpoint["policy_state_dict"].items()}
    config |= {"intermediate_dim": width + 1, "expert_hidden_sizes": [[0, 0, 4], *config["expert_hidden_sizes"]]}
    policy = build_policy(config)
    new = {name: torch.zeros_like(value) for name, value in policy.state_dict().items()}
    for name, value in old.items():  # one number more, which nothing reads or writes, in all that was there
        words = name.split(".")
        if words[0] == "moe_layers":
            words[1] = str(int(words[1]) + 1)
        new[".".join(words)][tuple(map(slice, value.shape))] = value
    new["input_projection.weight"][width, 151] = 1.0  # something is carried
    units = config["router_hidden_size"]
    new["moe_layers.0.router.gru.bias_ih_l0"][units : 2 * units] = -30.0  # nothing is kept
    new["moe_layers.0.router.gru.weight_ih_l0"][2 * units, width] = 10.0
    new["moe_layers.0.router.gru.bias_ih_l0"][2 * units] = -5.0  # the first unit is -1 or 1
    new["moe_layers.0.router.fc.weight"][:, 0] = torch.tensor([0.0, -30.0, 10.0])
    new["moe_layers.0.router.fc.bias"][:] = torch.tensor([0.0, -30.0, -30.0])
    new["moe_layers.0.experts.2.projection.bias"][:] = 5.0
    policy.load_state_dict(new)
    lang_proj = nn.Linear(ENCODER.dim, config["lang_dim"])
    lang_proj.load_state_dict(checkpoint["lang_proj_state_dict"])
    return as_checkpoint(policy, lang_proj, config)


def test_the_matrix_shows_where_the_planted_expert_is_needed_and_nowhere_else(taught, bot_paths):
    planted = with_an_expert_for_the_hands(taught)
    study, before = make_study(planted, bot_paths), make_study(taught, bot_paths)
    assert study.intact.episodes == before.intact.episodes and study.phases == ["hands empty", "carrying"]
    solved = np.mean([episode["success"] for episode in study.intact.episodes])
    assert solved > 0.3
    checked = 0
    for expert in range(3):
        for phase in (None, *study.phases):
            for variant in VARIANTS:
                intervention = Intervention("lesion", 0, expert, phase=phase)
                row = study.run(intervention, variant)
                is_needed = expert == 0 and phase != "hands empty"
                assert row["delta_success"] == pytest.approx(-solved if is_needed else 0), (intervention, variant)
                if not is_needed:
                    assert study.episodes(intervention, variant).episodes == study.intact.episodes
                    assert row["agreement"] == 1
                checked += 1
    assert checked == 27
    row = study.run(parse("lesion 0.0"))
    lost = {phase["phase"]: phase["delta_success"] for phase in row["phases"]}
    assert lost == {"hands empty": 0, "carrying": pytest.approx(-solved)}
    agreement = {phase["phase"]: phase["agreement"] for phase in row["phases"]}
    assert agreement["hands empty"] > 0.9 > agreement["carrying"]


def test_in_a_phase_an_intervention_is_made_at_its_steps_and_at_no_other(taught, bot_paths):
    """Also where it changes how often and when the phase begins and ends."""
    study, differ = make_study(taught, bot_paths), 0
    for text, variant in (("uniform 0", "gate-only"), ("argmax", "zeroed"), ("lesion 1.0", "frozen")):
        for phase, is_carrying in (("hands empty", False), ("carrying", True)):
            changed = study.episodes(parse(f"{text} in {phase}"), variant)
            weights = changed.steps.layer_routing[1 if text.startswith("lesion") else 0]
            is_made = {
                "uniform 0": np.abs(weights - 1 / 3).max(1) < 1e-6,
                "argmax": (weights == 0).sum(1) == 2,
                "lesion 1.0": weights[:, 0] == 0,
            }[text]
            assert np.array_equal(is_made, changed.steps.carrying == is_carrying)
            assert [episode["seed"] for episode in changed.episodes] == list(range(12))
            ends = np.flatnonzero(np.diff(changed.steps.episode, append=12)) + 1
            assert np.array_equal(np.diff(ends, prepend=0), [episode["steps"] for episode in changed.episodes])
            differ += changed.episodes != study.intact.episodes
    assert differ >= 3


def test_the_sub_goals_of_the_bot_are_phases(taught, bot_paths):
    study = Study(taught, ENCODER, bot_paths, 12, num_envs=5, group_by="by_subgoal")
    covered = 0
    for phase in study.phases:
        changed = study.episodes(parse(f"uniform 0 in {phase}"), "gate-only")
        is_made = np.abs(changed.steps.layer_routing[0] - 1 / 3).max(1) < 1e-6
        groups, _, of_step = phases_of_both(study.intact, changed, "by_subgoal")
        assert np.array_equal(is_made, of_step == groups.labels.index(phase))
        covered += is_made.any()
    assert covered >= 2


def test_phases_that_are_not_there_or_not_known_in_time_are_refused(taught, bot_paths):
    study = make_study(taught, bot_paths)
    refusal(study.check, parse("argmax in flight"))
    study = Study(taught, ENCODER, bot_paths, 12, group_by="by_action")
    assert "by_action" in refusal(study.episodes, parse("uniform 0 in forward"))


def test_effects_in_phases_sum_to_all(taught, bot_paths):
    study = make_study(taught, bot_paths)
    for text in ("lesion 0.1", "uniform 1", "threshold 0.3"):
        row = study.run(parse(text))
        sums = [sum(phase["delta_success"] for phase in row["phases"])]
        assert sums[0] == pytest.approx(row["delta_success"])
        if row["worlds_both"]:
            in_phases = sum(phase["delta_path_ratio"] for phase in row["phases"])
            assert in_phases == pytest.approx(row["delta_path_ratio"])


def test_the_standard_battery_is_complete():
    battery = standard_battery([[0, 16, 32], [8], [0, 16]], ["early", "late"])
    texts = [str(intervention) for intervention, _ in battery]
    assert len(set(battery)) == len(battery) == 1 + 5 + 3 + 6 + 15 + 30
    assert texts[:3] == ["none", "lesion 0.0", "lesion 0.1"] and texts.count("argmax") == 3
    assert {"lesion 2.1 in late", "lesion_size 32", "shuffle 2", "threshold 0.33"} <= set(texts)
    assert not any(text.startswith(("lesion 1.", "lesion_size 8", "mean 1")) for text in texts)
    assert all(parse(text) == intervention for text, (intervention, _) in zip(texts, battery, strict=True))
