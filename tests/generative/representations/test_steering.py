"""Moves of the memory in the real world: identities, a planted cause, counts, paired effects, and the command."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from eval_helpers import GOTO, UNLOCK
from generative_data import record_tiny, tiny_checkpoint
from scripts import REPOSITORY, check_refused, in_process, refused

from generative import directions as directions_command
from generative import intervene as command
from generative.domains.babyai import rollouts
from generative.domains.babyai.policy import FrozenPolicy
from generative.domains.babyai.rollouts import EVENTS, MAIN, column_names, event_of, measures_of, play_moved
from generative.figures.representations import plot_effects
from generative.representations import decompositions
from generative.representations.steering import Move, Operation, Replay, effect_rows, random_effects
from generative.representations.storage import Directions, load_directions
from mixture_of_experts import RecurrentPolicy
from mop.analysis.groups import PHASES, key_phases
from mop.artifacts.checkpoints import load_checkpoint
from mop.common.cli import as_flags
from mop.common.conventions import ACTION_NAMES
from mop.envs.babyai import World
from mop.envs.bot_paths import BotPaths
from mop.envs.episodes import SLOT_STATE
from mop.evaluation.evaluate import encoder_for, evaluate
from mop.plotting.hover import values_of
from mop.training.policies import policy_from_checkpoint

RNG = np.random.default_rng
ZOO = REPOSITORY / "results" / "zoo" / UNLOCK / "trial_0" / "seed_0" / "checkpoint_final.pt"
OPERATIONS = (
    *(Operation("swap", 0, to=2), Operation("null", 1)),
    *(Operation("clamp", 1, value=1.5), Operation("add", 2, value=-2.0)),
)


def make_directions(units: np.ndarray, duals: np.ndarray, mean: np.ndarray, blocks: dict | None = None) -> Directions:
    """Directions of memories of mean `mean` whose numbers vary independently, but for their lengths."""
    size, blocks = len(mean), blocks or {"memory": (0, len(mean))}
    variances = np.linspace(0.5, 2.0, size)
    return Directions(
        units.astype(np.float32), duals.astype(np.float32),
        names=np.array([f"memory.ica.{k}" for k in range(len(units))]), blocks=np.array(["memory"] * len(units)),
        methods=np.array(["ica"] * len(units)), mean=mean.astype(np.float32),
        covariance=np.diag(variances).astype(np.float32),
        block_names=np.array(list(blocks)), block_columns=np.array(list(blocks.values())),
        checkpoint=np.array("digest"),
    )  # fmt: skip


def biorthogonal(num: int = 4, size: int = 6) -> Directions:
    """Directions that are not orthogonal, with their dual basis."""
    units = RNG(0).standard_normal((num, size))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    return make_directions(units, np.linalg.pinv(units).T, RNG(1).standard_normal(size))


def moved_by(move: Move, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """Memories after a move, and how far they were moved."""
    state = np.zeros(len(after), SLOT_STATE)
    state["episode"] = np.arange(len(after))
    moved = after + move.amounts(before, after, state)[:, None] * move.way
    return moved, (moved - after).norm(dim=1).numpy()


def memories(size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    before, after = RNG(2).standard_normal((2, 50, size)).astype(np.float32)
    return torch.from_numpy(before), torch.from_numpy(after)


def test_a_swap_is_the_formula():
    """h_old + delta - (delta . dual_from) u_from + (delta . dual_from) u_to."""
    directions, (before, after) = biorthogonal(), memories()
    moved, length = moved_by(Operation("swap", 0, to=2).move(directions), before, after)
    delta, (unit, other), dual = after - before, directions.units[[0, 2]], directions.duals[0]
    part = (delta.numpy() @ dual)[:, None]
    expected = before.numpy() + delta.numpy() - part * unit + part * other
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(length, np.linalg.norm(expected - after.numpy(), axis=1), rtol=1e-4)
    change = directions.duals @ (moved - before).numpy().T, directions.duals @ delta.numpy().T
    np.testing.assert_allclose(change[0][0], 0, atol=1e-5)  # nothing along the first is left
    np.testing.assert_allclose(change[0][2], change[1][2] + change[1][0], atol=1e-5)
    np.testing.assert_allclose(change[0][[1, 3]], change[1][[1, 3]], atol=1e-5)


@pytest.mark.parametrize("is_orthogonal", [True, False])
def test_null_clamp_and_add_change_exactly_one_coordinate(is_orthogonal):
    directions, (before, after) = biorthogonal(), memories()
    if is_orthogonal:
        units = np.linalg.qr(directions.units.T)[0].T
        directions = make_directions(units, units, directions.mean)
    coordinates = directions.coordinates(after.numpy())
    others, sd = [0, 2, 3], float(directions.sd[1])
    wanted = {"null": np.zeros(50), "clamp": np.full(50, 1.5 * sd), "add": coordinates[:, 1] - 2 * sd}
    for kind, value in (("null", 0.0), ("clamp", 1.5), ("add", -2.0)):
        moved, _ = moved_by(Operation(kind, 1, value=value).move(directions), before, after)
        found = directions.coordinates(moved.numpy())
        np.testing.assert_allclose(found[:, 1], wanted[kind], atol=1e-5, err_msg=kind)
        np.testing.assert_allclose(found[:, others], coordinates[:, others], atol=1e-5, err_msg=kind)
        assert not np.allclose(coordinates[:, 1], wanted[kind])
    wrong = make_directions(directions.units, directions.units, directions.mean)  # the same vectors read and write
    moved, _ = moved_by(Operation("null", 1).move(wrong), before, after)
    is_nulled = np.allclose(directions.coordinates(moved.numpy())[:, 1], 0, atol=1e-3)
    assert is_nulled == is_orthogonal


def test_random_moves_are_as_long_and_from_streams_of_their_own():
    """The same amounts along other ways of the same length: by construction, whatever the memory is."""
    directions, (before, after) = biorthogonal(), memories()
    for operation in OPERATIONS:
        move = operation.move(directions)
        amounts = move.amounts(before, after, np.zeros(50, SLOT_STATE)).numpy()[:, None]
        replay, length = Replay(amounts, np.ones(50, int)), moved_by(move, before, after)[1]
        draws = [operation.random_move(directions, replay, 0, k) for k in range(20)]
        for draw in draws:
            np.testing.assert_allclose(moved_by(draw, after, before)[1], length, rtol=1e-3, atol=1e-5)
        again, other_seed = (operation.random_move(directions, replay, seed, 7).way for seed in (0, 1))
        assert torch.equal(again, draws[7].way) and not torch.allclose(other_seed, again)
        ways = torch.nn.functional.normalize(torch.stack([draw.way for draw in draws]), dim=1)
        assert (ways @ ways.T - torch.eye(20)).abs().max() < 0.999


def test_a_replay_goes_by_world_and_step_and_begins_again():
    recorded = np.array([[1, 2, 3], [4, 5, 0]], np.float32)
    state = np.zeros(6, SLOT_STATE)
    state["episode"], state["t_step"] = [0, 1, 0, 1, 1, 0], [2, 0, 3, 1, 2, 7]
    assert Replay(recorded, np.array([3, 2]))(None, None, state).tolist() == [3, 4, 1, 5, 4, 2]


class Counter(RecurrentPolicy):
    """Turns left until one coordinate of its memory has counted to three, then goes forward; another only counts."""

    equations = "a counter"
    layers = ()

    def __init__(self, directions: Directions):
        super().__init__(152, 4, 8, 1, 7)
        self.hidden_layout, self.expert_hidden_sizes = {"memory": slice(0, 6)}, [[6]]
        self.units, self.duals = torch.from_numpy(directions.units), torch.from_numpy(directions.duals)

    def recur(self, x, hidden, intervene):
        after = hidden + self.units[0] + self.units[1]
        return (hidden @ self.duals[0])[:, None], [hidden.new_ones(len(hidden), 1)], after

    def get_routing_info(self, obs, lang, hidden, keep=None, intervene=None):
        counted, routing, after = self.recur(obs, hidden, intervene)
        logits = torch.zeros(len(obs), 7)
        logits[:, 0], logits[:, 2] = 0.5, (counted[:, 0] > 2.5).float()
        return logits, routing, after


def test_nulling_the_planted_direction_changes_the_behaviour_and_no_other_does():
    units = biorthogonal().units
    directions = make_directions(units, np.linalg.pinv(units).T, np.zeros(6))
    missions = SimpleNamespace(lang=lambda texts: torch.zeros(len(texts), 4))
    policy = SimpleNamespace(policy=Counter(directions), missions=missions)
    policy.initial_hidden = policy.policy.initial_hidden

    def actions_of(move):
        table = play_moved(policy, GOTO, 12, range(6), move, num_envs=4).table
        by_action = np.stack([sum(table[f"{p}: {a}"] for p in PHASES) for a in ACTION_NAMES], 1)
        assert (by_action.sum(1) == table["steps"]).all()
        return by_action

    plain = actions_of(None)
    assert (plain[:, 0] == 3).all() and plain[:, 2].sum() > 6  # three turns, then forward
    nulled = actions_of(Operation("null", 0).move(directions))
    assert not nulled[:, 2].any() and (nulled[:, 0] == 12).all()
    assert np.array_equal(actions_of(Operation("null", 1).move(directions)), plain)
    assert np.array_equal(actions_of(Operation("null", 2).move(directions)), plain)
    swapped = actions_of(Operation("swap", 0, to=2).move(directions))
    assert not swapped[:, 2].any()
    back = actions_of(Operation("swap", 1, to=0).move(directions))  # it counts twice as fast
    assert (back[:, 0] == 2).all()


@pytest.fixture(scope="module")
def trained() -> dict:
    """A policy of the zoo that solves UnlockPickup, as a checkpoint."""
    return load_checkpoint(ZOO)


def frozen(checkpoint: dict) -> FrozenPolicy:
    return FrozenPolicy(*policy_from_checkpoint(checkpoint), encoder_for(checkpoint))


def test_without_a_move_the_run_is_plain_evaluation_bit_for_bit(trained):
    bot_paths = BotPaths(UNLOCK, None, None)
    evaluation = evaluate(trained, encoder_for(trained), bot_paths, num_episodes=14, num_envs=5)
    steps, seeds = evaluation.steps, [episode["seed"] for episode in evaluation.episodes]
    size = frozen(trained).policy.hidden_size
    still = make_directions(np.eye(size)[:1], np.eye(size)[:1], np.zeros(size))
    for move in (None, Operation("swap", 0, to=0).move(still)):
        table = play_moved(frozen(trained), UNLOCK, None, seeds, move, num_envs=5).table
        for name in ("seed", "success", "steps"):
            assert table[name].tolist() == [episode[name] for episode in evaluation.episodes]
        columns = {"lpc": steps.lpc}
        for layer, weights in enumerate(steps.layer_routing):
            columns |= {f"weight {layer}.{e}": weights[:, e] for e in range(weights.shape[1])}
        for name, values in columns.items():
            sums = np.zeros(len(seeds))
            np.add.at(sums, steps.episode, values)
            assert np.array_equal(table[name], sums), name
        phases = key_phases(steps, evaluation.episodes)
        for p, phase in enumerate(PHASES):
            for a, action in enumerate(ACTION_NAMES):
                chosen = (phases == p) & (steps.action == a)
                assert np.array_equal(table[f"{phase}: {action}"], np.bincount(steps.episode[chosen], minlength=14))
        assert not table["moved"].any()
    assert sum(table["success"]) >= 12  # so every phase is there


def test_a_move_changes_the_memory_by_what_it_says(trained):
    policy = frozen(trained)
    size = policy.policy.hidden_size
    directions = make_directions(np.eye(size)[:1], np.eye(size)[:1], np.zeros(size))
    plain = play_moved(policy, UNLOCK, 20, range(4), None).table
    operation = Operation("add", 0, value=3.0)
    pushed = play_moved(policy, UNLOCK, 20, range(4), operation.move(directions))
    step = 3 * float(directions.sd[0])
    np.testing.assert_allclose(pushed.table["moved"], step * pushed.table["steps"], rtol=1e-5)
    assert not np.array_equal(pushed.table["lpc"], plain["lpc"])
    for row, steps in zip(pushed.amounts, pushed.table["steps"].astype(int), strict=True):
        np.testing.assert_allclose(row[:steps], step, rtol=1e-6)
        assert not row[steps:].any()
    replay = Replay(pushed.amounts, pushed.table["steps"].astype(int))
    copied = play_moved(policy, UNLOCK, 20, range(4), Move(replay, operation.move(directions).way))
    assert all(np.array_equal(copied.table[name], pushed.table[name]) for name in copied.table)


@pytest.mark.parametrize("task_id", ["BabyAI-UnlockPickup-v0", "BabyAI-PutNextLocal-v0", "BabyAI-BossLevel-v0"])
def test_events_are_what_happens(task_id):
    world, rng, seen = World(task_id), RNG(0), np.zeros(3, int)
    for seed in range(8):
        world.reset(seed)
        for t in range(120):
            near = {3: 0.25, 4: 0.2, 5: 0.2}
            action = int(rng.choice(7, p=[near.get(a, (0.35) / 4) for a in range(7)]))
            if t < 40:
                action = world.label() if world.teacher is not None or t == 0 else action
            event, held, doors = event_of(world, action), world.carried, _doors(world)
            is_over = any(world.step(action)[1:])
            now = world.env.carrying is not None
            happened = [held == 1 and now, held != 1 and not now, doors != _doors(world)]
            assert [event == k for k in range(3)] == happened, (seed, t, action)
            seen += happened
            if is_over:
                break
    assert seen[:2].min() >= 5 and (seen[2] >= 5 or "Local" in task_id), seen


def _doors(world: World) -> list[tuple]:
    return [(c.is_open, c.is_locked) for c in world.env.grid.grid if c is not None and c.type == "door"]


def a_table(num: int = 40, **changes) -> dict[str, np.ndarray]:
    names = [*EVENTS, "lpc", "moved", "weight 0.0", *column_names([[1]])[6:]]
    table = {name: np.zeros(num) for name in names}
    table |= {"seed": np.arange(num), "success": np.ones(num)}
    table |= {"steps": np.full(num, 20.0), "bot_steps": np.full(num, 10.0)}
    table["before the key: forward"], table["lpc"] = np.full(num, 20.0), np.full(num, 2000.0)
    return table | changes


def test_effects_are_paired_and_ranked():
    rng = RNG(0)
    length = rng.integers(5, 60, 40).astype(float)  # worlds differ far more than runs
    longer = length + 1 + (rng.random(40) < 0.5)
    plain, moved = a_table(steps=length), a_table(steps=longer, success=(np.arange(40) >= 10).astype(float))
    randoms = [a_table(steps=length + shift) for shift in (0.0, 1.0, -3.0, 0.5)]
    rows = {row["measure"]: row for row in effect_rows(plain, moved, randoms, measures_of)}
    steps, success, ratio = rows["steps"], rows["success"], rows["path ratio"]
    assert steps["difference"] == pytest.approx((longer - length).mean())
    assert 1.3 < steps["low"] < steps["difference"] < steps["high"] < 1.8
    assert (steps["stronger"], steps["random"], steps["p"]) == (1, 4, 2 / 5)
    assert (steps["random_low"], steps["random_high"]) == (-3.0, 1.0)
    assert (success["plain"], success["moved"], success["difference"]) == (1.0, 0.75, -0.25)
    assert success["low"] < -0.25 < success["high"] < -0.1 and success["p"] == 1 / 5
    solved = np.arange(40) >= 10
    assert ratio["plain"] == pytest.approx((length / 10)[solved].mean())
    assert ratio["moved"] == pytest.approx((longer / 10)[solved].mean())
    assert rows["LPC"]["moved"] == pytest.approx(2000 * 40 / longer.sum())
    assert rows["before the key: forward"]["plain"] == 1.0 and "key dropped: forward" not in rows
    assert list(rows)[: len(MAIN)] == list(MAIN)
    assert random_effects(plain, randoms, measures_of)["steps"].tolist() == pytest.approx([0.0, 1.0, -3.0, 0.5])


def test_the_figure_shows_the_effects():
    plain, moved = a_table(), a_table(steps=np.linspace(10, 40, 40))
    randoms = [a_table(steps=20.0 + np.full(40, shift)) for shift in (0.0, 1.0, -3.0)]
    rows = [row for row in effect_rows(plain, moved, randoms, measures_of) if row["measure"] in ("steps", "LPC")]
    figure = plot_effects(rows, random_effects(plain, randoms, measures_of), "title")
    ax = figure.axes[0]
    assert ax.get_title(loc="left").startswith("steps") and len(figure.axes) == 2
    assert sorted(ax.lines[1].get_xdata()) == pytest.approx([-3.0, 0.0, 1.0])
    assert [row["difference"] for row in values_of(figure)] == [row["difference"] for row in rows]


def test_an_effect_that_is_not_defined_has_no_p():
    """The steps of a phase are there in one of the runs alone: there is no difference to hold against others."""
    plain = a_table()
    moved = a_table() | {"key dropped: forward": np.full(40, 5.0)}
    rows = {row["measure"]: row for row in effect_rows(plain, moved, [moved, plain, moved], measures_of)}
    row = rows["key dropped: forward"]
    assert np.isnan([row["plain"], row["difference"], row["p"]]).all() and row["moved"] == 1 and row["random"] == 0
    assert rows["success"]["p"] == 1.0
    assert values_of(plot_effects([row], random_effects(plain, [moved] * 3, measures_of)))[0]["panel"].endswith(
        "nan → 1.00"
    )


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A checkpoint and a file of directions of its memory."""
    folder = tmp_path_factory.mktemp("studied")
    checkpoint = tiny_checkpoint(folder, max_steps=30)
    recording = record_tiny(checkpoint, folder / "recording", num_steps=3000, policies="argmax,random")
    flags = ["--data_dir", recording.folder, "--out", folder / "found", "--blocks", "router_0,expert_1_0"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decompositions, "_NUM_UPDATES", 20)
        flags += ["--num_seeds", 1, "--num_components", 3, "--max_rows", 300]
        assert in_process(directions_command.main, *flags) == 0
    return SimpleNamespace(checkpoint=checkpoint, directions=folder / "found" / "directions.npz", folder=folder)


def flags_of(studied, out, *operation: str, **flags) -> list[str]:
    flags = {"checkpoint": studied.checkpoint, "directions": studied.directions, "out": out} | flags
    flags = {"num_worlds": 5, "num_random": 20, "cache_dir": studied.folder / "cache"} | flags
    return [*operation, *as_flags(flags)]


@pytest.mark.slow
def test_a_run_that_is_cut_off_goes_on_with_the_same_bytes(studied, tmp_path, capsys):
    operation = ("--clamp", "expert_1_0.ica.1=2")
    assert in_process(command.main, *flags_of(studied, tmp_path / "whole", *operation)) == 0
    told = capsys.readouterr().out
    assert "expert_1_0.ica.1 held at 2 sd" in told and "LPC" in told and "of 20" in told
    real, calls = rollouts.play_moved, []

    def cut_off(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise OSError("the disk is full")
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "play_moved", cut_off)
        assert in_process(command.main, *flags_of(studied, tmp_path / "cut", *operation)) == 2
    assert len(list((tmp_path / "cut" / "episodes").glob("*.csv"))) == 3
    assert in_process(command.main, *flags_of(studied, tmp_path / "cut", *operation)) == 0
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file())
    assert len(files) == 23 + 3
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes(), name
    table = pd.read_csv(tmp_path / "whole" / "effects.csv").set_index("measure")
    assert table.loc["moved", "plain"] == 0 and table.loc["moved", "moved"] > 0
    assert table.loc["steps", "random"] == 20


def test_a_half_made_run_that_is_damaged_is_named(studied, tmp_path, capsys):
    flags = flags_of(studied, tmp_path, "--null", "0")
    assert in_process(command.main, *flags) == 0
    episodes = tmp_path / "episodes"
    head, first, *more = (episodes / "plain.csv").read_text().splitlines()
    text = "\n".join([head, first.replace(",", ",x", 1), *more])
    damages = {
        "plain.csv": [b"", b"x\n1\n", text.encode(), "\n".join([head, first]).encode()],
        "moved.csv": [b"x", b"steps\n1\n1\n1\n1\n1\n"],
        "random_004.csv": ["\n".join([head, first, *more, first]).encode()],
        "moved_amounts.npy": [b"", (episodes / "moved_amounts.npy").read_bytes()[:-50], b"hello"],
    }
    count = 0
    for name, contents in damages.items():
        whole = (episodes / name).read_bytes()
        for content in contents:
            (episodes / name).write_bytes(content)
            assert str(episodes / name) in refused(capsys, command.main, *flags)
            count += 1
        (episodes / name).write_bytes(whole)
    np.save(episodes / "moved_amounts.npy", np.zeros((5, 1), np.float32))
    assert "moved_amounts.npy" in refused(capsys, command.main, *flags)
    assert count == 10


def test_a_swap_to_itself_has_no_effect(studied, tmp_path):
    assert in_process(command.main, *flags_of(studied, tmp_path / "same", "--from", "3", "--to", "3")) == 0
    table = pd.read_csv(tmp_path / "same" / "effects.csv")
    assert (table["difference"] == 0).all() and (table["p"] == 1).all() and len(table) > len(MAIN)


def test_bad_input_is_one_line_with_exit_code_2(studied, tmp_path, capsys):
    out, number = tmp_path / "out", len(load_directions(studied.directions))
    cases = {
        (): "--from K --to K",
        ("--null", "0", "--add", "0=1"): "--null",
        ("--from", "0"): "--to",
        ("--null", str(number)): str(number),
        ("--null", "router_0.pca.9"): "router_0.pca.",
        ("--clamp", "0"): "--clamp",
        ("--clamp", "0=1e300"): "100",
        ("--add", "0=inf"): "--add",
        ("--null", "0", "--checkpoint", tiny_checkpoint(tmp_path / "other", weights_seed=1)): "--directions",
        ("--null", "0", "--directions", studied.checkpoint): str(studied.checkpoint),
    }
    check_refused(capsys, command.main, cases, *flags_of(studied, out))
    assert in_process(command.main, *flags_of(studied, out, "--null", "0", num_worlds=5)) == 0
    assert str(out) in refused(capsys, command.main, *flags_of(studied, out, "--null", "1", num_worlds=5))
