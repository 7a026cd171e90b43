"""Entity-linking metrics over candidate lists, in which the gold concept may be missing.

Lists are flat: one array holds the candidates of all mentions, and `offsets` (n_mentions + 1,) divides it. Candidate
``offsets[i] + j`` is the j-th retrieved candidate of mention i. A mention counts as an error if its gold concept was
not retrieved or is not in the dictionary; figures over in-dictionary mentions are given too.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..calibration.resampling import bootstrap_sums, document_index, document_sums, ratio
from ..calibration.thresholds import TIERS
from ..core.arrays import ranking

__all__ = [
    "coverage_at_precision",
    "gold_ranks",
    "linking_metrics",
    "measure",
    "tier_metrics",
]

Measure = dict[str, float]


def gold_ranks(scores: np.ndarray, offsets: np.ndarray, gold: np.ndarray) -> np.ndarray:
    """Rank (0 is best) of the gold concept in each list sorted by score.

    Args:
        scores: (n_candidates,) raw logits, or any score for which higher is better.
        offsets: (n_mentions + 1,).
        gold: (n_mentions,) position of the gold concept in the retrieved list, -1 if missing.

    Returns:
        (n_mentions,) int64, -1 where `gold` is.
    """
    order = ranking(scores, offsets)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    starts, gold = offsets[:-1], np.asarray(gold, dtype=np.int64)
    found = gold >= 0
    ranks = np.full(len(gold), -1, dtype=np.int64)
    ranks[found] = place[starts[found] + gold[found]] - starts[found]
    return ranks


def linking_metrics(
    ranks: np.ndarray,
    in_dictionary: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    ks: Sequence[int] = (1, 5, 32),
    answered: np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """acc@1, MRR and recall@k with 95 % intervals by document.

    Args:
        ranks: (n,) rank of the gold concept in the system's list, -1 if missing; for a system with one answer, 0 if it
            is right, else -1.
        in_dictionary: (n,) whether the gold concept is in the dictionary.
        groups: (n,) document of each mention.
        answered: (n,) whether the system answered, if it may abstain; adds ``answered`` (share of all mentions) and
            ``precision`` (right among answered).

    Returns:
        dict of ``{"value", "low", "high"}`` by metric over all mentions; the same over in-dictionary mentions under
        ``in_dictionary``; and the counts ``mentions``, ``out_of_dictionary`` and ``not_retrieved`` (in the dictionary,
        but not in the list).
    """
    ranks = np.asarray(ranks, dtype=np.int64)
    known = np.asarray(in_dictionary, dtype=bool)
    index, documents = document_index(groups)
    gains = {"acc@1": ranks == 0, "mrr": np.where(ranks >= 0, 1.0 / (np.maximum(ranks, 0) + 1.0), 0.0)}
    gains |= {f"recall@{k}": (ranks >= 0) & (ranks < k) for k in ks}
    if answered is not None:
        gains["answered"] = np.asarray(answered, dtype=bool)

    def mean(values: np.ndarray, population: np.ndarray) -> Measure:
        columns = [values * population, population.astype(np.float64)]
        return measure(document_sums(index, documents, columns), ratio, resamples=resamples, seed=seed)

    everywhere = np.ones(len(ranks), dtype=bool)
    result: dict = {name: mean(gain, everywhere) for name, gain in gains.items()}
    result["in_dictionary"] = {name: mean(gain, known) for name, gain in gains.items()}
    if answered is not None:
        result["precision"] = mean(gains["acc@1"], gains["answered"])
    return result


def coverage_at_precision(
    score: np.ndarray,
    correct: np.ndarray,
    precision: float,
    groups: Sequence | np.ndarray | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Measure:
    """The largest share of mentions that a system can answer at this precision, for comparing systems.

    The threshold is chosen on the same mentions, so the figure is optimistic for every system. For a promise, use a
    certified threshold. Mentions with equal scores are answered together.

    Args:
        score: (n,) score of each mention's top candidate; -inf or NaN if the system gives no answer.
        correct: (n,) whether it is the gold concept.
        groups: (n,) document of each mention; None: no interval.
    """
    score = np.asarray(score, dtype=np.float64)
    score = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-score, kind="stable")
    score, correct = score[order], np.asarray(correct, dtype=np.float64)[order]
    last_of_tie = np.append(score[1:] < score[:-1], True) & (score > -np.inf)

    def coverage(weight: np.ndarray) -> np.ndarray:
        answered = np.cumsum(weight, axis=-1)
        right = np.cumsum(weight * correct, axis=-1)
        # The slack allows for rounding in sums of weights.
        fine = last_of_tie & (right >= precision * answered - 1e-9)
        return np.max(np.where(fine, answered, 0.0), axis=-1) / answered[..., -1]

    value = float(coverage(np.ones(len(score))))
    if groups is None:
        return {"value": value}
    index, documents = document_index(groups)
    rng = np.random.default_rng(seed)
    even = np.full(documents, 1.0 / documents)
    draws = [coverage(rng.multinomial(documents, even).astype(np.float64)[index[order]]) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


def tier_metrics(
    tiers: Sequence[str] | np.ndarray,
    correct: np.ndarray,
    groups: Sequence | np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, dict]:
    """Per tier of the top candidates: ``count``, ``share`` of all mentions and ``precision``, intervals by document.

    A mention without candidates belongs to "reject", with `correct` false.
    """
    index, documents = document_index(groups)
    given, correct = np.asarray(tiers), np.asarray(correct, dtype=np.float64)
    result = {}
    for tier in TIERS:
        inside = (given == tier).astype(np.float64)
        sums = document_sums(index, documents, [inside * correct, inside, np.ones_like(inside)])
        result[tier] = {
            "count": int(inside.sum()),
            "share": measure(sums[:, 1:], ratio, resamples=resamples, seed=seed),
            "precision": measure(sums[:, :2], ratio, resamples=resamples, seed=seed),
        }
    return result


def measure(sums: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, resamples: int, seed: int) -> Measure:
    """A statistic of per-document sums (documents, k) as ``{"value", "low", "high"}``, 95 % by document.

    Resamples of one document, or of documents that are right or wrong throughout, do not vary. One document has no
    interval. A share of 1 or 0 over n documents reaches to what n equal documents exclude: ``0.025 ** (1 / n)``.
    """
    value = float(statistic(sums.sum(axis=0)))
    if len(sums) < 2:
        return {"value": value, "low": float("nan"), "high": float("nan")}
    low, high = bootstrap_sums(sums, statistic, resamples=resamples, seed=seed)
    if statistic is ratio and low == high and value in (0.0, 1.0):
        least = 0.025 ** (1.0 / np.count_nonzero(sums[:, 1]))
        low, high = (least, 1.0) if value else (0.0, 1.0 - least)
    return {"value": value, "low": low, "high": high}
