"""Candidate lists by hand."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.feather import write_feather

from umls_reranker.lists.annotated_lists import AnnotatedLists, Annotations
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.table import mention_table
from umls_reranker.vocab.type_sets import TypeSets, type_lists
from umls_reranker.vocab.types import TypeHierarchy


def with_types(lists, types):
    """The lists with these semantic types of their mentions."""
    known, unknown = TypeSets.of_lists(type_lists(types)).resolved(lists.hierarchy)
    return replace(lists, types=known, unknown_types=unknown)


def make_lists(
    mentions,
    candidates,
    types=None,
    hierarchy=None,
    lefts=None,
    rights=None,
    gold=None,
    cuis=None,
    documents=None,
):
    """Lists of objects; with `gold`, places of the right concepts, those of an annotated split."""
    columns = mention_table(mentions, candidates, types, lefts, rights)
    lists = CandidateLists.from_table(hierarchy or TypeHierarchy.built_in(), columns)
    if gold is None:
        return lists
    count = len(mentions)
    gold_ids = ["C1"] * count if cuis is None else cuis
    doc_ids = [str(row) for row in range(count)] if documents is None else documents
    annotations = Annotations(
        cuis=np.array(gold_ids, object),
        alternatives=np.fromiter(((cui,) for cui in gold_ids), object, count),
        composite=np.zeros(count, bool),
        documents=np.array(doc_ids, object),
        doc_ids=np.array(doc_ids, object),
        starts=np.zeros(count, int),
        ends=np.ones(count, int),
        gold=np.asarray(gold),
        in_dictionary=np.ones(count, bool),
        is_random_sample=np.ones(count, bool),
        mention_ids=np.full(count, None),
        splits=np.full(count, None),
        positions=np.full(count, None),
    )
    return AnnotatedLists(**vars(lists), annotations=annotations)


def flat_lists(labels, types, hierarchy, documents=None, size=1):
    """n lists of `size` candidates, those of label 1 (n * size,) gold."""
    labels = np.asarray(labels).reshape(-1, size)
    items = [[{"name": f"n{place}"} for place in range(size)]] * len(labels)
    gold = np.where(labels.any(axis=1), labels.argmax(axis=1), -1)
    return make_lists(["m"] * len(labels), items, types, hierarchy, gold=gold, documents=documents)


def given_candidates(lists):
    """The candidates of each list as a user gives them: one mapping per candidate, with all that is
    known of it.
    """
    columns = {
        "cui": lists.cuis.to_list(),
        "name": lists.names.to_list(),
        **{f"{name}_score": column.tolist() for name, column in lists.scores.items()},
        "preferred_name": lists.preferred_names.to_pylist(),
        "definition": lists.definitions.to_pylist(),
        "semantic_types": list(map(list, lists.candidate_types)),
    }
    items = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return [items[start:end] for start, end in pairwise(lists.offsets.tolist())]


# The largest differences that were seen in float32. Logits: 9.4e-6 between kernels (AMX, AVX2) and
# 3.8e-6 between sizes of batches. Scores: 1.4e-6.
ROUNDING = 1e-5
# Logits of other code, with random weights that are large: transformers 1.8e-5, ONNX 3.6e-5.
OTHER_CODE = 1e-4
# Cosines of unit vectors in float32: up to 2.4e-7.
COSINE_ROUNDING = 1e-6


def assert_alike(found, expected, tolerance=ROUNDING, where=""):
    """That what was computed is what is expected, but for rounding.

    Both are rankings (of `RankedCandidate` or their rows), arrays, tensors, or what JSON holds.
    Floats may differ by the tolerance; everything else is equal. `found` may have further keys.
    """
    if hasattr(found, "as_row"):
        found = found.as_row()
    if hasattr(expected, "as_row"):
        expected = expected.as_row()
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_alike(found[key], value, tolerance, f"{where} {key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_alike(found[number], value, tolerance, f"{where} {number}")
    elif hasattr(expected, "__array__"):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=where)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=tolerance, nan_ok=True), where
    else:
        assert found == expected, where


def write_lists(path, rows):
    """Mentions with candidates as a file of JSON Lines, Parquet or Arrow, by its ending."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        write_feather(pa.Table.from_pylist(rows), path, compression="uncompressed")
    return path


class ReadsEverything:
    """The encoder of a stand-in for a cross-encoder, which can read every pair."""

    def are_legible(self, mentions, names):
        return np.ones(len(names), bool)
