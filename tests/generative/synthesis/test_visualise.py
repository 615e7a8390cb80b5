"""Levels of generative/: what they are, their search, a planted reason that is found, replays, the command."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from checks import refusal
from eval_helpers import GOTO, UNLOCK
from generative_data import tiny_checkpoint
from generative_toys import tiny_policy
from minigrid.core.actions import Actions
from scripts import in_process, refused
from torch.nn import functional as F

from generative import visualise
from generative.attribution.closed_loop import roll_out
from generative.domains.babyai.cells import BALL, BOX, COLOR, DOOR, KEY, TYPE, WALL
from generative.domains.babyai.domain import BABYAI
from generative.domains.babyai.targets import parse_target
from generative.domains.base import Answer
from generative.simulators.exact import ExactSimulator
from generative.simulators.relaxation import cells
from generative.simulators.world_model import WorldModel
from generative.synthesis.levels import Level, SoftLevels, ask_bot, build, clauses_of, estimate_prior, level_of
from generative.synthesis.search import Search, begin_learned, search_levels
from generative.synthesis.study import Reader, StudySettings, percentile_of, replay_in_env, run_study
from mop.envs.babyai import NUM_ACTIONS, World
from mop.envs.geometry import EMPTY
from mop.envs.teacher import FAILURE_KINDS

LOCAL = "BabyAI-GoToLocal-v0"
TASKS = (UNLOCK, GOTO, LOCAL, "BabyAI-PutNextLocal-v0", "BabyAI-KeyCorridorS3R2-v0", "BabyAI-OpenTwoDoors-v0")


def worlds_of(task_id: str, seeds) -> list[World]:
    worlds = [World(task_id) for _ in seeds]
    for world, seed in zip(worlds, seeds, strict=True):
        world.reset(seed)
    return worlds


def levels_of(task_id: str, num: int) -> list[Level]:
    world, found = World(task_id), []
    for seed in range(num):
        world.reset(seed)
        found.append(level_of(world))
    return found


@pytest.mark.parametrize("task_id", TASKS)
def test_a_world_is_the_level_that_it_was(task_id):
    """Built from its own level and from another seed's state, a world is bit for bit the one of its seed."""
    built, fresh = World(task_id), World(task_id)
    actions = np.random.default_rng(0).integers(0, 6, 30).tolist()
    for seed in range(4):
        fresh.reset(seed)
        assert build(built, level_of(fresh)) == ""
        for action in [None, *actions]:
            if action is not None:
                assert built.step(action) == fresh.step(action)
            np.testing.assert_array_equal(built.obs, fresh.obs)
            np.testing.assert_array_equal(built.codes & 0xFFFFF, fresh.codes & 0xFFFFF)
        assert built.mission == fresh.mission


def test_levels_that_the_task_would_not_make_are_refused():
    world = World(UNLOCK)
    world.reset(0)
    level, kinds = level_of(world), level_of(world).codes & 255
    (y, x), (key_y, key_x) = np.argwhere(kinds == BOX)[0], np.argwhere(kinds == KEY)[0]
    (door_y, door_x), (free_y, free_x) = np.argwhere(kinds == DOOR)[0], np.argwhere(kinds == EMPTY)[0]

    def changed(*changes) -> Level:
        codes = level.codes.copy()
        for row, column, code in changes:
            codes[row, column] = code
        return level._replace(codes=codes)

    box = level.codes[y, x]
    cases = {
        "what its mission speaks of is missing": changed((y, x, EMPTY)),
        "its mission would read otherwise": changed((free_y, free_x, box)),  # "the" box would be "a" box
        "its walls and doors are not where those of its base are": changed((door_y, door_x, EMPTY)),
        "the agent's cell is not free": level._replace(position=(int(key_x), int(key_y))),
        "": changed((y, x, EMPTY), (free_y, free_x, box)),  # moved
    }
    for reason, candidate in cases.items():
        assert build(world, candidate) == reason
    assert len(cases) == 5
    assert build(world, changed((0, 0, EMPTY))).startswith("its walls")
    assert build(world, changed((key_y, key_x, EMPTY))) == "" and ask_bot(world) in FAILURE_KINDS  # legal, not solvable
    assert build(world, level) == "" and isinstance(ask_bot(world), int)


def test_the_bot_is_told_of_doors_that_were_changed():
    """A door of another colour and its key: the bot needs as many steps as before."""
    world, (base,) = World(UNLOCK), levels_of(UNLOCK, 1)
    build(world, base)
    steps, codes = ask_bot(world), base.codes.copy()
    for kind in (KEY, DOOR):
        codes[(codes & 255) == kind] ^= 1 << 8
    assert build(world, base._replace(codes=codes)) == "" and ask_bot(world) == steps


def test_what_a_box_or_a_hand_holds_is_no_level():
    world = World("BabyAI-KeyInBox-v0")
    world.reset(0)
    refusal(level_of, world)


def test_the_prior_counts():
    """Three worlds of two cells and a door, by hand."""
    red, blue, door = KEY, KEY + (2 << 8), DOOR + (2 << 16)
    rows = [[WALL, red, EMPTY, door], [WALL, red, blue, door], [WALL, EMPTY, EMPTY, WALL]]
    prior = estimate_prior([Level(0, np.array([row], np.int32), (2, 0), 0) for row in rows])
    assert prior.contents.tolist() == sorted([EMPTY, red, door, blue])
    shares = np.exp(prior.free[1])  # of the cell that holds red, red, nothing; on average: 3 empty, 2 red, 1 blue of 6
    np.testing.assert_allclose(shares[prior.numbers(np.array([[red, EMPTY, blue]]))], [7 / 12, 1.5 / 4, 1 / 24])
    assert np.exp(prior.doors[3, prior.numbers(np.array([[door]]))[0]]) == 1.0
    np.testing.assert_allclose(np.exp(prior.places), [0.0625, 0.0625, 3.25 / 4, 0.0625])
    np.testing.assert_allclose(np.exp(prior.table(np.array([rows[0]]))).sum(-1), [0, 1, 1, 1])
    level = Level(0, np.array([rows[0]], np.int32), (2, 0), 3)
    of_empty = np.exp(prior.free[2, 0])
    np.testing.assert_allclose(prior.log_probability(level), np.log(7 / 12 * of_empty * 3.25 / 4 / 4))


@pytest.mark.parametrize("task_id", [UNLOCK, LOCAL, "BabyAI-PutNextLocal-v0", "BabyAI-OpenTwoDoors-v0"])
def test_drawn_levels_are_legal_where_nothing_is_missing(task_id):
    """And the soft state is the built world's, and the log prior that of the level."""
    prior, worlds = estimate_prior(levels_of(task_id, 60)), worlds_of(task_id, range(8))
    levels = SoftLevels(prior, worlds, 0.95)
    simulator = ExactSimulator(worlds[0].codes.shape)
    bases = levels.draw(1.0, None)
    for base, decoded, clauses in zip(levels.bases, levels.decode(bases), map(clauses_of, worlds), strict=True):
        np.testing.assert_array_equal(base.codes, decoded.codes)
        assert (base.position, base.direction) == (decoded.position, decoded.direction) and clauses
    assert (levels.missing(bases) == 0).all()
    legal, illegal, generator = 0, 0, torch.Generator().manual_seed(0)
    for _ in range(6):
        draw = levels.draw(1.0, generator)
        state, missing, log_prior = levels.state(draw), levels.missing(draw), levels.log_prior(draw)
        for n, (world, level) in enumerate(zip(worlds, levels.decode(draw), strict=True)):
            why = build(world, level)
            if missing[n] == 0:  # PutNext may also be done already, or ask for what is impossible
                assert why == "" or "PutNext" in task_id
                legal += why == ""
            else:
                assert why != ""
                illegal += 1
            np.testing.assert_allclose(prior.log_probability(level), log_prior[n].item(), rtol=1e-4)
        real = simulator.state_of_worlds(worlds)
        for name, part in real.items():
            torch.testing.assert_close(state[name].detach(), part)
    assert legal >= 5 and illegal >= 5 and legal + illegal > 30


def test_gradients_reach_all_that_is_optimised():
    prior, worlds = estimate_prior(levels_of(UNLOCK, 40)), worlds_of(UNLOCK, range(3))
    levels, policy = SoftLevels(prior, worlds, 0.95), tiny_policy(0)
    draw = levels.draw(2.0, torch.Generator().manual_seed(0))
    trace = roll_out(
        policy, ExactSimulator((6, 11)), levels.state(draw), torch.zeros(3, 5), policy.initial_hidden(3), num_steps=3
    )
    sums = [trace.routing[1][-1, :, 1].sum(), levels.log_prior(draw).sum(), levels.similarity().sum()]
    for total in sums:
        gradients = torch.autograd.grad(total, levels.parameters, retain_graph=True, allow_unused=True)
        assert sum(bool(part is not None and (part != 0).any()) for part in gradients) >= 2
        assert all(part is None or part.isfinite().all() for part in gradients)
    illegal = levels.parameters[0] < -1e3
    gradient = torch.autograd.grad(sums[0], levels.parameters[0])[0]
    assert illegal.any() and (gradient[illegal] == 0).all()


def test_levels_are_optimised_through_a_learned_simulator():
    """It begins with what is seen of a level: gradients reach what is seen, and nothing else."""
    prior, worlds, policy = estimate_prior(levels_of(UNLOCK, 40)), worlds_of(UNLOCK, range(3)), tiny_policy(0)
    torch.manual_seed(0)
    model, exact, lang = WorldModel(BABYAI, BABYAI.presets["small"], 36, 5), ExactSimulator((6, 11)), torch.zeros(3, 5)
    levels, begin = SoftLevels(prior, worlds, 0.95), begin_learned(model, exact, lang)
    draw = levels.draw(2.0, torch.Generator().manual_seed(0))
    state, first_view = begin(levels.state(draw))
    torch.testing.assert_close(first_view, exact.view(levels.state(draw)))
    trace = roll_out(policy, model, state, lang, policy.initial_hidden(3), 3, first_view=first_view)
    gradient = torch.autograd.grad(trace.routing[1][-1, :, 1].sum(), draw.cells)[0]
    is_reached = (gradient != 0).any(-1).any(0).view(6, 11)
    assert gradient.isfinite().all() and is_reached.any() and not is_reached[:, 6:10].any()  # behind the closed door
    target, search = parse_target("lpc", policy), Search(num_steps=3, iterations=3)
    found = search_levels(policy, model, begin, levels, lang, target, search, sd=1.0)
    assert len(found.levels) == 3 and np.isfinite(found.predicted).all() and found.curve.shape == (3, 3)


class CountsRedBalls:
    """As a FrozenPolicy: it does nothing; the weight of expert 1 is 0.1 and 0.1 for each red ball in view, to 0.7."""

    most = 6
    policy = SimpleNamespace(expert_hidden_sizes=((0, 16),))

    def initial_hidden(self, num_envs):
        return torch.zeros(num_envs, 1)

    def embed(self, missions):
        return torch.zeros(len(missions), 1)

    def lpc(self, routing):
        return 256 * routing[0][:, 1]

    def step(self, soft, lang, hidden, intervene=None):
        view = cells(soft)
        count = (view[..., TYPE.start + BALL] * view[..., COLOR.start]).sum((-1, -2))
        weight = 0.1 + 0.1 * count - 0.1 * (count - self.most).relu()
        still = F.one_hot(torch.full((len(soft),), Actions.done), NUM_ACTIONS).float()
        return Answer(still, [torch.stack([1 - weight, weight], -1)], hidden)


def test_a_planted_reason_is_found_and_survives():
    """Six red balls in view; the same levels are nothing special to a policy of random weights."""
    planted, control = CountsRedBalls(), tiny_policy(3)
    control.embed = lambda missions: torch.zeros(len(missions), 5)
    search = StudySettings(num_steps=2, iterations=100, lr=0.3, prior=0.0, seed=1, num_restarts=6, num_random=200)
    readers = [Reader(of, parse_target("routing:0.1", of), search) for of in (planted, control)]
    study = run_study(lambda: World(LOCAL), readers, ExactSimulator((8, 8)), lambda lang: lambda state: (state, None))
    table = study.table()
    np.testing.assert_allclose(table.predicted, table.achieved, atol=1e-5)
    is_free = ~table.mission.str.contains("red ball")  # "the red ball" is one
    assert is_free.sum() >= 4
    np.testing.assert_allclose(table.achieved[is_free], 0.7, atol=1e-5)  # the known maximum
    assert table.survives[is_free].all() and (table.percentile[is_free] > 99).all()
    assert (table.legal[table.survives] == "yes").all()
    assert (table.before < 0.5).all() and (table.without_gradients < 0.65).all()
    for level, survives in zip(study.found.levels, study.survives, strict=True):
        if survives:
            red = (level.codes & 0xFFFF) == BALL
            assert red.sum() >= 3 and level.codes[level.position[::-1]] == EMPTY
    assert (table.untrained_percentile < 95).any() and 5 < table.untrained_percentile.mean() < 95


def rows_of(*values: float, has_ended: bool = False) -> dict[str, np.ndarray]:
    terminated = np.zeros(len(values), bool)
    terminated[-2] = has_ended
    return {"value": np.array(values), "terminated": terminated, "truncated": np.zeros(len(values), bool)}


def test_the_end_of_an_episode_ends_the_quantity():
    reader, last = Reader(None, None, StudySettings()), Reader(None, None, StudySettings(read="last"))
    assert reader.value_of(rows_of(1.0, 2, 3, 4, 5)) == 2.5
    assert reader.value_of(rows_of(1.0, 2, 9, has_ended=True)) == 1.5
    assert np.isnan(last.value_of(rows_of(1.0, 2, 9, has_ended=True)))
    assert last.value_of(rows_of(1.0, 2, 3, 4, 9, has_ended=True)) == 4


def test_percentiles_are_shares_below():
    values = np.array([0.0, 1.0, 1.0, 2.0, np.nan])
    assert [percentile_of(value, values) for value in (-1.0, 1.0, 1.5, 3.0)] == [0, 25, 75, 100]
    assert np.isnan(percentile_of(np.nan, values))


def test_a_trip_plays_the_level_and_not_its_base():
    (base,) = levels_of(UNLOCK, 1)
    codes = base.codes.copy()
    codes[(codes & 255) == KEY] = EMPTY
    policy = tiny_policy(0)
    policy.embed = lambda missions: torch.zeros(len(missions), 5)
    reader = Reader(policy, parse_target("entropy", policy), StudySettings(num_steps=3))
    level = base._replace(codes=codes, direction=(base.direction + 1) % 4)
    rollout = replay_in_env(World(UNLOCK, 20), level, [reader])
    assert rollout.why_illegal == "" and rollout.bot in FAILURE_KINDS and len(rollout.rows["action"]) == 21
    np.testing.assert_array_equal(rollout.rows["grid"][0] & 0xFFFFF, codes)
    assert rollout.rows["obs"][0, 147:151].argmax() == level.direction
    assert rollout.achieved == [reader.value_of(rollout.rows)]


SMALL = ("--num_restarts", 3, "--num_random", 30, "--iterations", 6, "--min_percentile", 20, "--num_steps", 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("policy"), max_steps=12)


def test_same_seed_same_bytes(monkeypatch, tmp_path, capsys, checkpoint):
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / name
        flags = ("--checkpoint", checkpoint, "--seed", seed, "--out", out, *SMALL)
        assert in_process(visualise.main, *flags, *(() if seed else ("--films", "gif"))) == 0
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] == written[1] and written[0]["levels.csv"] != written[2]["levels.csv"]
    table = pd.read_csv(tmp_path / "a" / "levels.csv")
    survivors = set(table.level[table.survives])
    assert {name for name in written[0] if name.startswith("level_")} == {
        f"level_{level}.{ending}" for level in survivors for ending in ("png", "gif")
    }
    assert len(table) == 3 and len(survivors) >= 1
    with np.load(tmp_path / "a" / "levels.npz", allow_pickle=False) as arrays:
        np.testing.assert_allclose(arrays["achieved"], table.achieved, rtol=1e-4)
        world = World(UNLOCK)
        for n, seed in enumerate(arrays["world_seed"].tolist()):
            level = Level(seed, arrays["codes"][n], tuple(arrays["position"][n].tolist()), int(arrays["direction"][n]))
            assert (build(world, level) or "yes") == table.legal[n] and world.mission == table.mission[n]
        assert arrays["curve"].shape == (6, 3) and len(arrays["random_values"]) == 30
    told = capsys.readouterr().out
    assert "of 3 survive" in told and "prior_percentile" in told
    flags = ("--checkpoint", checkpoint, "--out", tmp_path / "a", *SMALL, "--lr", 0.5)
    assert str(tmp_path / "a") in refused(capsys, visualise.main, *flags)


def test_bad_input_is_one_line(monkeypatch, tmp_path, capsys, checkpoint):
    monkeypatch.chdir(tmp_path)
    small = (*SMALL, "--num_random", 20, "--num_restarts", 1, "--iterations", 1)
    targets = ("routing:9.0", "routing:0.7", "value", "action:fly", "action:chosen", "entropy:5")
    cases = {("--maximise", target): target for target in targets} | {
        ("--maximise", "direction:0"): "--directions",
        ("--directions", "nowhere.npz"): "nowhere.npz",
        ("--task_id", "BabyAI-Nowhere-v0"): "BabyAI-Nowhere-v0",
        ("--task_id", "BabyAI-KeyInBox-v0"): "boxes",
        ("--simulator", "nowhere"): "nowhere",
        ("--checkpoint", "missing.pt"): "missing.pt",
        # its quantity is the same in all levels
        ("--checkpoint", tiny_checkpoint(tmp_path / "gru", policy="gru")): "",
    }
    for flags, named in cases.items():
        assert in_process(visualise.main, "--checkpoint", checkpoint, *small, *flags) == 2, flags
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert named in line, (flags, line)
