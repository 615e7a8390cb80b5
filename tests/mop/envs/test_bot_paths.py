"""The bot's own paths: asked once for each task and step limit, and kept."""

import json

from bare_minigrid import bot_episode
from eval_helpers import GOTO

from mop.artifacts.run_paths import bot_paths_file
from mop.envs import bot_paths
from mop.envs.babyai import MINIGRID_VERSION, World
from mop.envs.bot_paths import BotPaths


def test_the_bot_is_asked_once_per_task_and_step_limit(tmp_path, monkeypatch):
    made, asked = [], []
    bot_steps = bot_paths.bot_steps
    monkeypatch.setattr(bot_paths, "World", lambda *arguments: made.append(arguments) or World(*arguments))
    monkeypatch.setattr(bot_paths, "bot_steps", lambda w, seed: asked.append(seed) or bot_steps(w, seed))

    def solvable(max_steps: int | None, count: int) -> tuple[dict, int]:
        made.clear()
        asked.clear()
        return BotPaths(GOTO, max_steps, tmp_path).solvable(0, count)

    first = solvable(None, 8)
    assert len(made) == 1 and asked == list(range(8)) and list(first[0]) == asked and first[1] == 0
    assert solvable(None, 8) == first and not made and not asked
    longer = solvable(None, 10)
    assert asked == [8, 9] and {seed: longer[0][seed] for seed in first[0]} == first[0]

    limit = sorted(first[0].values())[3]  # some worlds need more steps than this
    short = solvable(limit, 8)
    assert len(made) == 1 and short[1] > 0 and max(short[0].values()) <= limit
    expected = [bot_episode(GOTO, seed, limit) for seed in asked]
    assert {seed: n for seed, n in zip(asked, expected, strict=True) if isinstance(n, int)} == short[0]
    paths = [bot_paths_file(tmp_path, GOTO, max_steps) for max_steps in (None, limit)]
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)
    assert solvable(limit, 8) == short and not made

    content, cases = json.loads(paths[0].read_text()), 0
    assert content["minigrid_version"] == MINIGRID_VERSION
    broken = [b"", b"\xff\xfe", b"[]", json.dumps(content).encode()[:-9]]
    broken += [
        json.dumps(content | {"results": changed}).encode() for changed in ([], {"x": 1}, {"0": None}, {"0": 2.5})
    ]
    broken += [json.dumps(content | {"minigrid_version": "2.5.0", "results": {"0": 999}}).encode()]
    for data in broken:
        paths[0].write_bytes(data)
        assert solvable(None, 8) == first and asked == list(range(8)), data
        assert json.loads(paths[0].read_text())["results"] == {str(seed): n for seed, n in first[0].items()}
        cases += 1
    assert cases == 9
