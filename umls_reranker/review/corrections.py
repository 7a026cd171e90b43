"""Corrections: reviewers' choices as an Arrow dataset, and their use in a run's calibration and in training.

A reviewer gets the lines of ``umls-reranker select_for_review`` and adds ``chosen``: the CUI of the gold concept,
among the candidates or not (for a candidate without CUI its name), or null if no concept is correct; ``note`` is
optional. CUIs are compared and stored in the form of `normalize_cui`. If `ConceptLinker` found the candidates,
``index_key`` is that of its retriever.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_from_disk

from ..calibration.inputs import ScoreRange
from ..core.errors import UserError
from ..core.files import hold, json_sha256
from ..core.lines import is_finite, reading
from ..core.settings import SCORES
from ..data.arrow import write_dataset
from ..data.candidate_lists import SCORES_SUFFIX
from ..data.corpus import Mention
from ..data.cuis import normalize_cui
from ..data.list_columns import FIELDS
from ..data.mentions import FEEDBACK_PREFIX
from ..data.normalization import normalize_name
from ..data.semantic_types import TypeHierarchy
from ..serving.prediction_log import LoggedMention, concept_of, read_predictions
from .review_queue import RANDOM

if TYPE_CHECKING:
    from ..data.concepts import ConceptTable

UMLS_CUI = re.compile(r"C\d{7}")
# An id of any vocabulary, such as HP:0000001; words such as "none" are not concepts.
CONCEPT_ID = re.compile(r"(?=\S*\d)\S+")
# Fields that distinguish the answers of two model versions.
ANSWER = ("answer", "score", "tier")

FEEDBACK_FEATURES = Features(
    {
        "key": Value("string"),
        "doc_id": Value("string"),
        "mention_id": Value("string"),
        "mention": Value("string"),
        "left": Value("string"),
        "right": Value("string"),
        "semantic_types": List(Value("string")),
        "candidates": List(
            {
                "name": Value("string"),
                "cui": Value("string"),
                **{name: Value("string") for name in FIELDS},
                "semantic_types": List(Value("string")),
            }
        ),
        "score_names": List(Value("string")),
        "scores": List(List(Value("float64"))),
        "index_key": Value("string"),
        "chosen": Value("string"),
        "note": Value("string"),
        "reason": Value("string"),
        "drawn": Value("bool"),
        "answer": Value("string"),
        "score": Value("float64"),
        "tier": Value("string"),
    }
)


def add_feedback(folder: Path, reviewed: Sequence[Path]) -> dict[str, int]:
    """Add reviewed lines to a dataset of corrections, which is created if missing.

    A mention is identified by document and id; if one of them is missing, by the other, text, context and types. A
    later review replaces an earlier one, but mentions drawn at random stay in the random sample (``drawn``). Only
    mentions with document and id belong to it: equal mentions without them would count once, so recurring errors would
    be too few. Lines without ``chosen`` are skipped.

    Args:
        folder: folder of the dataset.
        reviewed: JSON Lines files, the oldest first.

    Returns:
        Counts: ``added``; ``replaced``, of these ``changed`` (another choice than in the earlier review); of both
        ``differing`` (another choice than the model's top candidate); ``unreviewed`` lines, of these
        ``unreviewed_of_sample`` (drawn at random); and ``corrections`` in all.

    Raises:
        UserError: a file or line is not a reviewed prediction (names the line), or another process is adding to it.
    """
    if not folder.name:
        raise UserError(f"{folder} cannot hold corrections; use a separate folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with hold(lock, f"{folder} is being written by another process; run the command again when it has finished"):
        return _add(folder, reviewed)


def _add(folder: Path, reviewed: Sequence[Path]) -> dict[str, int]:
    rows = {row["key"]: row for row in (load_feedback(folder) if folder.exists() else ())}
    names = ("added", "replaced", "changed", "differing", "unreviewed", "unreviewed_of_sample")
    counts = dict.fromkeys(names, 0)
    for path in reviewed:
        for logged in read_predictions(path):
            if "chosen" not in logged.row:
                counts["unreviewed"] += 1
                counts["unreviewed_of_sample"] += logged.row.get("reason") == RANDOM
                continue
            row = _correction(logged, f"{path}:{logged.line}")
            former = rows.pop(row["key"], None)
            counts["added" if former is None else "replaced"] += 1
            counts["changed"] += former is not None and former["chosen"] != row["chosen"]
            counts["differing"] += row["chosen"] != row["answer"]
            is_same = former is not None and all(former[name] == row[name] for name in ANSWER)
            if is_same and former["reason"] == RANDOM:
                # Without the uncertain ones, which are selected again, the rest would look too good.
                row["reason"] = RANDOM
            # Independent of the model: a certificate is about mentions and the new model's answers to them.
            row["drawn"] = row["drawn"] or (former is not None and former["drawn"])
            rows[row["key"]] = row
    columns = {name: [row[name] for row in rows.values()] for name in FEEDBACK_FEATURES}
    fingerprint = json_sha256(columns)
    write_dataset([columns], FEEDBACK_FEATURES, folder, fingerprint)
    return counts | {"corrections": len(rows)}


def load_feedback(folder: Path) -> Dataset:
    """Open a dataset of corrections.

    Raises:
        UserError: the folder is missing or holds something else.
    """
    try:
        feedback = load_from_disk(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{folder} contains no corrections ({error}); umls-reranker add_feedback writes them"
        ) from None
    if not isinstance(feedback, Dataset) or feedback.features != FEEDBACK_FEATURES:
        raise UserError(
            f"{folder} contains no corrections, or those of another version; add the reviewed lines again, to a new "
            "folder"
        )
    return feedback


def chosen_concept(candidates: Sequence[Mapping[str, Any] | str], chosen: str) -> str:
    """The concept that a reviewer chose, in the form of `normalize_cui`.

    Raises:
        ValueError: the choice is neither a candidate nor an id of the candidates' kind. It would count as a concept
            outside the list, and the gold candidate as incorrect.
    """
    concept, concepts = normalize_cui(chosen), list(map(concept_of, candidates))
    if concept in concepts:
        return concept
    names = (normalize_name(item if isinstance(item, str) else item["name"]) for item in candidates)
    named = next((cui for cui, name in zip(concepts, names, strict=True) if name == normalize_name(concept)), None)
    if named is not None:
        raise ValueError(f"chosen is the name of a candidate; use {named}")
    is_umls = concepts and all(map(UMLS_CUI.fullmatch, concepts))
    if not (UMLS_CUI if is_umls else CONCEPT_ID).fullmatch(concept):
        raise ValueError(
            f"chosen must be a candidate or a CUI such as C0009443, or null if no concept is correct; found {chosen!r}"
        )
    return concept


def is_correct(row: Mapping[str, Any]) -> bool:
    """Whether the reviewer chose the top candidate; False if no concept is correct."""
    return row["chosen"] is not None and row["answer"] == row["chosen"]


class RandomSample:
    """The corrections of the random sample, to find again in a log.

    Only a log tells whether an answer comes from the monitored model or from an earlier version.

    Attributes:
        waiting: corrections not found so far.
    """

    def __init__(self, feedback: Iterable[Mapping[str, Any]]) -> None:
        self.waiting = {row["key"]: row for row in feedback if row["reason"] == RANDOM and row["score"] is not None}

    def find(self, logged: LoggedMention) -> bool | None:
        """Whether the logged answer is correct; None without a correction, or if it was found before."""
        if not self.waiting or logged.top is None:
            return None
        row = self.waiting.get(key := _key(logged))
        answer = concept_of(logged.row["ranked"][0]), logged.top.score, logged.top.tier
        if row is None or tuple(row[name] for name in ANSWER) != answer:
            return None
        return is_correct(self.waiting.pop(key))


@reading
def training_mentions(
    mentions: Iterable[tuple[str, Mention]], feedback: Dataset, hierarchy: TypeHierarchy
) -> Generator[tuple[str, Mention], None, dict[str, Any]]:
    """Corpus mentions, followed by the corrections as mentions of the training split.

    Corrections without a concept have no positive pair, and those in documents of other splits would leak into the
    evaluation. Both are left out.

    Args:
        mentions: pairs of split and mention of the corpus.
        feedback: the corrections.
        hierarchy: the types' hierarchy.

    Returns:
        A `Reading`; its report counts corrections: ``mentions``, and those left out, ``without_concept`` and
        ``in_held_out_documents``.
    """
    held_out = set()
    for split, mention in mentions:
        if split != "train":
            held_out.add(mention.doc_id)
        yield split, mention
    counts = dict.fromkeys(("mentions", "without_concept", "in_held_out_documents"), 0)
    for row in feedback:
        lost = "without_concept" if row["chosen"] is None else "in_held_out_documents"
        if row["chosen"] is None or row["doc_id"] in held_out:
            counts[lost] += 1
            continue
        counts["mentions"] += 1
        text, types = row["mention"], _type_ids(row["semantic_types"], hierarchy)
        document = FEEDBACK_PREFIX + _document(row)
        yield "train", Mention(document, 0, len(text), text, row["left"], row["right"], row["chosen"], tuple(types))
    return counts


def calibration_rows(
    feedback: Dataset,
    candidates: Dataset,
    mentions: Dataset,
    test_documents: Iterable[str],
    train_documents: Iterable[str],
    concepts: ConceptTable,
    index_key: str = "",
    *,
    reads_concepts: bool = False,
) -> tuple[Dataset, Dataset, dict[str, int]]:
    """Candidate lists and mentions of a split, followed by the corrections.

    Args:
        feedback: the corrections.
        candidates: candidates of the calibration split, row by row.
        mentions: mentions of the calibration split. A correction of one of its documents stays in it.
        test_documents: corrections in them are left out, because the report is measured on them.
        train_documents: corrections in them are left out, because the model was trained on them and is overconfident
            there.
        concepts: dictionary of the lists; corrections get its types.
        index_key: key of the lists (`core.stage_keys.key_of_lists`).
        reads_concepts: whether the model reads more than the candidate's name, so the dictionary must have the
            concept.

    Returns:
        Lists; mentions, with a column ``certifies``, which may count for a certificate: those of the split, and the
        corrections that were ``drawn`` at random; and how many corrections were left out: ``in_test_documents``,
        ``trained_on``, ``without_candidates``, ``without_scores`` (of a retriever that the lists of the split carry,
        or with one beyond what they hold or of another index), and ``unknown_candidates``.
    """
    table = candidates.with_format("arrow")[:]
    ranges = {
        name: ScoreRange.of(table[name].combine_chunks().flatten().to_numpy())
        for name in table.column_names
        if name.endswith(SCORES_SUFFIX)
    }
    test, train, of_split = set(test_documents), set(train_documents), set(mentions["doc_id"])
    reasons = ("in_test_documents", "trained_on", "without_candidates", "without_scores", "unknown_candidates")
    lost = dict.fromkeys(reasons, 0)
    lists: dict[str, list] = {name: [] for name in candidates.column_names}
    mentions = mentions.add_column("certifies", np.ones(len(mentions), bool))
    rows: dict[str, list] = {name: [] for name in mentions.column_names}
    for row in feedback:
        scores = _scores(row, index_key)
        reason = _reason_to_leave_out(row, scores, test, train, ranges, concepts if reads_concepts else None)
        if reason:
            lost[reason] += 1
            continue
        number = len(mentions) + len(rows["mention_id"])
        cuis, names = _concepts(row), [item["name"] for item in row["candidates"]]
        gold = cuis.index(row["chosen"]) if row["chosen"] in cuis else -1
        values = row | scores | {"mention_id": number, "cuis": cuis, "names": names, "gold": gold}
        values["cui"] = row["chosen"] or ""
        values |= {"in_dictionary": row["chosen"] is not None, "certifies": row["drawn"]}
        values |= {"start": 0, "end": len(row["mention"])}
        values["doc_id"] = row["doc_id"] if row["doc_id"] in of_split else FEEDBACK_PREFIX + (row["doc_id"] or "")
        values["semantic_types"] = _type_ids(row["semantic_types"], concepts.hierarchy)
        for columns in (lists, rows):
            for name, column in columns.items():
                column.append(values[name])
    return (
        concatenate_datasets([candidates, Dataset.from_dict(lists, features=candidates.features)]),
        concatenate_datasets([mentions, Dataset.from_dict(rows, features=mentions.features)]),
        lost,
    )


def _reason_to_leave_out(
    row: Mapping[str, Any],
    scores: Mapping[str, list[float | None]],
    test_documents: set[str],
    train_documents: set[str],
    ranges: Mapping[str, ScoreRange],
    concepts: ConceptTable | None,
) -> str | None:
    """Why a correction cannot be used for fitting, or None if it can."""
    if row["doc_id"] in test_documents:
        return "in_test_documents"
    if row["doc_id"] in train_documents or FEEDBACK_PREFIX + _document(row) in train_documents:
        return "trained_on"
    if not row["candidates"]:
        return "without_candidates"
    nothing = [None] * len(row["candidates"])
    if any(
        np.isnan(known.inside(np.array(scores.get(name, nothing), np.float64))).any() for name, known in ranges.items()
    ):
        return "without_scores"
    if concepts is not None and (concepts.rows(_concepts(row)) < 0).any():
        return "unknown_candidates"
    return None


def _correction(logged: LoggedMention, where: str) -> dict[str, Any]:
    row = logged.row
    chosen = row["chosen"]
    if chosen is not None and not (isinstance(chosen, str) and chosen.strip()):
        raise UserError(f"{where}: chosen must be a CUI, or null if no concept is correct; found {chosen!r}")
    try:
        concept = None if chosen is None else chosen_concept(row["candidates"], chosen)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    texts = _texts(row)
    candidates = [item if isinstance(item, Mapping) else {"name": item} for item in row["candidates"]]
    top = row["ranked"][0] if row["ranked"] else None
    names = list(
        dict.fromkeys(key.removesuffix("_score") for item in candidates for key in item if key.endswith("_score"))
    )
    return {
        "key": _key(logged),
        "doc_id": logged.document,
        "mention_id": logged.mention_id,
        "mention": texts[0],
        "left": texts[1],
        "right": texts[2],
        "semantic_types": logged.types,
        "candidates": list(map(_kept, candidates)),
        "score_names": names,
        "scores": [[_number(item.get(f"{name}_score")) for item in candidates] for name in names],
        "index_key": str(row.get("index_key") or ""),
        "chosen": concept,
        "note": row.get("note") or "",
        "reason": row.get("reason") or "",
        "drawn": row.get("reason") == RANDOM and bool(logged.document and logged.mention_id),
        "answer": top and concept_of(top),
        "score": top and top["score"],
        "tier": top and top["tier"],
    }


def _kept(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a candidate that a correction keeps besides its scores."""
    types = candidate.get("semantic_types")
    about = {name: candidate.get(name) for name in ("name", "cui", *FIELDS)}
    return about | {"semantic_types": [types] if isinstance(types, str) else types}


def _concepts(row: Mapping[str, Any]) -> list[str]:
    """The concepts of a correction's candidates."""
    return list(map(concept_of, row["candidates"]))


def _key(logged: LoggedMention) -> str:
    # An id may number the mentions of one document or of one file.
    identity: list[Any] = [logged.document, logged.mention_id]
    if not all(identity):
        identity += [*_texts(logged.row), *logged.types]
    return json_sha256(identity)[:16]


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [row["entity"], row.get("left") or "", row.get("right") or ""]


def _scores(row: Mapping[str, Any], index_key: str) -> dict[str, list[float | None]]:
    """Scores of a correction by column of a run's candidates; those of our retrievers only with this index."""
    columns = zip(row["score_names"], row["scores"], strict=True)
    is_ours = row["index_key"] == index_key
    return {f"{name}{SCORES_SUFFIX}": scores for name, scores in columns if is_ours or name not in SCORES}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and is_finite(value) else None


def _document(row: Mapping[str, Any]) -> str:
    return row["doc_id"] or row["key"]


def _type_ids(types: Iterable[str], hierarchy: TypeHierarchy) -> list[str]:
    return [known for known in map(hierarchy.resolve, types) if known]
