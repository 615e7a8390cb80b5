"""pyproject.toml and the requirements files name the same exact pins."""

import tomllib

from scripts import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def pins(name: str) -> set[str]:
    """The requirements of a file, without what it includes."""
    lines = (REPOSITORY / name).read_text().splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_the_files_hold_the_pins_of_the_project():
    of_all = {
        *PROJECT["dependencies"],
        *(pin for name in ("apps", "cloud", "lmc", "generative", "bert") for pin in EXTRAS[name]),
    }
    of_all.discard("gymnasium==1.4.0")  # with an extra of its own
    assert pins("requirements.txt") == of_all and len(of_all) >= 20
    assert pins("requirements-coinrun.txt") == set(EXTRAS["games"])
    assert pins("requirements-dev.txt") == set(EXTRAS["dev"])
    every = of_all.union(EXTRAS["games"], EXTRAS["dev"])
    assert all(pin.count("==") == 1 for pin in every)
