"""`certify`: a certificate for the scores of any system."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..core.errors import UserError
from .calibrators import PlattCalibrator
from .certificate import Certificate, find_certificate
from .cross_validation import document_folds
from .score_maps import Sample

# Tolerance for probabilities outside [0, 1] by rounding: a cosine of 1 is often 1.0000001.
ROUNDING = 1e-5


def certify(
    scores: Sequence[float],
    correct: Sequence[bool],
    documents: Sequence,
    target_precision: float = 0.95,
    confidence: float = 0.95,
    *,
    calibrate: bool = False,
    certified_before: Collection = (),
    attempt: int = 1,
    most_wrong: float = 1.0,
) -> Certificate:
    """Find the lowest score threshold with certified precision.

    Works for any system that scores its answers; no model is needed. With probability ``confidence`` over the labelled
    documents, the answers at or above the threshold have a precision of at least ``target_precision`` over further
    documents like them. This holds even for uncalibrated scores, but calibrated scores certify more. Decide about
    target and confidence beforehand, and certify once: choosing between certificates breaks the guarantee.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer et al. 1995; "learn
    then test", Angelopoulos et al. 2021). Documents are the sampled units.

    >>> from umls_reranker import certify
    >>> scores = [0.98, 0.97, 0.6] * 100
    >>> correct = [True, True, False] * 100
    >>> found = certify(scores, correct, documents=[number // 3 for number in range(300)])
    >>> round(found.threshold, 2), round(found.share, 2), found.precision
    (0.97, 0.67, 1.0)
    >>> few = certify(scores[:30], correct[:30], documents=[number // 3 for number in range(30)])
    >>> few.threshold, few.even
    (None, 530)

    Args:
        scores: (n,) score of each mention's answer, the higher the more certain; leave out mentions without an answer.
            Probabilities in [0, 1], unless ``calibrate`` is set.
        correct: (n,) whether the answer is correct.
        documents: (n,) id of the document of each mention; mentions of a document are correlated.
        target_precision: guaranteed precision, between 0 and 1.
        confidence: probability that the guarantee holds, between 0 and 1.
        calibrate: for scores of any scale, such as logits or cosines: maps them to probabilities by logistic
            regression, each fifth of the documents by a fit on the others. The threshold is one of your scores.
        certified_before: ids of the documents of earlier certificates of these scores, granted or not. They only help
            to calibrate: trying again with the same documents would not keep the confidence.
        attempt: 1 for the first certificate, 2 for the next, and so on. The first has the whole error probability
            (1 - confidence). Later ones together get a tenth of it, so that errors do not add up; they need more
            documents.
        most_wrong: assumed largest share of incorrect answers, among those at or above the threshold, in any document.
            1 assumes nothing. With 0.5 fewer documents are needed, and the guarantee is as good as the assumption.

    Raises:
        UserError: lengths differ, scores are not probabilities, labels are neither True nor False, there are fewer
            than two documents, no document is new, or target, confidence or assumption is not between 0 and 1.
    """
    if not isinstance(attempt, int) or attempt < 1 or (attempt == 1 and len(certified_before)):
        raise UserError(
            f"attempt: {attempt!r} must be 1, or 2 and more for a certificate after those of certified_before"
        )
    columns = _checked(scores, correct, documents, calibrate)
    for name, value in (("target_precision", target_precision), ("confidence", confidence)):
        if not _is_number(value) or not 0.0 < value < 1.0:
            raise UserError(f"{name}: {value!r} must lie between 0 and 1, such as 0.95")
    if not _is_number(most_wrong) or not 1.0 - target_precision < most_wrong <= 1.0:
        raise UserError(f"most_wrong: {most_wrong!r} must be above {1.0 - target_precision:.2g} and at most 1")
    mapped, unmapped = columns.scores, None
    if calibrate:
        mapped, unmapped = _cross_fitted(columns)
    former = set(map(str, certified_before))
    new = np.array([name not in former for name in columns.documents], bool)
    if not new.any():
        raise UserError("all documents are in certified_before; only new ones can certify")
    rows = mapped[new], columns.correct[new], columns.documents[new], target_precision, confidence
    certificate = find_certificate(*rows, most_wrong=most_wrong, attempt=attempt, has_outlook=True)
    if unmapped is None or certificate.threshold is None:
        return certificate
    return replace(certificate, threshold=unmapped(certificate.threshold))


class _Columns(NamedTuple):
    """Checked arguments of `certify`, (n,) each."""

    scores: np.ndarray
    correct: np.ndarray
    documents: np.ndarray


def _checked(scores: Any, correct: Any, documents: Any, calibrate: bool) -> _Columns:
    columns: dict[str, list[Any]] = {}
    for name, values in (("scores", scores), ("correct", correct), ("documents", documents)):
        if not isinstance(values, Iterable):
            raise UserError(f"{name}: {values!r} is not a list; give one value per mention")
        columns[name] = list(values)
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{count:,} {name}" for name, count in lengths.items())
        raise UserError(f"{counts}: give one of each per mention")
    for row, (score, label, document) in enumerate(zip(*columns.values(), strict=True)):
        if not _is_number(score) or not np.isfinite(score):
            raise UserError(f"row {row}: the score {score!r} is not a number; leave out mentions without an answer")
        if not calibrate and not -ROUNDING <= score <= 1.0 + ROUNDING:
            raise UserError(
                f"row {row}: the score {score!r} is not a probability; pass calibrate=True to map scores on another "
                "scale to probabilities"
            )
        if not _is_number(label) or label not in (0, 1):
            raise UserError(f"row {row}: correct is {label!r}; give True or False")
        # pandas.NA cannot be compared, not even with itself.
        if document is None or str(document) == "<NA>" or document != document:
            raise UserError(f"row {row}: the document is missing; give every mention the id of its document")
    count = len(set(columns["documents"]))
    if not count:
        raise UserError("there are no mentions; give scores of mentions whose answers were labelled")
    if count < 2:
        raise UserError(
            f"all mentions are from {count} document, which says nothing about other documents; give the id of each "
            "mention's document"
        )
    numbers = np.array(columns["scores"], np.float64)
    return _Columns(
        numbers if calibrate else np.clip(numbers, 0.0, 1.0),
        np.array(columns["correct"], np.float64),
        np.array(list(map(str, columns["documents"])), object),
    )


def _cross_fitted(columns: _Columns) -> tuple[np.ndarray, Callable[[float], float]]:
    """Held-out probabilities by logistic regression, (n,), and the inverse of the regression fitted on all rows."""

    def fitted(inside: np.ndarray) -> PlattCalibrator:
        calibrator = PlattCalibrator()
        calibrator.fit(Sample(columns.scores[inside], columns.correct[inside]))
        return calibrator

    fold = document_folds(columns.documents, seed=0)
    mapped = np.empty(len(fold))
    for number in range(fold.max() + 1):
        mapped[fold == number] = fitted(fold != number)(columns.scores[fold == number])
    whole = fitted(np.ones(len(fold), bool))
    return mapped, lambda p: float((np.log(p) - np.log1p(-p) - whole.intercept) / whole.slope)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number | np.bool_)
