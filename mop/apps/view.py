"""What a visitor has chosen on a page: it stands in the address, so that a link opens the same view again.

Controls are made anew where another run has other choices. What was chosen is kept here meanwhile, also through a run
that does not have it.
"""

from collections.abc import Callable, Collection, MutableMapping, Sequence
from typing import Any


class View:
    """Choices by name, each a word of the address; a choice that is the default is not in it.

    params: of the address, as `mo.query_params()`: word by name; a list of words if the address has several.
    """

    def __init__(self, params: MutableMapping[str, Any]):
        self._params = params
        self._absent: dict[str, str] = {}

    def pick(self, name: str, options: Collection[str], default: str) -> str:
        """The word that is chosen, or the default: where none is chosen, or where it is none of the options.

        Of the latter case, `absent` tells from then on.
        """
        word = self._word(name)
        self._absent.pop(name, None)
        if word is None or word in options:
            return default if word is None else word
        self._absent[name] = f"there is no {name} {word!r:.60} here: shown is {default!r:.60}"
        return default

    def pick_number(self, name: str, low: int, high: int, default: int) -> int:
        """The same for an integer from low to high."""
        word = self._word(name)
        self._absent.pop(name, None)
        if word is None:
            return default
        if word.isascii() and word.isdigit() and len(word) < 19 and low <= int(word) <= high:
            return int(word)
        self._absent[name] = f"{name} {word!r:.60} is no number from {low:,} to {high:,}: shown is {default:,}"
        return default

    def pick_several(self, name: str, options: Collection[str], default: Sequence[str]) -> list[str]:
        """The words that are chosen, joined by commas in the address; those that are no options are left out."""
        word = self._word(name)
        self._absent.pop(name, None)
        if word is None:
            return list(default)
        words = word.split(",")
        missing = [word for word in words if word not in options]
        if missing:
            self._absent[name] = f"there is no {missing[0]!r:.60} among the {name} here"
        return [word for word in words if word in options]

    def keep(self, name: str, default: object) -> Callable[[object], None]:
        """What puts a choice into the address: the `on_change` of its control."""
        return lambda value: self.put(name, value, default)

    def put(self, name: str, value: object, default: object) -> None:
        """Put a choice into the address, or take it out if it is the default."""
        self._absent.pop(name, None)
        if value is not None and value != default:
            self._params[name] = str(value)
        elif name in self._params:
            del self._params[name]

    @property
    def words(self) -> dict[str, str]:
        """All that stands in the address: word by name."""
        return {name: word for name in self._params if (word := self._word(name)) is not None}

    @property
    def absent(self) -> list[str]:
        """A line for each choice of the address that is not to be had here."""
        return list(self._absent.values())

    def _word(self, name: str) -> str | None:
        value = self._params.get(name)
        return value[-1] if isinstance(value, list) and value else value or None
