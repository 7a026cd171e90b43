"""What figures and systems of ``metrics.json`` are called where people read them."""

__all__ = ["figure_name"]

NAMES = {
    "f1": "F1",
    "roc_auc": "ROC-AUC",
    "mrr": "MRR",
    "ece": "ECE",
    "debiased_ece": "debiased ECE",
    "ece_reduction": "ECE reduction",
    "brier": "Brier score",
    "log_loss": "log-loss",
    "reranker": "this model",
    "cross_encoder": "cross-encoder alone",
    "evidence_without_cross_encoder": "all evidence but the cross-encoder",
    "retriever": "retriever alone",
    "exact_match": "exact name match",
    "most_frequent_cui": "most frequent CUI of the string",
    "most_frequent_cui_else_retriever": "most frequent CUI, else retriever",
    "seen_cui": "concept seen",
    "unseen_cui": "concept not seen",
    "seen_string": "string seen",
    "unseen_string": "string not seen",
}


def figure_name(key: str) -> str:
    """Words for a key.

    >>> figure_name("top1_ece")
    'ECE, top candidates'
    """
    for affix, note in (("_raw", ", before calibration"), ("top1_", ", top candidates")):
        if affix in key:
            return figure_name(key.replace(affix, "")) + note
    return NAMES.get(key, key.replace("_", " "))
