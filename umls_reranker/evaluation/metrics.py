"""The answers of a model for the mentions of a split, and figures of them.

`Outcomes` has one row per mention. Two versions are compared by these rows. Those of a run may be
published with the model: they hold ids of documents and mentions, offsets, CUIs and type ids, but
no text and no names of a vocabulary.

Figures are declared once: ``metrics.json``, targets, tables and card follow.

A mention counts as an error if its gold concept was not retrieved or is not in the dictionary;
figures over in-dictionary mentions are given too. Intervals are by document.

``metrics.json`` has them in one flat dict, ``figures``: ``acc@1`` is of the model over all
mentions, and ``TABLE/ROW/acc@1``, such as ``groups/group:DISO/acc@1`` or
``systems/lists_order/acc@1``, of a row of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..calibration.decisions import TIERS, Decisions
from ..calibration.reliability import (
    bootstrap_sums,
    calibration_report,
    document_draws,
    document_index,
    document_sums,
    ratio,
)
from ..core.arrays import list_owner, ranking, values_at
from ..core.errors import UserError
from ..core.files import written
from ..core.json_files import read_json, require_format
from ..core.parallel import progress
from ..lists.candidate_lists import AnnotatedLists
from ..vocab.text import normalize_name
from ..vocab.types import TypeHierarchy

OUTCOMES_FILE = "outcomes.parquet"
OUTCOMES_VERSION = 6
SCHEMA = pa.schema(
    [
        ("document", pa.string()),
        ("mention_id", pa.string()),
        ("entity", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("types", pa.list_(pa.string())),
        ("gold", pa.string()),
        ("composite", pa.bool_()),
        ("in_dictionary", pa.bool_()),
        ("answer", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float64()),
        ("margin", pa.float64()),
        ("tier", pa.string()),
        ("accepted", pa.bool_()),
        ("decided_by", pa.int32()),
    ],
    metadata={"schema_version": str(OUTCOMES_VERSION)},
)
# Of ``metrics.json``.
SCHEMA_VERSION = 4
# With fewer mentions, a type is not listed and no calibration metric is given.
SMALLEST_SLICE = 50
# With fewer mentions, the result of a target may be inconclusive, and a group is not the worst.
SMALL_SUPPORT = 1_000
WITHOUT_TYPE = "without type"
# Precisions of `coverage_at_precision` that are reported.
COVERAGE_PRECISIONS = (0.85, 0.90, 0.95)
# ``{"value", "low", "high"}``; of a measured figure also ``n`` and ``population``.
Measure = dict[str, Any]
# Of groups, if none is large enough.
NOT_MEASURED = {
    "value": np.nan,
    "n": 0,
    "population": f"groups with {SMALL_SUPPORT:,} mentions",
}


def gold_ranks(scores: np.ndarray, offsets: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Rank (0 is the top) of the first correct candidate in each list sorted by score.

    Args:
        scores: (n_candidates,) raw logits, or any score for which higher is better.
        offsets: (n_mentions + 1,).
        correct: (n_candidates,) bool, whether each candidate is a correct answer.

    Returns:
        (n_mentions,) int64, -1 without a correct candidate.
    """
    ranks = np.full(len(offsets) - 1, -1, dtype=np.int64)
    # Of a list, the best rank is assigned last.
    ranked = np.flatnonzero(correct[ranking(scores, offsets)])[::-1]
    owner = list_owner(offsets)[ranked]
    ranks[owner] = ranked - offsets[owner]
    return ranks


@dataclass(frozen=True)
class Outcomes:
    """Columns over n mentions.

    Attributes:
        document: (n,) ids of the documents.
        mention_id: (n,) ids of the mentions in their documents, None without.
        entity: (n,) their texts, None in a file without text.
        start: (n,) offset of the mention in its document.
        end: (n,) offset of its end.
        types: semantic type ids of each mention.
        gold: (n,) gold concepts; several are joined by "|".
        composite: (n,) bool, whether the mention names several concepts.
        in_dictionary: (n,) bool, whether the dictionary has them.
        answer: (n,) id of the top candidate, "" without candidates.
        rank: (n,) rank of the first correct concept, 0 is the top, -1 if it is not in the list.
        score: (n,) calibrated probability of the answer, NaN without candidates.
        margin: (n,) score minus the highest score of any other concept.
        tier: (n,) tier of the answer, "reject" without candidates.
        accepted: (n,) bool, whether the answer is accepted.
        decided_by: (n,) index of the model that decided (`Decisions.models`); 0: of all inputs.
    """

    document: np.ndarray
    mention_id: np.ndarray
    entity: np.ndarray
    start: np.ndarray
    end: np.ndarray
    types: Sequence[Sequence[str]]
    gold: np.ndarray
    composite: np.ndarray
    in_dictionary: np.ndarray
    answer: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    margin: np.ndarray
    tier: np.ndarray
    accepted: np.ndarray
    decided_by: np.ndarray

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, lists: AnnotatedLists, decisions: Decisions) -> Outcomes:
        """Make outcomes from the decision about the top candidate of each mention."""
        annotations = lists.annotations
        tops = decisions.tops
        ids = np.array(lists.ids, object)[lists.cuis.codes]
        return cls(
            document=annotations.documents,
            mention_id=annotations.mention_ids,
            entity=np.array(lists.mentions, object),
            start=annotations.starts,
            end=annotations.ends,
            types=list(lists.types),
            gold=annotations.cuis,
            composite=annotations.composite,
            in_dictionary=annotations.in_dictionary,
            answer=values_at(ids, tops.positions, ""),
            rank=gold_ranks(decisions.scores.log_odds, lists.offsets, lists.correct),
            score=tops.probabilities,
            margin=tops.margins,
            # The last tier, reject, is also that of mentions without candidates.
            tier=np.array(TIERS)[tops.tiers],
            accepted=tops.accepted,
            decided_by=tops.models,
        )

    @property
    def correct(self) -> np.ndarray:
        """Whether the top candidate is a correct concept, (n,) bool."""
        return self.rank == 0

    @property
    def has_candidates(self) -> np.ndarray:
        """Whether the mention has candidates, and so a score, (n,) bool."""
        return ~np.isnan(self.score)

    @property
    def every(self) -> np.ndarray:
        """All true, (n,) bool."""
        return np.ones(len(self), bool)

    @property
    def score_or_0(self) -> np.ndarray:
        """Score of the answer, 0 without candidates, (n,)."""
        return np.nan_to_num(self.score)

    def select(self, rows: np.ndarray) -> Outcomes:
        """The mentions at `rows`: indices, or (n,) bool."""
        rows = np.arange(len(self))[rows]
        columns: dict[str, Any] = {
            name: column[rows] for name, column in vars(self).items() if name != "types"
        }
        return Outcomes(types=[self.types[row] for row in rows.tolist()], **columns)

    def save(self, path: Path) -> None:
        """Write a Parquet file atomically."""
        columns = [
            pa.array(getattr(self, field.name), field.type, from_pandas=True) for field in SCHEMA
        ]
        with written(path) as partial:
            pq.write_table(
                pa.Table.from_arrays(columns, schema=SCHEMA), partial, compression="zstd"
            )

    @classmethod
    def load(cls, path: Path) -> Outcomes:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        try:
            table = pq.read_table(path)
            version = (table.schema.metadata or {}).get(b"schema_version")
            require_format(
                path, {"schema_version": version and int(version)}, OUTCOMES_VERSION, "evaluate"
            )
            table = table.select(SCHEMA.names).cast(SCHEMA)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise UserError(
                f"{path} cannot be read ({error}); run umls-reranker evaluate again"
            ) from None
        columns: dict[str, Any] = {name: table[name].to_numpy() for name in SCHEMA.names}
        return cls(**columns | {"types": table["types"].to_pylist()})


@dataclass(frozen=True)
class Documents:
    """The documents of n rows, such as mentions, and their resampling for 95 % intervals.

    Attributes:
        index: (n,) int64 document of each row.
        count: number of documents.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
    """

    index: np.ndarray
    count: int
    resamples: int = 1000
    seed: int = 0

    @classmethod
    def of(cls, ids: Sequence | np.ndarray, resamples: int = 1000, seed: int = 0) -> Documents:
        """Make it from the id of each row's document."""
        return cls(*document_index(ids), resamples=resamples, seed=seed)

    def take(self, rows: np.ndarray) -> Documents:
        """The documents of some rows: indices, which may repeat, or (n,) bool."""
        index, count = document_index(self.index[rows])
        return replace(self, index=index, count=count)

    def measure(
        self,
        columns: Sequence[np.ndarray],
        statistic: Callable[[np.ndarray], np.ndarray] = ratio,
        *,
        is_share: bool = True,
    ) -> Measure:
        """`interval` of a statistic of the sums of k columns (n,); and ``n``, the last sum."""
        sums = document_sums(self.index, self.count, columns)
        figure = self.interval(sums, statistic, is_share=is_share)
        return figure | {"n": int(columns[-1].sum())}

    def calibration(self, p: np.ndarray, labels: np.ndarray) -> dict[str, Measure]:
        """The `calibration_report` of probabilities (n,) and labels (n,)."""
        return calibration_report(p, labels, self.index, resamples=self.resamples, seed=self.seed)

    def interval(
        self,
        sums: np.ndarray,
        statistic: Callable[[np.ndarray], np.ndarray],
        *,
        is_share: bool,
    ) -> Measure:
        """A statistic of sums (documents, k) as ``{"value", "low", "high"}``, 95 % by document.

        Resamples of one document, or of documents that are correct or incorrect throughout, do not
        vary. One document has no interval. A share of 1 or 0 over n documents reaches to what n
        equal documents exclude: ``0.025 ** (1 / n)``.

        Args:
            sums: sums of k columns by document.
            statistic: makes the figure from sums (..., k).
            is_share: whether the figure is a share of the mentions that the second column counts;
                a difference of 0 has an interval of 0.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(statistic(sums.sum(axis=0)))
        if len(sums) < 2:
            return {"value": value, "low": np.nan, "high": np.nan}
        low, high = bootstrap_sums(sums, statistic, resamples=self.resamples, seed=self.seed)
        if is_share and low == high and value in (0.0, 1.0):
            excluded = 0.025 ** (1.0 / np.count_nonzero(sums[:, 1]))
            low = excluded if value else 0.0
            high = 1.0 if value else 1.0 - excluded
        return {"value": value, "low": low, "high": high}


def sums_to_f1(sums: np.ndarray) -> np.ndarray:
    """F1 of (..., 3) true positives, predicted and actual positives."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return 2 * sums[..., 0] / (sums[..., 1] + sums[..., 2])


@dataclass(frozen=True)
class Figure:
    """A figure of the outcomes of n mentions, as a statistic of sums.

    Attributes:
        name: its name in ``metrics.json`` and in targets of recipes.
        help: its name in tables.
        columns: makes k columns (n,) from outcomes; the last one is 1 for each mention that counts.
        population: mentions that count, such as "with candidates".
        statistic: makes the figure from the columns' sums (..., k).
        format: its format in tables: ``percent`` or ``number``.
        in_slices: whether it is also measured on slices of the mentions, such as semantic groups.
        higher_is_better: whether a higher value is better.
        margin: how much worse a version may be and count as as good, as a share of the margin for
            accuracy; 0: it is not compared between versions.
        is_share: whether it is a share (`Documents.interval`).
    """

    name: str
    help: str
    columns: Callable[[Outcomes], Sequence[np.ndarray]]
    population: str = ""
    statistic: Callable[[np.ndarray], np.ndarray] = ratio
    format: str = "percent"
    in_slices: bool = False
    higher_is_better: bool = True
    margin: float = 0.0
    is_share: bool = True


KNOWN = "with gold in the dictionary"
WITH_CANDIDATES = "with candidates"
FIGURES = [
    Figure("acc@1", "acc@1", lambda o: (o.correct, o.every), in_slices=True, margin=1.0),
    Figure(
        "acc@1_in_dictionary",
        "acc@1, gold in dictionary",
        lambda o: (o.correct & o.in_dictionary, o.in_dictionary),
        KNOWN,
        in_slices=True,
    ),
    Figure(
        "high_confidence_coverage",
        "high-tier coverage",
        lambda o: (o.tier == "high", o.every),
        in_slices=True,
    ),
    Figure(
        "high_confidence_precision",
        "high-tier precision",
        lambda o: ((o.tier == "high") & o.correct, o.tier == "high"),
        "in the high tier",
        in_slices=True,
    ),
    Figure("accepted_coverage", "coverage", lambda o: (o.accepted, o.every), in_slices=True),
    Figure(
        "accepted_precision",
        "precision",
        lambda o: (o.accepted & o.correct, o.accepted),
        "accepted",
        in_slices=True,
    ),
    # End to end, with abstention: precision over answers given, recall over mentions that have one.
    Figure(
        "correct_answers_f1",
        "F1 of correct answers",
        lambda o: (o.accepted & o.correct, o.accepted, o.in_dictionary),
        KNOWN,
        sums_to_f1,
        margin=1.0,
        is_share=False,
    ),
    # Where the dictionary lacks the gold concept, no answer is correct; the service should abstain.
    Figure(
        "abstaining_recall",
        "abstentions",
        lambda o: (~o.accepted & ~o.in_dictionary, ~o.in_dictionary),
        "with gold not in the dictionary",
    ),
    Figure(
        "without_candidates_share",
        "share without candidates",
        lambda o: (~o.has_candidates, o.every),
    ),
    # The monitor counts these two likewise.
    Figure(
        "mean_top_score",
        "mean top score",
        lambda o: (o.score_or_0, o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    Figure(
        "mean_margin",
        "mean margin",
        lambda o: (np.nan_to_num(o.margin), o.has_candidates),
        WITH_CANDIDATES,
        format="number",
    ),
    # The error rate beyond what the scores predict; positive: overconfident.
    Figure(
        "overconfidence",
        "overconfidence",
        lambda o: (o.score_or_0 - o.correct * o.has_candidates, o.has_candidates),
        WITH_CANDIDATES,
        in_slices=True,
    ),
    # The mean squared error of the top scores rises with a worse order or calibration. Where
    # calibrated answers are correct with p = 0.75, it is p (1 - p) and changes by half of what
    # accuracy does.
    Figure(
        "brier_of_top",
        "Brier score of top candidates",
        lambda o: ((o.score_or_0 - o.correct) ** 2, o.every),
        format="number",
        higher_is_better=False,
        margin=0.5,
    ),
]


def coverage_at_precision(
    score: np.ndarray, correct: np.ndarray, precision: float, documents: Documents
) -> Measure:
    """The largest share of mentions that a system can answer at a precision, to compare systems.

    The threshold is chosen on the same mentions, so the figure is optimistic for every system. For
    a guarantee, use a certified threshold. Mentions with equal scores are answered together.

    Args:
        score: (n,) score of each mention's top candidate; -inf or NaN if there is no answer.
        correct: (n,) whether it is the gold concept.
        precision: the precision.
        documents: documents of the mentions.
    """
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    score = score[order]
    correct = np.asarray(correct, dtype=np.float64)[order]
    last_of_tie = np.append(score[1:] < score[:-1], True) & (score > -np.inf)

    def coverage(weight: np.ndarray) -> np.ndarray:
        answered = np.cumsum(weight, axis=-1)
        correct_answers = np.cumsum(weight * correct, axis=-1)
        # The tolerance allows for rounding in sums of weights.
        is_precise = last_of_tie & (correct_answers >= precision * answered - 1e-9)
        return np.max(np.where(is_precise, answered, 0.0), axis=-1) / answered[..., -1]

    value = float(coverage(np.ones(len(score))))
    draws = [
        coverage(counts[documents.index[order]])
        for counts in document_draws(documents.count, documents.resamples, documents.seed)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high), "n": len(score)}


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive outscores a negative, ties half; NaN for a single class."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else float("nan")


def register(figure: Figure) -> None:
    """Add a figure from outside the package, before anything is measured.

    Raises:
        ValueError: the name is taken.
    """
    if figure.name in [declared.name for declared in FIGURES]:
        raise ValueError(f"figure {figure.name} is already registered")
    FIGURES.append(figure)


def read_metrics(path: Path) -> dict[str, Any]:
    """Content of a ``metrics.json``.

    Raises:
        UserError: it is missing, damaged or of another format.
    """
    report = read_json(path)
    require_format(path, report, SCHEMA_VERSION, "evaluate")
    return report


def measure_figures(
    outcomes: Outcomes, documents: Documents, *, in_slices: bool = False
) -> dict[str, Measure]:
    """All figures, or those in slices: ``{"value", "low", "high", "n", "population"}`` by name.

    ``n`` is the number of mentions that count, and ``population`` says which they are.
    """
    figures = {}
    for figure in (declared for declared in FIGURES if declared.in_slices or not in_slices):
        figures[figure.name] = {
            **documents.measure(
                figure.columns(outcomes), figure.statistic, is_share=figure.is_share
            ),
            "population": f"mentions {figure.population}".rstrip(),
        }
    return figures


def top_calibration(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Calibration of the top candidates (`calibration_report`)."""
    top = outcomes.select(outcomes.has_candidates)
    report = documents.take(outcomes.has_candidates).calibration(top.score, top.correct)
    over = {"n": len(top), "population": f"mentions {WITH_CANDIDATES}"}
    return {name: figure | over for name, figure in report.items()}


def slice_figures(outcomes: Outcomes, documents: Documents) -> dict[str, Measure]:
    """Figures of a slice of the mentions, with ``top1_debiased_ece`` if there are enough."""
    figures = measure_figures(outcomes, documents, in_slices=True)
    if outcomes.has_candidates.sum() >= SMALLEST_SLICE:
        figures["top1_debiased_ece"] = top_calibration(outcomes, documents)["debiased_ece"]
    return figures


class Slice(NamedTuple):
    """Some of n mentions: a row of a table.

    Attributes:
        table: the table.
        row: key of the row in ``metrics.json``.
        label: title of the row.
        mentions: (n,) bool, the mentions.
    """

    table: str
    row: str
    label: str
    mentions: np.ndarray


def mention_slices(
    outcomes: Outcomes,
    mentions: Sequence[str],
    hierarchy: TypeHierarchy,
    counted: Iterable[tuple[str, str]] = (),
) -> list[Slice]:
    """Slices of n mentions.

    Args:
        outcomes: their outcomes.
        mentions: their texts.
        hierarchy: in one without groups, the broadest ancestors take their role.
        counted: text and gold CUI of the mentions that the model counts.

    Returns:
        Those of the table ``tiers``; ``subsets`` seen and unseen among `counted`, if there are any;
        and if any type is known, ``groups``, the largest first, and ``types`` with at least
        `SMALLEST_SLICE` mentions. A mention counts in each of its types.
    """
    slices = [Slice("tiers", tier, tier, outcomes.tier == tier) for tier in TIERS]
    counted = list(counted)
    if counted:
        strings = {normalize_name(text) for text, _ in counted}
        cuis = {cui for _, cui in counted}
        seen_string = np.array([normalize_name(text) in strings for text in mentions])
        # Of a mention with several gold concepts, any.
        seen_cui = np.array([not cuis.isdisjoint(gold.split("|")) for gold in outcomes.gold])
        slices += [
            Slice("subsets", "seen_string", "string seen", seen_string),
            Slice("subsets", "unseen_string", "string unseen", ~seen_string),
            Slice("subsets", "seen_cui", "concept seen", seen_cui),
            Slice("subsets", "unseen_cui", "concept unseen", ~seen_cui),
        ]
    types = [set(filter(None, map(hierarchy.resolve, names))) for names in outcomes.types]
    if any(types):
        groups = [
            {(hierarchy.chain(node) or [node])[-1] for node in nodes} or {WITHOUT_TYPE}
            for nodes in types
        ]
        slices += _type_slices("groups", groups, hierarchy, 1)
        slices += _type_slices("types", types, hierarchy, SMALLEST_SLICE)
    return slices


def _type_slices(
    table: str, nodes: Sequence[set[str]], hierarchy: TypeHierarchy, smallest: int
) -> list[Slice]:
    """A slice for each type or group of n mentions with enough of them, the largest first."""
    slices = []
    for node in sorted(set().union(*nodes)):
        mentions = np.array([node in mention_nodes for mention_nodes in nodes])
        if mentions.sum() >= smallest:
            label = node if node == WITHOUT_TYPE else hierarchy.name(node)
            slices.append(Slice(table, node, label, mentions))
    return sorted(slices, key=lambda one: -one.mentions.sum())


def measure_slices(
    outcomes: Outcomes, documents: Documents, slices: Sequence[Slice]
) -> tuple[dict[str, Measure], dict[str, dict[str, str]]]:
    """Figures of slices by ``TABLE/ROW/NAME``, and label by row of each table.

    Tiers also have a ``coverage``. Types are in the order of the lower end of the interval of
    ``overconfidence``, the surest first.
    """
    figures: dict[str, Measure] = {}
    rows: dict[str, dict[str, str]] = {}
    for one in progress(slices, desc="measuring groups and types", unit=" slices"):
        if not one.mentions.any():
            continue
        key = f"{one.table}/{one.row}"
        slice_measures = slice_figures(outcomes.select(one.mentions), documents.take(one.mentions))
        figures |= {f"{key}/{name}": figure for name, figure in slice_measures.items()}
        rows.setdefault(one.table, {})[one.row] = one.label
        if one.table == "tiers":
            figures[f"{key}/coverage"] = documents.measure([one.mentions, outcomes.every])
    if "types" in rows:
        least = {row: figures[f"types/{row}/overconfidence"]["low"] for row in rows["types"]}
        surest_first = sorted(least, key=lambda row: -np.nan_to_num(least[row], nan=-1.0))
        rows["types"] = {row: rows["types"][row] for row in surest_first}
    return figures, rows


def worst_groups(figures: Mapping[str, Measure], groups: Mapping[str, str]) -> dict[str, Measure]:
    """The worst group of `SMALL_SUPPORT` or more mentions, by acc@1 and by debiased ECE."""
    worst = {}
    for name, worst_of in (("acc@1", min), ("top1_debiased_ece", max)):
        large = []
        for row, label in groups.items():
            figure = figures.get(f"groups/{row}/{name}", NOT_MEASURED)
            if figure["n"] >= SMALL_SUPPORT:
                large.append(figure | {"population": f"mentions of {label}"})
        worst[f"worst_group_{name}"] = worst_of(
            large, key=lambda figure: figure["value"], default=NOT_MEASURED
        )
    return worst
