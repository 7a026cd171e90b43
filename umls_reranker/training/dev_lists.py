"""Dev pairs for comparing checkpoints: retrieved candidate lists, and the metrics on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from ..calibration.logistic import sigmoid
from ..core.errors import UserError
from ..data.candidate_lists import CandidateLists
from ..evaluation.pair_metrics import PairMetrics
from .trainer import LABEL_NAMES

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from ..data.concepts import ConceptTable
    from ..models.template import PairTemplate


def dev_pairs(
    candidates: Dataset, mentions: Dataset, concepts: ConceptTable, template: PairTemplate, most: int, seed: int
) -> Dataset:
    """The pairs of all candidates of a sample of dev mentions, drawn by `sample_by_document`.

    A mention whose gold concept is not in its list has only incorrect pairs.

    Args:
        candidates: lists of the dev split, from `retrieval.candidates.write_candidates`.
        mentions: the dev split, in the same order.
        concepts: the dictionary.
        template: template of the model.
        most: maximum number of pairs.
        seed: seed of the sample.

    Returns:
        ``mention_id`` and the columns that `dataset.tokenize_pairs` reads, by mention; all pairs weigh 1.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    sizes = candidates.with_format("arrow")[:]["cuis"].combine_chunks().value_lengths().to_numpy()
    rows = sample_by_document(mentions["doc_id"][:], sizes, most, seed)
    mentions = mentions.select(rows)
    lists = CandidateLists.from_run(candidates.select(rows), mentions, concepts, template.candidate_fields)
    ids, lefts, rights = (mentions[name][:] for name in ("mention_id", "left", "right"))
    mention_texts, owner = template.mention_texts(lists), lists.owner.tolist()
    return Dataset.from_dict(
        {
            "mention_id": [ids[mention] for mention in owner],
            "mention": [mention_texts[mention] for mention in owner],
            "left": [lefts[mention] for mention in owner],
            "right": [rights[mention] for mention in owner],
            "name": template.candidate_texts(lists).to_list(),
            "label": lists.labels.astype(np.int8),
            "weight": np.ones(len(owner), np.float32),
        }
    )


def sample_by_document(documents: Sequence[str], sizes: np.ndarray, most: int, seed: int) -> np.ndarray:
    """Draw mentions with up to `most` pairs, one from every document before a second one from any.

    Answers within a document are correlated, so a few documents would tell little about a checkpoint.

    Args:
        documents: (n,) document of each mention.
        sizes: (n,) int, number of pairs of each mention.
        most: maximum number of pairs.
        seed: seed of the sample.

    Returns:
        (m,) int64 numbers of the drawn mentions, ascending.

    Raises:
        UserError: `most` is less than the length of the first list.
    """
    drawn = np.random.default_rng(seed).permutation(len(documents))
    _, document = np.unique(np.asarray(documents), return_inverse=True)
    # Number of earlier draws from the document of each mention.
    grouped = np.argsort(document[drawn], kind="stable")
    starts = np.searchsorted(document[drawn][grouped], document[drawn][grouped])
    before = np.empty(len(drawn), np.int64)
    before[grouped] = np.arange(len(drawn)) - starts
    drawn = drawn[np.argsort(before, kind="stable")]
    count = int(np.searchsorted(np.cumsum(np.asarray(sizes)[drawn]), most, side="right"))
    if not count:
        raise UserError(f"max_dev_pairs: {most} is smaller than one candidate list of the dev split; increase it")
    return np.sort(drawn[:count])


def dev_metrics(mention_ids: np.ndarray) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for labelled pairs.

    Args:
        mention_ids: (n,) int64, mention of each pair in dataset order.

    Returns:
        Function that returns ``f1``, ``precision``, ``recall``, ``roc_auc``, ``ece``, ``brier``, ``log_loss`` of the
        pairs at probability 0.5; ``acc@1``, the share of mentions whose gold pair beats all others (a mention without
        one counts as incorrect); and ``list_loss``, the cross-entropy (nats) of a gold pair under the softmax over its
        mention's pairs.
    """
    metric = PairMetrics()

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        columns = dict(zip(LABEL_NAMES, prediction.label_ids, strict=True))
        labels = columns["labels"]
        logits = np.array(prediction.predictions, np.float64).reshape(-1)
        is_missing = np.isnan(logits)
        logits[is_missing] = 0.0
        metrics = metric.compute(predictions=sigmoid(logits), references=labels.astype(np.int64))
        bce = np.logaddexp(0, logits) - labels * logits
        metrics |= {"log_loss": float(bce.mean())} | _list_metrics(logits, labels, mention_ids[columns["row"]])
        # If the network diverged, its checkpoint is never the best, and early stopping counts it.
        return dict.fromkeys(metrics, float("nan")) if is_missing.any() else metrics

    return compute


def _list_metrics(logits: np.ndarray, labels: np.ndarray, mentions: np.ndarray) -> dict[str, float]:
    groups, group_of = np.unique(mentions, return_inverse=True)
    highest = {label: np.full(len(groups), -np.inf) for label in (0, 1)}
    for label, values in highest.items():
        np.maximum.at(values, group_of[labels == label], logits[labels == label])
    top = np.maximum(highest[0], highest[1])
    normalizers = top + np.log(np.bincount(group_of, np.exp(logits - top[group_of])))
    losses = (normalizers[group_of] - logits)[labels == 1]
    # A tie does not count as correct: serving could rank either first.
    return {
        "acc@1": float((highest[1] > highest[0]).mean()),
        "list_loss": float(losses.mean()) if len(losses) else float("nan"),
    }
