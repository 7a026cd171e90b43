"""A monitor's figures for Prometheus, with its official client library (extra ``monitoring``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...core.errors import UserError
from .monitor import Monitor

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

PREFIX = "umls_reranker"
WINDOWED = {
    "high_confidence_share": "coverage of the high tier",
    "abstained_share": "share of mentions without an answer",
    "mean_top_score": "mean score of the top candidates",
    "mean_margin": "mean margin of the top candidates over the next concept",
}


def metrics_text(monitor: Monitor) -> bytes:
    """Return the figures in Prometheus' text format, for your own endpoint.

    Args:
        monitor: such as ``reranker.monitor``.

    Raises:
        UserError: the client library is not installed.
    """
    registry = _registry(monitor)
    from prometheus_client import generate_latest

    return generate_latest(registry)


def serve_metrics(monitor: Monitor, port: int, address: str = "127.0.0.1") -> Any:
    """Serve the figures at ``http://ADDRESS:PORT/metrics`` in a separate thread.

    Args:
        monitor: such as ``reranker.monitor``.
        port: TCP port; 0 takes a free one.
        address: address to listen on.

    Returns:
        Server and thread of ``prometheus_client.start_http_server``; ``server.shutdown()`` ends it.

    Raises:
        UserError: the client library is not installed.
    """
    registry = _registry(monitor)
    from prometheus_client import start_http_server

    return start_http_server(port, address, registry)


class MonitorCollector:
    """A collector for your own registry, which reads the monitor when it is scraped.

    Args:
        monitor: such as ``reranker.monitor``.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; called by the client library."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        state = self._monitor.to_dict()
        mentions = CounterMetricFamily(f"{PREFIX}_mentions", "mentions ranked", labels=["type"])
        kinds = {"": state, **state["per_type"]}
        for kind, figures in kinds.items():
            mentions.add_metric([kind], figures["mentions"])
        yield mentions
        tiers = CounterMetricFamily(f"{PREFIX}_answers", "top candidates by tier", labels=["tier"])
        for tier, share in state["tier_shares"].items():
            tiers.add_metric([tier], round((share or 0.0) * state["mentions"]))
        yield tiers
        yield CounterMetricFamily(f"{PREFIX}_truncated_pairs", "truncated pairs", value=state["truncated_pairs"])
        yield CounterMetricFamily(f"{PREFIX}_alarms", "alarms raised", value=state["alarm_count"])
        failures = state["log_failures"]
        yield CounterMetricFamily(f"{PREFIX}_monitor_log_failures", "failed writes to the log", value=failures)
        for name, text in WINDOWED.items():
            gauge = GaugeMetricFamily(f"{PREFIX}_window_{name}", f"{text}, most recent mentions", labels=["type"])
            for kind, figures in {"": state["window"], **state["window"]["per_type"]}.items():
                if figures[name] is not None:
                    gauge.add_metric([kind], figures[name])
            yield gauge
        psi = GaugeMetricFamily(f"{PREFIX}_drift_psi", "population stability index, most recent window", labels=["of"])
        p_value = GaugeMetricFamily(
            f"{PREFIX}_drift_p_value", "p-value of no drift, most recent window", labels=["of"]
        )
        for kind, drift in state["drift"].items():
            psi.add_metric([kind], drift["psi"])
            p_value.add_metric([kind], drift["p_value"])
        yield from (psi, p_value)
        yield from _labelled(state["labelled"])


def _labelled(state: dict[str, Any]) -> Iterator[Metric]:
    from prometheus_client.core import GaugeMetricFamily

    ece = GaugeMetricFamily(f"{PREFIX}_labelled_debiased_ece", "calibration error on labels", labels=["bound"])
    for bound, value in (state["debiased_ece"] or {}).items():
        ece.add_metric([bound], value)
    precision = GaugeMetricFamily(f"{PREFIX}_labelled_precision", "precision on labels", labels=["tier", "bound"])
    for tier, figures in state["tiers"].items():
        for bound, value in (figures["precision"] or {}).items():
            precision.add_metric([tier, bound], value)
    yield from (ece, precision)


def _registry(monitor: Monitor) -> CollectorRegistry:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError:
        raise UserError('metrics need prometheus_client: pip install "umls_reranker[monitoring]"') from None
    registry = CollectorRegistry()
    registry.register(MonitorCollector(monitor))
    return registry
