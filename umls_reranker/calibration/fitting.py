"""Calibration and thresholds from the candidate lists of the calibration split, for all models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ..core.arrays import best_candidates, hash_texts, lists_with_any
from ..core.errors import TooLittleData
from ..core.parallel import map_in_order, progress
from ..lists.columns import FOUND, SUFFIX
from ..models.cross_encoder import PairScorer, score_lists
from .calibrated_model import CalibratedModel
from .calibration import Calibration
from .calibrators import CALIBRATORS, Calibrator, choose_calibrator
from .candidate_scores import CandidateScores
from .cross_fitting import CrossFits, FoldedLists, NestedFit
from .decisions import Decisions
from .fallback_models import ALL_INPUTS, missing_by_model
from .feature_table import FeatureTable, feature_table
from .features import CROSS_ENCODER, STAND_INS, check_features, default_features, inputs_of
from .fusion import reads_type
from .list_source import ListSource
from .missing_inputs import always_missing, is_missing, without_inputs
from .reliability import document_folds
from .score_range import ScoreRange, are_sentinels
from .string_counts import StringCounts
from .study import NO_HISTORY, StudyHistory
from .threshold_fitting import fit_thresholds
from .thresholds import TIERS

if TYPE_CHECKING:
    from ..lists.candidate_lists import AnnotatedLists, CandidateLists
    from .arguments import CalibrationArguments

# Minimum of gold concepts in the lists with types to fit a model that reads types on them alone.
FEWEST_GOLD = 100


@dataclass(eq=False)
class CrossEncoderLogits:
    """Logits of candidates of n lists, each scored once for each set of inputs that are missing.

    Attributes:
        cross_encoder: scores pairs; None without one.
        lists: n lists with m candidates.
        by_missing_inputs: (m,) logits by the inputs that are missing.
    """

    cross_encoder: PairScorer | None
    lists: CandidateLists
    by_missing_inputs: dict[tuple[str, ...], np.ndarray] = field(default_factory=dict)

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs that the cross-encoder reads besides mention and name."""
        return () if self.cross_encoder is None else self.cross_encoder.template.reads

    def __call__(
        self, missing: Sequence[str] = (), retained: np.ndarray | None = None
    ) -> np.ndarray:
        """Logits of lists without some inputs, (m,) float32; NaN without a cross-encoder.

        Args:
            missing: the inputs.
            retained: (m,) bool, the candidates to score; others may be NaN. None: all.
        """
        # Inputs that no list has make no difference to it.
        never_read = always_missing(self.lists, self.reads)
        unread = tuple(name for name in self.reads if name in missing and name not in never_read)
        logits = self.by_missing_inputs.setdefault(
            unread, np.full(len(self.lists.owner), np.nan, np.float32)
        )
        pending = np.isnan(logits)
        if retained is not None:
            pending &= retained
        if self.cross_encoder is not None and pending.any():
            lists = without_inputs(self.lists, unread)
            self._copy_known(logits, unread, lists)
            pending &= np.isnan(logits)
            without = f" without {' and '.join(unread)}" if unread else ""
            desc = f"scoring candidates{without}"
            scores = score_lists(self.cross_encoder, lists, pending, desc=desc)
            logits[pending] = scores.logits[pending]
        return logits

    def _copy_known(
        self, logits: np.ndarray, unread: tuple[str, ...], lists: CandidateLists
    ) -> None:
        """Take the known logits, (m,), of pairs that read the same without other inputs.

        A mention without a type, or a candidate whose name is the preferred one, makes the same
        pair with that input and without it.
        """
        others = [
            key for key, logits in self.by_missing_inputs.items() if not np.isnan(logits).all()
        ]
        if others in ([], [unread]):
            return
        texts = self._texts(lists)
        for other_unread in others:
            if other_unread == unread:
                continue
            other_logits = self.by_missing_inputs[other_unread]
            other_texts = self._texts(without_inputs(self.lists, other_unread))
            takes = np.isnan(logits) & (texts == other_texts).all(axis=0)
            logits[takes] = other_logits[takes]

    def _texts(self, lists: CandidateLists) -> np.ndarray:
        """What the cross-encoder reads of each pair, (2, m) hashes of mention and candidate."""
        assert self.cross_encoder is not None  # only then there is something to score
        template = self.cross_encoder.template
        of_mentions = zip(lists.lefts, template.mention_texts(lists), lists.rights, strict=True)
        mentions = hash_texts(["\0".join(texts) for texts in of_mentions])
        return np.stack([mentions[lists.owner], hash_texts(template.candidate_texts(lists))])

    def with_candidates(self, retained: np.ndarray) -> CrossEncoderLogits:
        """The same for some of the candidates, as for `CandidateLists.with_candidates`."""
        return replace(
            self,
            lists=self.lists.with_candidates(retained),
            by_missing_inputs={
                unread: logits[retained] for unread, logits in self.by_missing_inputs.items()
            },
        )


@dataclass(frozen=True)
class FitOptions:
    """What `fit_calibration` may do.

    Attributes:
        share: the share of the error probability that the certificates may use; 0: nothing is
            tested.
        has_fallbacks: whether to fit more than the model of all inputs.
    """

    share: float = 1.0
    has_fallbacks: bool = True


@dataclass(frozen=True)
class Fitted:
    """A calibration, and its decisions about the lists that it was fitted on.

    Attributes:
        calibration: the calibration, fitted on all documents.
        decisions: each mention as it is served, with the delivered thresholds, but by scores of a
            fit without the fold of its document. Figures of these decisions are held out if
            `is_held_out`.
        facts: what it was fitted on, for ``calibrator.json``.
        is_held_out: False if there was too little data to fit without each fold, so that decisions
            of some model are by a fit that has seen the document. Such a model has no certificate.
    """

    calibration: Calibration
    decisions: Decisions
    facts: dict[str, Any]
    is_held_out: bool


def fit_calibration(
    lists: AnnotatedLists,
    cross_encoder: CrossEncoderLogits,
    counts: StringCounts,
    settings: CalibrationArguments,
    seed: int,
    history: StudyHistory = NO_HISTORY,
    options: FitOptions = FitOptions(),
) -> Fitted:
    """Fit the at most four models of a calibration on candidate lists, balanced as in serving.

    Thresholds and certificates use probabilities of held-out documents: each fold is scored by a
    fusion and a calibrator of the same kind fitted on the other folds (`cross_fitting`). The served
    model is fitted on all documents. Each fallback model is fitted in the same way, on the lists
    without the inputs that it does not read, with a calibrator of the same kind. Each has one
    certificate: the best of several would guarantee more than holds. Documents that an earlier
    version was calibrated on do not certify.

    The served model counts calibration mentions as well as training mentions. For a fit, the
    mentions of a fold are not counted in its own features.

    Args:
        lists: the calibration split.
        cross_encoder: logits of its candidates.
        counts: counts of the training split; those of `lists` are added.
        settings: the recipe's section.
        seed: seed of the folds of documents.
        history: documents that the versions that this one was derived from were calibrated on, and
            the studies; the documents of `lists` are added.
        options: what to leave out, and what to add.

    Raises:
        TooLittleData: there is too little data for the model of all inputs.
        UserError: a feature is unknown, missing in the lists, or not finite.
    """
    annotations = lists.annotations
    is_new = history.are_of_new_documents(annotations)
    for_certificate = annotations.is_random_sample & is_new & (options.share > 0)
    certified = annotations.documents[for_certificate].tolist()
    history = history.after(annotations.doc_ids)
    names = _features(lists, settings)
    folds = document_folds(annotations.documents, seed)
    table, all_counts = cross_counted_features(lists, counts, folds, names)
    data = CalibrationData(
        lists=lists,
        cross_encoder=cross_encoder,
        settings=settings,
        seed=seed,
        names=names,
        table=table.plus(_scores_without_sentinels(lists)),
        unfitted=Calibration(
            counts=all_counts,
            source=ListSource(lists.index_keys[0]),
            history=history,
            training_counts=counts,
        ),
        folds=folds,
        for_certificate=for_certificate,
        share=options.share,
        always_missing=always_missing(lists, cross_encoder.reads),
    )
    fits = data.cross_fits()
    of_cross_encoder = _about_cross_encoder(data, fits)
    fitted = _fit(data, fits, has_fallbacks=options.has_fallbacks)
    facts = {
        "split": "calibration",
        "mentions": len(lists),
        "documents": len({*annotations.documents}),
        "pairs": len(lists.owner),
        "positives": int(lists.labels.sum()),
        "certified_by": {
            "share": options.share,
            "documents": len({*certified}),
            "mentions": len(certified),
        },
    }
    return replace(fitted, facts=facts | of_cross_encoder | fitted.facts)


def _features(lists: AnnotatedLists, settings: CalibrationArguments) -> Sequence[str]:
    """The features to weigh; none if the cross-encoder alone decides."""
    names = default_features(lists) if settings.features is None else settings.features
    kind = CALIBRATORS.get(settings.calibrator)
    if not names and kind is not None and not kind.fits_logits:
        names = [CROSS_ENCODER]
    check_features(names, lists)
    return names


def _about_cross_encoder(data: CalibrationData, fits: CrossFits) -> dict[str, Any]:
    """What the cross-encoder gains, and what pruning costs; {} if it is not weighed with others."""
    if CROSS_ENCODER not in data.names or len(data.names) == 1:
        return {}
    nats, error = fits.cross_encoder_gain()
    gain: dict[str, Any] = {"nats_gained": None, "standard_error": None}
    if np.isfinite(nats):
        gain = {"nats_gained": nats, "standard_error": error}
    return {"cross_encoder": gain, "pruning": fits.pruning_cost()}


def _fit(data: CalibrationData, fits: CrossFits, *, has_fallbacks: bool) -> Fitted:
    """Fit calibrators and thresholds of the models, and decide about the lists.

    Args:
        data: the lists.
        fits: fits of all features.
        has_fallbacks: whether to fit more than the model of all inputs.
    """
    lists = data.lists
    is_used = fits.data.inside()[lists.owner]
    documents = lists.annotations.documents[lists.owner[is_used]]
    method, losses = choose_calibrator(
        data.settings.calibrator, fits.sample(fits.full_fit), documents, data.seed
    )
    models = _fit_models(data, fits, method, has_fallbacks=has_fallbacks)
    calibration = replace(
        data.unfitted,
        models=[fitted.model for fitted in models],
        source=replace(data.unfitted.source, score_ranges=data.score_ranges()),
    )
    usable_lists = calibration.source.with_usable_scores(lists)
    choice = calibration.model_for(usable_lists, data.cross_encoder.reads)
    edges = np.empty((len(lists), len(TIERS) - 1))
    parts = []
    for number, fitted in enumerate(models):
        mentions = choice.models == number
        rows = mentions[lists.owner]
        parts.append((rows, fitted.scores.take(rows)))
        edges[mentions] = fitted.model.thresholds.edges(lists.types)[mentions]
    decisions = Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        scores=CandidateScores.joined(parts, len(lists.owner)),
        **choice._asdict(),
        edges=edges,
        has_tiers=np.ones(len(lists), bool),
    )
    facts = {"cross_validated_losses": losses} if losses else {}
    return Fitted(
        calibration,
        decisions,
        facts=facts,
        is_held_out=all(fitted.is_held_out for fitted in models),
    )


class _FittedModel(NamedTuple):
    """A model, its scores of all candidates, and whether these are held out."""

    model: CalibratedModel
    scores: CandidateScores
    is_held_out: bool


def _fit_models(
    data: CalibrationData, fits: CrossFits, method: str, *, has_fallbacks: bool
) -> list[_FittedModel]:
    """Fit the model of all inputs, then the fallback models that serve further mentions."""
    reads = data.cross_encoder.reads
    inputs = missing_by_model(data.names, reads) if has_fallbacks else {ALL_INPUTS: ()}
    models: list[_FittedModel] = []
    # Models that weigh the same share the fits.
    fits_of = {data.weighed_without(()): fits}
    for name, missing in progress(inputs.items(), desc="fitting models", unit=" models"):
        # A model that does not read these inputs also serves mentions without them.
        if any({*missing}.isdisjoint(fitted.model.required_inputs(reads)) for fitted in models):
            continue
        try:
            weighed = data.weighed_without(missing)
            if weighed not in fits_of:
                fits_of[weighed] = data.cross_fits(missing)
            models.append(_fit_model(name, missing, fits_of[weighed], data, method))
        except TooLittleData:
            # The inputs left carry no information, so mentions with only these are never high tier.
            if not models:
                raise
    return models


def _fit_model(
    name: str, missing: Sequence[str], fits: CrossFits, data: CalibrationData, method: str
) -> _FittedModel:
    """Fit the calibrator and the thresholds of a model; each fold is scored by a fit on the others.

    Args:
        name: name of the model.
        missing: the inputs that it does not read.
        fits: fits of its weights.
        data: settings, and what the certificate rests on.
        method: name of the calibrator.
    """
    missing = data.all_missing(missing)
    lists = without_inputs(data.lists, missing)
    full_fit = fits.full_fit
    calibrators = _calibrators(fits, method, [full_fit])
    model = replace(full_fit.model, name=name, missing=missing, calibrator=calibrators[0])
    folds = fits.held_out(full_fit)
    is_held_out = False
    if full_fit.without:
        with suppress(TooLittleData):
            calibrators = _calibrators(fits, method, [*full_fit.without.values()])
            is_held_out = True
    if not is_held_out:
        folds = [fits.scores_by(full_fit, np.ones(len(lists), bool))]
    parts = [
        (fold.rows, fold.calibrated(calibrator))
        for fold, calibrator in zip(folds, calibrators, strict=True)
    ]
    scores = CandidateScores.joined(parts, len(lists.owner))
    complete = _has_all_inputs(lists, model, data)
    for fold in folds:
        complete[fold.mentions] &= fold.is_legible
    thresholds = fit_thresholds(
        lists,
        scores.probabilities,
        best_candidates(scores.log_odds, lists.offsets),
        data.settings,
        complete=complete,
        for_certificate=data.for_certificate,
        share=data.share * is_held_out,
    )
    return _FittedModel(replace(model, thresholds=thresholds), scores, is_held_out)


def _calibrators(fits: CrossFits, method: str, of_fits: Sequence[NestedFit]) -> list[Calibrator]:
    """The calibrators of some fits, each by one thread as in `FoldedLists.fit`."""

    def fit(one: NestedFit) -> Calibrator:
        return CALIBRATORS[method]().fit(fits.sample(one))

    with threadpool_limits(1, "blas"):
        return list(map_in_order(fit, of_fits))


def _has_all_inputs(
    lists: AnnotatedLists, model: CalibratedModel, data: CalibrationData
) -> np.ndarray:
    """Mentions that have all that a model without thresholds reads, (n,) bool."""
    names = {*model.required_inputs(data.cross_encoder.reads)}
    if model.name != ALL_INPUTS and lists.types.is_known.any():
        names.add("entity_type")
    scores = dict(lists.scores)
    for name, score_range in data.score_ranges().items():
        if name in scores:
            scores[name] = score_range.inside(scores[name])
    lists = replace(lists, scores=scores)
    missing = (is_missing(lists, name, data.unfitted.counts) for name in names)
    return ~reduce(np.logical_or, missing, np.zeros(len(lists), bool))


@dataclass(frozen=True)
class CalibrationData:
    """The calibration lists, to fit models on without some of their inputs.

    Attributes:
        lists: the lists.
        cross_encoder: logits of their candidates.
        settings: the recipe's section.
        seed: seed of the folds.
        names: features to weigh.
        table: these features, but the cross-encoder.
        unfitted: the calibration without models: counts, the index of the lists, and the history of
            certificates, with those of this fit.
        folds: (n,) folds of the documents.
        for_certificate: (n,) bool, mentions that count for the certificates.
        share: as in `FitOptions`.
        always_missing: inputs of the cross-encoder that no list has.
    """

    lists: AnnotatedLists
    cross_encoder: CrossEncoderLogits
    settings: CalibrationArguments
    seed: int
    names: Sequence[str]
    table: FeatureTable
    unfitted: Calibration
    folds: np.ndarray
    for_certificate: np.ndarray
    share: float
    always_missing: tuple[str, ...]

    def all_missing(self, missing: Sequence[str]) -> tuple[str, ...]:
        """Inputs that a model without some inputs was fitted without."""
        return tuple(dict.fromkeys((*self.always_missing, *missing)))

    def weighed_without(self, missing: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """All that fits without some inputs depend on.

        Returns:
            The features that are left; inputs that the cross-encoder reads and lacks; and the id,
            if it is missing: without ids, other candidates count as one concept.
        """
        missing = self.all_missing(missing)
        unread = tuple(name for name in self.cross_encoder.reads if name in missing)
        missing_id = tuple(name for name in missing if name == "cui")
        return tuple(self._names_without(missing)), unread, missing_id

    def cross_fits(self, missing: Sequence[str] = ()) -> CrossFits:
        """Fits of the features that are left without some inputs.

        Raises:
            TooLittleData: no features are left, or there is too little data.
        """
        missing = self.all_missing(missing)
        lists = without_inputs(self.lists, missing)
        names = self._names_without(missing)
        if self.names and not names:
            raise TooLittleData(f"no features are left without {', '.join(missing)}")
        columns = {name: self.table.candidates[name] for name in names if name != CROSS_ENCODER}
        if "cui" in missing:
            # Without its concept, a candidate has only the name in the list.
            name_features = [name for name in columns if not inputs_of([name])]
            columns |= feature_table(lists, self.unfitted.counts, name_features).candidates
        table = FeatureTable.of(lists, columns, self.table.lists)
        usable = _usable_mentions(lists, table, names)
        folded = FoldedLists(lists, table, self.folds, usable)
        return folded.fit(names, partial(self.cross_encoder, missing))

    def _names_without(self, missing: Sequence[str]) -> list[str]:
        """The features that are left without some inputs; no `STAND_INS` next to a score."""
        names = [name for name in self.names if {*missing}.isdisjoint(inputs_of([name]))]
        has_score = any(key.endswith(SUFFIX) for key in inputs_of(names))
        return [name for name in names if not (has_score and name in STAND_INS)]

    def score_ranges(self) -> dict[str, ScoreRange]:
        """The range of each score of the lists that is weighed."""
        scores = self.lists.scores
        return {
            name: ScoreRange.of(scores[name])
            for name in self.names
            if name in scores and not name.endswith(FOUND)
        }


def _scores_without_sentinels(lists: CandidateLists) -> dict[str, np.ndarray]:
    """Scores that have sentinels, (m,), with the nearest other score in place of each."""
    replaced = {}
    for name, column in lists.scores.items():
        is_sentinel = are_sentinels(column)
        if is_sentinel.any():
            nearest = np.clip(column, *ScoreRange.of(column))
            replaced[name] = np.where(is_sentinel, nearest, column)
    return replaced


def _usable_mentions(
    lists: AnnotatedLists, table: FeatureTable, names: Sequence[str]
) -> np.ndarray:
    """Mentions to fit on, (n,) bool: with types where a feature reads them, if enough have any."""
    unknown = (np.isnan(table.candidates[name]) for name in filter(reads_type, names))
    untyped = reduce(np.logical_or, unknown, np.zeros(len(lists.owner), bool))
    usable = ~lists_with_any(untyped, lists.offsets)
    if np.count_nonzero(usable & (lists.annotations.gold >= 0)) < FEWEST_GOLD:
        return np.ones(len(lists), bool)
    return usable


def cross_counted_features(
    lists: AnnotatedLists, counts: StringCounts, folds: np.ndarray, names: Sequence[str]
) -> tuple[FeatureTable, StringCounts]:
    """Features that count training mentions and calibration mentions of other folds; all counts."""
    if not names:
        return FeatureTable.of(lists, {}, {}), counts
    if not folds.any():
        return feature_table(lists, counts, names), counts
    fold_counts = [_count(lists, folds == fold) for fold in range(folds.max() + 1)]
    tables = []
    for fold in progress(range(len(fold_counts)), desc="computing features", unit=" folds"):
        known = reduce(StringCounts.plus, fold_counts[:fold] + fold_counts[fold + 1 :], counts)
        tables.append(feature_table(lists.take(folds == fold), known, names))
    # One fold after the other, and back in the order of the lists.
    candidates = _concatenated([table.candidates for table in tables], folds[lists.owner])
    about_lists = _concatenated([table.lists for table in tables], folds)
    all_counts = reduce(StringCounts.plus, fold_counts, counts)
    return FeatureTable.of(lists, candidates, about_lists), all_counts


def _concatenated(
    fold_columns: Sequence[Mapping[str, np.ndarray]], folds: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns of n rows, from those of each fold; `folds` are those of the rows, (n,)."""
    positions = np.argsort(np.argsort(folds, kind="stable"))
    return {
        name: np.concatenate([columns[name] for columns in fold_columns])[positions]
        for name in fold_columns[0]
    }


def _count(lists: AnnotatedLists, inside: np.ndarray) -> StringCounts:
    """Counts of some mentions, (n,) bool, of those with one gold concept."""
    rows = zip(lists.mentions, lists.annotations.trainable, lists.types, inside, strict=True)
    return StringCounts.fit(
        (text, cui, types) for text, cui, types, is_counted in rows if is_counted and cui
    )
