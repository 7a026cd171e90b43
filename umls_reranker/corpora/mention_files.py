"""The mentions of a run, a file for each split: which split, held-out synonyms, and counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Features, List, Value

from ..core.arrow_files import arrow_writer, open_arrow
from ..core.errors import UserError
from ..vocab.concept_table import ConceptTable
from ..vocab.concepts import Concept
from ..vocab.normalization import normalize_name
from .annotated_text import Mention

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
        "cui": List(List(Value("string"))),
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


def write_mentions(
    mentions: Iterable[tuple[str, Mention]], path: Path, *, batch_rows: int = BATCH_ROWS
) -> dict[str, int]:
    """Write ``(split, mention)`` pairs into one file for each split, in the order they come.

    ``mention_id`` is the row number within the split; `batch_rows` are written together.

    Returns:
        Split -> number of mentions.

    Raises:
        UserError: a split is empty.
    """
    waiting: dict[str, list[Mention]] = {split: [] for split in SPLITS}
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                arrow_writer(path / f"{split}.arrow", MENTION_FEATURES.arrow_schema)
            )
            for split in SPLITS
        }
        for split, mention in mentions:
            waiting[split].append(mention)
            counts[split] += 1
            if len(waiting[split]) == batch_rows:
                writers[split].write(_rows(waiting[split], counts[split]))
                waiting[split] = []
        for split, rest in waiting.items():
            writers[split].write(_rows(rest, counts[split]))
        empty = [split for split, count in counts.items() if not count]
        if empty:
            raise UserError(
                f"the split {empty[0]!r} is empty (mentions by split: {counts}); "
                "check the document lists, increase its share, or use another seed"
            )
    return counts


def hold_out_synonyms(
    concepts: Sequence[Concept], *, shares: Mapping[str, float], seed: int
) -> tuple[list[Concept], list[tuple[str, Mention]]]:
    """Take one synonym out of each concept as a mention, if there is no annotated text.

    A synonym qualifies if no other name of its concept has the same normalized form, so the mention
    cannot be looked up under its concept. Other concepts keep their names. The CUI serves as
    document id, so splits are by concept.

    Args:
        concepts: the dictionary.
        shares: split -> share of the concepts, as for `assign_split`.
        seed: seed of synonyms and splits.

    Returns:
        The concepts without the held-out synonyms, in order, and ``(split, mention)`` likewise.
    """
    remaining = []
    mentions = []
    for concept in concepts:
        forms = [normalize_name(name) for name in (concept.name, *concept.synonyms)]
        synonyms = zip(concept.synonyms, forms[1:], strict=True)
        names = [name for name, form in synonyms if forms.count(form) == 1]
        if not names:
            remaining.append(concept)
            continue
        text = names[int(_draw(seed, "synonym", concept.cui) * len(names))]
        remaining.append(
            replace(concept, synonyms=tuple(name for name in concept.synonyms if name != text))
        )
        mention = Mention(
            doc_id=concept.cui,
            start=0,
            end=len(text),
            text=text,
            left="",
            right="",
            cuis=((concept.cui,),),
            semantic_types=concept.semantic_types,
        )
        mentions.append((assign_split(concept.cui, shares, seed), mention))
    return remaining, mentions


def _draw(seed: int, *parts: str) -> float:
    """A number in [0, 1) that depends only on the arguments."""
    digest = hashlib.sha256(":".join((str(seed), *parts)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def _rows(mentions: Sequence[Mention], end: int) -> pa.Table:
    """The last mentions before row `end` of their split."""
    fields = {"mention": "text", "cui": "cuis"}
    columns = {
        name: [getattr(mention, fields.get(name, name)) for mention in mentions]
        for name in MENTION_FEATURES
        if name != "mention_id"
    }
    return pa.table(
        {"mention_id": range(end - len(mentions), end)} | columns, MENTION_FEATURES.arrow_schema
    )


def known_mentions(folder: Path, concepts: ConceptTable) -> dict[str, int]:
    """Split -> number of mentions of which the dictionary has a gold concept.

    Args:
        folder: folder that `write_mentions` wrote.
        concepts: the dictionary.
    """
    counts = {}
    for split in SPLITS:
        gold = open_arrow(folder / f"{split}.arrow")["cui"].combine_chunks()
        ids = pc.list_flatten(gold, recursive=True)
        mention = pc.list_parent_indices(gold).take(pc.list_parent_indices(pc.list_flatten(gold)))
        counts[split] = len(mention.filter(pa.array(concepts.has(ids))).unique())
    return counts
