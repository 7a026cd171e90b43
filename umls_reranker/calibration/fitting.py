"""Calibration and thresholds from the candidate lists of the calibration split, for all sets of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, map_in_order
from ..core.errors import UserError
from ..core.progress import progress
from ..lists.columns import FOUND
from ..models.cross_encoder import PairScorer, score_lists
from .calibrators import CALIBRATORS, Calibrator, Sample
from .certificate import NO_CERTIFICATES, CertificateHistory
from .cross_fitting import CrossFits
from .decisions import Decisions, Scored
from .features import CROSS_ENCODER, FeatureTable, check_features, default_features, feature_table
from .fusion import reads_type
from .inputs import (
    ALL_INPUTS,
    ScoreRange,
    always_missing,
    inputs_of,
    is_missing,
    lists_with_any,
    missing_by_model,
    without_inputs,
)
from .logistic import log_sums
from .probabilities import CalibratedModel, Calibration
from .reliability import log_loss
from .resampling import document_folds
from .string_counts import StringCounts
from .thresholds import fit_thresholds

if TYPE_CHECKING:
    from ..lists.candidate_lists import AnnotatedLists, CandidateLists
    from .arguments import CalibrationArguments

# Minimum number of gold concepts in the lists with types to fit a model that reads types on them alone.
FEWEST_GOLD = 100


@dataclass(eq=False)
class CrossEncoderLogits:
    """Logits of all candidates of n lists, scored once for each different set of inputs that the cross-encoder sees.

    Attributes:
        cross_encoder: scores pairs; None without one.
        lists: n lists with m candidates.
        truncated: number of pairs scored here whose mention or name was truncated to the model's length.
    """

    cross_encoder: PairScorer | None
    lists: CandidateLists
    truncated: int = 0
    known: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs that the cross-encoder reads besides mention and name."""
        return () if self.cross_encoder is None else self.cross_encoder.template.reads

    def __call__(self, removed: Sequence[str] = ()) -> np.ndarray:
        """Logits of lists without some inputs, (m,) float32; NaN without a cross-encoder."""
        # Inputs that no list has make no difference to it.
        absent = always_missing(self.lists, self.reads)
        unseen = tuple(name for name in self.reads if name in removed and name not in absent)
        if unseen not in self.known:
            desc = "scoring candidates" + (f" without {' and '.join(unseen)}" if unseen else "")
            scores = score_lists(self.cross_encoder, without_inputs(self.lists, unseen), desc)
            self.truncated += scores.truncated
            self.known[unseen] = scores.logits
        return self.known[unseen]

    def with_candidates(self, retained: np.ndarray) -> CrossEncoderLogits:
        """The same for some of the candidates, as for `CandidateLists.with_candidates`."""
        known = {unseen: logits[retained] for unseen, logits in self.known.items()}
        return CrossEncoderLogits(
            self.cross_encoder, self.lists.with_candidates(retained), self.truncated, known
        )


class Fitted(NamedTuple):
    """A calibration, and its decisions about the lists that it was fitted on.

    Attributes:
        calibration: the calibration, fitted on all documents.
        decisions: each mention as it is served, with the delivered thresholds, but by scores of a fit without the fold
            of its document. Figures of these decisions are held out.
        facts: what it was fitted on, for ``calibrator.json``.
    """

    calibration: Calibration
    decisions: Decisions
    facts: dict[str, Any]


def fit_calibration(
    lists: AnnotatedLists,
    cross_encoder: CrossEncoderLogits,
    counts: StringCounts,
    settings: CalibrationArguments,
    seed: int,
    history: CertificateHistory = NO_CERTIFICATES,
    *,
    may_certify: bool = True,
    may_drop_cross_encoder: bool = False,
    has_fallbacks: bool = True,
) -> Fitted:
    """Fit the at most four models of a calibration on candidate lists, with the class balance of serving.

    Thresholds and certificates use probabilities of held-out documents: each fold is scored by a fusion and a
    calibrator of the same kind fitted on the other folds (`CrossFits`). The served model is fitted on all documents.
    Each further model is fitted in the same way, on the lists without the inputs that it does not read, with a
    calibrator of the same kind. Each has one certificate: the best of several would guarantee more than holds.
    Documents of earlier certificates do not certify again.

    Whether the cross-encoder stays is decided once, for all models, by the log loss of held-out lists.

    The served model counts calibration mentions as well as training mentions. For a fit, the mentions of a fold are
    not counted in its own features.

    Args:
        lists: the calibration split.
        cross_encoder: logits of its candidates.
        counts: counts of the training split; those of `lists` are added.
        settings: the recipe's section.
        seed: seed of the folds of documents.
        history: certificates of the versions that this one was derived from.
        may_certify: whether any document counts for a certificate.
        may_drop_cross_encoder: whether the cross-encoder is left out if it adds nothing.
        has_fallbacks: whether to fit more than the model of all inputs.

    Raises:
        UserError: there is too little data for the model of all inputs, or a feature is unknown or missing in the
            lists.
    """
    data = _Data.of(lists, cross_encoder, counts, _features(lists, settings), seed)
    documents = lists.annotations.documents
    for_certificate = lists.annotations.is_random_sample & history.is_new(documents) & may_certify
    now_certified = history.after(documents[for_certificate].tolist())
    attempt = len(now_certified.certificates)
    of_certificate = {
        "documents": len({*documents[for_certificate]}),
        "mentions": int(for_certificate.sum()),
    }
    facts = {"split": "calibration", "mentions": len(lists), "pairs": len(lists.owner)}
    facts |= {
        "positives": int(lists.labels.sum()),
        "certified_by": {"attempt": attempt} | of_certificate,
    }
    first = data.cross_fits(data.always_missing)
    if CROSS_ENCODER in data.names and len(data.names) > 1:
        gain = first.cross_encoder_gain()
        is_kept = gain.is_worth_it or not may_drop_cross_encoder
        nats = (gain.nats, gain.error) if np.isfinite(gain.nats) else (None, None)
        facts["cross_encoder"] = {
            "kept": is_kept,
            "nats_gained": nats[0],
            "standard_error": nats[1],
        }
        if is_kept:
            facts["pruning"] = first.pruning_cost()
        else:
            data, first = data.list_fusion_alone, first.list_fusion_alone
    sample, rows = first.sample(), first.inside(())[lists.owner]
    method, losses = choose_calibrator(
        settings.calibrator, sample, documents[lists.owner[rows]], seed
    )
    if losses:
        facts["cross_validated_losses"] = losses
    removals = (
        missing_by_model(data.names, data.cross_encoder.reads) if has_fallbacks else {ALL_INPUTS: ()}
    )
    models: list[tuple[CalibratedModel, Scored]] = []
    for name, removed in progress(removals.items(), desc="fitting models", unit=" models"):
        # A model that does not read these inputs also serves mentions without them.
        if any({*removed}.isdisjoint(model.reads(data.cross_encoder.reads)) for model, _ in models):
            continue
        try:
            fits = data.cross_fits((*data.always_missing, *removed)) if models else first
            model = replace(
                fits.served, name=name, missing=tuple(dict.fromkeys((*data.always_missing, *removed)))
            )
            models.append(
                _fit_model(
                    model,
                    fits,
                    method,
                    data.cross_encoder.reads,
                    for_certificate,
                    settings,
                    attempt,
                )
            )
        except UserError:
            # The remaining inputs carry no information, so mentions with only these are never in the high tier.
            if not models:
                raise
    scores = [name for name in data.names if name in lists.scores and not name.endswith(FOUND)]
    ranges = {name: ScoreRange.of(lists.scores[name]) for name in scores}
    served_models, key = [model for model, _ in models], lists.index_keys[0]
    calibration = Calibration(
        served_models, data.counts, ranges, key, now_certified, training_counts=counts
    )
    choice = calibration.model_for(lists, data.cross_encoder.reads)
    served = Scored.empty(len(lists), len(lists.owner))
    for number, (_, scored) in enumerate(models):
        served.fill(choice.models == number, lists.owner, scored)
    served.edges[~choice.complete, 2] = np.inf
    return Fitted(calibration, served.decide(lists, choice.models, choice.missing), facts)


def _features(lists: AnnotatedLists, settings: CalibrationArguments) -> Sequence[str]:
    """The features to weigh; none if the cross-encoder alone decides."""
    names = default_features(lists) if settings.features is None else settings.features
    if (
        not names
        and settings.calibrator != "auto"
        and not CALIBRATORS[settings.calibrator].fits_logits
    ):
        names = [CROSS_ENCODER]
    check_features(names, lists)
    return names


def _fit_model(
    model: CalibratedModel,
    fits: CrossFits,
    method: str,
    cross_encoder_inputs: Sequence[str],
    for_certificate: np.ndarray,
    settings: CalibrationArguments,
    attempt: int,
) -> tuple[CalibratedModel, Scored]:
    """Fit the calibrator and the thresholds of a model; its scores are held out, each fold by a fit on the others.

    Args:
        model: the model with its weights.
        fits: fits of these weights.
        method: name of the calibrator.
        cross_encoder_inputs: inputs that the cross-encoder reads.
        for_certificate: (n,) bool, mentions that count for the certificate.
        settings: as for `fit_calibration`.
        attempt: as for `certify`.
    """
    lists, calibrator = fits.lists, CALIBRATORS[method]
    model = replace(model, calibrator=calibrator().fit(fits.sample()))
    parts = fits.held_out()
    left_out: list[tuple[int, ...]] = (
        [(fold,) for fold in range(len(parts))] if len(parts) > 1 else [()]
    )
    # As in `CrossFits`, by one thread per core, none of which has threads for matrix products.
    try:
        with threadpool_limits(1, "blas"):
            calibrators = list(
                map_in_order(lambda folds: calibrator().fit(fits.sample(folds)), left_out)
            )
    except UserError:
        # Too little data outside a fold.
        parts, calibrators = [fits.part(fits.served, np.ones(len(lists), bool))], [model.calibrator]
    scored = Scored.empty(len(lists), len(lists.owner))
    for part, of_part in zip(parts, calibrators, strict=True):
        scores = replace(part.model, calibrator=of_part).scores(
            part.table, part.logits, part.list_utilities
        )
        scored.logits[part.rows] = part.logits
        scored.log_odds[part.rows], scored.probabilities[part.rows] = scores
        scored.list_utilities[part.rows] = (
            np.nan if part.list_utilities is None else part.list_utilities
        )
    complete = np.ones(len(lists), bool)
    by_type = ["entity_type"] if model.name != ALL_INPUTS and lists.types.is_known.any() else []
    for name in {*model.reads(cross_encoder_inputs), *by_type}:
        complete &= ~is_missing(lists, name, lists.scores)
    thresholds = fit_thresholds(
        lists,
        scored.probabilities,
        best_candidates(scored.log_odds, lists.offsets),
        settings,
        complete=complete,
        for_certificate=for_certificate,
        attempt=attempt,
    )
    scored.edges[:] = thresholds.edges(lists.types)
    return replace(model, thresholds=thresholds), scored


@dataclass(frozen=True)
class _Data:
    """The calibration lists, to fit models on without some of their inputs.

    Attributes:
        lists: the lists.
        cross_encoder: logits of their candidates.
        names: features to weigh.
        table: these features, but the cross-encoder.
        counts: counts of training and calibration.
        folds: (n,) folds of the documents.
        always_missing: inputs of the cross-encoder that no list has.
        known: fusions by their features, the cross-encoder's inputs and concepts; models share them.
    """

    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    names: Sequence[str]
    table: FeatureTable
    counts: StringCounts
    folds: np.ndarray
    always_missing: tuple[str, ...]
    known: dict[tuple, CrossFits] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lists: AnnotatedLists,
        cross_encoder: CrossEncoderLogits,
        counts: StringCounts,
        names: Sequence[str],
        seed: int,
    ) -> _Data:
        """Compute the features, with folds of the lists' documents."""
        folds = document_folds(lists.annotations.documents, seed)
        table = FeatureTable.of(lists, {}, {})
        if names:
            table, counts = _counted(lists, counts, folds, names)
        return cls(
            lists,
            cross_encoder,
            names,
            table,
            counts,
            folds,
            always_missing(lists, cross_encoder.reads),
        )

    @property
    def list_fusion_alone(self) -> _Data:
        """The same without the cross-encoder."""
        names = [name for name in self.names if name != CROSS_ENCODER]
        return replace(
            self,
            cross_encoder=CrossEncoderLogits(None, self.lists),
            names=names,
            always_missing=(),
            known={},
        )

    def cross_fits(self, removed: tuple[str, ...]) -> CrossFits:
        """Fits of the features that are left without some inputs.

        Raises:
            UserError: no features are left, or there is too little data.
        """
        names = [name for name in self.names if not {*removed} & {*inputs_of([name])}]
        if self.names and not names:
            raise UserError(f"no features are left without {', '.join(removed)}")
        lists = without_inputs(self.lists, removed)
        # Without CUIs other candidates count as one concept.
        key = (
            tuple(names),
            tuple(name for name in self.cross_encoder.reads if name in removed),
            "cui" in removed,
        )
        if key not in self.known:
            uses_cross_encoder = not names or CROSS_ENCODER in names
            logits = (
                self.cross_encoder(removed)
                if uses_cross_encoder
                else np.full(len(lists.owner), np.nan, np.float32)
            )
            columns = {name: self.table.candidates[name] for name in names if name != CROSS_ENCODER}
            if "cui" in removed:
                # Without its concept, a candidate has only the name in the list.
                of_names = [name for name in columns if not inputs_of([name])]
                columns |= feature_table(lists, self.counts, of_names).candidates
            lacks = np.zeros(len(lists.owner), bool)
            for name in filter(reads_type, names):
                lacks |= np.isnan(columns[name])
            usable, has_gold = ~lists_with_any(lacks, lists.offsets), lists.annotations.gold >= 0
            if np.count_nonzero(has_gold & usable) < FEWEST_GOLD:
                usable[:] = True
            table = FeatureTable.of(lists, columns, self.table.lists)
            self.known[key] = CrossFits.fit(lists, logits, table, self.folds, usable, names)
        return replace(self.known[key], lists=lists)


def _counted(
    lists: AnnotatedLists, counts: StringCounts, folds: np.ndarray, names: Sequence[str]
) -> tuple[FeatureTable, StringCounts]:
    """Features that count training mentions and the calibration mentions of other folds, and the counts of all."""
    if not folds.any():
        return feature_table(lists, counts, names), counts
    candidates: dict[str, np.ndarray] = {}
    about: dict[str, np.ndarray] = {}
    of_folds = [_counts_of(lists, folds == fold) for fold in range(folds.max() + 1)]
    for fold in progress(range(len(of_folds)), desc="computing features", unit=" folds"):
        inside, others = folds == fold, of_folds[:fold] + of_folds[fold + 1 :]
        table = feature_table(lists.take(inside), reduce(StringCounts.plus, others, counts), names)
        for name, column in table.candidates.items():
            candidates.setdefault(name, np.empty(len(lists.owner)))[inside[lists.owner]] = column
        for name, column in table.lists.items():
            about.setdefault(name, np.empty(len(lists)))[inside] = column
    return FeatureTable.of(lists, candidates, about), reduce(StringCounts.plus, of_folds, counts)


def _counts_of(lists: AnnotatedLists, inside: np.ndarray) -> StringCounts:
    """Counts of some mentions, (n,) bool, of those with one gold concept."""
    rows = zip(lists.mentions, lists.annotations.trainable, lists.types, inside, strict=True)
    return StringCounts.fit(
        (text, cui, types) for text, cui, types, is_counted in rows if is_counted and cui
    )


def choose_calibrator(
    method: str, sample: Sample, groups: Sequence | np.ndarray, seed: int = 0
) -> tuple[str, dict[str, float]]:
    """The method, or for "auto" the one with the lowest log loss in cross-validation that fits all data.

    Args:
        method: a key of `CALIBRATORS`, or "auto".
        sample: the rows to fit on.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Returns:
        Its name, and with "auto" the cross-validated loss of each method.

    Raises:
        UserError: no method can be fitted.
    """
    if method != "auto":
        return method, {}
    losses = cross_validated_losses(sample, groups, seed)
    best, *others = sorted(losses, key=losses.__getitem__)
    # The best method on every fold may not fit all data: where scores separate the labels, slopes diverge.
    for name in (best, *(name for name in others if np.isfinite(losses[name]))):
        with suppress(UserError):
            CALIBRATORS[name]().fit(sample)
            return name, losses
    return best, losses


def cross_validated_losses(
    sample: Sample, groups: Sequence | np.ndarray, seed: int = 0
) -> dict[str, float]:
    """Held-out loss of each method in nats per list, or per row without lists, in folds by document.

    Held-out probabilities of single rows are kept `1 / (2 n_fit)` away from 0 and 1, the most that n_fit rows can
    support: a single surprise where isotonic regression says 0 would otherwise cost it an infinite loss. A method that
    cannot be fitted on a fold has an infinite loss.

    Args:
        sample: the rows.
        groups: (n,) document of each row.
        seed: seed of the folds.

    Raises:
        UserError: fewer than two documents, or no method that can be fitted on every fold.
    """
    inside_lists = sample.offsets is not None
    methods = [
        name
        for name, kind in CALIBRATORS.items()
        if (kind.fits_lists if inside_lists else kind.fits_logits)
    ]
    fold = document_folds(groups, seed)
    if not fold.any():
        raise UserError(
            "method 'auto' needs at least 2 documents in the calibration split; choose a method instead"
        )
    losses, failure = dict.fromkeys(methods, 0.0), None
    for number in range(fold.max() + 1):
        rest, held_out = sample.take(fold != number), sample.take(fold == number)
        for method in methods:
            try:
                fitted = CALIBRATORS[method]().fit(rest)
            except UserError as error:
                losses[method], failure = np.inf, error
            else:
                losses[method] += _loss(fitted, held_out, 0.5 / len(rest.scores))
    if failure is not None and np.isinf(list(losses.values())).all():
        raise failure
    number = len(sample.scores) if sample.offsets is None else len(sample.offsets) - 1
    return {method: loss / number for method, loss in losses.items()}


def _loss(calibrator: Calibrator, sample: Sample, eps: float) -> float:
    """Loss summed over a sample without empty lists."""
    if sample.offsets is None:
        return log_loss(calibrator(sample.scores), sample.labels, eps) * len(sample.scores)
    utility = calibrator.log_odds(sample.scores)
    return float(log_sums(utility, sample.offsets).sum() - sample.labels @ utility)
