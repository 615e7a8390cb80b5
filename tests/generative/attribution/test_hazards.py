"""Whether attribution puts the hazard before the jump: moments, numbers and the answer, where all of it is known."""

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from generative_frame_toys import Still, ToyRecording, ToyScenes, lit_frames, reader, toy_episode

from generative.attribution.hazard_report import (
    MEASURES,
    answer,
    before,
    frames_of,
    losses_of,
    measures_of,
    report,
    summarise,
)
from generative.attribution.hazard_study import (
    BLACK,
    HazardMoment,
    Measured,
    Study,
    draw_moments,
    find_moments,
    load_measured,
    stands_before_hazard,
)
from generative.domains.coinrun.objects import KINDS
from generative.figures.attribution import plot_hazards
from mop.artifacts.records import write_record

SAW, GROUND, AGENT = (KINDS.index(name) for name in ("saw", "ground", "agent"))
SHAPE = {"encoder": "half-nature", "num_features": 8, "hidden_size": 8, "actions": [7, 8, 5], "is_recurrent": True}
HERE = (5, 2)  # the patch of a saw


def objects(saw_left=46, saw_top=36, ground_top=40) -> np.ndarray:
    """An agent whose soles are at 39, ground below it, and a saw of 4 by 4 points."""
    found = np.zeros((64, 64), np.uint8)
    found[ground_top:] = GROUND
    found[34:40, 30:34] = AGENT
    found[saw_top : saw_top + 4, saw_left : saw_left + 4] = SAW
    return found


@pytest.mark.parametrize(
    "changed, is_one",
    [
        ({}, True),
        ({"saw_left": 49}, True),
        ({"saw_left": 50}, False),  # seventeen points to the right of the agent
        ({"saw_left": 20}, False),  # behind it
        ({"saw_top": 14}, False),  # its lowest point is seventeen above the agent's highest
        ({"saw_top": 15}, True),
        ({"ground_top": 41}, True),
        ({"ground_top": 42}, False),  # the agent is in the air
    ],
)  # fmt: skip
def test_a_moment_has_an_agent_that_stands_and_a_hazard_ahead_of_it(changed, is_one):
    assert stands_before_hazard(objects(**changed), 16) is is_one
    assert not stands_before_hazard(np.where(objects(**changed) == AGENT, 0, objects(**changed)), 16)


def test_moments_are_where_a_jump_begins_and_where_there_is_none():
    agent, frames = reader(*HERE, delay=1), lit_frames(12)
    episode = toy_episode(agent, frames)
    episode["student"][:] = [0, 0, 1, 1, 0, 1, 1, 2, 0, 0, 1, 0]  # of the agent's actions, 1 and 2 have a jump
    of_episode = np.stack([objects()] * 12)
    of_episode[5] = objects(ground_top=42)
    scenes = ToyScenes(Still(), of_episode)
    found = find_moments(ToyRecording(episode), scenes.objects, agent, [0], 2, 16)
    assert [(one.step, one.has_jump) for one in found] == [
        *((2, True), (4, False), (8, False), (9, False), (10, True))
    ], "not the second step of a jump, not in the air nor on from there, not at the last frame"
    many = [HazardMoment(k, 5, level, has) for k, level in enumerate([7] * 9 + [8, 9]) for has in (True, False)]
    drawn = draw_moments(many, 4, 2, seed=0)
    for has_jump in (True, False):
        levels = [one.level for one in drawn if one.has_jump == has_jump]
        assert sorted(levels) == [7, 7, 8, 9], "two of a level at most"
    assert drawn == draw_moments(many, 4, 2, seed=0) != draw_moments(many, 4, 2, seed=1)


@pytest.fixture(scope="module", name="measured")
def _measured():
    """An agent that reads the patch of the saw two steps earlier, in a world in which nothing happens."""
    agent, frames = reader(*HERE, delay=2), lit_frames(8, seed=4)
    shown = np.zeros((8, 64, 64), np.uint8)
    shown[:, 16:24, 40:48] = SAW
    shown[:, 24:, :] = GROUND
    scenes = ToyScenes(Still(), shown)
    recording = ToyRecording(toy_episode(agent, frames), {"shape": SHAPE})
    study = Study(recording, scenes, scenes.objects, agent, 4, 1, 0)
    return study, frames, study.measure(HazardMoment(0, 6, 5, True))


def test_a_planted_hazard_has_all_of_the_attribution(measured, tmp_path):
    study, frames, found = measured
    light, place = frames[0][:, 16:24, 40:48].mean() / 255, HERE[1] * 8 + HERE[0]
    assert light > 0.3 and (found.kinds == BLACK).sum() == 5 * 20 and (found.kinds[:, place] == SAW).all()
    expected = np.zeros((5, 64))
    expected[2:, place] = light
    assert np.allclose(np.nan_to_num(found.trained), expected, atol=1e-5)
    assert np.allclose(np.nan_to_num(found.without_world), expected * (np.arange(5) == 2)[:, None], atol=1e-5)
    assert (np.isnan(found.trained) == (found.kinds == BLACK)).all()
    assert np.isfinite(found.untrained[found.kinds != BLACK]).all() and np.nanmax(np.abs(found.untrained)) > 0
    assert np.allclose(found.hidden, [[0, 0]] * 2 + [[light, 0]] * 3, atol=1e-5), "needed two steps before, no other is"
    write_record(tmp_path / "one.npz", found)
    again = load_measured(tmp_path / "one.npz")
    assert np.array_equal(again.trained, found.trained, equal_nan=True) and bool(again.has_jump)
    (tmp_path / "two.npz").write_bytes(b"no archive")
    assert "damaged" in refusal(load_measured, tmp_path / "two.npz")
    control = study.measure(HazardMoment(0, 6, 5, False))
    assert np.isnan(control.untrained).all() and np.array_equal(control.trained, found.trained, equal_nan=True)


def test_measures_of_a_frame_by_hand():
    amounts, is_hazard = np.array([3.0, -1.0, 0.0, -4.0, 2.0]), np.array([True, False, False, True, False])
    assert measures_of(amounts, is_hazard) == pytest.approx(
        {"enrichment": (7 / 10) / (2 / 5), "rank": (3 / 4 + 1) / 2, "signed": -1.0}
    )
    assert measures_of(np.ones(5), is_hazard) == pytest.approx({"enrichment": 1, "rank": 0.5, "signed": 2})


def moments_like(gain: float, control_gain: float = 1.0, num=24, seed=0) -> list[Measured]:
    """Moments in which a hazard has `gain` times the size of other patches; `control_gain` where there is no jump."""
    rng, found = np.random.default_rng(seed), []
    for k in range(num):
        has_jump = k % 2 == 0
        kinds = np.full((4, 64), GROUND, np.uint8)
        kinds[:, :30], kinds[:, 40:42] = BLACK, SAW
        parts = rng.uniform(0.5, 1.5, (3, 4, 64))
        parts[0, :, 40:42] *= gain if has_jump else control_gain
        parts[:, kinds == BLACK] = np.nan
        hidden = rng.normal([[0.5, 0.0]] * 4, 0.1)
        found.append(Measured(*map(np.array, (k, 9, k // 2, has_jump)), kinds, *parts, hidden))
    return found


@pytest.mark.parametrize(
    "moments, word",
    [
        (moments_like(4.0), "Yes"),
        (moments_like(1.0), "Not shown"),
        (moments_like(0.2), "No"),
        (moments_like(4.0, control_gain=6.0), "No"),
        (moments_like(4.0)[:6], "Not known"),
    ],
)
def test_the_answer_is_yes_only_where_the_hazard_stands_out_from_all_controls(moments, word):
    frames, losses = frames_of(moments), losses_of(moments)
    text = answer(frames, losses)
    assert text.startswith(f"{word}: " if word != "Not known" else word) and "1 to 3 steps before a jump" in text, text
    num_jumps = sum(bool(one.has_jump) for one in moments)
    lost = losses[(losses["reader"] == "difference") & (losses["lag"] > 0)]["loss"].mean()
    assert f"({num_jumps} moments in {num_jumps} levels)" in text and f"a difference of {lost:.2f}" in text


def test_without_a_hazard_in_the_earlier_frames_nothing_is_told():
    moments = moments_like(4.0)
    for one in moments:
        one.kinds[1:, 40:42] = GROUND
        one.hidden[1:] = np.nan
    text = answer(frames_of(moments), losses_of(moments))
    assert text.startswith("Not known (too few levels): ") and "(0 moments in 0 levels)" in text
    assert "The difference" not in text and "The real agent" not in text


def test_without_a_hazard_in_any_frame_the_way_out_is_told(tmp_path):
    moments = moments_like(4.0, num=4)
    for one in moments:
        one.kinds[:, 40:42] = GROUND
        one.hidden[:] = np.nan
    assert "--num_moments" in refusal(report, moments, tmp_path, 0, "")
    assert not list(tmp_path.iterdir())


def test_tables_hold_every_reader_and_lag_and_are_drawn():
    moments = moments_like(4.0)
    frames, losses = frames_of(moments), losses_of(moments)
    assert set(frames["reader"]) == {"trained", "without world", "untrained", "shuffled", "no jump"}
    by_moment = before(frames, MEASURES)
    assert len(by_moment) == 5 * 12
    one = frames[(frames["reader"] == "trained") & (frames["moment"] == 0) & (frames["lag"] > 0)]
    row = by_moment[(by_moment["reader"] == "trained") & (by_moment["moment"] == 0)]
    assert row["enrichment"].item() == pytest.approx(one["enrichment"].mean()) and len(one) == 3
    table = summarise(frames, MEASURES)
    chance = table[(table["reader"] == "shuffled") & (table["measure"] == "enrichment")]
    assert len(chance) == 5 and np.allclose(chance["mean"], 1, atol=0.15)
    figure = plot_hazards(pd.concat([table, summarise(losses, ("loss",))]), "a title")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    drawn = dict(zip(*lines["before a jump"].get_data(), strict=True))
    expected = table[(table["reader"] == "trained") & (table["measure"] == "enrichment") & (table["lag"] == 2)]
    assert drawn[2] == pytest.approx(expected["mean"].item())
    assert {line.get_label() for line in figure.axes[1].lines} >= {"the hazard is hidden", "as many other patches are"}
