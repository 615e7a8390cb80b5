"""The small routing cache of the tests, and broken and old ones made from it."""

import json
from pathlib import Path

from mop.artifacts.run_paths import RunKey, cache_path

TASK = "BabyAI-UnlockPickup-v0"
CACHE = Path(__file__).parent / "evaluation_cache"  # 12 episodes of a trained policy, by batch_eval.py
_CONTEXT = (
    "grid_size",
    "agent_start_pos",
    "agent_start_room",
    "room_grid_shape",
    "goals",
    "doors",
    "keys",
    "balls",
    "boxes",
)


def as_version_1(content: dict) -> dict:
    """A cache as it was before it held episodes: the context inside each step, no logits, no actions."""
    contexts = [{name: episode[name] for name in _CONTEXT} for episode in content["episodes"]]
    steps = [
        {"position": step["position"], "layer_routing": step["layer_routing"], "lpc": step["lpc"]}
        | {"env_context": contexts[step["episode"]]}
        for step in content["routing_data"]
    ]
    metrics = {
        name: content["metrics"][name] for name in ("success_rate", "path_ratio", "mean_lpc", "bot_plan_failures")
    }
    head = {name: content[name] for name in ("checkpoint_path", "num_episodes")}
    return {**head, "metrics": metrics, "routing_data": steps}


def write_variants(cache_dir: Path) -> None:
    """Beside trial 0: trial 1 is cut short, trial 2 of version 1, trial 3 without steps."""
    text = cache_path(CACHE, RunKey(TASK, 0, 0)).read_text()
    content = json.loads(text)
    texts = {
        1: text[: len(text) // 2],
        2: json.dumps(as_version_1(content)),
        3: json.dumps(content | {"routing_data": []}),
    }
    for trial, variant in texts.items():
        path = cache_path(cache_dir, RunKey(TASK, trial))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(variant)
