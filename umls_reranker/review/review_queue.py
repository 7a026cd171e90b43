"""Select the predictions whose review helps most."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..calibration.thresholds import load_thresholds
from ..core.files import read_json, written
from ..data.normalization import normalize_name
from ..hub.model_folder import REFERENCE, THRESHOLDS, verify_files
from ..serving.monitoring.reference import Reference
from ..serving.prediction_log import LoggedMention, concept_of

RANDOM = "random draw"
# Distance from the threshold in log-odds at which the value of a label falls to 1 / e.
NEAR = 0.7
# Weights of the reasons; each reason is in [0, 1].
WEIGHTS = {"near the threshold": 1.0, "rankings disagree": 0.6, "rare type": 0.4}
# Each selection multiplies the value of others of its document, and of its type, by this factor.
SAME_DOCUMENT, SAME_TYPE = 0.7, 0.95


@dataclass(frozen=True)
class Reasons:
    """Why a prediction should be reviewed.

    Attributes:
        values: reason -> [0, 1], by the keys of `WEIGHTS`.
    """

    values: Mapping[str, float]

    @property
    def worth(self) -> float:
        """Weighted sum."""
        return sum(WEIGHTS[name] * value for name, value in self.values.items())

    @property
    def words(self) -> str:
        """The reasons with a weighed value of 0.2 or more, or else the largest one; the largest first."""
        weighed = {name: WEIGHTS[name] * value for name, value in self.values.items()}
        named = [name for name, value in sorted(weighed.items(), key=lambda item: -item[1]) if value >= 0.2]
        return ", ".join(named) or max(weighed, key=weighed.__getitem__)


def reasons_of(mention: LoggedMention, accept: float, type_share: float) -> Reasons:
    """Judge one prediction.

    * ``near the threshold``: exp(-d / `NEAR`), d the distance of score and threshold in log-odds, because there a
      label changes threshold and calibrator most, and decisions are most often incorrect;
    * ``rankings disagree``: 1 if cross-encoder and retrieval have different top candidates, 0.5 if only the final
      order differs from one of them; if the cross-encoder scored nothing, 1 if the final order differs;
    * ``rare type``: from 0 for a type with 1 in 20 of the test split's mentions to 1 for a type with none.

    Args:
        mention: the prediction.
        accept: acceptance threshold of the mention's type.
        type_share: share of that type among the mentions of the model's test split.
    """
    ranked = mention.row["ranked"]
    distance = abs(_log_odds(mention.top.score) - _log_odds(accept)) if mention.top else math.inf
    best = {concept_of(ranked[0])} if ranked else set()
    # Logged answers of /rank have no logits, and neither have pruned candidates.
    seen = [item for item in ranked if item.get("logit") is not None]
    key = "logit" if seen else "score"
    by_logit = {concept_of(max(seen or ranked, key=lambda item: item.get(key, 0)))} if ranked else set()
    retrieved = {concept_of(_first_retrieved(mention.row["candidates"]))} if ranked else set()
    disagreement = 1.0 if by_logit != retrieved else 0.5 * (best != by_logit)
    return Reasons(
        {
            "near the threshold": math.exp(-distance / NEAR),
            "rankings disagree": disagreement,
            "rare type": max(0.0, 1.0 - 20.0 * type_share),
        }
    )


def judge_of(model: Path) -> Callable[[LoggedMention], Reasons]:
    """`reasons_of` with the thresholds of a model folder and the types of its test split.

    Raises:
        UserError: thresholds.json or reference.json is missing, or of another version.
    """
    verify_files(model, [REFERENCE, THRESHOLDS])
    tables = load_thresholds(read_json(model / THRESHOLDS))
    usual = next(iter(tables.values()))
    types = Reference.load(model / REFERENCE).types
    shares = dict(zip(types.cells[:-1], types.shares, strict=False))

    def judge(mention: LoggedMention) -> Reasons:
        known = map(usual.hierarchy.resolve, mention.types)
        share = min((shares.get(name or "", 0.0) for name in known), default=1.0)
        ranked = mention.row["ranked"]
        thresholds = tables.get(ranked[0].get("inputs"), usual) if ranked else usual
        return reasons_of(mention, thresholds.for_type(mention.types).accept, share)

    return judge


def select_for_review(
    mentions: Sequence[LoggedMention],
    count: int,
    judge: Callable[[LoggedMention], Reasons],
    *,
    random_share: float = 0.2,
    seed: int = 13,
) -> list[tuple[LoggedMention, str]]:
    """Select predictions, the most useful first, each string once, spread over documents and types.

    A share is a random sample of all predictions and comes first: only it shows how the service performs
    (`monitoring.Monitor.add_label`). The others are doubtful cases.

    Args:
        mentions: predictions; at most `count` are selected.
        count: number of predictions to select.
        judge: `reasons_of` with the threshold and share of a mention's type.
        random_share: share of `count` to draw at random, in [0, 1].
        seed: seed of the random sample.

    Returns:
        Pairs of prediction and reason in the order of review.
    """
    forms = [normalize_name(mention.row["entity"]) for mention in mentions]
    drawn = np.random.default_rng(seed).permutation(len(mentions))[: round(count * random_share)].tolist()
    picked = [(mentions[row], RANDOM) for row in drawn]
    strings = {forms[row] for row in drawn}
    documents, types = Counter[str](), Counter[str]()
    reasons = [judge(mention) for mention in mentions]

    def worth(row: int) -> float:
        mention = mentions[row]
        kind = max((types[name] for name in mention.types), default=types[""])
        document = documents[mention.document] if mention.document else 0
        return reasons[row].worth * SAME_DOCUMENT**document * SAME_TYPE**kind

    # Values only decrease as others are selected, so the recomputed head of the queue is the best or goes back into
    # it.
    queue = [(-worth(row), row) for row in range(len(mentions))]
    heapq.heapify(queue)
    while queue and len(picked) < count:
        former, row = heapq.heappop(queue)
        if forms[row] in strings:
            continue
        present = -worth(row)
        if present > former:
            heapq.heappush(queue, (present, row))
            continue
        mention = mentions[row]
        picked.append((mention, reasons[row].words))
        strings.add(forms[row])
        types.update(mention.types or [""])
        if mention.document:
            documents[mention.document] += 1
    return picked


def write_queue(picked: Iterable[tuple[LoggedMention, str]], path: Path) -> None:
    """Write the selection of `select_for_review` as JSON lines, with the reason first."""
    with written(path) as partial, partial.open("w", encoding="utf-8") as target:
        for mention, reason in picked:
            # The row may still hold fields of an earlier selection and review.
            row = {name: value for name, value in mention.row.items() if name not in ("reason", "chosen", "note")}
            target.write(json.dumps({"reason": reason} | row, ensure_ascii=False) + "\n")


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))


def _first_retrieved(candidates: Iterable[Mapping[str, Any] | str]) -> Mapping[str, Any] | str:
    """The top candidate by retrieval score if all candidates have one, else by the order of the list."""
    items = list(candidates)
    scores = [item.get("retrieval_score") if isinstance(item, Mapping) else None for item in items]
    numbers = [score for score in scores if isinstance(score, int | float)]
    return items[scores.index(max(numbers))] if len(numbers) == len(items) else items[0]
