"""The modules of the page joined into one script."""

import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent


def join_modules(names: Iterable[str]) -> str:
    """Join `<name>.js` of this folder, in this order, as one script without imports and exports."""
    return "\n".join(_as_script((FOLDER / f"{name}.js").read_text("utf-8")) for name in names)


def _as_script(module: str) -> str:
    return re.sub(r"^export ", "", re.sub(r"^import .*\n", "", module, flags=re.MULTILINE), flags=re.MULTILINE)
