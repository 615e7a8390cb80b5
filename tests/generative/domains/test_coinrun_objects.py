"""What is on screen in CoinRun: the level that is drawn otherwise is the same level; every colour is known."""

import numpy as np
import pytest
from checks import refusal

from generative.domains.coinrun.games import RIGHT, RIGHT_AND_JUMP, begin_level
from generative.domains.coinrun.objects import HAZARDS, KINDS, kinds_of, objects_of

AGENT, CRATE, LAVA = (KINDS.index(name) for name in ("agent", "crate", "lava"))


def play(world: dict, level: int, num_actions: int) -> tuple[list[int], list[np.ndarray], list[bool]]:
    """Random actions, mostly to the right, with the frames, and whether the episode ended."""
    rng = np.random.default_rng(level)
    game = begin_level(world, level)
    actions, frames, is_over = [], [game.begin()[0][0]], []
    while len(actions) < num_actions and not any(is_over):
        actions.append(int(rng.choice([RIGHT, RIGHT_AND_JUMP]) if rng.random() < 0.7 else rng.integers(9)))
        moment = game.step(np.array(actions[-1:]))
        frames.append(moment.frames[0])
        is_over.append(bool(moment.is_terminal[0]))
    game.close()
    return actions, np.stack(frames), is_over


@pytest.mark.parametrize("mode", ["easy", "hard"])
@pytest.mark.parametrize("has_backgrounds", [False, True])
def test_the_same_level_in_other_colours(games, mode, has_backgrounds):
    world = {"env_name": "coinrun", "distribution_mode": mode, "use_backgrounds": has_backgrounds}
    seen, num_ends, is_as_drawn = set(), 0, {"nothing": [], "lava": [], "crate": []}
    for level in range(40):
        actions, frames, is_over = play(world, level, 150)
        objects = objects_of(world, level, actions)
        assert objects.shape == (len(actions) + 1, 64, 64) and objects.dtype == np.uint8
        assert (objects == AGENT).any((1, 2)).all(), "the agent is in every frame"
        seen |= set(np.unique(objects).tolist())
        num_ends += any(is_over)
        if not has_backgrounds:
            bright, excess = frames.max(1), frames[:, 0].astype(int) - frames[:, 2]  # red over blue
            is_as_drawn["nothing"] += (bright[objects == 0] == 0).tolist()
            is_as_drawn["lava"] += (excess[objects == LAVA] > 50).tolist()
            is_as_drawn["crate"] += (excess[objects == CRATE] > 0).tolist()
        if any(is_over):
            assert f"level {level} ends after {len(actions)} of {len(actions) + 3} act" in refusal(
                objects_of, world, level, [*actions, 0, 0, 0]
            )
    shares = {} if has_backgrounds else {name: np.mean(values) for name, values in is_as_drawn.items()}
    assert all(share > 0.75 for share in shares.values()), shares  # pictures are no rectangles: their corners are air
    assert {KINDS[number] for number in seen} >= set(KINDS) - {"enemy"}, "which are rare in easy levels"
    assert "enemy" in {KINDS[number] for number in seen} or mode == "easy"
    assert num_ends > 5 and set(HAZARDS) < set(KINDS)


def test_what_is_not_known():
    refusal(objects_of, {"env_name": "caveflyer"}, 0, [])
    frame = np.zeros((2, 3, 64, 64), np.uint8)
    assert (kinds_of(frame) == 0).all()
    frame[1, 0, 5, 5] = 255
    with pytest.raises(ValueError, match="a colour that is of no kind of thing"):
        kinds_of(frame)
