"""The page in which a policy runs: one HTML document, which holds the policy, its worlds and its code."""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import orjson

from mop.analysis.groups import get_available_analyses
from mop.artifacts.routing_cache import RoutingData
from mop.artifacts.run_names import run_name
from mop.common.task_mix import task_name, tasks_of
from mop.envs.bot_paths import BotPaths
from mop.envs.missions import MissionEncoder
from mop.evaluation.evaluate import Evaluation, encoder_for, evaluate
from mop.microscope.glossary import word_meanings
from mop.microscope.pack_policy import pack_policy
from mop.microscope.pack_worlds import pack_worlds
from mop.plotting.style import expert_hues, expert_names, short_name

FOLDER = Path(__file__).parent
LIBRARY = ("numbers", "missions", "policy", "geometry", "instructions", "world", "phases", "interventions")
LIBRARY += ("rollouts", "runner")
PAGE = ("why", "draw", "gif", "choosing", "showing", "asking", "page")

# what the page copies as Python: %what% and %memory% are filled in there
PYTHON = """\
from mop.common.intervention_grammar import parse
from mop.envs.bot_paths import BotPaths
from mop.evaluation.evaluate import encoder_for, load_for_evaluation
from mop.evaluation.intervention_runs import Study

checkpoint = load_for_evaluation({path})
worlds = BotPaths({task_id}, {max_steps}, {cache_dir})
study = Study(checkpoint, encoder_for(checkpoint, {lang_encoder}), worlds, {num_worlds}, {eval_seed})
print(study.run(parse(%what%), %memory%))
"""


def join_modules(names: Iterable[str]) -> str:
    """Join `<name>.js` of this folder, in this order, as one script without imports and exports."""
    modules = "\n".join((FOLDER / f"{name}.js").read_text("utf-8") for name in names)
    return re.sub("^(import .*\n|export )", "", modules, flags=re.MULTILINE)


def microscope_document(
    checkpoints: Sequence[Mapping],
    task_id: str | None = None,
    num_worlds: int = 200,
    eval_seed: int = 0,
    cache_dir: str = "",
    lang_encoder: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write the HTML of one policy, or of two to be compared, in the same worlds.

    checkpoints: of `load_for_evaluation`; task_id: default, the first policy's own; the worlds are the
    first `num_worlds` from `eval_seed` on that the bot solves, as an evaluation plays them; cache_dir: where the bot's
    own results are kept.
    """
    config = checkpoints[0]["config"]
    own = [name for name, _ in tasks_of(config)]
    task_id = own[0] if task_id is None else task_id
    bot_paths = BotPaths(task_id, config.get("max_steps") if task_id in own else None, cache_dir)
    seeds = list(bot_paths.solvable(eval_seed, num_worlds)[0])
    packed = pack_worlds(bot_paths, seeds)
    missions = sorted({world["mission"] for world in packed["worlds"]})
    policies: list[dict] = []
    for checkpoint in checkpoints:
        encoder = encoder_for(checkpoint, lang_encoder)
        found = evaluate(checkpoint, encoder, bot_paths, num_worlds, eval_seed, progress=progress, with_phases=False)
        told = {"path": checkpoint["path"], "lang_encoder": lang_encoder, "task_id": task_id, "cache_dir": cache_dir}
        told |= {"max_steps": bot_paths.max_steps, "num_worlds": num_worlds, "eval_seed": eval_seed}
        python = PYTHON.format(**{name: repr(value) for name, value in told.items()})
        policies.append(_packed(checkpoint, encoder, missions, found) | {"python": python})
    title = f"{task_name(task_id)}: {' and '.join(policy['name'] for policy in policies)}"
    success = " and ".join(f"{np.mean(policy['solved']):.1%} solved" for policy in policies)
    about = f"{success} of {len(seeds)} worlds, greedy, from seed {eval_seed} on"
    content = {**packed, "about": about, "policies": policies, "by_key": any(policy["by_key"] for policy in policies)}
    return join_page(title, {**content, "glossary": word_meanings()})


def _packed(checkpoint: Mapping, encoder: MissionEncoder, missions: Sequence[str], found: Evaluation) -> dict:
    """Pack a policy with what the page says of it, and how its episodes end in Python."""
    assert found.steps is not None, "recorded"
    routing = found.steps.layer_routing or []
    means = [weights.mean(0, np.float64).tolist() for weights in routing]
    packed = pack_policy(checkpoint, means, missions, encoder)
    header = {"expert_hidden_sizes": packed["expert_hidden_sizes"], "policy": packed["kind"]}
    # with its update, final or not: two of one run may be compared
    about = {**checkpoint["config"], "policy": packed["kind"], "update": checkpoint["update"], "is_final": False}
    return {
        **packed,
        "name": run_name(about, with_task=False),
        "names": [[short_name(name) for name in names] for names in expert_names(header, routing)],
        "hues": expert_hues(header, routing),
        "by_key": "by_key_phase" in get_available_analyses(RoutingData({}, found.episodes, found.steps)),
        "solved": [bool(episode["success"]) for episode in found.episodes],
    }


def open_at(page: str, state: str) -> str:
    """Let a written page begin with a state as its address holds it, such as "world=3&step=10": for a frame."""
    return re.sub('<body data-state="[^"]*"', lambda _: f'<body data-state="{html.escape(state)}"', page, count=1)


def join_page(title: str, content: Mapping) -> str:
    """Put content and code into page.html. A text of the content is never markup or script in it."""
    written = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("<", "\\u003c")
    parts = {
        "title": html.escape(title),
        "style": (FOLDER / "page.css").read_text("utf-8"),
        "content": written,
        "library": join_modules(LIBRARY),
        "page": join_modules(PAGE),
    }
    template = (FOLDER / "page.html").read_text("utf-8")
    return re.sub("%(title|style|content|library|page)%", lambda place: parts[place[1]], template)
