"""Mentions in four splits by document: from a corpus, or from synonyms held out of the dictionary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
from datasets import Features, List, Value

from ..core.errors import UserError
from .arrow import arrow_writer
from .columns import Concept
from .corpus import Mention
from .normalization import normalize_name

SPLITS = ("train", "dev", "calibration", "test")
BATCH_ROWS = 1_000

MENTION_FEATURES = Features(
    {
        "mention_id": Value("int64"),
        "doc_id": Value("string"),
        "start": Value("int32"),
        "end": Value("int32"),
        "mention": Value("string"),
        "left": Value("string"),
        "right": Value("string"),
        "cui": Value("string"),
        "semantic_types": List(Value("string")),
    }
)


def assign_split(doc_id: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a document by a hash of seed and id, independent of the rest of the corpus.

    Args:
        doc_id: id of the document.
        shares: split -> share; they are divided by their sum.
        seed: seed of the splits.

    Raises:
        UserError: a share is negative, or all are zero.

    >>> assign_split("26316050", {"dev": 0.2, "calibration": 0.4, "test": 0.4}, seed=13)
    'calibration'
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise UserError(f"split shares must not be negative or all zero: {dict(shares)}")
    point = _draw(seed, doc_id) * total
    chosen = ""
    for split, share in shares.items():
        if share:
            chosen = split
            point -= share
            if point < 0:
                break
    return chosen


def write_mentions(mentions: Iterable[tuple[str, Mention]], path: Path) -> dict[str, int]:
    """Write ``(split, mention)`` pairs into one file for each split, in the order they come.

    ``mention_id`` is the row number within the split.

    Returns:
        Split -> number of mentions.

    Raises:
        UserError: a split is empty.
    """
    waiting: dict[str, list[Mention]] = {split: [] for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with split_writers(MENTION_FEATURES.arrow_schema, path) as writers:
        for split, mention in mentions:
            waiting[split].append(mention)
            counts[split] += 1
            if len(waiting[split]) == BATCH_ROWS:
                writers[split].write(_rows(waiting[split], counts[split]))
                waiting[split] = []
        for split, rest in waiting.items():
            writers[split].write(_rows(rest, counts[split]))
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise UserError(
                f"the split {empty[0]!r} is empty (mentions by split: {counts}); check the document lists, increase "
                "its share, or use another seed"
            )
    return counts


@contextmanager
def split_writers(schema: pa.Schema, folder: Path) -> Iterator[dict[str, pa.RecordBatchStreamWriter]]:
    """Yield the writers of all splits, each of a file ``SPLIT.arrow``."""
    with ExitStack() as stack:
        yield {split: stack.enter_context(arrow_writer(folder / f"{split}.arrow", schema)) for split in SPLITS}


def hold_out_synonyms(
    concepts: Sequence[Concept], *, shares: Mapping[str, float], seed: int
) -> tuple[list[Concept], list[tuple[str, Mention]]]:
    """Take one synonym out of each concept as a mention, if there is no annotated text.

    A synonym qualifies if no other name of its concept has the same normalized form, so the mention cannot be looked
    up under its concept. Other concepts keep their names. The CUI serves as document id, so splits are by concept.

    Args:
        concepts: the dictionary.
        shares: split -> share of the concepts, as for `assign_split`.
        seed: seed of synonyms and splits.

    Returns:
        The concepts without the held-out synonyms, in their order, and ``(split, mention)`` in the same order.
    """
    held_out = {}
    for concept in concepts:
        if names := _held_out_candidates(concept):
            held_out[concept.cui] = names[int(_draw(seed, "synonym", concept.cui) * len(names))]
    remaining, mentions = [], []
    for concept in concepts:
        text = held_out.get(concept.cui)
        if text is None:
            remaining.append(concept)
            continue
        remaining.append(replace(concept, synonyms=tuple(name for name in concept.synonyms if name != text)))
        mention = Mention(concept.cui, 0, len(text), text, "", "", concept.cui, concept.semantic_types)
        mentions.append((assign_split(concept.cui, shares, seed), mention))
    return remaining, mentions


def _held_out_candidates(concept: Concept) -> list[str]:
    forms = [normalize_name(name) for name in (concept.name, *concept.synonyms)]
    return [name for name, form in zip(concept.synonyms, forms[1:], strict=True) if forms.count(form) == 1]


def _draw(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends only on the arguments."""
    digest = hashlib.sha256(":".join((str(seed), *parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _rows(mentions: Sequence[Mention], end: int) -> pa.Table:
    """The last mentions before row `end` of their split."""
    rows = [asdict(mention) for mention in mentions]
    numbers = range(end - len(rows), end)
    rows = [row | {"mention_id": number, "mention": row["text"]} for row, number in zip(rows, numbers, strict=True)]
    return pa.Table.from_pylist(rows, MENTION_FEATURES.arrow_schema)
