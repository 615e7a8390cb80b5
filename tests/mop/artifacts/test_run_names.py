"""What runs are called."""

from mop.artifacts.run_names import run_name

RUN = {"task_id": "T", "trial": 1, "seed": 0, "policy": "mop", "lpc_alpha": 1e-05, "update": 300, "is_final": True}


def test_names_by_hand():
    assert run_name(RUN) == "T mixture lpc_alpha 1e-05 trial 1 seed 0"
    assert run_name(RUN | {"is_final": False, "seed": None}) == "T mixture lpc_alpha 1e-05 trial 1 update 300"
    assert run_name(RUN | {"policy": "gru"}) == "T GRU trial 1 seed 0", "nothing is routed, nothing penalised"
    assert run_name(RUN | {"residual": True, "lpc_alpha": 0}) == "T mixture residual lpc_alpha 0 trial 1 seed 0"


def test_headers_hold_a_config_and_older_ones_tell_less():
    header = {"task_id": "T", "trial": 1, "policy": "mop", "config": {"lpc_alpha": 0.5, "seed": 7}}
    assert run_name(header) == "T mixture lpc_alpha 0.5 trial 1"
    assert run_name({"task_id": "T", "trial": 1}) == "T trial 1" and run_name({}) == ""
