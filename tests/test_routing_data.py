"""What routing data may lack: every number and every figure says so in one clear sentence."""

import numpy as np
import pytest
from routing_data import make_data, make_steps, two_episodes, two_episodes_in_a_corridor

from mop.base.errors import InputError
from mop.measures.actions import count_actions
from mop.measures.groups import group_routing_data
from mop.measures.pathways import compute_pathways
from mop.measures.progress import compute_routing_over_progress, select_episode
from mop.plotting.actions import plot_action_frequency
from mop.plotting.pathways import plot_pathways
from mop.plotting.progress import plot_episode_routing, plot_routing_over_progress
from mop.plotting.router_weights import plot_routing_distributions, plot_routing_near_objects, plot_specialisation
from mop.store.routing_cache import RoutingCache


def num_named(data: RoutingCache, users: dict[str, tuple]) -> int:
    """How many functions of routing data raise one clear sentence about each column, once it is missing."""
    count = 0
    for column, functions in users.items():
        kept = getattr(data.steps, column)
        setattr(data.steps, column, None)
        for function in functions:
            with pytest.raises(InputError, match=f"no '{column}'"):
                function(data)
            count += 1
        setattr(data.steps, column, kept)
    return count


def test_numbers_name_a_missing_column():
    data = two_episodes()
    groups = group_routing_data(data, "overall")
    users = {
        "t_step": (compute_routing_over_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "layer_routing": (compute_routing_over_progress, compute_pathways, lambda data: select_episode(data, 0)),
        "action": (lambda data: count_actions(data, groups, 7),),
    }
    assert num_named(data, users) == 7
    empty = make_data(make_steps([], np.empty((0, 2)), t_step=[]), [])
    for compute in (compute_routing_over_progress, compute_pathways):
        with pytest.raises(InputError, match="there are no steps"):
            compute(empty)


def test_figures_name_a_missing_column():
    of_weights = (plot_routing_over_progress, plot_routing_distributions, plot_pathways, plot_specialisation)
    users = {
        "layer_routing": of_weights,
        "t_step": (plot_routing_over_progress, plot_pathways, lambda data: plot_episode_routing(data, 0)),
        "action": (plot_action_frequency,),
        "position": (plot_routing_near_objects,),
    }
    assert num_named(two_episodes_in_a_corridor(), users) == 9
    for plot in of_weights:
        with pytest.raises(InputError, match="there are no steps"):
            plot(make_data(make_steps([], np.empty((0, 2)), t_step=[]), []))
