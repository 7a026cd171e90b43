#!/usr/bin/env python
"""Figures of ranked rows beside those that the model was delivered with, and a test for drift.

    umls-reranker monitor MODEL predictions.jsonl

Reads the output of umls-reranker rerank. MODEL is a folder or Hub repo with reference.json, or a recipe that names one
(umls-reranker recipes copy production). Rows of documents that MODEL was calibrated on are left out and counted: their
scores are fitted. The exit code is 1 if scores or inputs have moved: if nothing has, with probability --alpha at most.
"""

import json
from functools import lru_cache
from pathlib import Path

from umls_reranker.pipeline.command import CommandParser, run_script


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the model, or a recipe that names it")
    parser.add_argument("predictions", type=Path, help="JSON Lines file that umls-reranker rerank wrote")
    parser.add_argument("--alpha", type=float, default=0.05, help="probability of a false alarm (default: 0.05)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    from umls_reranker.calibration.certificate import CertificateHistory
    from umls_reranker.calibration.inputs import ALL_INPUTS
    from umls_reranker.core.files import read_json
    from umls_reranker.hub.download import download
    from umls_reranker.hub.model_folder import CALIBRATOR, MANIFEST, REFERENCE, verify_files
    from umls_reranker.pipeline.recipe import load_served
    from umls_reranker.serving.statistics import (
        FEWEST_DOCUMENTS,
        SMALLEST_PSI,
        Histogram,
        Statistics,
        Tops,
        read_ranked,
        read_reference,
    )

    serving = load_served(options.model).serving
    model = download(serving.served_model, serving.served_revision, files=(MANIFEST, REFERENCE, CALIBRATOR))
    verify_files(model, [REFERENCE, CALIBRATOR])
    figures, reference = read_reference(model / REFERENCE)
    history = CertificateHistory.from_list(read_json(model / CALIBRATOR).get("certificates"))
    is_new = lru_cache(lambda document: history.is_new([document])[0])
    documents = []

    def new_rows():
        for number, row in enumerate(read_ranked(options.predictions)):
            # A row without a document is one of its own.
            documents.append(str(row.get("doc_id", f"row {number}")))
            if is_new(documents[-1]):
                yield row

    statistics, tops = Statistics(), Tops.of_rows(new_rows())
    statistics.add(tops)
    new = list(filter(is_new, documents))
    state = statistics.to_dict() | {"fitted_mentions": len(documents) - len(new), "drift": None, "alarm": False}
    if len(set(new)) >= FEWEST_DOCUMENTS:
        drift = reference.drift_to(Histogram.of(tops.scores, tops.model_names != ALL_INPUTS, new))
        state["drift"] = drift._asdict()
        state["alarm"] = drift.p_value <= options.alpha and drift.psi >= SMALLEST_PSI
    print(json.dumps(state, indent=2) if options.json else table(state, figures))
    return 1 if state["alarm"] else 0


def table(state: dict, figures: dict) -> str:
    lines = [f"{state['mentions']:,} mentions, {state['without_candidates']:,} of them without candidates"]
    if state["fitted_mentions"]:
        lines.append(f"{state['fitted_mentions']:,} more left out: they are of documents that the model was fitted on")
    lines += [f"decided by {name}: {count:,}" for name, count in state["models"].items()]
    lines += ["", f"{'metric':<24}{'here':>8}{'expected':>10}{'95 % interval':>20}"]
    for name, expected in figures.items():
        # A metric that no mention has, such as a top score, is missing.
        values = (state[name], *(expected[key] for key in ("value", "low", "high")))
        here, value, low, high = ("-" if figure is None else f"{figure:.3f}" for figure in values)
        lines.append(f"{name:<24}{here:>8}{value:>10}{low:>12} .. {high}")
    drift = state["drift"]
    if drift is None:
        return "\n".join([*lines, "", "too few documents to test for drift"])
    moved = f"{drift['share']:.1%} have {drift['cell']}, expected {drift['reference_share']:.1%}"
    lines += ["", f"drift: stability index {drift['psi']:.3f}, p = {drift['p_value']:.2g}; {moved}"]
    if state["alarm"]:
        lines.append("ALARM: scores or inputs have moved; check candidates, texts and inputs, or calibrate again")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
