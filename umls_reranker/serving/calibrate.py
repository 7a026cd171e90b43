"""Calibrating a model, or lists alone, on labelled rows in one call."""

import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..calibration.arguments import CalibrationArguments
from ..lists.dictionary import Dictionary
from ..lists.labels import usable_lists
from ..lists.rows import Rows
from .calibrate_lists import calibrate_lists
from .calibrated import save_calibrated
from .model_source import ModelSource
from .reranker import UMLSReranker


def calibrate(
    rows: Iterable[Mapping[str, Any]],
    model: str | Path | None = None,
    *,
    target_precision: float = 0.95,
    dictionary: Dictionary | None = None,
    seed: int = 13,
    each_row_is_a_document: bool = False,
    one_look: bool = False,
) -> UMLSReranker:
    """Calibrate a model on rows with gold concepts, as ``umls-reranker calibrate --lists`` does.

    Args:
        rows: as in files: ``doc_id``, ``entity``, ``cui`` (the gold concept), ``candidates``, and
            optionally others.
        model: folder or Hub id of a reranker, or of a sequence classifier with one logit; None:
            only the lists count.
        target_precision: precision that the certificate of the high tier guarantees.
        dictionary: completes the candidates (`Dictionary.add_to`); use it later, too.
        seed: seed of the folds of documents.
        each_row_is_a_document: whether a row without ``doc_id`` is a document, such as a term, and
            documents of one row each may certify.
        one_look: whether these documents were chosen before any of their labels was known, and are
            tested this once: fewer of them certify. Otherwise call it as often as you like, each
            time with all labels so far.

    Returns:
        The new model; its folder, with the held-out figures in ``metrics.json``, is temporary until
        `UMLSReranker.save_pretrained` writes another.

    Raises:
        UserError: a row is invalid (it is named), there are too few, or the model cannot be loaded.
    """
    folder_or_repo = None if model is None else str(model)
    source = ModelSource.load(folder_or_repo)
    lists = usable_lists(
        Rows.of(rows),
        Path("rows"),
        source.hierarchy,
        dictionary,
        each_row_is_a_document=each_row_is_a_document,
    )
    settings = CalibrationArguments(target_precision=target_precision)
    temporary = TemporaryDirectory(prefix="umls_reranker-")
    folder = Path(temporary.name) / "calibrated"
    new = calibrate_lists(
        source,
        lists,
        settings,
        seed,
        each_row_is_a_document=each_row_is_a_document,
        one_look=one_look,
    )
    save_calibrated(source, new, folder)
    reranker = UMLSReranker.from_pretrained(folder)
    weakref.finalize(reranker, temporary.cleanup)
    return reranker
