"""From a recipe's sections to concepts and mentions: which reader reads which file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..arguments import ConceptArguments, MentionArguments
from ..errors import UserError
from .concepts import Concept
from .mentions import assign_split
from .obo import read_obo_concepts
from .pubtator import Mention, ReadReport, read_pmids, read_pubtator
from .rrf import read_rrf_concepts
from .semantic_types import TypeHierarchy

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["corpus_mentions", "read_concepts", "release_files", "sample_mentions", "split_shares"]


def release_files(umls_dir: Path, semantic_network_dir: Path) -> dict[str, Path]:
    """The files of a UMLS release that are read, plain or .gz; optional ones only when they are there.

    Raises:
        UserError: a required file is missing.
    """
    wanted = {name: umls_dir / f"{name}.RRF" for name in ("MRCONSO", "MRSTY", "MRDEF")}
    wanted |= {"SRDEF": semantic_network_dir / "SRDEF", "SemGroups": semantic_network_dir / "SemGroups.txt"}
    files = {}
    for name, plain in wanted.items():
        found = next((path for path in (plain, plain.with_name(plain.name + ".gz")) if path.is_file()), None)
        if found is not None:
            files[name] = found
        elif name not in ("MRDEF", "SemGroups"):
            key = "umls_dir" if name.startswith("MR") else "semantic_network_dir"
            raise UserError(f"{plain} does not exist; set the recipe key {key} to the folder that holds it")
    return files


def read_concepts(
    concepts: ConceptArguments, files: Mapping[str, Path], on_error: str, report: dict[str, Any]
) -> tuple[Iterable[Concept], TypeHierarchy]:
    """Concepts and their type hierarchy from the recipe's source.

    Args:
        files: what `release_files` gives, or the ontology under ``obo``.
        on_error: ``stop`` or ``skip``, for malformed lines.
        report: receives the reader's counts.
    """
    if concepts.concept_source == "obo":
        return read_obo_concepts(
            files["obo"],
            type_roots=concepts.obo_type_roots,
            synonym_scopes=concepts.obo_synonym_scopes,
            on_error=on_error,
            report=report,
        )
    hierarchy = TypeHierarchy.from_umls(files["SRDEF"], files.get("SemGroups"))
    rows = read_rrf_concepts(
        files["MRCONSO"].parent,
        languages=concepts.languages,
        sources=concepts.sources,
        keep_suppressed=concepts.keep_suppressed,
        semantic_types=concepts.concept_types,
        on_error=on_error,
        report=report,
    )
    return rows, hierarchy


def split_shares(mentions: MentionArguments) -> dict[str, float]:
    """Shares of all four splits, for mentions without official document lists."""
    return {"train": mentions.train_share} | _held_out_shares(mentions, 1.0 - mentions.train_share)


def _held_out_shares(mentions: MentionArguments, whole: float) -> dict[str, float]:
    test = 1.0 - mentions.dev_share - mentions.calibration_share
    if min(mentions.dev_share, mentions.calibration_share, test, whole) <= 0:
        raise UserError("dev_share and calibration_share must be above 0 and leave a share for the test split")
    return {
        "dev": whole * mentions.dev_share,
        "calibration": whole * mentions.calibration_share,
        "test": whole * test,
    }


def corpus_mentions(
    mentions: MentionArguments, files: Mapping[str, Path], seed: int, summary: dict[str, Any]
) -> Iterator[tuple[str, Mention]]:
    """Stream ``(split, mention)`` from an annotated corpus; `summary` receives what was read and lost.

    Raises:
        UserError: a document is in two lists, a listed document is not in the corpus, or the corpus does not have
            the expected number of mentions.
    """
    shares = _held_out_shares(mentions, 1.0)
    listed = {
        name: read_pmids(files[name])
        for name in ("train_documents", "dev_documents", "test_documents")
        if name in files
    }
    if "test_documents" in listed:
        del shares["test"]
    split_of: dict[str, str] = {}
    for name, ids in listed.items():
        for doc_id in ids:
            if doc_id in split_of:
                raise UserError(f"document {doc_id} is in two of the document lists; splits must not share documents")
            fixed = {"train_documents": "train", "test_documents": "test"}.get(name)
            split_of[doc_id] = fixed or assign_split(doc_id, shares, seed)
    report = ReadReport()
    unlisted = 0
    seen: set[str] = set()
    for mention in read_pubtator(
        files["corpus"], context_chars=mentions.context_chars, on_error=mentions.on_error, report=report
    ):
        split = split_of.get(mention.doc_id)
        if split is None:
            unlisted += 1
            continue
        seen.add(mention.doc_id)
        yield split, mention
    expected = mentions.expected_mentions
    if expected is not None and report.mentions != expected:
        raise UserError(
            f"{files['corpus']} holds {report.mentions:,} mentions and expected_mentions is {expected:,}; "
            "the download is incomplete or another version, fetch it again"
        )
    summary["corpus"] = report.to_dict() | {
        "mentions_in_no_list": unlisted,
        "listed_documents_without_mentions": len(split_of) - len(seen),
    }


def sample_mentions(mentions: Dataset, most: int | None, seed: int) -> Dataset:
    """At most `most` mentions, drawn by the seed, in their order."""
    import numpy as np

    if most is None or len(mentions) <= most:
        return mentions
    return mentions.select(np.sort(np.random.default_rng(seed).permutation(len(mentions))[:most]))
