#!/usr/bin/env python
"""Time the estimates, the calibrators and the certificate at the size of a large evaluation.

    python benchmarks/calibration.py --pairs 2400000 --documents 4392 --resamples 1000

Pairs are made up: lists of 32 candidates with a gold one or none, errors resembling each other within a document.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable

import numpy as np

from umls_reranker.calibration.certificate import find_certificate
from umls_reranker.calibration.logistic import conditional_log_odds, sigmoid
from umls_reranker.calibration.reliability import brier_decomposition, calibration_report, debiased_ece, ece
from umls_reranker.calibration.score_maps import Sample
from umls_reranker.core.sockets import CALIBRATORS
from umls_reranker.data.semantic_types import TypeHierarchy

CANDIDATES = 32
COMMON_TYPES = 21  # semantic types of MedMentions ST21pv


def made_up(pairs: int, documents: int, seed: int = 13) -> tuple[np.ndarray, ...]:
    """Utilities (lists, 32), labels (lists, 32), and the document and semantic type of each list."""
    rng = np.random.default_rng(seed)
    lists = pairs // CANDIDATES
    utility = rng.normal(-6, 2, (lists, CANDIDATES))
    utility[:, 0] += rng.normal(7, 2, lists)
    document = np.sort(rng.integers(0, documents, lists))
    noise = rng.gumbel(size=(lists, CANDIDATES + 1))
    # A document's own luck with its first candidates.
    noise[:, 1] += rng.normal(0, 0.5, documents)[document]
    choice = np.argmax(np.column_stack([np.zeros(lists), utility]) + noise, axis=1) - 1
    labels = (np.arange(CANDIDATES) == choice[:, None]).astype(np.int64)
    return utility, labels, document, rng.integers(0, COMMON_TYPES, lists)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_400_000)
    parser.add_argument("--documents", type=int, default=4_392, help="of the full MedMentions corpus by default")
    parser.add_argument("--resamples", type=int, default=1_000)
    options = parser.parse_args()
    utility, labels, document, kind = made_up(options.pairs, options.documents)
    lists = len(utility)
    offsets = np.arange(lists + 1) * CANDIDATES
    scores, y = utility.ravel(), labels.ravel()
    p = sigmoid(conditional_log_odds(scores, offsets, np.arange(len(scores))))
    of_pair = np.repeat(document, CANDIDATES)
    best = p.reshape(utility.shape).argmax(axis=1)
    top_p, top_y = (np.take_along_axis(a.reshape(utility.shape), best[:, None], 1)[:, 0] for a in (p, y))
    hierarchy = TypeHierarchy.built_in()
    common = list(hierarchy)[-COMMON_TYPES:]
    types = [[common[number]] for number in np.repeat(kind, CANDIDATES).tolist()]

    print(
        f"{len(p):,} pairs, {lists:,} lists, {options.documents:,} documents, {options.resamples:,} resamples; "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, numpy {np.__version__}\n"
    )
    print("| what | seconds |\n|---|---|")
    resampled = {"resamples": options.resamples}
    timed("all estimates with intervals and chance, pairs", lambda: calibration_report(p, y, of_pair, **resampled))
    timed("the same, top candidates", lambda: calibration_report(top_p, top_y, document, **resampled))
    for name, estimate in (
        ("ECE", ece),
        ("debiased ECE", debiased_ece),
        ("Brier parts", brier_decomposition),
    ):
        timed(f"{name} alone, pairs", lambda estimate=estimate: estimate(p, y))
    inside_lists = {"offsets": offsets, "types": types, "hierarchy": hierarchy}
    for method, kind in CALIBRATORS.items():
        if kind.fits_lists:
            timed(f"fit {method} inside lists", lambda kind=kind: kind().fit(Sample(scores, y, **inside_lists)))
    timed("certificate by document", lambda: find_certificate(top_p, top_y, document))


def timed(what: str, call: Callable[[], object]) -> None:
    start = time.perf_counter()
    call()
    print(f"| {what} | {time.perf_counter() - start:.2f} |", flush=True)


if __name__ == "__main__":
    main()
