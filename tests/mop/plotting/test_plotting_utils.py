"""What holds for every figure: the documented names are there, no pyplot, labels inside and apart."""

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from checks import refusal
from figure_contents import check_labels
from old_caches import CACHE, TASK, as_version_1
from routing_data import random_data
from scripts import PATIENCE_S, REPOSITORY

import plotting_utils
from mop.plotting.style import Figure
from plotting_utils import (
    EXPERT_CMAPS,
    aggregate_routing_by_position,
    get_available_analyses,
    group_routing_data,
    load_cache,
    plot_action_frequency,
    plot_by_task,
    plot_difference,
    plot_episode_routing,
    plot_grouped_routing,
    plot_map,
    plot_overall_routing,
    plot_pathways,
    plot_routing_distributions,
    plot_routing_near_objects,
    plot_routing_over_progress,
    plot_routing_side_by_side,
    plot_specialisation,
    plot_success_against_lpc,
    plot_variance_explained,
    render_routing_heatmap,
)

IMAGE = np.zeros((192, 352, 3), np.uint8)
MISSION = "pick up the red box " * 6
RESULTS = pd.DataFrame(
    {"success_rate": np.linspace(0.4, 1, 12), "success_low": np.linspace(0.3, 0.99, 12)}
    | {
        "success_high": np.linspace(0.5, 1, 12),
        "mean_lpc": np.linspace(0, 3072, 12),
        "task": [f"Task{n}" for n in range(12)],
    }
)
FIGURES = {  # every figure of routing data
    "overall_routing": lambda d: plot_overall_routing(d, IMAGE, MISSION),
    "overall_routing_plain": plot_overall_routing,
    "overall_lpc": lambda d: plot_map(d, "LPC", env_images={"all steps": IMAGE}),
    "grouped_routing": lambda d: plot_grouped_routing(d, "by_key_phase", {"carrying the key": IMAGE}),
    "grouped_routing_of_long_labels": lambda d: plot_grouped_routing(d, "by_agent_and_target_quadrant"),
    "grouped_lpc": lambda d: plot_map(d, "LPC", "by_starting_room"),
    "action_entropy": lambda d: plot_map(d, "action entropy", env_images={"all steps": IMAGE}),
    "episode_routing": lambda d: plot_episode_routing(d, 3),
    "routing_side_by_side": lambda d: plot_routing_side_by_side(
        {"BabyAI-A-v0\ntrial 0": d, "B\ntrial 1": random_data()}
    ),
    "routing_over_progress": plot_routing_over_progress,
    "routing_distributions": plot_routing_distributions,
    "routing_near_objects": lambda d: plot_routing_near_objects(d, min_steps=3),
    "specialisation": plot_specialisation,
    "pathways": plot_pathways,
    "action_frequency": lambda d: plot_action_frequency(d, "by_key_phase"),
    "variance_explained": lambda d: plot_variance_explained(d if np.ptp(d.steps.lpc) > 0 else random_data()),
    "success_against_lpc": lambda d: plot_success_against_lpc(RESULTS, "task"),
    "failures_against_lpc": lambda d: plot_success_against_lpc(RESULTS, "task", measure="failures", title="worlds"),
    "by_task": lambda d: plot_by_task(RESULTS.assign(task_id=RESULTS["task"]), "failures", "a title"),
    "difference": lambda d: plot_difference(d, d, ("mixture lpc_alpha 1e-05 trial 2 seed 0", "mixture trial 1")),
}
DATA = {
    "nine rooms, six experts": lambda: random_data(40, 3, 6, (22, 22), (3, 3)),
    "one GRU, one cost": lambda: random_data(20, 1, 1),
    "a long corridor, one layer": lambda: random_data(20, 1, 2, (31, 4), (3, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DATA)
def test_labels_of_every_figure_stay_inside_and_apart(kind):
    data, num_texts = DATA[kind](), {}
    for name, plot in FIGURES.items():
        num_texts[name] = check_labels(plot(data), name)
    assert len(num_texts) == 20 and min(num_texts.values()) >= 8


def test_documented_names_are_there():
    functions = """compute_grid_bounds aggregate_routing_by_position render_routing_heatmap render_lpc_heatmap
        plot_overall_routing get_available_analyses group_routing_data room_labels_for_groups plot_grouped_routing"""
    assert all(callable(getattr(plotting_utils, name)) for name in functions.split())
    assert plotting_utils.expert_cmap(plotting_utils.size_hue(32)).N == 256
    assert plotting_utils.UNVISITED_COLOR.startswith("#") and plotting_utils.WALL_COLOR.startswith("#")


def test_figures_need_no_pyplot():
    program = (
        "import sys, types, numpy as np, plotting_utils as p;"
        "s = types.SimpleNamespace(episode=np.zeros(1, int), position=np.zeros((1, 2), int), lpc=None,"
        " layer_routing=[np.ones((1, 1))]);"
        "d = types.SimpleNamespace(header={}, episodes=[{}], steps=s, whole=None);"
        "p.plot_overall_routing(d).savefig('/dev/null', format='png');"
        "names = ('matplotlib.pyplot', 'torch', 'gymnasium', 'numba', 'mop.evaluation', 'mop.training');"
        "sys.exit(any(name in sys.modules for name in names))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, timeout=PATIENCE_S).returncode == 0


CONTENT = json.loads((CACHE / TASK / "trial_0/seed_0/routing_data.json").read_text())
FORMS = {"the content": CONTENT, "the list of steps": CONTENT["routing_data"]} | {
    "the list of version 1": as_version_1(CONTENT)["routing_data"]
}


@pytest.mark.parametrize("form", FORMS)
def test_functions_take_the_json_as_they_take_the_cache(form):
    before, given = json.dumps(FORMS[form]), FORMS[form]
    cache = load_cache(CACHE / TASK / "trial_0/seed_0/routing_data.json")
    for keep in (None, lambda step: step["position"][0] > 5):  # a step of the JSON
        mask = None if keep is None else cache.steps.position[:, 0] > 5
        one, other = aggregate_routing_by_position(given, keep), aggregate_routing_by_position(cache.steps, mask)
        np.testing.assert_array_equal(one.cells, other.cells)
        np.testing.assert_allclose(one.routing, other.routing)
        np.testing.assert_allclose(one.lpc, other.lpc)
        assert num_steps(plot_overall_routing(given, None, "", keep)) == num_steps(
            plot_overall_routing(cache, None, "", mask)
        )
        if form == "the content":  # which tells the sizes of the experts
            shown = plot_map(given, "LPC", filter_fn=keep), plot_map(cache, "LPC", filter_fn=mask)
            assert num_steps(shown[0]) == num_steps(shown[1])
    assert json.dumps(given) == before


def num_steps(figure):
    """How many steps a figure's title counts."""
    return re.search(r"[\d,]+ steps", " ".join(figure.get_suptitle().split()))[0]


@pytest.mark.parametrize("form", ["the content", "the list of version 1"])
def test_steps_are_grouped_by_a_field_of_their_episodes(form):
    given, cache = FORMS[form], load_cache(CACHE / TASK / "trial_0/seed_0/routing_data.json")
    by_name, by_field = group_routing_data(cache, "by_starting_room"), group_routing_data(given, "agent_start_room")
    assert by_field.labels == by_name.labels and by_field.counts.tolist() == by_name.counts.tolist()
    groups = group_routing_data(given, "doors")
    expected = Counter(str(cache.episodes[episode]["doors"]) for episode in cache.steps.episode)
    assert dict(zip(groups.labels, groups.counts.tolist(), strict=True)) == expected
    assert plot_grouped_routing(given, "agent_start_room").axes
    assert "by_door_location" in get_available_analyses(given)
    assert "agent_start_room" in refusal(group_routing_data, CONTENT["routing_data"], "agent_start_room")
    assert "no_such" in refusal(group_routing_data, given, "no_such")


def test_a_layer_has_a_name():
    averaged = aggregate_routing_by_position(CONTENT)
    grid, images = plotting_utils.compute_grid_bounds(averaged.cells), []
    for layer in (1, "layer_1"):
        images.append(render_routing_heatmap(Figure().subplots(), averaged, grid, layer).get_array())
    np.testing.assert_array_equal(*images)
    assert len(EXPERT_CMAPS) == 6 and EXPERT_CMAPS[0](1.0) == plotting_utils.expert_cmap(plotting_utils.size_hue(16))(
        1.0
    )
    for layer in ("layer_9", "router"):
        assert layer.removeprefix("layer_") in refusal(
            render_routing_heatmap, Figure().subplots(), averaged, grid, layer
        )


def test_what_is_no_routing_data_is_refused():
    for wrong in ([], {}, {"routing_data": 3}, [1, 2], {"routing_data": [{"episode": "x"}]}):
        assert "routing_data.json" in refusal(plot_overall_routing, wrong), wrong
