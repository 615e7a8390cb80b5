"""The exact simulator against the real environment, and what its gradients are."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checks import refusal
from minigrid.core.actions import Actions
from minigrid.core.world_object import Box, Key
from torch.nn import functional as F

from generative.domains.babyai.cells import COLOR, DOOR, STATE, TYPE, WALL, cell_codes, cell_columns
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.scenes import ExactScenes
from generative.simulators.exact import ExactSimulator, simulator_of
from generative.simulators.relaxation import CELL_CATEGORIES, NUM_CELLS, cells, discretise, to_simplex
from generative.simulators.visibility import Sight
from mop.common.errors import InputError
from mop.common.seeding import stream_seed
from mop.envs.babyai import NUM_ACTIONS, World, bot_steps, observe
from mop.envs.geometry import CATEGORIES, EMPTY, GREY_WALL, IMAGE_SIZE
from mop.envs.teacher import TeacherFailure

TASKS = ("UnlockPickup", "BlockedUnlockPickup", "KeyCorridorS3R2", "PutNextLocal", "GoToSeqS5R2")
NUM_WORLDS, NUM_STEPS = 200, 100  # of each task: 20,000 transitions
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = Actions
BLOCKS = (TYPE, COLOR, STATE)
CELLS = ("grid", "carried")


def one_hot(actions) -> torch.Tensor:
    return F.one_hot(torch.as_tensor(np.array(actions)), NUM_ACTIONS).float()


def worlds_of(task: str, seeds) -> list[World]:
    worlds = [World(f"BabyAI-{task}-v0") for _ in seeds]
    for world, seed in zip(worlds, seeds, strict=True):
        world.reset(int(seed))
    return worlds


def arrays_of(worlds: list[World]) -> tuple[np.ndarray, ...]:
    """What a recording holds of worlds: codes without numbers of objects, position, direction, what is carried."""
    carried = [world.carried for world in worlds]
    codes = np.stack([world.codes for world in worlds])
    directions = np.array([world.direction for world in worlds])
    numberless = (1 << 20) - 1
    return (
        codes & numberless,
        np.array([world.position for world in worlds]),
        directions,
        np.array(carried) & numberless,
    )


def codes_of(state) -> tuple[np.ndarray, ...]:
    """The inverse of `state_of`, without the numbers of objects."""
    place, width = state["position"].flatten(1).argmax(-1).numpy(), state["position"].shape[2]
    grid, carried = (cell_codes(state[name]).numpy() for name in ("grid", "carried"))
    position = np.stack([place % width, place // width], -1)
    return grid, position, state["direction"].argmax(-1).numpy(), carried


def state_of_arrays(simulator: ExactSimulator, worlds: list[World]) -> dict[str, torch.Tensor]:
    return simulator.state_of(*arrays_of(worlds))


def assert_same(state, other) -> None:
    assert state.keys() == other.keys()
    for name in state:
        assert torch.equal(state[name], other[name]), name


def choose(world: World, is_led: bool, rng: np.random.Generator) -> int:
    """The bot's action where it leads and has one, seven times of eight; else any."""
    if is_led and rng.random() < 0.875:
        try:
            return int(world.label())
        except TeacherFailure:
            pass
    return int(rng.integers(NUM_ACTIONS))


def act(world: World, is_led: bool, rng: np.random.Generator, counts: Counter) -> int:
    """Step a world, beyond the end of its episode too; count what that did."""
    front, held = world.env.grid.get(*world.env.front_pos), world.env.carrying
    was_open, was_locked = getattr(front, "is_open", False), getattr(front, "is_locked", False)
    action = choose(world, is_led, rng)
    world.step(action)
    counts["transition"] += 1
    counts["pick-up"] += held is None and world.env.carrying is not None
    counts["drop"] += held is not None and world.env.carrying is None
    counts["blocked"] += action == FORWARD and front is not None and not was_open
    if action == TOGGLE and front is not None and front.type in ("door", "box"):
        of_door = "toggle" if not was_locked else "locked" if front.is_locked else "unlock"
        counts["box opened" if front.type == "box" else of_door] += 1
    return action


def test_equals_the_environment_on_100000_transitions_of_five_tasks():
    """Observation, grid, position, direction, what is carried; of half the worlds under the bot's actions."""
    counts = Counter()
    for task in TASKS:
        rng = np.random.default_rng(stream_seed(0, f"exact {task}"))
        worlds = worlds_of(task, rng.integers(2**32, size=NUM_WORLDS))
        simulator = ExactSimulator(worlds[0].codes.shape)
        state = simulator.state_of_worlds(worlds)
        for _ in range(NUM_STEPS):
            actions = [act(world, n % 2 == 0, rng, counts) for n, world in enumerate(worlds)]
            state = simulator.step(state, one_hot(actions))
            assert_same(state, state_of_arrays(simulator, worlds))
            assert torch.equal(simulator.view(state), to_simplex(np.stack([world.obs for world in worlds])))
        for found, expected in zip(codes_of(state), arrays_of(worlds), strict=True):
            assert (found == expected).all()
    needed = {"pick-up": 1500, "drop": 1500, "toggle": 1000, "unlock": 200, "locked": 100, "box opened": 200}
    assert counts["transition"] == 100_000
    assert all(counts[kind] > least for kind, least in (needed | {"blocked": 5000}).items()), counts


def test_what_lies_in_a_box_and_a_wrong_size_are_refused():
    (world,) = worlds_of("KeyInBox", [3])
    simulator = ExactSimulator(world.codes.shape)
    assert "boxes" in refusal(simulator.state_of_worlds, [world])
    encoding = {"task_id": "BabyAI-KeyInBox-v0", "grid_shape": list(world.codes.shape)}
    assert "boxes" in refusal(simulator_of, encoding) == refusal(ExactScenes, BABYAI, encoding)
    with pytest.raises(InputError, match="boxes"):
        BABYAI.fidelity.exact(SimpleNamespace(config={"encoding": encoding}))
    assert simulator_of(encoding | {"task_id": "BabyAI-Unlock-v0"}).grid_shape == world.codes.shape
    box = next(cell for cell in world.env.grid.grid if cell is not None and cell.type == "box")
    box.contains = None
    assert (cell_codes(simulator.state_of_worlds([world])["grid"][0]) == torch.from_numpy(arrays_of([world])[0])).all()
    world.env.carrying = Box("red", contains=Key())
    assert "boxes" in refusal(simulator.state_of_worlds, [world])
    with pytest.raises(ValueError, match="this simulator has"):
        ExactSimulator((6, 11)).state_of(world.codes[None], np.zeros((1, 2)), np.zeros(1), np.zeros(1))


def test_step_changes_nothing_of_what_it_is_given():
    worlds = worlds_of("UnlockPickup", range(8))
    simulator = ExactSimulator(worlds[0].codes.shape)
    state = simulator.state_of_worlds(worlds)
    before = {name: values.clone() for name, values in state.items()}
    simulator.view(simulator.step(state, one_hot(np.arange(8) % 7)))
    assert_same(state, before)


def random_codes(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Codes of cells, a third of them opaque, doors in every state."""
    kinds = rng.choice([1, 1, 1, 2, 4, 5, 6, 7], shape)
    colors = np.where(kinds == 1, 0, np.where(kinds == 2, 5, rng.integers(0, 6, shape)))
    return (kinds + (colors << 8) + (np.where(kinds == 4, rng.integers(0, 3, shape), 0) << 16)).astype(np.int32)


def random_state(rng: np.random.Generator, num: int, height: int = 6, width: int = 5):
    """The state of random worlds, the agent inside."""
    position = np.stack([rng.integers(1, width - 1, num), rng.integers(1, height - 1, num)], -1)
    carried = np.where(rng.random(num) < 0.4, EMPTY, rng.choice([5, 6, 7], num) + (rng.integers(0, 6, num) << 8))
    codes = random_codes(rng, num, height, width)
    return ExactSimulator((height, width)).state_of(codes, position, rng.integers(0, 4, num), carried)


def test_light_reaches_what_the_kernel_says():
    rng = np.random.default_rng(stream_seed(0, "light"))
    codes = random_codes(rng, 500, 7, 7)  # the agent at the lower edge, looking up: the grid is its view
    image, seen = np.zeros(IMAGE_SIZE, np.float32), np.zeros((500, 7, 7), bool)
    for grid, of_grid in zip(codes, seen, strict=True):
        observe(grid, 3, 6, 3, EMPTY, image, of_grid)
    opaque = torch.from_numpy(((codes & 255) == 2) | (((codes & 255) == 4) & (codes >> 16 != 0)))
    visible = Sight.apply(opaque.mT.flatten(1).float()).bool()
    assert torch.equal(visible.view(-1, 7, 7), torch.from_numpy(seen))
    assert 0.2 < visible.float().mean() < 0.9


def test_the_gradient_of_sight_is_the_difference_that_one_cell_makes():
    rng = np.random.default_rng(stream_seed(0, "sight"))
    opaque = torch.from_numpy(rng.random((40, NUM_CELLS)) < 0.3).float().requires_grad_()
    weights = torch.from_numpy(rng.normal(size=(40, NUM_CELLS))).float()
    total = (Sight.apply(opaque) * weights).sum(-1)
    (gradient,) = torch.autograd.grad(total.sum(), opaque)
    for cell in range(NUM_CELLS):
        flipped = opaque.detach().clone()
        flipped[:, cell] = 1.0 - flipped[:, cell]
        difference = (Sight.apply(flipped) * weights).sum(-1) - total
        change = flipped[:, cell] - opaque.detach()[:, cell]
        torch.testing.assert_close(gradient[:, cell] * change, difference, atol=1e-4, rtol=1e-4)
    assert (gradient != 0).float().mean() > 0.1


def replacements(rng, state):
    """Each block of a state, with another category drawn for it: name, the state with it."""
    num, height, width = state["position"].shape
    yield "direction", {**state, "direction": state["direction"].roll(int(rng.integers(1, 4)), -1)}
    places = torch.from_numpy(rng.integers(1, height - 1, num) * width + rng.integers(1, width - 1, num))
    yield "position", {**state, "position": F.one_hot(places, height * width).float().view(num, height, width)}
    for name in CELLS:
        for block in BLOCKS:
            for _ in range(1 if name == "carried" else 15):
                new = state[name].clone()
                cell = new if name == "carried" else new[:, int(rng.integers(height)), int(rng.integers(width))]
                cell[:, block] = cell[:, block].roll(int(rng.integers(1, block.stop - block.start)), -1)
                yield name, {**state, name: new}


def assert_linear(function, state, others) -> Counter:
    """The difference of a sum of outputs is the gradient times the difference of the inputs. Counts what changed."""
    leaves = {name: values.clone().requires_grad_() for name, values in state.items()}
    value = function(leaves)
    gradients = dict(zip(leaves, torch.autograd.grad(value.sum(), leaves.values(), allow_unused=True), strict=True))
    changed = Counter()
    for name, other in others:
        difference = function(other) - value
        expected = ((other[name] - state[name]) * gradients[name]).flatten(1).sum(-1)
        torch.testing.assert_close(difference, expected, atol=2e-4, rtol=1e-4)
        changed[name] += int((difference.abs() > 1e-3).sum())
    return changed


@pytest.mark.parametrize("action", Actions)
def test_a_gradient_of_a_step_is_the_difference_that_another_category_makes(action):
    """In every block: action, direction, position, what is carried; type, colour and state of each cell."""
    rng = np.random.default_rng(stream_seed(0, f"step {int(action)}"))
    state = random_state(rng, 100)
    simulator = ExactSimulator((6, 5))
    shapes = {name: values.shape for name, values in simulator.step(state, one_hot([action] * 100)).items()}
    weights = {name: torch.from_numpy(rng.normal(size=shape)).float() for name, shape in shapes.items()}

    def total(given):
        taken = given.get("action", one_hot([action] * 100))
        after = simulator.step({name: given[name] for name in shapes}, taken)
        return sum((after[name] * weights[name]).flatten(1).sum(-1) for name in shapes)

    changed = assert_linear(total, state, replacements(rng, state))
    with_action = state | {"action": one_hot([action] * 100)}
    actions = [("action", with_action | {"action": one_hot([other] * 100)}) for other in Actions]
    changed += assert_linear(total, with_action, actions)
    assert all(changed[name] > 50 for name in ("action", *state)), changed


def test_a_gradient_of_a_view_is_the_difference_that_another_category_makes():
    """A door's type and its state are two blocks; opaque or not, the view follows."""
    rng = np.random.default_rng(stream_seed(0, "view"))
    state = random_state(rng, 100)
    simulator = ExactSimulator((6, 5))
    weights = torch.from_numpy(rng.normal(size=simulator.view(state).shape)).float()
    changed = assert_linear(lambda given: (simulator.view(given) * weights).sum(-1), state, replacements(rng, state))
    assert all(changed[name] > 50 for name in state), changed


def spread(values: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Categories (..., K) between ones and zeros."""
    noise = torch.from_numpy(rng.dirichlet(np.ones(values.shape[-1]), values.shape[:-1])).float()
    return 0.6 * values + 0.4 * noise


def assert_slopes(function, state, names, rng) -> None:
    """Central differences of a sum of outputs, in random directions, against its gradient."""
    leaves = {name: values.clone().requires_grad_() for name, values in state.items()}
    gradients = torch.autograd.grad(function(leaves).sum(), [leaves[name] for name in names])
    for name, gradient in zip(names, gradients, strict=True):
        slopes, differences = [], []
        for _ in range(5):
            toward = 0.02 * F.normalize(torch.from_numpy(rng.normal(size=gradient.shape)).float().flatten(1))
            toward = toward.view(gradient.shape)
            ahead, back = (function({**state, name: state[name] + sign * toward}) for sign in (1.0, -1.0))
            differences.append((ahead - back) / 2.0)
            slopes.append((gradient * toward).flatten(1).sum(-1))
        slopes, differences = torch.stack(slopes), torch.stack(differences)
        assert (slopes.abs() > 1e-3).float().mean() > 0.5, name
        torch.testing.assert_close(differences, slopes, atol=2e-2 * float(slopes.abs().max()), rtol=1e-3)


def test_finite_differences_between_ones_and_zeros():
    """A step is smooth everywhere; a view in the cells it shows, unless they become opaque or clear."""
    rng = np.random.default_rng(stream_seed(0, "soft"))
    state, simulator = random_state(rng, 50), ExactSimulator((6, 5))
    view_weights = torch.from_numpy(rng.normal(size=simulator.view(state).shape)).float()
    weights = {name: torch.from_numpy(rng.normal(size=values.shape)).float() for name, values in state.items()}
    soft = {name: torch.cat([spread(state[name][..., block], rng) for block in BLOCKS], -1) for name in CELLS}
    soft |= {"position": spread(state["position"].flatten(1), rng).view(50, 6, 5)}
    soft |= {"direction": spread(state["direction"], rng), "action": spread(one_hot(rng.integers(0, 7, 50)), rng)}

    def total_after_step(given):
        after = simulator.step({name: given[name] for name in state}, given["action"])
        return sum((after[name] * weights[name]).flatten(1).sum(-1) for name in state)

    assert_slopes(total_after_step, soft, ("action", "direction", "position", *CELLS), rng)
    is_clear = torch.ones(CELL_CATEGORIES)
    is_clear[[WALL, DOOR]] = 0.0

    def total_of_view(given):
        return (simulator.view({**given, "grid": given["grid"] * is_clear}) * view_weights).sum(-1)

    assert_slopes(total_of_view, {**soft, "position": state["position"]}, CELLS, rng)


def seen_now(world: World) -> np.ndarray:
    """Which cells (height, width) the agent sees, without its own, where it sees what it carries."""
    seen = np.zeros_like(world.seen)
    observe(world.codes, *world.position, world.direction, EMPTY, np.zeros(IMAGE_SIZE, np.float32), seen)
    seen[world.position] = False
    return seen.T


def bot_actions(task: str, seed: int) -> list[int]:
    """The bot's whole episode."""
    (world,) = worlds_of(task, [seed])
    steps = bot_steps(world, seed)
    assert len(world.actions) == steps
    return list(world.actions)


def test_a_colour_matters_to_a_later_view_exactly_where_it_is_seen():
    """Through walks and unlocked doors; and what is picked up is seen in the hand."""
    rng = np.random.default_rng(stream_seed(0, "later"))
    num_seen = num_unseen = num_in_hand = 0
    for seed in range(40):
        actions = bot_actions("UnlockPickup", seed)
        start = int(rng.integers(len(actions) - 6))
        (world,) = worlds_of("UnlockPickup", [seed])
        for action in actions[:start]:
            world.step(action)
        simulator = ExactSimulator(world.codes.shape)
        first = simulator.state_of_worlds([world])
        first["grid"].requires_grad_()
        state, codes = first, world.codes.copy()
        for action in actions[start : start + 5]:
            world.step(action)
            state = simulator.step(state, one_hot([action]))
        shown = cells(simulator.view(state))[..., COLOR]
        (gradient,) = torch.autograd.grad((shown * torch.rand(shown.shape) + shown).sum(), first["grid"])
        seen, numbers = seen_now(world), world.codes >> 20
        expected = seen.copy()
        for y, x in np.argwhere(codes >> 20 != numbers):  # the object is elsewhere now, or came from elsewhere
            number = codes[y, x] >> 20
            is_in_hand = world.env.carrying is not None and number == world.env.carrying.number
            expected[y, x] = number > 0 and (is_in_hand or seen[numbers == number].any())
            num_in_hand += number > 0 and is_in_hand
        was_locked = (codes & 255 == DOOR) & (codes >> 16 & 15 == 2)  # its colour decides whether the key fits
        expected |= was_locked & (world.codes >> 16 & 15 != 2)
        assert ((gradient[0, ..., COLOR] != 0).any(-1).numpy() == expected).all(), seed
        num_seen, num_unseen = num_seen + expected.sum(), num_unseen + (~expected).sum()
    assert num_seen > 500 and num_unseen > 500 and num_in_hand >= 5


def test_a_closed_door_matters_to_what_is_behind_it():
    """Its state, closed or open, has a gradient on cells that are dark: the difference that opening it makes."""
    num_doors = 0
    for world in worlds_of("OpenRedDoor", range(30)):
        simulator = ExactSimulator(world.codes.shape)
        state = simulator.state_of_worlds([world])
        state["grid"].requires_grad_()
        shown = simulator.view(state)
        dark = cells(shown)[..., 0].detach() == 1.0
        weights = torch.rand(dark.shape, generator=torch.Generator().manual_seed(0)) * dark
        (gradient,) = torch.autograd.grad((cells(shown)[..., 0] * weights).sum(), state["grid"])
        doors = np.argwhere((world.codes & 255) == 4)
        for y, x in doors[seen_now(world)[tuple(doors.T)]]:
            opened = world.codes.copy()
            opened[y, x] &= 0xFFFF
            place, way = np.array([world.position]), np.array([world.direction])
            other = simulator.state_of(opened[None], place, way, np.array([EMPTY]))
            difference = ((cells(simulator.view(other))[..., 0] - cells(shown)[..., 0]) * weights).sum()
            by_gradient = gradient[0, y, x, STATE] @ torch.tensor([1.0, -1.0, 0.0])
            torch.testing.assert_close(by_gradient, difference.detach(), atol=1e-4, rtol=1e-4)
            num_doors += int(difference.abs() > 0.1)
    assert num_doors >= 5


def test_an_action_has_a_gradient_on_a_later_view():
    rng = np.random.default_rng(stream_seed(0, "action"))
    num_cases = 0
    for world in worlds_of("UnlockPickup", range(10)):
        simulator = ExactSimulator(world.codes.shape)
        state = simulator.state_of_worlds([world])
        action = one_hot([FORWARD]).requires_grad_()
        after = simulator.step(state, action)
        for later in (LEFT, FORWARD):
            after = simulator.step(after, one_hot([later]))
        shown = simulator.view(after)
        (gradient,) = torch.autograd.grad(
            (shown * torch.from_numpy(rng.normal(size=shown.shape)).float()).sum(), action
        )
        assert (gradient[0, [LEFT, RIGHT]] != 0).all() and gradient[0, DONE] == 0
        num_cases += 1
    assert num_cases == 10


def test_codes_and_columns_are_inverse():
    codes = np.array([EMPTY, GREY_WALL, DOOR + (1 << 16), 0, 7 + (3 << 8) + (9 << 20)])
    assert cell_codes(cell_columns(codes)).tolist() == [*codes[:-1], 7 + (3 << 8)]
    assert cell_columns(codes).shape == (5, sum(CATEGORIES))
    assert discretise(to_simplex(np.zeros((1, 152)))).shape == (1, 152)
