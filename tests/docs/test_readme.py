"""The documents' commands are commands, their tables those of results/, their files exist, every module is listed."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from commands import check_command

import modal_app
from mop.common.train_config import DEFAULTS_FILE, parse_config, read_config

ROOT = Path(__file__).resolve().parents[2]
RESULTS = [ROOT / "results" / name for name in ("README.md", "interventions.md", "loops.md")]
PAGES = [ROOT / "README.md", *RESULTS, *(ROOT / "results").glob("*/README.md"), ROOT / "benchmarks" / "README.md"]
DOCUMENTS = {path: path.read_text(encoding="utf-8") for path in [*PAGES, *sorted((ROOT / "docs").glob("*.md"))]}
README = DOCUMENTS[ROOT / "README.md"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SCRIPTS = {
    *(f"{name}.py" for name in ("batch_eval", "eval_mop", "intervene", "gallery", "seed_statistics")),
    *(f"{name}_viz.py" for name in ("routing", "logit", "cross_task", "lmc", "simulator")),
    *(
        f"studies/{name}.py"
        for name in ("experiments", "claims", "coinrun", "failures", "collapse", "lmc", "simulator")
    ),
    *(
        "microscope.py",
        "docs/pictures.py",
        "studies/tasks.py",
        "tests/hostile/mutants.py",
        "tests/hostile/flags.py",
        "benchmarks/bench.py",
        "benchmarks/time_to_mastery.py",
    ),
}


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
    return [shlex.split(line, comments=True) for line in lines if re.match(starts, line)]


def test_every_command_is_understood_by_its_script(monkeypatch):
    monkeypatch.chdir(ROOT)  # where `--config` files lie
    checked = [check_command(words) for words in commands()]
    scripts = {"train.py", "train_mop.py", "volume", "modal_app.py", *SCRIPTS}
    scripts |= {f"modal_app.py::{name}" for name in modal_app.PLANS}
    assert len(checked) >= 40 and set(checked) == scripts


def test_make_targets_and_the_plain_commands_agree():
    makefile = (ROOT / "Makefile").read_text()
    demo = re.findall(r"^\t\$\(RUN\) (\w+\.py .*)$", makefile.split("demo:")[1].split("\n\n")[0], re.MULTILINE)
    training = DOCUMENTS[ROOT / "docs" / "training.md"]
    assert len(demo) == 2 and all(f"python {command}\n" in training for command in demo)
    named = {
        name for text in DOCUMENTS.values() for name in re.findall(r"^make (\w+)|`make (\w+)`", text, re.MULTILINE)
    }
    named = {first or second for first, second in named}
    assert {"demo", "app", "test", "bench", "results"} <= named
    assert [target for target in named if f"\n{target}:" not in makefile] == []
    assert "benchmarks/bench.py" in makefile


def test_every_table_that_the_studies_wrote_is_linked_from_a_page():
    tables = {path.name for path in (ROOT / "results").glob("*.md")} - {"README.md"}
    assert tables >= {"tasks.md", "tasks_reading.md", "alpha.md", "alpha_phases.md", "settings.md", "collapse.md"}
    assert [name for name in tables if not any(f"{name})" in page for page in DOCUMENTS.values())] == []


def test_what_is_said_of_the_cost_is_of_its_table():
    table = (ROOT / "results/linear/tasks_cost.md").read_text(encoding="utf-8")
    (page,) = (text for text in DOCUMENTS.values() if "## What a task is worth computing" in text)
    num_tasks = int(re.search(r"over (\d+) tasks", table)[1])
    free, paid = (round(100 * float(share)) for share in re.findall(r"between seeds \| (\S+) .* \| (\S+) ", table)[0])
    differences = re.findall(r"\| \S+ \((-\d+\.\d) to (\+\d+\.\d)\) \|", table)
    assert len(differences) == num_tasks, "each interval holds 0"
    said = f"{paid} % of the variance between policies (of the logarithm) is then between tasks; without a price it"
    assert f"No task of the {num_tasks} loses success beyond chance" in page and f"{said} is {free} %" in page
    assert f"{paid} % of the variance of LPC is between tasks, without it {free} %" in README


def cells_of(row: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_readme_is_short_and_its_results_are_rows_of_the_table():
    assert 1_000 <= len(README.split()) <= 1_700
    head, _, *lines = (ROOT / "results" / "tasks.md").read_text(encoding="utf-8").splitlines()
    shown = README.split("## Results")[1].split("\n## ")[0]
    names, _, *rows = map(cells_of, re.findall(r"^\|.*$", shown, re.MULTILINE))
    columns = [cells_of(head).index(name) for name in names]
    known = [[cells[column] for column in columns] for cells in map(cells_of, lines) if len(cells) > max(columns)]
    assert len(rows) == 6 and len(names) <= 6 and [row for row in rows if row not in known] == []
    said = (ROOT / "results/linear/tasks.md").read_text(encoding="utf-8")
    counts = r"Of (\d+) tasks .*?the mixture solves more.*? in (\d+):.*?the mixture takes shorter.*? in (\d+):"
    num_tasks, more, shorter = re.search(counts, said, re.DOTALL).groups()
    assert f"the mixture does in {more} of {num_tasks}" in shown and f"with the mixture in {shorter} tasks" in shown
    assert "the GRU solves more, beyond chance, in 0" in said and "In no task does the GRU" in shown
    assert "the GRU takes shorter paths, each seed, in 1:" in said and "with the GRU in 1." in shown


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    count = 0
    for path, text in [*DOCUMENTS.items(), (ROOT / "CHANGELOG.md", CHANGELOG)]:
        for link, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]+))?\)", text):
            if link.startswith("http"):
                continue
            target = (path.parent / link).resolve() if link else path
            assert target.exists(), (path, link)
            assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), (path, link, anchor)
            count += 1
    assert count >= 50
    pages = [path for path in DOCUMENTS if path.parent == ROOT / "docs"]
    unnamed = [path.name for path in pages if f"docs/{path.name}" not in README]
    assert unnamed == []


def test_policies_of_the_zoo_that_pages_name_are_there():
    named = {path for text in DOCUMENTS.values() for path in re.findall(r"results/zoo/[\w./-]*\w", text)}
    assert len(named) >= 4 and [path for path in sorted(named) if not (ROOT / path).exists()] == []


def names_in_documents(pattern: str) -> set[str]:
    """What a pattern finds in the `code` of the documents."""
    return {name for text in DOCUMENTS.values() for name in re.findall(pattern, text)}


def defined_names(source: str) -> set[str]:
    """The names that a module defines at its top level."""
    names = set()
    for node in ast.parse(source).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        names |= {getattr(target, "id", getattr(target, "name", None)) for target in targets}
    return names


def test_files_and_names_in_the_documents_exist():
    paths = names_in_documents(r"`((?:mop|generative|lmc_rl|studies|tests|results|benchmarks|docs)/[\w./]+)`")
    paths -= {"results/runs/", "results/lmc/"}  # made by scripts
    assert len(paths) >= 15 and [path for path in paths if not (ROOT / path).exists()] == []
    dotted = names_in_documents(r"`((?:mop|lmc_rl|generative)(?:\.\w+)+)`")
    for name in dotted:
        module, _, attribute = name.rpartition(".")
        as_module = ROOT / name.replace(".", "/")
        if as_module.is_dir() or as_module.with_suffix(".py").exists():
            continue
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
        assert attribute in defined_names(source), name
    assert len(dotted) >= 7


def test_what_is_to_be_opened_is_there():
    table = README.split("## To change something")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [^|]+ \| (.*) \|$", table, re.MULTILINE)[1:]
    for row in rows:
        sources = [(ROOT / path).read_text(encoding="utf-8") for path in re.findall(r"`([\w/]+\.(?:py|yaml))`", row)]
        for name in re.findall(r"`([A-Za-z_]+(?:\.(?!py`|yaml`)[a-z]+)?)`", row):
            assert any(re.search(rf"\b{name.rpartition('.')[2]}\b", source) for source in sources), (row, name)
    assert len(rows) >= 8


DOCUMENTED = {
    "num_updates": 10_000, "num_envs": 16, "unroll_len": 32, "lr": 3e-4, "lr_decay": False, "teacher_mix": 0.0,
    "replay": 0, "grad_clip": 0.0, "input_dim": 152, "num_actions": 7, "intermediate_dim": 64,
    "expert_hidden_sizes": [[0, 16, 32]] * 3, "router_hidden_size": 64, "obs_encoding": "raw",
    "input_encoder": "linear", "residual": False, "expert_gain": 1.0,
    "lang_encoder": "distilbert-base-uncased", "lang_dim": 32, "lpc_alpha": 0.0,
}  # fmt: skip


def test_documented_settings_are_read_and_their_differences_are_told():
    path = ROOT / "documented.yaml"
    config, given = parse_config("", ["--config", str(path)])
    assert given == set(DOCUMENTED) and {name: config[name] for name in given} == DOCUMENTED
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(given) and all(re.match(r"\w+: .* # \S", line) for line in lines)
    defaults = read_config(DEFAULTS_FILE)
    expected = {name: value for name, value in defaults.items() if name not in (*given, "name")}
    assert {name: config[name] for name in expected} == expected
    paper = DOCUMENTS[ROOT / "docs" / "paper.md"]
    told = set(re.findall(r"^\| `(\w+)`", paper, re.MULTILINE))
    assert told == {name for name in given if config[name] != defaults[name]}


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "documented.yaml"], ids=lambda path: path.stem
)
def test_documents_name_nothing_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:work|home|tmp|mnt|data|Users)\b\S*", text) == []
