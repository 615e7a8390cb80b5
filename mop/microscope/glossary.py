"""What the words of the pages mean: docs/glossary.md."""

import re
from pathlib import Path


def read_glossary() -> str:
    """The lines of docs/glossary.md as Markdown, without their links."""
    text = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text("utf-8")
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text.partition("\n")[2])


def word_meanings() -> dict[str, str]:
    """The line of the glossary that explains a word, by the word, as plain text."""
    meanings: dict[str, str] = {}
    for line in re.findall("^- (.*)", read_glossary(), flags=re.MULTILINE):
        words = re.findall(r"\*([^*]+)\*", line.lower())
        meanings = dict.fromkeys(words, re.sub("[*`]", "", line)) | meanings  # the first line has the word
    return meanings
