"""A small model calibrated on a user's labelled lists, by the command that users run."""

import json
import runpy
import sys

import numpy as np
import pytest
from list_fixtures import assert_alike, write_lists

from umls_reranker.pipeline.shipped import shipped

WORDS = ("cold", "fever", "cough", "pain", "heart", "liver", "acute", "renal")


def list_rows(mentions=60, documents=20, seed=0, prefix="d"):
    """Rows of labelled lists: five candidates, best first, whose score mostly tells the gold
    concept.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(mentions):
        gold = int(rng.integers(5))
        scores = rng.normal(0.5, 0.1, 5)
        scores[gold] += rng.uniform(0, 0.4)
        candidates = [
            {
                "name": " ".join(rng.choice(WORDS, 2)),
                "cui": f"C{number * 10 + int(position):07d}",
                "sapbert_score": float(scores[position]),
            }
            for position in np.argsort(-scores)
        ]
        row = {
            "doc_id": f"{prefix}{number % documents}",
            "mention_id": str(number),
            "cui": f"C{number * 10 + gold:07d}",
        }
        rows.append(row | {"entity": str(rng.choice(WORDS)), "candidates": candidates})
    return rows


def unordered_rows(mentions=240, documents=80, seed=0, prefix="d"):
    """Rows whose order tells nothing; the candidate with the highest score of the retriever is
    mostly right.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(mentions):
        scores = rng.normal(0, 1, 6) + 20
        best = int(np.argmax(scores))
        right = best if rng.random() < 0.9 else int(rng.integers(6))
        candidates = [
            {
                "name": " ".join(rng.choice(WORDS, 2)),
                "cui": f"C{number * 10 + place:07d}",
                "bm25_score": float(score + 4 * (place == best)),
                "rank": place,
            }
            for place, score in enumerate(scores)
        ]
        gold = candidates[right]["cui"] if rng.random() < 0.95 else "C9999999"
        row = {
            "doc_id": f"{prefix}{number % documents}",
            "entity": str(rng.choice(WORDS)),
            "cui": gold,
        }
        rows.append(row | {"candidates": candidates})
    return rows


def run_script(name, *words):
    """Run a script in this process; returns its exit code."""
    script = shipped("scripts") / f"{name}.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        patch.setenv("UMLS_RERANKER_PROGRESS", "0")
        return runpy.run_path(str(script))["main"]()


def list_model(folder):
    """Write ``my_lists.jsonl`` and ``my_model``, a model without a cross-encoder calibrated on it,
    into a folder.
    """
    lists = write_lists(folder / "my_lists.jsonl", list_rows())
    run_script("calibrate", "--lists", lists, "--output", folder / "my_model")


def read_lists(folder):
    """The rows of ``my_lists.jsonl``."""
    return [
        json.loads(line)
        for line in (folder / "my_lists.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def assert_decided_by_all(ranked, reranker, rows):
    """That rankings of rows are those of the model of all inputs, as calls of Python give them."""
    assert_alike(
        ranked,
        reranker.rerank_batch([row["entity"] for row in rows], [row["candidates"] for row in rows]),
    )
    assert {item["model_name"] for items in ranked for item in items} == {"all"}
