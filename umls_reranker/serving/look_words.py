"""Looks of a study in words."""

from ..calibration.certificate import Certificate
from ..calibration.study import Study

NEW_STUDY = "--new_study trains on them and certifies with new documents alone"
HOW_A_STUDY_IS_WRITTEN = (
    "umls-reranker candidates --sample writes a study, which looks up to four times at the same "
    "documents; --no_look tests nothing"
)


def name_of_look(study: Study, number: int) -> str:
    """The look with this number, from 0, as it is called in messages."""
    return f"look {number + 1} of {len(study.looks)}"


def percent_of(level: float) -> str:
    """A probability of error in percent."""
    return f"{100 * level:.3g}%"


def when_next(study: Study, number: int) -> str:
    """When the study looks next."""
    if number in study.results and study.results[number].is_certified:
        return ""
    if number + 1 < len(study.looks):
        return f"; next at {study.looks[number + 1].documents:,} documents"
    return f"; it was the last look: {NEW_STUDY}"


def summary_of_test(certificate: Certificate | None) -> str:
    """The result of a look in a few words."""
    if certificate is None:
        return "not certified, too few documents to fit without a part of them"
    if certificate.threshold is not None:
        return f"certified from a score of {certificate.threshold:.3f}"
    if not certificate.answers:
        return (
            f"not certified, the tier is too small: its documents are worth "
            f"{int(certificate.documents):,} in the tier, of at least "
            f"{certificate.documents_needed:,}"
        )
    return f"not certified, {certificate.errors:,} errors of {certificate.answers:,}"
