"""Attribution through the closed loop, held against differences, integrals and known causes."""

import dataclasses

import numpy as np
import pytest
import torch
from checks import refusal
from generative_planted import Planted
from generative_toys import Corridor, Still, precise, tiny_policy

from generative.attribution.closed_loop import EVERY_PATH, Paths
from generative.attribution.explanations import PATHS
from generative.attribution.integrated_gradients import NO_PATH, ClosedLoopRollout, predict_effects
from generative.domains.babyai.causes import (
    place_name,
    thing_name,
    things_in_view,
    things_in_world,
    views_without,
)
from generative.domains.babyai.targets import parse_target
from generative.representations.storage import Directions
from generative.simulators.relaxation import discretise, to_simplex
from mop.envs.geometry import EMPTY, GREY_WALL


class View:
    """Where the toy world begins: what is seen is the world's state."""

    def __call__(self, there):
        return there, there["view"]


def loop_of(policy, lag, actions=True, seed=4):
    """A loop in the corridor with smooth steps (recorded actions), or the policy's own."""
    generator = torch.Generator().manual_seed(seed)
    dtype = policy.policy.head.weight.dtype
    lang, hidden = (torch.randn(1, size, generator=generator).to(dtype) for size in (5, policy.policy.hidden_size))
    recorded = torch.randint(0, 7, (1, lag + 1), generator=generator) if actions else None
    return ClosedLoopRollout(policy, Corridor(), View(), lang, 0.3 * hidden, lag, recorded)


def beginnings(num_changes=6, seed=2):
    """A view of random objects, and that view with one thing less in each of C ways."""
    obs = discretise(Corridor().begin(1, seed)["view"])[0].numpy()
    things = things_in_view(obs)[:: 49 // num_changes][:num_changes]
    return {"view": to_simplex(obs)[None].double()}, {"view": to_simplex(views_without(obs, things)).double()}, things


def toy_directions(policy) -> Directions:
    """The first three units of the memory, from a mean of 0.5."""
    size, dtype = policy.policy.hidden_size, str(policy.policy.head.weight.dtype).removeprefix("torch.")
    known = {"duals": np.eye(size, dtype=dtype)[:3], "mean": np.full(size, 0.5, dtype)}
    known |= {"names": np.array(["d0", "d1", "d2"]), "blocks": np.array(["all"] * 3), "block_names": np.array(["all"])}
    known["block_columns"] = np.array([[0, size]])
    return Directions(**{field.name: known.get(field.name) for field in dataclasses.fields(Directions)})


TARGETS = ("action:forward", "routing:1.1", "lpc", "entropy", "direction:1")


@pytest.mark.parametrize("text", TARGETS)
def test_gradients_are_those_of_finite_differences(text):
    policy, (there, changed, _), step = precise(tiny_policy(seed=1)), beginnings(), 1e-5
    target, loop = parse_target(text, policy, toy_directions(policy)), loop_of(policy, lag=3)
    found = predict_effects(loop, there, changed, target, "gradient")
    towards = changed["view"] - there["view"]
    up, down = (loop.values({"view": there["view"] + sign * step * towards}, [target])[0] for sign in (1, -1))
    assert torch.allclose(found.total(), (up - down) / (2 * step), rtol=1e-6, atol=1e-9)
    assert found.total().abs().min() > 0


@pytest.mark.parametrize("text", TARGETS)
def test_integrated_gradients_are_complete(text):
    """Their sum along a change is the difference of the outputs, and gradients alone are not it."""
    policy, (there, changed, _) = precise(tiny_policy(seed=1)), beginnings()
    target, loop = parse_target(text, policy, toy_directions(policy)), loop_of(policy, lag=3)
    effects = predict_effects(loop, there, changed, target, num_points=64)
    true = loop.values(changed, [target])[0] - loop.values(there, [target])[0]
    assert torch.allclose(effects.total(), true, rtol=1e-3) and effects.gap.abs().max() < 1e-3 * true.abs().max()
    first_order = predict_effects(loop, there, changed, target, "gradient")
    assert first_order.gap.abs().max() > 10 * effects.gap.abs().max()


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_paths_add_up_and_cutting_the_world_matters_from_lag_one(own, lag):
    policy, (there, changed, _) = precise(tiny_policy(seed=1)), beginnings()
    target, loop = parse_target("action:forward", policy), loop_of(policy, lag, not own)
    effects = predict_effects(loop, there, changed, target, num_points=8)
    parts = sum(effects.total(path) for path in PATHS)
    assert torch.allclose(parts, effects.total(), atol=1e-12)
    points = {name: part.clone().requires_grad_() for name, part in changed.items()}

    def slope(paths):
        return torch.autograd.grad(loop.values(points, [target], paths)[0].sum(), points["view"], allow_unused=True)[0]

    whole, without_world = slope(EVERY_PATH), slope(Paths(world=False))
    assert torch.equal(whole, without_world) == (lag == 0)
    if lag == 0:
        assert torch.equal(whole, slope(NO_PATH)) and torch.equal(effects.total("direct"), effects.total())
    else:
        assert all(effects.total(path).abs().max() > 0 for path in ("memory", "world"))
        assert effects.total("direct").abs().max() == 0 and (effects.total("mixed").abs().max() > 1e-9) == (lag > 1)


def test_changes_do_not_depend_on_their_company():
    policy, (there, changed, _) = precise(tiny_policy(seed=1)), beginnings(num_changes=5)
    target, loop = parse_target("lpc", policy), loop_of(policy, 2)
    together = predict_effects(loop, there, changed, target).total()
    alone = [predict_effects(loop, there, {"view": row[None]}, target).total() for row in changed["view"]]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12) and len(together) == 5


def test_a_planted_cause_is_the_top_attribution_and_the_change_confirms_it():
    """Of all things at all of nine earlier steps, the one that was read five steps before counts, and no other."""
    obs = np.zeros(152, np.float32)
    obs[:49], obs[148] = EMPTY, 1
    image = obs[:147].reshape(3, 7, 7)
    image[:, 2, 3], image[:, 5, 1], image[:, 4, 4] = (5, 1, 0), (5, 2, 0), (6, 1, 0)  # two keys and a ball
    planted, things = Planted((2, 3), delay=5), things_in_view(obs)
    target = parse_target("action:left", planted)
    there, changed = {"view": to_simplex(obs)[None]}, {"view": to_simplex(views_without(obs, things))}
    found = {}

    def glance(part):  # a change of what is seen, while the world stays
        return {"view": there["view"].expand(len(part["view"]), -1)}, part["view"]

    for lag in range(9):
        memory, actions = torch.ones(1, 5), torch.full((1, lag + 1), 6)
        loop = ClosedLoopRollout(planted, Still(), glance, torch.zeros(1, 1), memory, lag, actions)
        effects = predict_effects(loop, there, changed, target)
        found |= {(lag, str(thing)): float(value) for thing, value in zip(things, effects.total(), strict=True)}
        true = loop.values(changed, [target])[0] - loop.values(there, [target])[0]
        assert torch.allclose(true, effects.total(), atol=1e-6)
    assert len(found) == 27
    top = max(found, key=lambda key: abs(found[key]))
    assert top == (5, "green key, 3 ahead 1 left") and found.pop(top) == pytest.approx(6 / 7)
    assert max(map(abs, found.values())) < 1e-6


def test_targets_are_read_and_refused():
    policy = tiny_policy(seed=1)
    names = ["action:2", "action:forward", "action:turn left", "routing:1.1", "lpc", "entropy"]
    assert [parse_target(text, policy).name for text in names[:3]] == ["action:forward"] * 2 + ["action:left"]
    assert [parse_target(text, policy).name for text in names[3:]] == names[3:]
    answer = policy.step(to_simplex(np.zeros((1, 152))), torch.zeros(1, 5), policy.initial_hidden(1))
    words = ("", "action:fly", "action:chosen", "routing:1", "lpc:1", "entropy:x", "direction:0", "direction:x")
    for text in words:
        refusal(parse_target, text, policy)
    for text in ("routing:2.0", "routing:0.2", "entropy:2"):
        refusal(parse_target(text, policy), answer)
    assert "3" in refusal(parse_target, "direction:3", policy, toy_directions(policy))
    chosen, named = (parse_target(text, policy, chosen=5) for text in ("action:chosen", "action:toggle"))
    assert torch.equal(chosen(answer), named(answer)) and chosen.name == "action:chosen"
    coordinate = parse_target("direction:d1", policy, toy_directions(policy))
    assert torch.allclose(coordinate(answer).double(), answer.hidden[:, 1].double() - 0.5)


def test_things_are_told_as_the_agent_sees_them():
    codes = np.full((4, 5), EMPTY, np.int32)
    codes[0], codes[2, 1], codes[1, 3] = GREY_WALL, 5 + (2 << 20), 4 + (4 << 8) + (2 << 16) + (7 << 20)
    words = {str(thing) for thing in things_in_world(codes, (2, 2), 1) if thing_name(thing.code) != "wall"}
    assert words == {"red key, 1 right", "locked yellow door, 1 behind 1 left"}
    assert sum(thing_name(thing.code) == "wall" for thing in things_in_world(codes, (2, 2), 1)) == 5
    assert [place_name(*place) for place in ((0, 0), (2, -1), (-1, 3))] == [
        "here",
        "2 ahead 1 left",
        "1 behind 3 right",
    ]
    things = things_in_world(codes, (2, 2), 0)
    assert len(things) == 7


def test_what_is_carried_is_taken_with_its_flag():
    obs = np.zeros(152, np.float32)
    obs[:49], obs[148], obs[151] = EMPTY, 1, 1
    obs[:147].reshape(3, 7, 7)[:, 3, 6] = (5, 2, 0)
    (thing,) = things_in_view(obs)
    assert str(thing) == "blue key, carried"
    without = views_without(obs, [thing])[0]
    assert things_in_view(without) == [] and without[151] == 0 and (without != obs).sum() == 3
