"""The floors of the library: who imports whom, and what opens without torch and numba."""

import ast
import subprocess
import sys
from pathlib import Path

from conftest import PATIENCE_S, REPOSITORY

FLOORS = (  # a file imports from its own room, and from the rooms of lower floors
    *(["mop.base"], ["mop.store", "mop.kernels"], ["mop.worlds", "mop.measures"], ["mop.plotting"]),
    *(["mixture_of_experts", "plotting_utils"], ["mop.learning"], ["mop.jobs"], ["mop.pages"]),
    *(["lmc_rl", "generative"], ["a script"]),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = {
    path.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for pattern in ("*.py", "mop/*/*.py", "lmc_rl/**/*.py", "generative/**/*.py")
    for path in REPOSITORY.glob(pattern)
}


def room_of(module: str) -> str | None:
    """The room of a module, or of a name in it; None for what is not of this repository."""
    top, *rest = module.split(".")
    room = ".".join([top, *rest[:1]]) if top == "mop" else top
    return room if room in FLOOR_OF else "a script" if top in FILES else None


def imported_by(path: Path) -> list[str]:
    """The modules that a file imports, or names in them, wherever in the file."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    from_others = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert all(node.level == 0 for node in from_others), f"{path}: write the whole name of the module"
    names = [f"{node.module}.{alias.name}" for node in from_others for alias in node.names]
    return names + [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]


def test_no_file_imports_from_its_own_floor_or_above():
    rooms = {module: room_of(module) for module in FILES}
    wrong = [
        (module, name)
        for module, path in FILES.items()
        for name in imported_by(path)
        if (other := room_of(name)) not in (None, rooms[module]) and FLOOR_OF[other] >= FLOOR_OF[rooms[module]]
    ]
    assert wrong == []
    assert len(FILES) >= 80 and set(rooms.values()) >= {room for room in FLOOR_OF if room not in FLOORS[-2]}


def test_pages_open_without_torch_and_numba():
    rooms = ("mop.base", "mop.store", "mop.measures", "mop.plotting", "mop.pages")
    modules = [module for module in FILES if room_of(module) in rooms]
    program = f"import sys, {', '.join(modules)}; print({{'torch', 'numba', 'pandas'}} & set(sys.modules) or 'none')"
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (result.stdout, result.stderr) == ("none\n", "") and len(modules) >= 40
