"""Figures as files: formats, widths, text that can be read, the numbers beside them, captions."""

import itertools
import re
import shlex
import zlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from old_caches import CACHE, TASK

from mop.apps.flags import RunSettings
from mop.apps.run_figures import Shown, action_figures, page_of
from mop.apps.runs import Run, load_routing
from mop.apps.template import Export, as_csv, files_of
from mop.artifacts.run_paths import RunKey
from mop.common.cli import parse
from mop.common.files import figure_bytes
from mop.plotting.hover import add_note
from mop.plotting.resize import fit_to_width, smallest_text_pt

KEY = RunKey(TASK, 0, 0)


def a_figure(text: str = "", **arguments) -> Figure:
    """One panel of 8 x 4 inches, with a text of its own if it is given."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], linewidth=2)
    ax.set(xlabel="a name of x", ylabel="y", **arguments)
    ax.set_title("a panel", fontsize=10)
    if text:
        figure.suptitle(text, fontsize="large")
    return figure


def test_table_of_numbers_by_hand():
    rows = [
        {"panel": "layer 0", "x": np.int64(3), "weight": np.float32(0.1)},
        {"panel": 'of "x", y', "x": 4, "lpc": 256.5, "low": np.nan, "note": None},
    ]
    assert as_csv(rows).decode() == ('panel,x,weight,lpc,low,note\nlayer 0,3,0.1,,,\n"of ""x"", y",4,,256.5,,\n')
    assert as_csv([]) == b""


def test_formats_have_real_text_and_no_time():
    svg = figure_bytes(a_figure(), "svg")
    assert b"a name of x</text>" in svg and svg == figure_bytes(a_figure(), "svg")
    pdf = figure_bytes(a_figure(), "pdf")
    assert b"/FontType 42" in pdf or b"/Subtype /Type0" in pdf or b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf and b"CreationDate" not in pdf and pdf == figure_bytes(a_figure(), "pdf")
    streams = [zlib.decompress(data) for data in re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)[:1]]
    assert any(b"Tj" in stream or b"TJ" in stream for stream in streams), "text is shown as text"
    assert figure_bytes(a_figure(), "png").startswith(b"\x89PNG")


def test_a_narrow_figure_has_its_width_and_legible_text():
    figure = a_figure("a title " * 12)
    figure.axes[0].tick_params(axis="y", length=0)
    fit_to_width(figure, 3.35)
    assert figure.get_figwidth() == 3.35 and 4 * 3.35 / 8 < figure.get_figheight() < 4
    assert smallest_text_pt(figure) == 6.0
    figure.draw_without_rendering()
    extents = figure._suptitle.get_window_extent()
    assert extents.x0 >= 0 and extents.x1 <= figure.bbox.width, "the title has more lines"
    (line,) = figure.axes[0].lines
    assert line.get_linewidth() == pytest.approx(1.0) and line.get_markersize() == pytest.approx(6 * 3.35 / 8)
    along_x, along_y = figure.axes[0].get_xticklines()[0], figure.axes[0].get_yticklines()[0]
    assert along_x.get_markersize() == pytest.approx(3.5 * 6 / 10)
    assert along_y.get_markersize() == 0, "ticks that are switched off stay so"
    small = a_figure()
    small.axes[0].text(0.5, 0.5, "small already", fontsize=5)
    fit_to_width(small, 3.35)
    assert smallest_text_pt(small) == 5.0


def test_text_is_smaller_where_it_would_overlap():
    def crowded() -> Figure:
        figure = a_figure()
        figure.axes[0].set(xlim=(0, 8), xticks=[], yticks=[])
        for place in range(8):
            figure.axes[0].text(place + 0.5, 0.5, "0.12345678", ha="center", fontsize=10)
        return figure

    figure = crowded()
    fit_to_width(figure, 3.35)
    assert 4.0 <= smallest_text_pt(figure) < 6.0
    figure.draw_without_rendering()
    ends = sorted((text.get_window_extent().x0, text.get_window_extent().x1) for text in figure.axes[0].texts)
    assert all(right <= left + 1 for (_, right), (left, _) in itertools.pairwise(ends))


def test_files_of_a_figure():
    figure = a_figure()
    add_note(figure.axes[0], 0, 1, 0, 1, "a cell", x=1, weight=0.25)
    files = files_of(figure, "name_forward", Export("pdf", 6.75), "It shows this.")
    assert [*files] == [f"name_forward_6.75in.{ending}" for ending in ("csv", "txt", "pdf")]
    numbers, text, picture = files.values()
    assert picture.startswith(b"%PDF") and numbers == b"panel,x,weight\na panel,1,0.25\n"
    size = figure.get_size_inches()
    assert text.decode() == f"It shows this.\nSize: 6.75 x {size[1]:.2f} inches, smallest text 8.4 pt.\n"
    assert [*files_of(a_figure(), "plain", Export(), "")] == ["plain.txt", "plain.png"]


def test_the_command_of_a_caption_asks_for_the_same(monkeypatch):
    key, export = RunKey(TASK, 2, update=50), Export("pdf", 3.35)
    run = Run(key, "elsewhere", key.checkpoint("some where"))
    data = load_routing(Run(KEY, str(CACHE)))
    monkeypatch.setattr("mop.apps.run_figures.file_digest", lambda path: "0" * 16)
    shown = Shown(run, 7, "action: turn left", 4, "absolute")
    caption = page_of("logit_viz.py", shown, data, action_figures, "my plots").caption("action_frequency", export)
    _, app, *flags = shlex.split(caption.rsplit("Command: ", 1)[1])
    args = parse(RunSettings, "", flags)
    assert app == "logit_viz.py" and args.checkpoint_dir == ("some where",) and args.cache_dir == "elsewhere"
    assert (args.task, args.trial, args.seed, args.update) == (TASK, 2, None, 50)
    assert (args.fresh, args.num_episodes, args.min_steps) == (True, 7, 4)
    assert (args.steps, args.scale) == ("action: turn left", "absolute")
    assert (args.only, args.format, args.width, args.plots_dir) == (("action_frequency",), "pdf", 3.35, "my plots")
    assert shown.part == "_action_turn_left_min_4_steps_absolute" and Shown(run).part == ""
    assert "evaluated for this figure, not kept," in caption and f"its SHA-256 begins with {'0' * 16}" in caption
