"""What a calibration on labelled lists prints at its end."""

from collections.abc import Iterator, Mapping
from typing import Any

from ..evaluation.formatting import percent
from ..evaluation.tables import systems_text
from ..models.arguments import BUILT_IN
from .calibrated import Calibrated

# The cross-encoder is worth its time if it lowers the mean log loss of held-out lists by more than
# these nats, which is what one calibrator is better than another, even at the lower end of the 95 %
# interval.
FEWEST_NATS = 0.002
STANDARD_ERRORS = 1.96


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
        _line_on_acceptance(new),
        *new.metrics["notes"],
        *_lines_on_cross_encoder(new.fitted),
        "",
        *_lines_on_high_tier(new),
        "",
    ]
    if fusion:
        weights = ", ".join(f"{name} {weight:.3g}" for name, weight in fusion.weights.items())
        lines.append(f"weights: {weights}")
    for name, (low, high) in new.calibration.source.score_ranges.items():
        lines.append(f"{name}_score: from {low:.4g} to {high:.4g}")
        if not fusion or name not in fusion.weighted_features:
            lines[-1] += "; its weight is 0: higher must be better: negate distances"
    known_documents = facts["known_documents"]
    if known_documents:
        how = "they are left out here, its counts of them stay"
        if facts["calibrated_again"]:
            how = "they are fitted on again without its counts of them"
        lines.append(
            f"{known_documents:,} documents were used to calibrate {facts['source']}: {how}"
        )
    if facts["source"] is None and not new.calibration.uses_cross_encoder:
        lines.append(
            f"for UMLS CUIs, umls-reranker calibrate {BUILT_IN} --lists adds counts from "
            "MedMentions"
        )
    if facts["repeated_candidates"]:
        lines.append(f"{facts['repeated_candidates']:,} candidates repeat a concept of their list")
    return "\n".join(lines)


def _line_on_acceptance(new: Calibrated) -> str:
    """The delivered threshold of acceptance, by which the figures above are."""
    accepts = sorted({f"{row.accept:.3f}" for row in new.calibration.thresholds.rows.values()})
    ends = " to ".join(dict.fromkeys((accepts[0], accepts[-1])))
    how = "the highest F1; --accept_precision 0.9 chooses a precision"
    if new.settings.accept_precision:
        how = f"precision {new.settings.accept_precision}"
    return f"accepted from a score of {ends} on, as the model is delivered ({how})"


def _lines_on_high_tier(new: Calibrated) -> Iterator[str]:
    """The certificates; that of all inputs with its result on held-out documents."""
    table = new.calibration.thresholds
    yield f"Tiers and decisions are for {new.calibration.source.in_words}"
    yield (
        f"High tier (precision of at least {table.target_precision:.0%} "
        f"with {table.confidence:.0%} confidence), threshold on all documents:"
    )
    for model in new.calibration.models:
        yield f"  {model.name}: {model.thresholds.certificate or 'nothing was tested'}"
    coverage = new.metrics["figures"]["high_confidence_coverage"]
    precision = new.metrics["figures"]["high_confidence_precision"]
    if table.is_certified and coverage["value"]:
        yield (f"  cross-fitted: {percent(coverage)} of the mentions, {percent(precision)} correct")


def _lines_on_cross_encoder(fitted: Mapping[str, Any]) -> Iterator[str]:
    """What the cross-encoder gains, and what pruning costs; nothing if it is not weighed."""
    gain = fitted.get("cross_encoder")
    if gain is None:
        return
    if gain["nats_gained"] is not None:
        reach = STANDARD_ERRORS * gain["standard_error"]
        line = (
            f"the cross-encoder saves {gain['nats_gained']:.4f} nats of log loss on held-out "
            f"lists, +/- {reach:.4f}"
        )
        if gain["nats_gained"] - reach <= FEWEST_NATS:
            line += "; that may be nothing: without MODEL, or of built-in-fast, there is none"
        yield line
    pruning = fitted.get("pruning")
    if pruning:
        yield (
            f"it scores {pruning['scored']:.1%} of the candidates; pruning the others changes "
            f"{pruning['changed_top']:.2%} of the top candidates"
        )
