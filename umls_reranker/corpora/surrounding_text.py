"""The text on both sides of a mention, in whole words."""

CONTEXT_CHARS = 128
"""Characters of text kept on each side of a mention."""


def text_around(text: str, start: int, end: int, size: int = CONTEXT_CHARS) -> tuple[str, str]:
    """At most `size` characters before `start` and after `end`, without partial words outside."""
    first = max(0, start - size)
    if first and not text[first - 1].isspace():
        while first < start and not text[first].isspace():
            first += 1
    last = min(len(text), end + size)
    if last < len(text) and not text[last].isspace():
        while last > end and not text[last - 1].isspace():
            last -= 1
    return text[first:start].lstrip(), text[end:last].rstrip()
