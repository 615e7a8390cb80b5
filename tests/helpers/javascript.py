"""The modules of the microscope in a real browser, and numbers on their way to it and back."""

import base64
import contextlib
from collections.abc import Iterator

import numpy as np

from mop.microscope.document import join_modules

# what a page needs to take arrays and to give them back
_ARRAYS = """
const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
function textOfFloats(lists) {
  const bytes = new Uint8Array(Float32Array.from(lists.flatMap((list) => Array.from(list))).buffer);
  let text = "";
  for (let k = 0; k < bytes.length; k += 8192) text += String.fromCharCode(...bytes.subarray(k, k + 8192));
  return btoa(text);
}
"""


@contextlib.contextmanager
def page_with(browser, *names: str, more: str = "") -> Iterator:
    """A blank page with these modules, joined as in the microscope, and some more code behind them."""
    page, faults = browser.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.add_script_tag(content=f"{_ARRAYS}\n{join_modules(names)}\n{more}")
    assert faults == []
    yield page
    page.close()
    assert faults == []


def as_text(values: np.ndarray) -> str:
    """The numbers of an array for `bytesOf`, which has to be told their type."""
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def floats_of(text: str) -> np.ndarray:
    """The numbers that `textOfFloats` made a text of."""
    return np.frombuffer(base64.b64decode(text), "<f4")
