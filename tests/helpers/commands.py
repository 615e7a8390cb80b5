"""Command lines of the repository, parsed as their programs parse them; none is run."""

from mop import cloud

import importlib
import re

from modal.cli.volume import volume_cli

import modal_app
from generative.agents.config import parse_settings
from lmc_rl.config import resolve_rl
from lmc_rl.run_env import parser as lmc_parser
from mop.apps.flags import RunSettings
from mop.common.cli import given_values, parse
from mop.common.task_mix import is_task_id, tasks_of
from mop.common.train_config import check_recorded, parse_config

MODULES = {  # of scripts that are thin -> where their flags are
    "lmc_viz": "lmc_rl.app.page", "simulator_viz": "generative.app.page", "tests.hostile.mutants": "cases",
    "tests.hostile.flags": "cases",
    **{name: f"generative.{name}" for name in ("record", "render", "train_gen_model", "plot_training_csv")},
}  # fmt: skip
OF_PAGES = {"routing_viz": RunSettings, "logit_viz": RunSettings}  # flags that several pages share
LMC = {"core": "lmc_rl", "experiments": "lmc_rl"}  # former name of a package -> its name


def check_command(words: list[str]) -> str:
    """Parse `python X.py ...`, `python -m X ...`, `marimo run X.py ...` or `modal run X.py::...`; what is run."""
    program, *words = [word for word in words if word not in ("--", "time", "--detach")]
    if program == "modal" and words[0] == "volume":
        volume_cli.commands[words[1]].make_context(words[1], words[2:])
        return "volume"
    if program == "modal":
        return _check_modal(words[1:])
    if program == "marimo":
        words = words[1:]
    return _check_script(*(words[1:2] if words[0] == "-m" else words[:1]), words[1 + (words[0] == "-m") :])


def _check_script(script: str, flags: list[str]) -> str:
    if script.startswith("modal_app.py"):
        return _check_modal([script, *flags])
    if script in ("train.py", "train_mop.py"):
        config, given = parse_config("", flags)
        assert all(is_task_id(task_id) for task_id, _ in tasks_of(check_recorded(config, script)))
        assert "--config" in flags or len(given) <= len(flags)
        return script
    name = script.removesuffix(".py").replace("/", ".")
    package, _, command = name.partition(".")
    name = f"{LMC[package]}.{command}" if package in LMC else MODULES.get(name, name)
    if name == "lmc_rl.run_env":
        given = vars(lmc_parser().parse_args(flags))
        resolve_rl(given, given.pop("config", None))
    elif name == "generative.train_agent":
        parse_settings("", flags)
    else:
        module = importlib.import_module(name)
        if settings := OF_PAGES.get(name) or getattr(module, "Settings", None):
            given_values(settings, "", flags)
        else:
            module.parser().parse_args(flags)
    return script


def _check_modal(words: list[str]) -> str:
    script, *flags = words
    entry_point = script.partition("::")[2] or (flags.pop(0) if not flags[0].startswith("-") else "main")
    if entry_point == "download":
        parse(modal_app.DownloadSettings, "", cloud.flags_of(flags))
    elif entry_point.startswith("eval"):  # these look for checkpoints
        parse(cloud.EvalSettings, "", cloud.flags_of(flags))
    else:
        assert modal_app.start(entry_point, [*flags, "--dry-run"]) == 0
    return re.sub(r"^\S+?(?=::|$)", "modal_app.py", script)
