"""The documents' commands are commands, their tables those of results/, their files exist, every module is listed."""

import re
import shlex
from pathlib import Path

from modal.cli.volume import volume_cli

import batch_eval
import cross_task_viz
import eval_mop
import logit_viz
import modal_app
import routing_viz
from benchmarks import throughput
from mop.base.configuration import check_recorded, parse_config
from results import collapse, experiments

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCRIPTS = {
    "batch_eval.py": batch_eval,
    "eval_mop.py": eval_mop,
    "routing_viz.py": routing_viz,
    "logit_viz.py": logit_viz,
    "cross_task_viz.py": cross_task_viz,
    "benchmarks/throughput.py": throughput,
    "results/experiments.py": experiments,
    "results/collapse.py": collapse,
}
DOCUMENTS = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", ROOT / "results" / "README.md")}
DOCUMENTS |= {path: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}


def commands() -> list[list[str]]:
    """The words of every `python X.py ...`, `marimo run X.py ...`, `modal run X.py::...` and `modal volume ...`.

    They stand in the documents' shell blocks and in `code`. No command is run.
    """
    texts = DOCUMENTS.values()
    lines = [
        line.strip()
        for text in texts
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    lines += [
        code
        for text in texts
        for code in re.findall(
            r"`((?:time )?(?:python|marimo run|marimo edit) [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        )
    ]
    starts = r"(?:time )?(?:python|marimo run|marimo edit|modal run(?: --detach)?) (?=[\w/]+\.py)|modal (?=volume )"
    found = [re.match(rf"(?:{starts})(.*)", line) for line in lines]
    return [[word for word in shlex.split(match[1], comments=True) if word != "--"] for match in found if match]


def test_every_command_is_understood_by_its_script():
    checked = []
    for script, *flags in commands():
        if script in ("train.py", "train_mop.py"):
            config, given = parse_config("", flags)
            assert check_recorded(config, script)["task_id"].startswith("BabyAI-") and len(given) <= len(flags)
        elif script == "volume":
            volume_cli.commands[flags[0]].make_context(flags[0], flags[1:])
        elif script.startswith("modal_app.py"):
            entry_point = script.partition("::")[2] or "main"
            arguments = vars(modal_app.parser(entry_point).parse_args(flags))
            if entry_point == "main":  # the others look for checkpoints
                assert modal_app.ENTRY_POINTS[entry_point](**arguments | {"dry_run": True}) == 0
        else:
            SCRIPTS[script].parser().parse_args(flags)
        checked.append(script)
    scripts = {"train.py", "train_mop.py", "volume", "modal_app.py", *SCRIPTS}
    scripts |= {f"modal_app.py::{name}" for name in modal_app.ENTRY_POINTS}
    assert len(checked) >= 20 and set(checked) == scripts


def test_make_targets_and_the_plain_commands_agree():
    makefile = (ROOT / "Makefile").read_text()
    demo = re.findall(r"^\t\$\(RUN\) (\w+\.py .*)$", makefile.split("demo:")[1].split("\n\n")[0], re.MULTILINE)
    assert len(demo) == 2 and all(f"python {command}\n" in README for command in demo)
    named = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(named) and all(f"\n{target}:" in makefile for target in named)


def test_tables_are_those_that_the_experiments_wrote():
    shown = [table for text in DOCUMENTS.values() for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]
    written = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "results").glob("*.md") if path.stem != "README"
    }
    assert (
        set(written) >= {"tasks", "collapse"} and [name for name, table in written.items() if table not in shown] == []
    )


def test_links_and_modules():
    count = 0
    for path, text in DOCUMENTS.items():
        for link in re.findall(r"\]\(([^)#]+)\)", text):
            assert link.startswith("http") or (path.parent / link).exists(), (path, link)
            count += 1
    assert count >= 8
    table = README.split("## Where things are")[1].split("##")[0]
    modules = sorted(path.name for path in ROOT.glob("*.py"))
    assert len(modules) >= 17 and [name for name in modules if f"`{name}`" not in table] == []
    assert [name for name in re.findall(r"`(\w+\.\w+)`", table) if not (ROOT / name).exists()] == []
