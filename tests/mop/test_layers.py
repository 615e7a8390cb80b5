"""The layers of the library: which package imports which, and what opens without torch and numba."""

import ast
import subprocess
import sys
from pathlib import Path

from scripts import PATIENCE_S, REPOSITORY

LAYERS = (  # a file imports from its own package, and from the packages of lower layers
    *(["mop.common"], ["mop.artifacts", "mop.statistics"], ["mop.envs", "mop.analysis"], ["mop.plotting"]),
    *(["mixture_of_experts", "plotting_utils"], ["mop.fast"], ["mop.training"], ["mop.evaluation"]),
    *(["mop.microscope"], ["mop.apps", "mop.cloud"], ["lmc_rl", "generative"], ["studies", "a script"]),
)
FAST_SITES = {  # the files that may import mop.fast, each behind `IS_FAST`
    *("mop.envs.babyai", "mop.training.execution", "generative.simulators.visibility"),
}
LAYER_OF = {package: layer for layer, packages in enumerate(LAYERS) for package in packages}
FILES = {
    path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for pattern in ("*.py", "mop/**/*.py", "lmc_rl/**/*.py", "generative/**/*.py", "studies/*.py")
    for path in REPOSITORY.glob(pattern)
}


def package_of(module: str) -> str | None:
    """The package of a module, or of a name in it; None for what is not of this repository."""
    if module == "mop":  # its first lines, which answer Ctrl-C
        return "mop.common"
    top, *rest = module.split(".")
    package = ".".join([top, *rest[:1]]) if top == "mop" else top
    return package if package in LAYER_OF else "a script" if top in FILES else None


def imported_by(path: Path) -> list[str]:
    """The modules that a file imports, or names in them, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    from_others = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 for node in from_others), f"{path}: write the whole name of the module"
    names = [f"{node.module}.{alias.name}" for node in from_others for alias in node.names]
    return names + [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]


def test_no_file_imports_from_its_own_layer_or_above():
    packages = {module: package_of(module) for module in FILES}
    wrong = [
        (module, name)
        for module, path in FILES.items()
        for name in imported_by(path)
        if (other := package_of(name)) not in (None, "mop.fast", packages[module])
        and LAYER_OF[other] >= LAYER_OF[packages[module]]
    ]
    assert wrong == []
    assert len(FILES) >= 80 and set(packages.values()) >= {package for package in LAYER_OF if package not in LAYERS[-2]}


def test_what_is_compiled_is_used_in_few_places():
    of_fast = {module for module, path in FILES.items() for name in imported_by(path) if package_of(name) == "mop.fast"}
    assert {module for module in of_fast if package_of(module) != "mop.fast"} == FAST_SITES


def test_the_equations_need_torch_alone():
    names = {name.split(".")[0] for name in imported_by(FILES["mixture_of_experts"])}
    assert names - {"torch"} <= sys.stdlib_module_names


def test_pages_open_without_torch_and_numba():
    packages = ("mop.common", "mop.artifacts", "mop.statistics", "mop.analysis", "mop.plotting", "mop.apps")
    modules = [module for module in FILES if package_of(module) in packages]
    program = f"import sys, {', '.join(modules)}; print({{'torch', 'numba', 'pandas'}} & set(sys.modules) or 'none')"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("none\n", "") and len(modules) >= 40
