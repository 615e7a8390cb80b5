"""The README's commands are commands, its files exist, and every module is listed."""

import re
import shlex
from pathlib import Path

import experiments

import batch_eval
import eval_mop
from configuration import check_recorded, parse_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The words of every `python SCRIPT.py ...` line in the README's shell blocks, loop variables filled in."""
    blocks = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    lines = [line.strip().replace("$s", "0") for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if re.match(r"python [\w/]+\.py", line)]


def test_every_command_is_understood_by_its_script():
    checked = []
    for script, *flags in commands():
        if script in ("train.py", "train_mop.py"):
            config, given = parse_config("", flags)
            assert check_recorded(config, script)["task_id"].startswith("BabyAI-") and len(given) <= len(flags)
        elif script == "results/experiments.py":
            assert flags[0] in experiments.EXPERIMENTS and set(flags[1:]) <= {"--dry_run", "--jobs", "2"}
        else:
            {"batch_eval.py": batch_eval, "eval_mop.py": eval_mop}[script].parser().parse_args(flags)
        checked.append(script)
    scripts = {"train.py", "train_mop.py", "batch_eval.py", "eval_mop.py", "results/experiments.py"}
    assert len(checked) >= 15 and set(checked) == scripts


def test_make_targets_and_the_plain_commands_agree():
    makefile = (ROOT / "Makefile").read_text()
    demo = re.findall(r"^\t\$\(RUN\) (\w+\.py .*)$", makefile.split("demo:")[1].split("\n\n")[0], re.MULTILINE)
    assert len(demo) == 2 and all(f"python {command}\n" in README for command in demo)
    named = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(named) and all(f"\n{target}:" in makefile for target in named)


def test_links_and_modules():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 3 and all((ROOT / link).exists() for link in links)
    table = README.split("## Where things are")[1].split("##")[0]
    modules = sorted(path.name for path in ROOT.glob("*.py"))
    assert len(modules) >= 17 and [name for name in modules if f"`{name}`" not in table] == []
    assert [name for name in re.findall(r"`(\w+\.\w+)`", table) if not (ROOT / name).exists()] == []
