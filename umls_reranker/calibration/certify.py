"""`certify`: a certificate for the scores of any system."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.errors import UserError
from ..core.text_files import is_finite
from .calibrators import PlattCalibrator
from .certificate import Certificate, find_certificate
from .labelled_scores import LabelledScores
from .precision_test import PrecisionTest, is_number
from .reliability import document_folds

# Tolerance for probabilities outside [0, 1] by rounding: a cosine of 1 is often 1.0000001.
ROUNDING = 1e-5


def certify(  # noqa: PLR0913 (one call without a model has all of its options)
    scores: Sequence[float],
    correct: Sequence[bool],
    documents: Sequence,
    target_precision: float = 0.95,
    confidence: float = 0.95,
    *,
    calibrate: bool = False,
    one_look: bool = False,
    mentions: Sequence[str] | None = None,
) -> Certificate:
    """Find the lowest score threshold with certified precision.

    Works for any system that scores its answers; no model is needed. With probability
    ``confidence`` over the labelled documents, the answers at or above the threshold have a
    precision of at least ``target_precision`` over further documents like them. This holds even for
    uncalibrated scores, but calibrated scores certify more. Decide about target and confidence
    beforehand. Label documents in a drawn order, and call as often as you like, each time with all
    labels so far: who stops when a certificate comes is right as often as the confidence says.

    Thresholds of a fixed grid are tested downward until one fails (fixed-sequence testing, Maurer
    et al. 1995; "learn then test", Angelopoulos et al. 2021). Documents are the sampled units.

    >>> from umls_reranker import certify
    >>> scores = [0.98, 0.97, 0.6] * 100
    >>> correct = [True, True, False] * 100
    >>> certificate = certify(scores, correct, documents=[number // 3 for number in range(300)])
    >>> round(certificate.threshold, 2), round(certificate.coverage, 2), certificate.precision
    (0.97, 0.67, 1.0)
    >>> few = certify(scores[:30], correct[:30], documents=[number // 3 for number in range(30)])
    >>> few.threshold, few.documents_needed
    (None, 88)

    Args:
        scores: (n,) score of each mention's answer, the higher the more certain; leave out mentions
            without an answer. Probabilities in [0, 1], unless ``calibrate`` is set.
        correct: (n,) whether the answer is correct.
        documents: (n,) id of the document of each mention; mentions of a document are correlated.
        target_precision: guaranteed precision, between 0 and 1.
        confidence: probability that the guarantee holds, between 0 and 1.
        calibrate: for scores of any scale, such as logits or cosines: maps them to probabilities by
            logistic regression, each fifth of the documents by a fit on the others. The threshold
            is one of your scores.
        one_look: whether these documents were chosen before any of their labels was known, and this
            is the only call about them: it certifies with fewer documents.
        mentions: (n,) texts of the mentions, in the order of their documents: documents with nearly
            the same ones, such as notes copied forward, then count as one. Without them a copy with
            an id of its own counts as further evidence, and a certificate over many copies can be
            false far more often than the confidence says. Copies of fewer than three different
            mentions are not seen either way.

    Raises:
        UserError: lengths differ, scores are not probabilities, labels are neither True nor False,
            there are fewer than two documents, or target or confidence is not between 0 and 1.
    """
    test = PrecisionTest(target_precision, confidence, is_one_look=one_look)
    sample, ids = _checked_answers(scores, correct, documents, calibrate)
    names = ids
    if mentions is not None:
        if len(mentions) != len(ids):
            raise UserError(f"{len(mentions):,} mentions of {len(ids):,} scores: give one each")
        # Loading a model needs none of this.
        from ..lists.duplicates import joined_by_mentions

        names = joined_by_mentions(ids.tolist(), list(map(str, mentions)))
    return _certificate(sample, names, test, calibrate=calibrate)


def _certificate(
    sample: LabelledScores, names: np.ndarray, test: PrecisionTest, *, calibrate: bool
) -> Certificate:
    """The certificate of scores; its threshold is one of them, also if they are mapped."""
    probabilities = _cross_fitted(sample, names) if calibrate else sample.scores
    certificate = find_certificate(probabilities, sample.labels, names, test)
    if not calibrate or certificate.threshold is None:
        return certificate
    # The map is that of a fit on all rows.
    platt = PlattCalibrator()
    platt.fit(sample)
    p = certificate.threshold
    score = (np.log(p) - np.log1p(-p) - platt.intercept) / platt.slope
    return replace(certificate, threshold=float(score))


def _shown(value: Any) -> str:
    """A value for messages; Python does not write integers of thousands of digits."""
    is_too_large = isinstance(value, int) and not is_finite(value)
    return "with hundreds of digits" if is_too_large else repr(value)


def _checked_answers(
    scores: Any, correct: Any, documents: Any, calibrate: bool
) -> tuple[LabelledScores, np.ndarray]:
    """The arguments of `certify`: scores with labels, and names of documents, (n,)."""
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
        if not is_number(score) or not is_finite(score):
            raise UserError(
                f"row {row}: the score {_shown(score)} is not a number; "
                "leave out mentions without an answer"
            )
        if not calibrate and not -ROUNDING <= score <= 1.0 + ROUNDING:
            raise UserError(
                f"row {row}: the score {score!r} is not a probability; "
                "pass calibrate=True to map scores on another scale to probabilities"
            )
        if not is_number(label) or label not in (0, 1):
            raise UserError(f"row {row}: correct is {_shown(label)}; give True or False")
        # pandas.NA cannot be compared, not even with itself.
        is_id = isinstance(document, Hashable) and document is not None
        if not is_id or str(document) == "<NA>" or document != document:
            raise UserError(
                f"row {row}: the document is missing or no id; give every mention that of its "
                "document"
            )
    numbers = np.array(columns["scores"], np.float64)
    if len(set(columns["documents"])) < 2:
        found = "all mentions are from 1 document" if len(numbers) else "there are no mentions"
        raise UserError(
            f"{found}, which says nothing about other documents; give labelled mentions of two or "
            "more, and the id of each one's document"
        )
    scores = numbers if calibrate else np.clip(numbers, 0.0, 1.0)
    labels = np.array(columns["correct"], np.float64)
    documents = np.array(list(map(str, columns["documents"])), object)
    return LabelledScores(scores=scores, labels=labels), documents


def _cross_fitted(sample: LabelledScores, documents: np.ndarray) -> np.ndarray:
    """Held-out probabilities by logistic regression, (n,)."""
    fold = document_folds(documents, seed=0)
    probabilities = np.empty(len(fold))
    for number in range(fold.max() + 1):
        held_out = fold == number
        fitted = PlattCalibrator().fit(sample.take(~held_out))
        probabilities[held_out] = fitted(sample.scores[held_out])
    return probabilities
