"""BM25 of mention and name, with the names in the lists of `train` as the collection."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# The usual values of Robertson and Zaragoza.
SATURATION = 1.2
LENGTH_SHARE = 0.75


def scorer(folder: Path) -> Any:
    lists = pq.read_table(folder / "train.parquet", columns=["candidates"])
    names = {
        candidate["name"]
        for candidates in lists["candidates"].to_pylist()
        for candidate in candidates
    }
    collection = Collection(sorted(names))
    return lambda rows: [
        [collection.score(row["entity"], candidate["name"]) for candidate in row["candidates"]]
        for row in rows
    ]


class Collection:
    """Counts of words in n names."""

    def __init__(self, names: list[str]) -> None:
        words = [words_of(name) for name in names]
        self.size = len(names)
        self.mean_length = sum(map(len, words)) / max(self.size, 1)
        self.names_with = Counter(word for each in words for word in set(each))

    def score(self, mention: str, name: str) -> float:
        """BM25 of a name for a mention."""
        words = words_of(name)
        counts = Counter(words)
        relative_length = len(words) / self.mean_length
        damping = SATURATION * (1 - LENGTH_SHARE + LENGTH_SHARE * relative_length)
        total = 0.0
        for word in set(words_of(mention)):
            saturated = counts[word] * (SATURATION + 1) / (counts[word] + damping)
            total += self.rarity(word) * saturated
        return total

    def rarity(self, word: str) -> float:
        """Inverse document frequency."""
        count = self.names_with[word]
        return math.log(1 + (self.size - count + 0.5) / (count + 0.5))


def words_of(text: str) -> list[str]:
    """Words in lower case."""
    return re.findall(r"\w+", text.lower())
