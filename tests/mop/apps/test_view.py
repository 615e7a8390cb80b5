"""What a visitor has chosen: words of the address, kept through runs that do not have them."""

import re
import subprocess
import sys

import pytest
from scripts import REPOSITORY

from mop.apps.elements import View, footer

ANALYSES = ("overall", "by_carrying")


def test_a_choice_stands_in_the_address_unless_it_is_the_default():
    params = {}
    view = View(params)
    assert view.pick("analysis", ANALYSES, "overall") == "overall" and params == {}
    keep = view.keep("analysis", "overall")
    keep("by_carrying")
    assert params == {"analysis": "by_carrying"} and view.pick("analysis", ANALYSES, "overall") == "by_carrying"
    keep("overall")
    assert params == {}
    view.keep("min_steps", 1)(5)
    assert params == {"min_steps": "5"} and View(params).pick_number("min_steps", 1, 100, 1) == 5
    view.put("min_steps", None, None)
    view.put("min_steps", None, None)  # it is out already
    assert params == {}


def test_what_is_not_here_is_told_and_kept_for_a_run_that_has_it():
    params = {"analysis": "by_carrying", "min_steps": "0"}
    view = View(params)
    assert view.pick("analysis", ("overall",), "overall") == "overall"
    assert view.pick_number("min_steps", 1, 1000, 1) == 1
    assert view.absent == [
        "there is no analysis 'by_carrying' here: shown is 'overall'",
        "min_steps '0' is no number from 1 to 1,000: shown is 1",
    ]
    assert view.pick("analysis", ANALYSES, "overall") == "by_carrying"
    view.put("min_steps", 3, 1)
    assert view.absent == [] and params == {"analysis": "by_carrying", "min_steps": "3"}


def test_several_words_are_one_choice():
    params = {"runs": "a,b"}
    view = View(params)
    assert view.pick_several("runs", ("a", "b", "c"), ["c"]) == ["a", "b"] and view.absent == []
    assert view.pick_several("runs", ("b", "c"), ["c"]) == ["b"]
    assert view.absent == ["there is no 'a' among the runs here"]
    assert View({}).pick_several("runs", ("a",), ["a"]) == ["a"]


def test_any_address_is_read():
    count = 0
    for word in ("", "x", "-1", "1e3", "٣", "9" * 5000, ["2", "x"], [], "<script>"):
        view = View({"min_steps": word, "tab": word})
        assert view.pick_number("min_steps", 1, 1000, 1) == 1 and view.pick("tab", ("a", "b"), "a") == "a"
        assert all(len(line) < 200 for line in view.absent)
        count += 1
    assert count == 9
    assert View({"min_steps": ["x", "7"]}).pick_number("min_steps", 1, 1000, 1) == 7, "the last of several"


@pytest.mark.skipif(sys.platform != "linux", reason="glibc of Linux")
def test_the_memory_of_visitors_who_have_left_is_given_back():
    """A thread takes 200 MB in small pieces, and ends; one piece at the end is still in use."""
    script = """
import re, threading
from pathlib import Path
from mop.apps.elements import give_memory_back
kept = []
def visit():
    pieces = [bytearray(100_000) for _ in range(2000)]
    kept.append(pieces.pop())
def resident_mb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
thread = threading.Thread(target=visit)
thread.start()
thread.join()
before = resident_mb()
give_memory_back()
print(before - resident_mb())
"""
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert int(told) > 150


def test_every_page_explains_the_words_and_leads_to_the_others():
    """Where one server has them all, the address names the file of the page."""
    alone, together = footer(View({})).text, footer(View({"file": "lmc_viz.py", "fork": "2"})).text
    assert "layered parameter cost" in alone and "](" not in alone and "<a " not in alone
    apps = re.findall(r'href="\?file=(\w+\.py)"', together)
    assert len(apps) == 5 and all((REPOSITORY / app).is_file() for app in apps)
    assert re.search(r"<div><a [^<]*</a>( · <a [^<]*</a>){4}</div>", together), "one line, not a row for each link"
