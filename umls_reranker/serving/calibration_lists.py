"""What a model is calibrated on: the labelled lists, their scores, and what it knew before."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..calibration.calibrated_documents import CalibratedDocuments
from ..calibration.cross_encoder_logits import CrossEncoderLogits
from ..calibration.string_counts import StringCounts
from ..lists.annotated_lists import AnnotatedLists
from ..lists.labels import are_repeated, best_of_each_concept
from .model_source import ModelSource


class ChosenDocuments(NamedTuple):
    """The documents that are fitted on.

    Attributes:
        lists: their lists, with all candidates.
        documents: those that earlier versions were fitted on, which do not certify.
        known_documents: number of given documents that the model was fitted on before.
        is_again: whether it is calibrated again on these, which else are left out.
    """

    lists: AnnotatedLists
    documents: CalibratedDocuments
    known_documents: int
    is_again: bool


@dataclass(frozen=True)
class CalibrationLists:
    """What a model is calibrated on.

    Attributes:
        chosen: the documents.
        whole_lists: their lists with all candidates and complete scores.
        lists: the same with the top candidate of each concept.
        cross_encoder: logits of their candidates.
        counts: counts of training mentions.
    """

    chosen: ChosenDocuments
    whole_lists: AnnotatedLists
    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    counts: StringCounts


def calibration_lists(source: ModelSource, lists: AnnotatedLists) -> CalibrationLists:
    """Prepare labelled lists: choose the documents, complete the scores, score the candidates.

    Documents that the source was calibrated on are left out, or, where it is calibrated again, its
    counts of them are.

    Args:
        source: what is calibrated.
        lists: the labelled lists.
    """
    chosen = chosen_documents(source, lists)
    counts = source.first_counts() if chosen.is_again else source.counts
    lists = chosen.lists
    lists = lists.with_whole_scores(lists.partial_scores)
    cross_encoder = CrossEncoderLogits(source.cross_encoder, lists)
    # Without logits, the first candidate of each concept is its top one.
    top = best_of_each_concept(lists, cross_encoder(retained=are_repeated(lists.concepts)))
    return CalibrationLists(
        chosen=chosen,
        whole_lists=lists,
        lists=lists.with_candidates(top),
        cross_encoder=cross_encoder.with_candidates(top),
        counts=counts,
    )


def chosen_documents(source: ModelSource, lists: AnnotatedLists) -> ChosenDocuments:
    """The lists of the documents that are fitted on; arguments as for `calibration_lists`."""
    is_known = ~source.documents.are_of_new_documents(lists.annotations)
    is_again = source.reranker is not None and _is_calibrated_again(source, lists, is_known)
    documents = source.documents.all_earlier()
    if is_again and not source.looked_once:
        documents = source.documents.without_latest()
    known_documents = len({*lists.annotations.documents[is_known]})
    if not is_again:
        lists = lists.take(~is_known)
    return ChosenDocuments(lists, documents, known_documents, is_again)


def _is_calibrated_again(source: ModelSource, lists: AnnotatedLists, is_known: np.ndarray) -> bool:
    """Whether a reranker gets its own documents again, or mostly known ones.

    Who adds labels gives all so far: at least half of those that the model has, or few others.

    Args:
        source: the reranker.
        lists: n labelled mentions.
        is_known: (n,) bool, whether it was fitted on the mention's document.
    """
    documents = lists.annotations.documents
    given = len({*documents})
    known = len({*documents[is_known]})
    return bool(known) and 2 * known >= min(given, len(source.documents.latest) or given)
