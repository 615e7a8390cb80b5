"""The pieces of a page that the apps share: marimo around what the other files of this package give."""

import base64
import contextlib
import ctypes
import gc
import html
import io
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Literal, NoReturn, TypeVar, cast
from urllib.parse import urlencode

import marimo as mo
from matplotlib.figure import Figure

from mop.apps.flags import FORMATS
from mop.apps.template import WIDTHS_IN, Export, Page
from mop.common.cli import parse
from mop.common.errors import InputError, run_script
from mop.microscope.glossary import read_glossary
from mop.plotting.hover import Box, boxes_of

T = TypeVar("T")
Kind = Literal["neutral", "warn", "success", "info", "danger"]  # of a callout
PAGES = {
    "routing": "Where a policy uses its experts",
    "logit": "What it does",
    "cross_task": "Runs beside each other",
    "lmc": "When a run commits to its basin",
    "simulator": "Why it did that",
}
CSS_DPI = 96  # of a page
PICTURE_DPI = 2 * CSS_DPI  # sharp on the screens of most visitors
LARGEST_GROWTH = 1.6  # of a figure on a wide page: 9 inches then fill 1,382 pixels, with text of 21 pixels


class View:
    """What a visitor has chosen on a page: it stands in the address, so that a link opens the same view again.

    Choices by name, each a word of the address; a choice that is the default is not in it. Controls are made anew where
    another run has other choices. What was chosen is kept here meanwhile, also through a run that does not have it.

    params: of the address, as `mo.query_params()`: word by name; a list of words if the address has several.
    """

    def __init__(self, params: MutableMapping[str, Any]):
        self._params = params
        self._absent: dict[str, str] = {}

    def pick(self, name: str, options: Collection[str], default: str) -> str:
        """The word that is chosen, or the default: where none is chosen, or where it is none of the options.

        Of the latter case, `absent` tells from then on.
        """
        word = self._asked(name)
        if word is None or word in options:
            return default if word is None else word
        self._absent[name] = f"there is no {name} {word!r:.60} here: shown is {default!r:.60}"
        return default

    def pick_number(self, name: str, low: int, high: int, default: int) -> int:
        """The same for an integer from low to high."""
        word = self._asked(name)
        if word is None:
            return default
        if word.isascii() and word.isdigit() and len(word) < 19 and low <= int(word) <= high:
            return int(word)
        self._absent[name] = f"{name} {word!r:.60} is no number from {low:,} to {high:,}: shown is {default:,}"
        return default

    def pick_several(self, name: str, options: Collection[str], default: Sequence[str]) -> list[str]:
        """The words that are chosen, joined by commas in the address; those that are no options are left out."""
        word = self._asked(name)
        if word is None:
            return list(default)
        words = word.split(",")
        missing = [word for word in words if word not in options]
        if missing:
            self._absent[name] = f"there is no {missing[0]!r:.60} among the {name} here"
        return [word for word in words if word in options] or list(default)

    def keep(self, name: str, default: object, forgets: Sequence[str] = ()) -> Callable[[object], None]:
        """What puts a choice into the address: the `on_change` of its control.

        forgets: choices that lose their sense with it.
        """

        def keep(value: object) -> None:
            for other in forgets:
                self.put(other, None, None)
            self.put(name, value, default)

        return keep

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

    def link(self, app: str, **words: str) -> str:
        """The address of another page of the server with some choices; "" where it has this page alone."""
        return _address({"file": app, **words}) if "file" in self.words else ""

    def here(self, changes: Mapping[str, object]) -> str:
        """The address of this page with other choices, None of one that is taken out."""
        return _address({**self.words, **changes})

    @property
    def absent(self) -> list[str]:
        """A line for each choice of the address that is not to be had here."""
        return list(self._absent.values())

    def _asked(self, name: str) -> str | None:
        """The word of a choice, of which is to be seen whether it is to be had here."""
        self._absent.pop(name, None)
        return self._word(name)

    def _word(self, name: str) -> str | None:
        value = self._params.get(name)
        return value[-1] if isinstance(value, list) and value else value or None


def _address(words: Mapping[str, object]) -> str:
    return "?" + urlencode({name: word for name, word in words.items() if word is not None}, safe="/,:")


def problem(error: Exception | str, kind: Kind = "danger") -> mo.Html:
    """What cannot be shown, and the way out."""
    return mo.callout(mo.Html(as_html(str(error))), kind=kind)


def stop(error: Exception | str, kind: Kind = "danger", *below: Any) -> NoReturn:
    """Stop a cell at what cannot be shown."""
    mo.stop(True, mo.vstack([problem(error, kind), *below]) if below else problem(error, kind))
    raise AssertionError("a cell stops there")


def as_html(message: str) -> str:
    """A message for a page: `...` is code, nothing else is markup."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(message))


def start(script: str, settings: type[T], about: str, plots: str, save: Callable[[T], None]) -> T:
    """The flags of an app; as a script, it saves its figures instead, below the folder `plots`, and ends."""

    def given() -> T:
        opens = f"`marimo run {script}` opens the app (flags go behind a --)"
        return parse(settings, f"{about} {opens}; as a script, it saves its figures to {plots} and prints their paths.")

    if mo.app_meta().mode == "script":
        run_script(lambda: save(given()))
    try:
        return given()
    except InputError as error:
        stop(error)


def open_view() -> View:
    """What the address of this page asks for."""
    give_memory_back()
    return View(cast("MutableMapping[str, Any]", mo.query_params()))


def give_memory_back() -> None:
    """Give back what visitors who have left had: their pages ran in threads, to which glibc gave pools of their own."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def number_slider(view: View, name: str, low: int, high: int, default: int, label: str, most: int = 0, **more: Any):
    """A slider from low to high, or to its value if that is more; it only counts once it is let go.

    most: that the address may ask for, if that is more than `high`.
    """
    value, keep = view.pick_number(name, low, max(high, most), default), view.keep(name, default)
    return mo.ui.slider(low, max(high, value), value=value, label=label, debounce=True, on_change=keep, **more)


def choice_dropdown(
    view: View,
    name: str,
    options: Mapping[str, str] | Iterable[str],
    default: str,
    label: str,
    keep: Callable | None = None,
    **more: Any,
):
    """A dropdown of words, by what they are called where that differs, with the word of the address, else the default.

    keep: what a choice does (default: it goes into the address).
    """
    words = dict(options) if isinstance(options, Mapping) else {word: word for word in options}
    chosen = view.pick(name, set(words.values()), default)
    first = next(called for called, word in words.items() if word == chosen)
    keep = keep or view.keep(name, default)
    return mo.ui.dropdown(words, first, label=label, allow_select_none=False, on_change=keep, **more)


def several_dropdown(view: View, name: str, options: Mapping[str, str], default: Sequence[str], label: str):
    """The same for several words."""
    called = {word: name for name, word in options.items()}
    chosen = view.pick_several(name, called, default)
    keep = view.keep(name, ",".join(default))
    return mo.ui.multiselect(
        dict(options),
        [called[word] for word in chosen],
        label=label,
        full_width=True,
        on_change=lambda words: keep(",".join(map(str, words)) or None),
    )


def tabs(view: View, about: Mapping[str, str], first: str):
    """Tabs by name -> what each shows, with the one of the address open, else `first`; the page says what it shows.

    Not `mo.ui.tabs`, in which the Tab key opens the last one.
    """
    return mo.ui.radio([*about], view.pick("tab", about, first), inline=True, on_change=view.keep("tab", first))


def below_absent(view: View, *items: mo.Html) -> mo.Html:
    """Items below what of the address is not to be had here."""
    return mo.vstack([*([problem("; ".join(view.absent), "warn")] if view.absent else []), *items])


def table(rows: Any, page_size: int = 10, **more: Any):
    """A table to be sorted and searched."""
    look: dict[str, Any] = {"selection": None, "show_column_summaries": False, "show_data_types": False, **more}
    return mo.ui.table(rows, page_size=page_size, **look)


def opened_by(addresses: Iterable[str]) -> dict[str, list]:
    """A column of a table with a link in each row that has an address; none where no row has one."""
    links = [mo.Html(f'<a href="{html.escape(address)}">open</a>' if address else "") for address in addresses]
    return {"run": links} if any(link.text for link in links) else {}


def with_bar(found: Iterator, total: int) -> Iterable:
    """A progress bar over the runs that are measured."""
    return mo.status.progress_bar(found, total=total, title="Measuring runs", remove_on_exit=True)


def in_a_line(numbers: Iterable[tuple[str, str, str]]) -> mo.Html:
    """Numbers beside each other: name, value, remark of each."""
    told = [
        f'<span title="{html.escape(remark)}">{html.escape(name)} <b>{html.escape(value)}</b></span>'
        for name, value, remark in numbers
    ]
    return mo.Html(f'<div class="measured">{" ".join(told)}</div>')


def footer(view: View) -> mo.Html:
    """What the words mean, and links to the other pages where this server has them too."""
    links = {name: view.link(f"{stem}_viz.py") for stem, name in PAGES.items()}
    pages = [f'<a href="{html.escape(address)}">{name}</a>' for name, address in links.items() if address]
    return mo.vstack(
        [mo.accordion({"What the words mean": mo.md(read_glossary())}), mo.Html(f"<div>{' · '.join(pages)}</div>")]
    )


def drawn(page: Page, name: str, label: str = "", link: Callable[[Mapping], str] | None = None) -> mo.Html:
    """A figure of a page with what downloads it, or why it cannot be drawn; label: what names it in the page.

    link: the numbers of a text -> where a click on it leads, "" for nowhere. It is a plain link to an address of the
    page, which needs no script.
    """
    try:
        if name not in page.figures:
            raise InputError("there is nothing to draw yet")
        figure = page.figures[name].draw()
    except InputError as error:
        return problem(error)
    return mo.vstack([show_figure(figure, label or name, page.about(name), link), download(page, name)])


def show_figure(figure: Figure, label: str, about: str = "", link: Callable[[Mapping], str] | None = None) -> mo.Html:
    """A figure as a still picture, with its texts under the mouse; about: what it shows, for who cannot see it.

    Not `mo.mpl.interactive`: it keeps a connection for each figure, whose pictures can be those of an earlier choice,
    and whose script a later visitor of the same server does not get.
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PICTURE_DPI, pil_kwargs={"compress_level": 1})
    source = base64.b64encode(
        file.getvalue()
    ).decode()  # in the page: a file could be gone before the browser asks for it
    names = f'alt="{html.escape(about)}" data-name="{html.escape(label)}"'
    spots = "".join(_spot(box, link(box.values) if link else "") for box in boxes_of(figure))
    width = round(CSS_DPI * LARGEST_GROWTH * figure.get_figwidth())
    picture = f'<img {names} src="data:image/png;base64,{source}">{spots}'
    return mo.Html(f'<div class="figure" style="width:{width}px">{picture}</div>')


def download(page: Page, name: str) -> mo.Html:
    """A button that gives the visitor a figure with its numbers and caption, in a format and a width."""
    asked: dict[str, Any] = {}
    widths = {called if width is None else f"{called}, {width:g} in": width for called, width in WIDTHS_IN.items()}
    formats = mo.ui.dropdown(
        [*FORMATS], FORMATS[0], allow_select_none=False, on_change=lambda word: asked.update(format=word)
    )
    width = mo.ui.dropdown(
        widths, next(iter(widths)), allow_select_none=False, on_change=lambda inches: asked.update(width_in=inches)
    )
    button = mo.download(
        lambda: page.archive(name, Export(**asked)), f"{page.stem(name)}.zip", label=f"Download {page.stem(name)}"
    )
    page.controls[name] = formats, width, button  # marimo forgets those that nothing refers to
    return in_a_row(button, formats, width)


def beside(*items: mo.Html, least_px: int = 700) -> mo.Html:
    """Items beside each other, with equal widths, as many as a page has room for at so many pixels each."""
    columns = f"repeat(auto-fit, minmax(min(100%, {least_px}px), 1fr))"
    cells = "".join(f'<div style="min-width: 0">{item.text}</div>' for item in items)
    return mo.Html(f'<div style="display: grid; grid-template-columns: {columns}; gap: 2rem">{cells}</div>')


def _spot(box: Box, address: str) -> str:
    """The element over a figure that shows a text under the mouse.

    A spot with an address is a link, which the Tab key passes over: a map has hundreds of them.
    """
    sides = {"left": box.left, "top": box.top, "width": box.width, "height": box.height}
    style = ";".join(f"{side}:{share:.2%}" for side, share in sides.items())
    side = "above" if box.top + box.height / 2 > 0.5 else "below"
    x = f"--x:{box.left + box.width / 2:.1%}"
    spot = f'<i class="{side}" style="{style};{x}" data-text="{html.escape(box.text)}"></i>'
    return f'<a tabindex="-1" href="{html.escape(address)}">{spot}</a>' if address else spot


def in_a_row(*items) -> mo.Html:
    """Controls beside each other, as many as fit."""
    return mo.hstack(items, justify="start", align="center", gap=1, wrap=True)
