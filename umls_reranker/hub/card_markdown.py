"""Texts of a card: plain Markdown from data, sentences, links, and words as ids."""

import re
from pathlib import Path

from .card_sources import file_name_of
from .model_download import REPO_ID

# What Markdown shows as it is, in a table too, unless it is emphasis or a link.
PLAIN_CHARACTERS = re.compile(r"[\w ,:;.()/+%\u00a0–-]*", re.ASCII)
EMPHASIS_OR_LINK = re.compile(r"\b_|_\b|://|www\.")


def plain_markdown(text: str) -> str:
    """Text from data as one line of plain Markdown: no heading, HTML, link or table cell."""
    # No-break spaces stay: they hold a number and its unit together.
    words = re.sub(r"[^\S\u00a0]+", " ", str(text)).strip()
    printable = [
        character for character in words if character.isprintable() or character == "\u00a0"
    ]
    line = "".join(printable)
    has_plain_characters = PLAIN_CHARACTERS.fullmatch(line) is not None
    if has_plain_characters and not EMPHASIS_OR_LINK.search(line):
        return line
    # In code, Markdown interprets only the closing backtick and, in tables, the bar of a cell.
    code = line.replace("`", "'").replace("|", "\\|")
    return f"`{code}`"


def sentence(text: str) -> str:
    """Words as a sentence."""
    return f"{text[:1].upper()}{text[1:]}."


def linked_model(model: str) -> str:
    """A base model as Markdown: a link to the Hub, or the folder's name."""
    if is_hub_id(model):
        return f"[{model}](https://huggingface.co/{model})"
    name = file_name_of(model).replace("`", "")
    return f"`{name}`"


def is_hub_id(model: str) -> bool:
    """Whether a base model is a Hub id, not a folder."""
    return re.fullmatch(REPO_ID, model) is not None and not Path(model).is_dir()


def slug(text: str) -> str:
    """Words as an id: in lower case, with dashes."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")
