"""Edits of the real world and of the exact one, and what they truly do to a policy."""

from collections import Counter

import numpy as np
import pytest
import torch
from generative_planted import Planted
from generative_simulated import simulated
from minigrid.core.actions import Actions

from generative.attribution.counterfactuals import (
    KINDS,
    Case,
    Edit,
    clone,
    edit_state,
    edit_world,
    effects,
    legal_edits,
    world_at,
)
from generative.domains.babyai.cells import BALL, BOX, DOOR, KEY, cell_codes
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.targets import parse_target
from generative.domains.base import Answer
from generative.simulators.exact import ExactSimulator
from generative.simulators.relaxation import to_simplex
from mixture_of_experts import MixtureOfExpertsPolicy
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS, World
from mop.envs.geometry import EMPTY

LANG_DIM = 4
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = map(int, Actions)


@pytest.fixture(scope="module")
def policy() -> FrozenPolicy:
    """Untrained, with weights large enough that what it sees decides what it does."""
    torch.manual_seed(0)
    module = MixtureOfExpertsPolicy(
        lang_dim=LANG_DIM, intermediate_dim=16, router_hidden_size=8, expert_hidden_sizes=[[0, 4], [0, 8]]
    )
    with torch.no_grad():
        module.head.weight.mul_(20.0)
    return FrozenPolicy(module, None, None)


@pytest.fixture(scope="module")
def targets(policy):
    return [parse_target(text, policy) for text in ("action:forward", "routing:1.1", "lpc", "entropy:0")]


def walked(task: str, seed: int, num_steps: int = 12) -> World:
    """A world after some random steps, mostly forward, that is not over."""
    rng = np.random.default_rng(stream_seed(seed, "walk"))
    world = World(f"BabyAI-{task}-v0")
    world.reset(seed)
    for _ in range(num_steps):
        before = clone(world)
        _, terminated, truncated = world.step(int(rng.choice(NUM_ACTIONS, p=[0.15, 0.15, 0.35, 0.15, 0.05, 0.1, 0.05])))
        if terminated or truncated:
            return before
    return world


def case_of(policy, world: World, edits, num_steps: int, seed: int = 0) -> Case:
    rng = np.random.default_rng(stream_seed(seed, "case"))
    lang = torch.from_numpy(rng.normal(size=LANG_DIM)).float()
    actions = rng.choice(NUM_ACTIONS, num_steps, p=[0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0.0])
    return Case(world, policy.initial_hidden(1)[0] + 0.1, lang, actions.tolist(), edits)


def plain(world: World) -> np.ndarray:
    return world.codes & (1 << 20) - 1


def test_a_clone_goes_on_as_the_world_would_and_leaves_it_alone():
    num_steps = 0
    for task in ("UnlockPickup", "PutNextLocal", "GoToSeqS5R2"):
        world = walked(task, 1)
        other = world_at(f"BabyAI-{task}-v0", None, 1, world.actions)
        before, copy = world.obs.copy(), clone(world)
        rng = np.random.default_rng(0)
        for action in rng.integers(0, NUM_ACTIONS, 60).tolist():
            assert copy.step(action) == other.step(action)
            assert (copy.obs == other.obs).all() and (copy.codes == other.codes).all()
            num_steps += 1
        assert (world.obs == before).all() and world.num_steps <= 12 and copy.env.instrs is not world.env.instrs
    assert num_steps == 180


def test_the_bot_finishes_a_clone():
    world = world_at("BabyAI-UnlockPickup-v0", None, 5, [])
    copy, reward = clone(world), 0.0
    while not reward:
        reward, terminated, truncated = copy.step(copy.label())
        assert reward or not (terminated or truncated)
    assert world.num_steps == 0


def test_edits_are_legal_and_complete():
    world = world_at("BabyAI-UnlockPickup-v0", None, 0, [])
    edits = legal_edits(world)
    assert len(edits) == len(set(edits))
    kinds = Counter(edit.kind for edit in edits)
    objects = Counter(code & 255 for code in world.codes.ravel())
    num_things, num_doors = sum(objects[kind] for kind in (KEY, BALL, BOX)), objects[DOOR]
    num_free = int(((world.codes & 255 == EMPTY) & world.seen.T).sum())
    assert world.env.carrying is None and num_things == 2 and num_doors == 1
    expected = {"remove": num_things, "color": 5 * (num_things + num_doors), "type": 2 * num_things}
    assert kinds == expected | {"state": 2 * num_doors, "put": 18 * num_free}
    assert {edit for edit in edits if edit.kind == "state"} == set(legal_edits(world, ["state"]))


@pytest.mark.parametrize("task", ["UnlockPickup", "PutNextLocal", "GoToSeqS5R2", "OpenTwoDoors"])
def test_every_edit_makes_the_same_world_of_the_real_one_and_the_exact_one(task):
    """And both go on alike, through whatever the mission looks for; also where the hand is edited."""
    rng = np.random.default_rng(stream_seed(0, task))
    counts = Counter()
    for seed in range(2):
        world = walked(task, seed, 25)
        simulator = ExactSimulator(world.codes.shape)
        state = simulator.state_of_worlds([world])
        edits = legal_edits(world)
        for edit in rng.permutation(len(edits))[:30].tolist():
            edit = edits[edit]
            copy = clone(world)
            edit_world(copy, edit)
            edited = edit_state(state, [edit])
            counts[edit.kind] += 1
            counts["in hand"] += (edit.x, edit.y) == world.position
            for action in [None, *rng.integers(0, NUM_ACTIONS, 5).tolist()]:
                if action is not None:
                    copy.step(action)
                    edited = simulator.step(edited, torch.eye(NUM_ACTIONS)[[action]])
                assert torch.equal(simulator.view(edited), to_simplex(copy.obs[None]))
                assert (cell_codes(edited["grid"][0]).numpy() == plain(copy)).all()
            again = simulator.state_of_worlds([copy])
            assert edited.keys() == again.keys() and all(torch.equal(edited[name], again[name]) for name in edited)
        assert torch.equal(simulator.view(state), to_simplex(world.obs[None])), "an edit changed what it was given"
    assert sum(counts[kind] for kind in KINDS) >= 60 and counts["put"] and counts["in hand"], counts


def test_an_edit_that_does_not_fit_is_refused():
    world = world_at("BabyAI-UnlockPickup-v0", None, 0, [])
    edit = Edit(1, 1, KEY, EMPTY)
    with pytest.raises(ValueError, match="does not fit"):
        edit_world(clone(world), edit)
    with pytest.raises(ValueError, match="does not fit"):
        edit_state(ExactSimulator(world.codes.shape).state_of_worlds([world]), [edit])


def test_a_world_is_not_replayed_beyond_its_end():
    world = world_at("BabyAI-UnlockPickup-v0", None, 5, [])
    while not world.step(world.label())[1]:
        pass
    assert world_at("BabyAI-UnlockPickup-v0", None, 5, world.actions).num_steps == world.num_steps
    with pytest.raises(ValueError, match="ends after"):
        world_at("BabyAI-UnlockPickup-v0", None, 5, [*world.actions, 0])


def test_a_dyed_box_keeps_what_it_holds_and_another_thing_in_its_place_holds_nothing():
    world = world_at("BabyAI-KeyInBox-v0", None, 3, [])
    held = Counter()
    for edit in legal_edits(world, ["color", "type"]):
        if edit.before & 255 == BOX:
            copy = clone(world)
            edit_world(copy, edit)
            inside = copy.env.grid.get(edit.x, edit.y).contains
            held[edit.kind, None if inside is None else inside.type] += 1
    assert held == {("color", "key"): 5, ("type", None): 2}


def test_a_mission_does_not_mean_what_took_the_place_of_its_object():
    """One step before the bot would stand before what it was sent to."""
    world = world_at("BabyAI-GoToObj-v0", None, 2, [])
    while True:
        before = clone(world)
        if world.step(world.label())[1]:
            break
    kinds = Counter()
    for edit in legal_edits(before, ["remove", "color", "type"]):
        copy = clone(before)
        edit_world(copy, edit)
        _, terminated, _ = copy.step(world.actions[-1])
        assert not terminated
        kinds[edit.kind] += 1
    assert kinds == {"remove": 1, "color": 5, "type": 2}


def test_numbers_of_objects_stay_apart():
    world = walked("PutNextLocal", 2)
    for kind in ("put", "put", "type", "color"):
        before = len(set((world.codes >> 20).ravel()))
        edit_world(world, legal_edits(world, [kind])[0])
        assert len(set((world.codes >> 20).ravel())) == before + (kind == "put")


def test_no_edit_has_no_effect_and_neither_has_what_is_never_seen(policy, targets):
    world = world_at("BabyAI-UnlockPickup-v0", None, 0, [])
    (box,) = [edit for edit in legal_edits(world, ["remove"]) if edit.before & 255 == BOX]
    unseen = [edit for edit in legal_edits(world) if (edit.x, edit.y) == (box.x, box.y)]
    nothing = [Edit(edit.x, edit.y, edit.before, edit.before) for edit in legal_edits(world, ["remove"])]
    for k in (0, 1, 6):
        case = case_of(policy, world, [*nothing, *unseen, *legal_edits(world, ["put"])[:40]], k)
        found = effects(policy, case, targets)
        num_without = len(nothing) + len(unseen)
        for values in (found.acting, found.forced):
            assert values.shape == (num_without + 40, len(targets)) and (values[:num_without] == 0.0).all()
            assert (values[num_without:] != 0.0).any(1).all(), "what is put into its view changes it"


def test_effects_in_the_exact_simulator_are_those_in_the_real_world(policy, targets):
    """Whatever the policy or the recorded actions do after an edit."""
    num_effects = num_other_actions = 0
    for task in ("UnlockPickup", "PutNextLocal"):
        for seed in range(6):
            world = walked(task, seed, 6 + seed)
            edits = legal_edits(world)
            picked = np.random.default_rng(seed).permutation(len(edits))[:12]
            case = case_of(policy, world, [edits[k] for k in picked], seed, seed)
            one = effects(policy, case, targets)
            other = effects(policy, case, targets, simulated(ExactSimulator(world.codes.shape)))
            for name in one._fields:
                values, expected = getattr(one, name), getattr(other, name)
                lasts = ~np.isnan(values)
                assert lasts.mean() > 0.9
                np.testing.assert_allclose(values[lasts], expected[lasts], rtol=1e-4, atol=1e-3)
            num_effects += int((one.acting != 0).sum())
            num_other_actions += int((one.acting != one.forced).any())
    assert num_effects > 100 and num_other_actions >= 3


def test_values_without_an_edit_are_those_of_the_episode(policy, targets):
    """The policy's own steps from the start, asked with memory and actions from each moment before."""
    world = world_at("BabyAI-PutNextLocal-v0", None, 3, [])
    lang, hidden, answers, memories = torch.ones(1, LANG_DIM), policy.initial_hidden(1), [], []
    starts = []
    for _ in range(7):
        memories.append(hidden[0])
        starts.append(clone(world))
        answer = policy.step(to_simplex(world.obs[None]), lang, hidden)
        answers.append(answer)
        hidden = answer.hidden
        world.step(int(answer.logits.argmax()))
    expected = [float(target(answers[6])) for target in targets]
    for k in range(7):
        case = Case(starts[6 - k], memories[6 - k], lang[0], world.actions[6 - k : 6], [])
        found = effects(policy, case, targets)
        assert found.acting.shape == (0, len(targets))
        np.testing.assert_allclose(found.acting_values, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found.forced_values, expected, rtol=1e-4, atol=1e-4)


def test_there_is_no_effect_after_the_end_of_an_episode(policy, targets):
    """Before a closed door that is to be opened: opened beforehand, the episode goes on."""
    world = world_at("BabyAI-OpenRedDoor-v0", None, 0, [])
    while True:
        before = clone(world)
        if world.step(world.label())[1]:
            break
    assert world.actions[-1] == TOGGLE
    (edit,) = [edit for edit in legal_edits(before, ["state"]) if edit.after >> 16 == 0]
    x, y = before._front()
    assert (edit.x, edit.y) == (x, y)
    closed = clone(before)
    edit_world(closed, edit)
    found = effects(policy, case_of(policy, before, [edit], 0)._replace(actions=[TOGGLE, LEFT]), targets)
    assert np.isnan(found.forced_values).all() and np.isnan(found.forced).all()
    there = Edit(x, y, edit.after, edit.before)
    found = effects(policy, case_of(policy, closed, [there], 0)._replace(actions=[TOGGLE, LEFT]), targets)
    assert np.isfinite(found.forced_values).all() and np.isnan(found.forced).all()


def test_a_planted_cause_is_found_and_nothing_else():
    """The toy routes by the colour that it saw in one cell five steps ago: only an edit of that cell matters."""
    rng, num_causes, num_others = np.random.default_rng(stream_seed(0, "planted")), 0, 0
    toy = Planted((3, 4), 5, is_silent=True)  # two cells before the agent
    target = parse_target("routing:0.1", toy)
    for seed in range(12):
        world = walked("PutNextLocal", seed, 8)
        x, y = 2 * np.array(world._front()) - world.position
        edits = legal_edits(world)
        at_cause = [edit for edit in edits if (edit.x, edit.y) == (x, y)]
        edits = at_cause + [edits[k] for k in rng.permutation(len(edits))[:30] if edits[k] not in at_cause]
        cases = [Case(world, torch.zeros(5), torch.zeros(1), [DONE] * k, edits) for k in (5, 4)]
        at_five, at_four = (effects(toy, case, [target]) for case in cases)
        changes_color = [edit.before >> 8 & 255 != edit.after >> 8 & 255 for edit in edits]
        expected = [is_other and k < len(at_cause) for k, is_other in enumerate(changes_color)]
        for values in (at_five.acting, at_five.forced):
            assert (values[:, 0] != 0.0).tolist() == expected
        assert (at_four.forced == 0.0).all(), "what was there four steps ago is not yet remembered"
        num_causes, num_others = num_causes + sum(expected), num_others + len(edits) - len(at_cause)
    assert num_causes >= 50 and num_others >= 300


def test_forced_actions_leave_out_what_the_policy_does_about_an_edit():
    """The toy turns left while it sees no colour before it; one step after it saw one, it goes on as it looks."""
    toy = Planted((3, 5), 1)
    world = next(
        world for world in (walked("PutNextLocal", seed, 8) for seed in range(100))
        if all(code & 255 == EMPTY for code in around(world))
    )  # fmt: skip
    (x, y), (dx, dy) = world._front(), np.subtract(world._front(), world.position)
    beside = (world.position[0] + dy, world.position[1] - dx)
    edit_world(world, Edit(*map(int, beside), EMPTY, BALL + (5 << 8)))
    case = Case(world, torch.zeros(1), torch.zeros(1), [LEFT, LEFT], [Edit(x, y, EMPTY, BALL + (4 << 8))])
    found = effects(toy, case, [lambda answer: answer.hidden[:, 0]])
    assert (found.acting_values, found.forced_values) == (0.0, 0.0), "it looks back, where nothing is"
    assert (found.acting, found.forced) == (5.0, 0.0), "it went on to look left, at the grey ball"


def around(world: World) -> list[int]:
    """Codes of the cells before the agent, to its left, and behind it."""
    (x, y), (dx, dy) = world.position, np.subtract(world._front(), world.position)
    return [int(world.codes[y + to_y, x + to_x]) for to_x, to_y in ((dx, dy), (dy, -dx), (-dx, -dy))]


def test_targets_are_what_their_text_says():
    routing = [torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0.1, 0.2, 0.7], [0.0, 1.0, 0.0]])]
    answer = Answer(torch.arange(14.0).view(2, 7), routing, torch.zeros(2, 3))
    policy = Planted((0, 0), 1)
    policy.expert_hidden_sizes = policy.policy.expert_hidden_sizes = ((0, 16), (0, 16, 32))
    entropies = [[np.log(2), 0.0], [-(0.1 * np.log(0.1) + 0.2 * np.log(0.2) + 0.7 * np.log(0.7)), 0.0]]
    expected = {
        "action:left": [-3.0, -3.0],
        "action:done": [3.0, 3.0],
        "routing:1.2": [0.7, 0.0],
        "lpc": [128 + 0.2 * 256 + 0.7 * 1024, 256.0],
        "entropy:0": entropies[0],
        "entropy:1": entropies[1],
        "entropy": np.mean(entropies, 0).tolist(),
    }
    found = {text: parse_target(text, policy)(answer).tolist() for text in expected}
    assert found == {text: pytest.approx(values) for text, values in expected.items()}
