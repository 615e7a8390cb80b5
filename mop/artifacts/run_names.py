"""What a run is called where a person reads it: in menus, titles and captions."""

from collections.abc import Mapping

POLICIES = {"mop": "mixture", "gru": "GRU"}  # the policy of a config -> what it is called


def run_name(about: Mapping, with_task: bool = True) -> str:
    """The name of a run, such as "BabyAI-GoToObj-v0 mixture lpc_alpha 1e-05 trial 5 seed 0 update 200".

    about: a result row or the header of a routing cache; what it does not tell is left out. The update is named where
    the checkpoint is a periodic one (`is_final` false), the penalty where the policy has routers, which it acts on.
    A policy of several tasks is named before the one in whose worlds it is; with_task: false leaves the latter out.
    """
    settings = {**(about.get("config") or {}), **{key: value for key, value in about.items() if value is not None}}
    policy = settings.get("policy")
    names = [about.get("trained_on"), settings.get("task_id") if with_task else None]
    words = [" · ".join(filter(None, names)), POLICIES.get(policy)]
    if settings.get("residual"):
        words.append("residual")
    if policy != "gru" and isinstance(settings.get("lpc_alpha"), int | float):
        words.append(f"lpc_alpha {settings['lpc_alpha']:g}")
    numbers = ("trial", "seed") if about.get("is_final", True) else ("trial", "seed", "update")
    words += [f"{name} {about[name]}" for name in numbers if about.get(name) is not None]
    return " ".join(filter(None, words))
