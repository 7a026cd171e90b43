"""Candidate lists by hand."""

import numpy as np

from umls_reranker.data.candidate_lists import AnnotatedLists, Annotations, CandidateLists
from umls_reranker.data.semantic_types import TypeHierarchy


def make_lists(
    mentions, candidates, types=None, hierarchy=None, lefts=None, rights=None, gold=None, cuis=None, documents=None
):
    """Lists of objects; with `gold`, places of the right concepts, those of an annotated split."""
    lists = CandidateLists.from_objects(
        hierarchy or TypeHierarchy.built_in(), mentions, candidates, types, lefts, rights
    )
    if gold is None:
        return lists
    count = len(mentions)
    annotations = Annotations(
        np.array(["C1"] * count if cuis is None else cuis, object),
        np.array([str(row) for row in range(count)] if documents is None else documents, object),
        np.zeros(count, int),
        np.ones(count, int),
        np.asarray(gold),
        np.ones(count, bool),
    )
    return AnnotatedLists(**vars(lists), annotations=annotations)
