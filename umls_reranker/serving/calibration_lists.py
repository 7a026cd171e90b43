"""What a model is calibrated on: the labelled lists, their scores, and what it knew before."""

from dataclasses import dataclass, replace

import numpy as np

from ..calibration.cross_encoder_logits import CrossEncoderLogits
from ..calibration.string_counts import StringCounts
from ..calibration.study import StudyHistory
from ..lists.annotated_lists import AnnotatedLists
from ..lists.labels import are_repeated, best_of_each_concept, have_own_documents
from .look_plan import LookPlan
from .model_source import ModelSource


@dataclass(frozen=True)
class CalibrationLists:
    """What a model is calibrated on.

    Attributes:
        whole_lists: the lists with all candidates.
        lists: the same with the top candidate of each concept.
        cross_encoder: logits of their candidates.
        counts: counts of training mentions.
        history: documents that do not certify, and the studies of the versions that the model is
            derived from.
        known_documents: number of documents that it was calibrated on before.
        is_again: whether it is calibrated again on these, which else are left out.
        share: the share of the error probability that the certificate may use.
    """

    whole_lists: AnnotatedLists
    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    counts: StringCounts
    history: StudyHistory
    known_documents: int
    is_again: bool
    share: float


def calibration_lists(
    source: ModelSource,
    lists: AnnotatedLists,
    each_row_is_a_document: bool,
    plan: LookPlan | None,
) -> CalibrationLists:
    """Prepare labelled lists: choose the documents, complete the scores, score the candidates.

    Documents that the source was calibrated on are left out, or, where it is calibrated again, its
    counts of them are.

    Args:
        source: what is calibrated.
        lists: the labelled lists.
        each_row_is_a_document: whether documents of one mention each may certify.
        plan: the look that these lists are of; None: one look at all documents.
    """
    is_known = source.is_known(lists)
    known_documents = len({*lists.annotations.documents[is_known]})
    is_continued = plan is not None and plan.is_continued
    is_again = bool(is_known.any()) and (is_continued or is_calibrated_again(lists, is_known))
    history = source.history
    if not history.documents and is_again:
        # What a run or the package was calibrated on does not certify.
        history = history.after(lists.annotations.doc_ids[is_known])
    elif plan is not None:
        # The plan knows which of its documents were used.
        history = replace(history, documents=frozenset())
    if not is_again:
        lists = lists.take(~is_known)
    counts = source.first_counts() if is_again else source.counts
    may_certify = each_row_is_a_document or not have_own_documents(lists)
    share = 1.0 if may_certify else 0.0
    if plan is not None:
        share = plan.share
        history = replace(history, documents=history.documents | plan.trains_only)
    lists = lists.with_whole_scores(lists.partial_scores)
    cross_encoder = CrossEncoderLogits(source.cross_encoder, lists)
    # Without logits, the first candidate of each concept is its top one.
    top = best_of_each_concept(lists, cross_encoder(retained=are_repeated(lists.concepts)))
    return CalibrationLists(
        whole_lists=lists,
        lists=lists.with_candidates(top),
        cross_encoder=cross_encoder.with_candidates(top),
        counts=counts,
        history=history,
        known_documents=known_documents,
        is_again=is_again,
        share=share,
    )


def is_calibrated_again(lists: AnnotatedLists, is_known: np.ndarray) -> bool:
    """Whether the model knows at least half of the documents, so that it is calibrated again.

    Args:
        lists: n labelled mentions.
        is_known: (n,) bool, whether it was calibrated on the mention's document.
    """
    documents = lists.annotations.documents
    return 2 * len({*documents[is_known]}) >= len({*documents})
