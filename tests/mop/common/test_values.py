"""What a setting accepts, apart from flags and files."""

import pytest

from mop.common.values import folder_name


@pytest.mark.parametrize("name", [".", "..", ".git", ".hidden", "end.", "a/b", "a\\b", "CON", "nul", "Com1.txt", " "])
def test_no_folder_is_hidden_or_a_device(name):
    with pytest.raises(ValueError, match=r"."):
        folder_name(name)


@pytest.mark.parametrize("name", ["a$^$b", "console", "com10", "a.b", "mine 2", "ä", "nullable"])
def test_other_names_stand_for_themselves(name):
    assert folder_name(name) == name
