"""What Prometheus is told."""

from collections.abc import Callable, Iterable
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
GAUGES = {
    "documents": "Documents in the library.",
    "passages": "Passages in the index.",
    "index_age_seconds": "Seconds since the index last changed.",
}
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 32)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Counted by name; a client may send any other word, without number."""


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        with_registry: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter(
            "realm_requests", "Requests served.", ["method", "endpoint", "status"], **with_registry
        )
        self.seconds = Histogram(
            "realm_request_seconds",
            "Seconds from a request to its response.",
            ["endpoint"],
            buckets=SECONDS,
            **with_registry,
        )
        self.batches = Histogram(
            "realm_batch_questions",
            "Questions that were answered together.",
            buckets=BATCHES,
            **with_registry,
        )
        self.answers = Counter("realm_answers", "Questions answered.", **with_registry)
        self.refused = Counter(
            "realm_answers_refused", 'Questions answered with "no answer".', **with_registry
        )
        self.in_flight = Gauge("realm_requests_in_flight", "Requests in flight.", **with_registry)
        self.waiting = Gauge("realm_questions_waiting", "Questions in the queue.", **with_registry)
        ProcessCollector(registry=self.registry)

    def tell_of_library(self, status: Callable[[], dict[str, float]]) -> None:
        """Ask this, at every look, for gauges of the library by name."""
        self.registry.register(_Library(status))

    def record(self, method: str, endpoint: str, status: int, seconds: float) -> None:
        """Count a request; a method that nobody uses is counted as "other"."""
        method = method if method in METHODS else "other"
        self.requests.labels(method, endpoint, str(status)).inc()
        self.seconds.labels(endpoint).observe(seconds)

    def count_answer(self, *, is_refused: bool) -> None:
        """Count an answered question."""
        self.answers.inc()
        if is_refused:
            self.refused.inc()

    def text(self) -> bytes:
        """Return all of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _Library:
    """Gauges that are looked up when they are asked for."""

    def __init__(self, status: Callable[[], dict[str, float]]) -> None:
        self._status = status

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Name nothing ahead: looking takes an open library."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Yield them."""
        for name, value in self._status().items():
            yield GaugeMetricFamily(f"realm_{name}", GAUGES[name], value=value)
