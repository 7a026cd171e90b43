"""The figures as Prometheus reads them, through its own parser."""

import sys
import urllib.request

import pytest
from outcome_fixtures import make_outcomes
from prometheus_client.parser import text_string_to_metric_families
from test_monitoring import feed, make_reference

from umls_reranker.core.errors import UserError
from umls_reranker.serving.monitoring.monitor import Monitor
from umls_reranker.serving.monitoring.prometheus import metrics_text, serve_metrics


@pytest.fixture
def monitor():
    monitor = Monitor(make_reference(), window=200)
    feed(monitor, make_outcomes(250, types=[["T121"]] * 250))
    monitor.add_label(0.9, "high", True)
    return monitor


def samples(text):
    families = text_string_to_metric_families(text.decode())
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_what_is_scraped_is_what_the_monitor_says(monitor):
    found, state = samples(metrics_text(monitor)), monitor.to_dict()
    assert found["umls_reranker_mentions_total", ("type", "")] == 250
    assert found["umls_reranker_mentions_total", ("type", "T121")] == 250
    assert sum(value for (name, *_), value in found.items() if name == "umls_reranker_answers_total") == 250
    assert found["umls_reranker_window_mean_top_score", ("type", "")] == state["window"]["mean_top_score"]
    assert found["umls_reranker_drift_psi", ("of", "types")] == state["drift"]["types"]["psi"] > 1
    assert found[("umls_reranker_alarms_total",)] == 1
    assert found[("umls_reranker_monitor_log_failures_total",)] == 0
    assert found["umls_reranker_labelled_precision", ("bound", "value"), ("tier", "high")] == 1.0


def test_a_monitor_that_has_seen_nothing_can_be_scraped():
    assert samples(metrics_text(Monitor()))["umls_reranker_mentions_total", ("type", "")] == 0


def test_the_endpoint_answers(monitor):
    server, thread = serve_metrics(monitor, 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            assert samples(answer.read()) == samples(metrics_text(monitor))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_without_the_client_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(UserError, match=r"pip install \"umls_reranker\[monitoring\]\""):
        metrics_text(Monitor())
