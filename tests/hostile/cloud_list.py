"""Carry out here, one after the other, the commands that `modal_app.py main --dry_run` lists; its flags."""

import shlex
import subprocess
import sys

from scripts import REPOSITORY

from mop.common.errors import run_script
from mop.common.workers import run_command


def main() -> int:
    """Return 1 where a command failed, which is the last one then."""
    asked = [sys.executable, REPOSITORY / "modal_app.py", "main", "--dry_run", *sys.argv[1:]]
    listed = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    commands = [shlex.split(line) for line in listed.splitlines() if line.startswith("python ")]
    return int(any(run_command([sys.executable, REPOSITORY / script, *flags]) for _, script, *flags in commands))


if __name__ == "__main__":
    run_script(main)
