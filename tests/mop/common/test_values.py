"""What a setting accepts, apart from flags and files."""

import pytest

from mop.common.errors import InputError, exit_code
from mop.common.values import folder_name


@pytest.mark.parametrize("name", [".", "..", ".git", ".hidden", "end.", "a/b", "a\\b", "CON", "nul", "Com1.txt", " "])
def test_no_folder_is_hidden_or_a_device(name):
    with pytest.raises(ValueError, match=r"."):
        folder_name(name)


@pytest.mark.parametrize("name", ["a$^$b", "console", "com10", "a.b", "mine 2", "ä", "nullable"])
def test_other_names_stand_for_themselves(name):
    assert folder_name(name) == name


def test_a_name_of_thousands_of_letters_is_not_printed_whole(capsys):
    def main() -> int:
        raise InputError(f"{'x' * 5000} is missing; make it")

    assert exit_code(main) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: xxx") and line.endswith("is missing; make it\n") and len(line) < 1000
