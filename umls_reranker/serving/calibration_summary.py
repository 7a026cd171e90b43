"""The results of a calibration on lists, in words."""

from __future__ import annotations

from typing import Any

from ..calibration.certificate import note_on_certificate
from ..evaluation.render import percent, systems_text
from ..hub.download import BUILT_IN
from .calibrate import Calibrated


def calibration_summary(new: Calibrated) -> str:
    """The results as lines of text: comparison and verdict, the tier high, and the weights."""
    facts = new.metrics["lists"]
    fusion = new.calibration.models[0].fusion
    lines = [
        "",
        "Cross-fitted by document in five folds, with 95 % intervals:",
        systems_text(new.metrics["figures"]),
        "",
        new.metrics["verdict"],
        _about_acceptance(new),
        *new.metrics["notes"],
        *_about_cross_encoder(new.fitted),
        "",
        *_about_high(new),
        "",
    ]
    if fusion:
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items())
        lines.append(f"weights: {weights}")
    for name, (low, high) in new.calibration.score_ranges.items():
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}")
        if not fusion or name not in fusion.read:
            lines[-1] += "; its weight is 0: higher must be better: negate distances"
    if known := facts["known_documents"]:
        how = "they are left out here, its counts of them stay"
        if facts["calibrated_again"]:
            how = "they are fitted on again without its counts of them, and do not certify again"
        lines.append(f"{known:,} documents were used to calibrate {facts['source']}: {how}")
    if facts["source"] is None and not new.calibration.uses_cross_encoder:
        command = f"umls-reranker calibrate {BUILT_IN} --lists"
        lines.append(f"for UMLS CUIs, {command} adds counts from MedMentions")
    if repeated := facts["repeated_candidates"]:
        lines.append(f"{repeated:,} candidates repeat a concept of their list")
    return "\n".join(lines)


def _about_acceptance(new: Calibrated) -> str:
    """The delivered threshold of acceptance, by which the figures above are."""
    accepts = sorted({f"{row.accept:.3f}" for row in new.calibration.thresholds.rows.values()})
    ends = " to ".join(dict.fromkeys((accepts[0], accepts[-1])))
    how = "the highest F1; --accept_precision 0.9 chooses a precision"
    if new.settings.accept_precision:
        how = f"precision {new.settings.accept_precision}"
    return f"accepted from a score of {ends} on, as the model is delivered ({how})"


def _about_high(new: Calibrated) -> list[str]:
    """The certificates; that of all inputs with its result on held-out documents."""
    table = new.calibration.thresholds
    lines = [
        f"High tier (precision of at least {table.target_precision:.0%} "
        f"with {table.confidence:.0%} confidence), threshold on all documents:"
    ]
    for model in new.calibration.models:
        lines.append(f"  {model.name}: {model.thresholds.certificate}")
    coverage = new.metrics["figures"]["high_confidence_coverage"]
    precision = new.metrics["figures"]["high_confidence_precision"]
    if table.is_certified and coverage["value"]:
        correct = f"{percent(precision)} correct"
        lines.append(f"  cross-fitted: {percent(coverage)} of the mentions, {correct}")
    if note := note_on_certificate(new.fitted["certified_by"], is_certified=table.is_certified):
        lines.append(note)
    return lines


def _about_cross_encoder(fitted: dict[str, Any]) -> list[str]:
    """Whether the cross-encoder stays, and what pruning costs; nothing if there was no choice."""
    choice = fitted.get("cross_encoder")
    if choice is None:
        return []
    gain = "too few documents to tell"
    if choice["nats_gained"] is not None:
        error = choice["standard_error"]
        gain = f"{choice['nats_gained']:+.3f} nats per list, standard error {error:.3f}"
    lines = [f"the cross-encoder is kept ({gain})"]
    if not choice["kept"]:
        lines = [
            f"the cross-encoder is left out: no significant improvement ({gain}); "
            "--keep_cross_encoder keeps it"
        ]
    if pruning := fitted.get("pruning"):
        lines.append(
            f"it scores {pruning['scored']:.1%} of the candidates; pruning the others changes "
            f"{pruning['changed_top']:.2%} of the top candidates"
        )
    return lines
