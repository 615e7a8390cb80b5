"""Single worlds with interventions: the episodes of a whole study, bit for bit, and only what was not played yet."""

import numpy as np
import pytest
from checks import refusal
from eval_helpers import UNLOCK, taught_checkpoint

from mop.artifacts.checkpoints import save_checkpoint
from mop.common.intervention_grammar import FROZEN, GATE_ONLY, NONE, ZEROED, Intervention, parse
from mop.envs.bot_paths import BotPaths
from mop.envs.missions import load_encoder
from mop.evaluation import intervention_runs
from mop.evaluation.intervention_runs import OneWorld, Study

SEED, NUM_WORLDS = 3, 6
ASKED = (
    *((NONE, GATE_ONLY), ("lesion 0.1", GATE_ONLY), ("shuffle 0", GATE_ONLY), ("mean 1 + lesion 0.0", GATE_ONLY)),
    *(("threshold 0.4", FROZEN), ("argmax", ZEROED), ("clamp 0.1=0.9 + shuffle 1", GATE_ONLY)),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of a policy, and the path of its checkpoint."""
    checkpoint = taught_checkpoint(UNLOCK, 12, 120)
    path = tmp_path_factory.mktemp("one_world") / "checkpoint_final.pt"
    save_checkpoint(path, checkpoint)
    bot_paths = BotPaths(UNLOCK, checkpoint["config"]["max_steps"], None)
    made = Study(checkpoint, load_encoder("vocab"), bot_paths, NUM_WORLDS, SEED, num_envs=4, group_by="by_carrying")
    made.intact.header |= {"eval_seed": SEED}
    return made, path


def columns_of(data, episode: int) -> list[np.ndarray]:
    rows = np.asarray(data.steps.episode) == episode
    columns = [values for name, values in data.steps.columns().items() if name not in ("episode", "layer_routing")]
    return [values[rows] for values in [*columns, *data.steps.layer_routing]]


def test_episodes_are_those_of_the_study(study):
    made, path = study
    world = OneWorld(path, made.intact)
    compared = 0
    for text, variant in ASKED:
        whole = made.episodes(parse(text), variant)
        for number in (0, 4):
            one = world.episode(number, parse(text), variant)
            assert one.episodes == [whole.episodes[number]], text
            pairs = zip(columns_of(one, 0), columns_of(whole, number), strict=True)
            assert all(np.array_equal(mine, of_study) for mine, of_study in pairs), text
            compared += 1
    assert compared == 2 * len(ASKED) == 14


def test_what_was_played_is_not_played_again(study, monkeypatch):
    made, path = study
    world, played, own = OneWorld(path, made.intact), [], OneWorld._play
    monkeypatch.setattr(
        OneWorld, "_play", lambda self, numbers, *rest: played.append(numbers) or own(self, numbers, *rest)
    )
    first = world.episode(2, Intervention(NONE))
    found = world.episodes([1, 2, 3], Intervention(NONE))
    assert played == [[2], [1, 3]] and found[1] is first
    world.episode(2, Intervention(NONE), FROZEN)
    assert len(played) == 3
    monkeypatch.setattr(intervention_runs, "_NUM_KEPT", 2)
    world.episode(0, Intervention("argmax"))
    world.episode(1, Intervention(NONE))
    assert played[3:] == [[0], [1]], "the oldest are forgotten"


def test_what_cannot_be_played_is_told(study):
    made, path = study
    world = OneWorld(path, made.intact)
    refusal(world.check, parse("lesion 9.0"))
    episodes = [{"mission": "x"} for _ in made.intact.episodes]
    without_seeds = type(made.intact)(made.intact.header, episodes, made.intact.steps)
    assert "seed" in refusal(OneWorld, path, without_seeds)
    assert "nowhere" in refusal(OneWorld, "nowhere.pt", made.intact)
