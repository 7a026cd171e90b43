"""How alike two names look, by their character trigrams."""

from ..vocab.normalization import normalize_name


def name_likeness(first: str, second: str) -> float:
    """Jaccard index of the character trigrams of two normalized texts, 1 if they are equal."""
    first_trigrams = _trigrams_of(first)
    second_trigrams = _trigrams_of(second)
    shared = first_trigrams & second_trigrams
    of_either = first_trigrams | second_trigrams
    return len(shared) / max(1, len(of_either))


def _trigrams_of(text: str) -> set[str]:
    """The trigrams of a normalized text, with blanks around it."""
    padded = f"  {normalize_name(text)} "
    return {padded[start : start + 3] for start in range(len(padded) - 2)}
