"""Lists of bare CUIs with a dictionary, and types of mentions where candidates have none."""

import runpy
import sys

import numpy as np
import pytest
from data_fixtures import VOCABULARY, write_rrf
from list_fixtures import write_lists

from umls_reranker import Dictionary, UMLSReranker
from umls_reranker.calibration.fitting import NetworkLogits, fit_calibration
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.core.files import shipped
from umls_reranker.core.settings import CalibrationArguments
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.vocab.types import TypeHierarchy

DISEASE, PHENOMENON = "C9000004", "C9000035"


def bare_lists(mentions=90, documents=30):
    """Mentions are synonyms of their gold concept, or of another one in a tenth; scores say little."""
    rng = np.random.default_rng(0)
    cuis, rows = sorted(VOCABULARY), []
    for number in range(mentions):
        listed = [str(cui) for cui in rng.choice(cuis, 4, replace=False)]
        named = listed[0] if rng.random() < 0.9 else listed[1]
        mention = VOCABULARY[named][1][1]
        candidates = [{"cui": cui, "my_score": rng.normal()} for cui in rng.permutation(listed).tolist()]
        row = {"doc_id": f"d{number % documents}", "entity": mention, "cui": listed[0], "candidates": candidates}
        rows.append(row)
    return rows


def test_bare_cuis_are_calibrated_and_served_with_a_dictionary(tmp_path, monkeypatch, capsys):
    rows, release = bare_lists(), write_rrf(tmp_path / "META")
    lists, script = write_lists(tmp_path / "own.jsonl", rows), shipped("scripts") / "calibrate.py"
    words = ["--lists", lists, "--umls_dir", release, "--output", tmp_path / "new", "--calibrator", "platt"]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    monkeypatch.setenv("UMLS_RERANKER_PROGRESS", "0")
    runpy.run_path(str(script))["main"]()
    said = capsys.readouterr().out
    assert "of 360 candidates, the dictionary has names of 360 and semantic types of 360" in said
    assert "gain: " in said and "synonym_score: from 0 to 1" in said
    reranker = UMLSReranker.from_pretrained(tmp_path / "new")
    known = [{"cui": DISEASE, "my_score": 0.0}, {"cui": PHENOMENON, "my_score": 0.0}]
    (row,) = Dictionary.from_umls_dir(release).add_to([{"entity": "head cold", "candidates": known}])
    best = reranker.rerank(row["entity"], row["candidates"])[0]
    assert (best.cui, best.name) == (DISEASE, "common cold") and best.score > 0.5
    assert "rerank --umls_dir`, and" in (tmp_path / "new" / "README.md").read_text()
    for item in row["candidates"]:
        del item["synonym_score"]
    with pytest.warns(UserWarning, match="; using .* synonym_score: added by rerank --umls_dir"):
        reranker.rerank(row["entity"], row["candidates"])


def test_types_of_mentions_decide_between_candidates_without_types(tmp_path):
    # Names are equal and scores say nothing; nine times of ten the mention's type tells the concept.
    rng, rows = np.random.default_rng(0), []
    for number in range(200):
        is_disease = number % 2 == 0
        cui = DISEASE if is_disease == (rng.random() < 0.9) else PHENOMENON
        candidates = [{"name": "cold", "cui": cui, "my_score": rng.random()} for cui in (DISEASE, PHENOMENON)]
        row = {"doc_id": f"d{number % 40}", "entity": "cold", "entity_type": "T047" if is_disease else "T070"}
        rows.append(row | {"cui": cui, "candidates": candidates})
    lists = read_labelled_lists(write_lists(tmp_path / "own.jsonl", rows), TypeHierarchy.built_in()).lists
    settings = CalibrationArguments(features=["my", "type_lift"], calibrator="platt")
    fitted = fit_calibration(lists, NetworkLogits(None, lists), StringCounts.fit([]), settings, 13)
    assert lists.is_gold(fitted.decisions.top).mean() > 0.85
    assert 0.45 < (lists.annotations.gold == 0).mean() < 0.55
