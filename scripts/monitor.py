#!/usr/bin/env python
"""Monitor logged predictions: metrics compared with the model's test split, and drift.

    umls-reranker monitor MODEL predictions.jsonl
    umls-reranker monitor MODEL predictions.jsonl --lines windows.jsonl

Reads the output of umls-reranker rerank line by line. MODEL is a folder or Hub repo with reference.json and
thresholds.json, or a recipe that names one (umls-reranker recipes copy production). Mentions from documents that
MODEL was calibrated on are left out and counted: their scores are fitted, so they always differ from those of the test
split. The exit code is 1 if there is an alarm.
"""

import json
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json, require_another
from umls_reranker.core.script import CommandParser, run_script

FIGURES = ("high_confidence_share", "accepted_share", "mean_top_score", "mean_margin")


def make_parser() -> CommandParser:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the model, or a recipe that names it")
    parser.add_argument("predictions", type=Path, help="JSON Lines file that umls-reranker rerank wrote")
    parser.add_argument("--window", type=int, help="mentions per test window (default: the recipe's, or 2000)")
    parser.add_argument(
        "--alpha",
        type=float,
        help="approximate probability of any false alarm of this call (default: the recipe's, or 0.05)",
    )
    parser.add_argument("--lines", type=Path, help="write every window and alarm to this file as JSON Lines")
    parser.add_argument("--json", action="store_true", help="print all metrics as JSON, also per semantic type")
    return parser


def main() -> int:
    options = make_parser().parse_args()
    from umls_reranker.calibration.certificate import CertificateHistory
    from umls_reranker.calibration.inputs import ALL_INPUTS
    from umls_reranker.data.semantic_types import TypeHierarchy
    from umls_reranker.hub.model_folder import CALIBRATOR, REFERENCE, THRESHOLDS, verify_files, version_digits
    from umls_reranker.serving.monitoring.monitor import Monitor
    from umls_reranker.serving.monitoring.reference import Reference
    from umls_reranker.serving.prediction_log import read_predictions

    if options.lines:
        require_another(options.lines, [options.predictions])
    model, window, alpha = watched(options)
    if not 0 < alpha < 1:
        raise UserError(f"--alpha {alpha} must be between 0 and 1")
    info = verify_files(model, [REFERENCE, THRESHOLDS, CALIBRATOR])
    reference = Reference.load(model / REFERENCE)
    hierarchy = TypeHierarchy.from_dict(read_json(model / THRESHOLDS)["hierarchy"])
    history = CertificateHistory.from_list(read_json(model / CALIBRATOR).get("certificates"))
    is_new = lru_cache(lambda document: history.is_new([document])[0])
    # Before the previous lines are overwritten.
    mentions = read_predictions(options.predictions)
    with options.lines.open("w", encoding="utf-8") if options.lines else nullcontext() as log:
        try:
            monitor = Monitor(reference, window=window, alpha=alpha, log=log, model=version_digits(info))
        except ValueError as error:
            raise UserError(f"--window {window}: {error}") from None
        fitted = 0
        for mention in mentions:
            if not is_new(str(mention.row.get("doc_id"))):
                fitted += 1
                continue
            types = [kind for kind in map(hierarchy.resolve, mention.types) if kind]
            ranked = mention.row["ranked"]
            inputs = ranked[0].get("inputs", ALL_INPUTS) if ranked else ALL_INPUTS
            monitor.record(types, len(ranked), mention.top, inputs)
        monitor.finish()
        state = monitor.to_dict() | {"fitted_mentions": fitted}
        # Before the file is closed, which fails if the disk is full: the metrics do not depend on it.
        print(json.dumps(state, indent=2) if options.json else table(state, reference))
    return 1 if state["alarm_count"] else 0


def watched(options) -> tuple[Path, int, float]:
    """Folder of the model, window and alpha: from the command line, else from the recipe if one is given."""
    from umls_reranker.core.recipe import load_recipe
    from umls_reranker.hub.download import download
    from umls_reranker.hub.model_folder import MANIFEST, REFERENCE, THRESHOLDS

    recipe = load_recipe(options.model, or_model="served_model")
    if not recipe.serving.served_model:
        raise UserError(f"{options.model} names no served_model; set it, or give a model instead of the recipe")
    model, files = recipe.serving.served_model, (MANIFEST, REFERENCE, THRESHOLDS)
    folder = download(model, recipe.serving.served_revision, files=files)
    settings = recipe.monitoring
    window = settings.monitor_window if options.window is None else options.window
    return folder, window, settings.monitor_alpha if options.alpha is None else options.alpha


def table(state: dict, reference) -> str:
    from umls_reranker.calibration.inputs import ALL_INPUTS

    lines = []
    if fitted := state["fitted_mentions"]:
        reason = "from documents that the model was calibrated on, so their scores say nothing about drift"
        if not state["mentions"]:
            return f"all {fitted:,} mentions are {reason}; monitor predictions of other documents"
        lines.append(f"{fitted:,} mentions were left out: they are {reason}")
    lines += [f"{state['mentions']:,} mentions, {state['without_candidates']:,} of them without candidates", ""]
    lines.append(f"{'metric':<24}{'here':>8}{'test':>8}{'95 % interval of test':>24}")
    for name in FIGURES:
        # A metric that no mention of the test split has, such as a top score, is missing.
        values = (state[name], *(reference.figures[name][key] for key in ("value", "low", "high")))
        here, value, low, high = ("-" if figure is None else f"{figure:.3f}" for figure in values)
        lines.append(f"{name:<24}{here:>8}{value:>8}{low:>16} .. {high}")
    for kind, drift in state["drift"].items():
        lines.append(f"{'drift of ' + kind:<24} stability index {drift['psi']:.3f}, p = {drift['p_value']:.2g}")
    if set(state["inputs"]) - {ALL_INPUTS}:
        # Otherwise a metric that is low because of missing inputs looks like a worse model.
        lines += ["", "mentions by the model that decided them (the test split has all inputs):"]
        lines += [f"  {name:<30}{count:>8,}" for name, count in state["inputs"].items()]
    labelled = state["labelled"]
    if labelled["labels"]:
        lines += ["", f"{labelled['labels']:,} labels: debiased ECE {interval(labelled['debiased_ece'])}"]
    for tier, figures in labelled["tiers"].items():
        if figures["labels"]:
            lines.append(f"  {tier:<8}{figures['labels']:>6} labels, precision {interval(figures['precision'])}")
    if not state["windows"]:
        lines.append("too few mentions to test for drift")
    return "\n".join([*lines, "", *(f"ALARM: {alarm['sentence']}" for alarm in state["alarms"])]).rstrip()


def interval(figure: dict) -> str:
    return f"{figure['value']:.3f} ({figure['low']:.3f} .. {figure['high']:.3f})"


if __name__ == "__main__":
    run_script(main)
