"""Figures of a reranker at work, by hand."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from umls_reranker.monitoring import TIERS, UsageMonitor

NOTHING = {
    "mentions": 0,
    "without_candidates": 0,
    "candidates": 0,
    "truncated_pairs": 0,
    "high_confidence_share": None,
    "tier_shares": dict.fromkeys(TIERS),
    "accepted_share": None,
    "abstained_share": None,
    "mean_top_score": None,
    "mean_margin": None,
}


def test_a_new_monitor_has_counts_of_zero_and_no_means():
    assert UsageMonitor().to_dict() == NOTHING | {"per_type": {}}


def test_figures_by_hand():
    monitor = UsageMonitor()
    monitor.record(["T047"], 3, (0.9, 0.5, "high", True))
    monitor.record(["T047", "T121"], 2, (0.4, 0.2, "medium", True))
    monitor.record([], 4, (0.1, -0.1, "reject", False))
    monitor.record(["T121"], 0, None)
    monitor.add_truncated(2)
    monitor.add_truncated(0)
    figures = monitor.to_dict()
    assert list(figures["per_type"]) == ["T047", "T121"]
    disease, drug = figures.pop("per_type").values()
    assert figures == {
        "mentions": 4,
        "without_candidates": 1,
        "candidates": 9,
        "truncated_pairs": 2,
        "high_confidence_share": 0.25,
        "tier_shares": {"high": 0.25, "medium": 0.25, "low": 0.0, "reject": 0.25},
        "accepted_share": 0.5,
        "abstained_share": 0.5,
        "mean_top_score": pytest.approx(1.4 / 3),
        "mean_margin": pytest.approx(0.6 / 3),
    }
    assert (disease["mentions"], disease["candidates"], disease["high_confidence_share"]) == (2, 5, 0.5)
    assert (drug["mentions"], drug["without_candidates"], drug["accepted_share"]) == (2, 1, 0.5)
    assert (drug["mean_top_score"], drug["mean_margin"]) == (0.4, 0.2)


def test_only_mentions_without_candidates_leave_no_mean():
    monitor = UsageMonitor()
    monitor.record([], 0, None)
    figures = monitor.to_dict()
    assert (figures["mean_top_score"], figures["mean_margin"], figures["abstained_share"]) == (None, None, 1.0)


def test_a_type_given_twice_counts_once():
    monitor = UsageMonitor()
    monitor.record(["T047", "T047"], 1, (0.9, 0.5, "high", True))
    assert monitor.to_dict()["per_type"]["T047"]["mentions"] == 1


def test_reset_starts_anew():
    monitor = UsageMonitor()
    monitor.record(["T047"], 3, (0.9, 0.5, "high", True))
    monitor.add_truncated(1)
    monitor.reset()
    assert monitor.to_dict() == NOTHING | {"per_type": {}}


def test_no_mention_is_lost_between_threads():
    monitor = UsageMonitor()

    def work(_):
        for _ in range(500):
            monitor.record(["T047"], 2, (0.5, 0.25, "medium", True))
            monitor.add_truncated(1)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    figures = monitor.to_dict()
    assert (figures["mentions"], figures["candidates"], figures["truncated_pairs"]) == (4000, 8000, 4000)
    assert figures["per_type"]["T047"]["mentions"] == 4000 and figures["mean_top_score"] == 0.5
