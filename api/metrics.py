"""What Prometheus reads: requests as they are handled, queues as the database has them at the scrape."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db import jobs
from db.session import Sessions, guarded
from pipeline.errors import InfrastructureError

log = structlog.get_logger(__name__)

#: A client may send any word as its method; the metrics know these, so that nobody can grow them without end.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "dailies_http_requests",
            "Requests handled.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "dailies_http_request_duration_seconds",
            "Time from a request's head to its answer's end.",
            ["method", "route"],
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)

    def observe_request(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """Count and time one request. ``route`` is the path with its parameters' names."""
        method = method if method in _METHODS else "OTHER"
        self._requests.labels(method, route, str(int(status))).inc()
        self._seconds.labels(method, route).observe(seconds)

    def watch_queues(self, sessions: Sessions) -> None:
        """Have every scrape count the queues as well."""
        self.registry.register(_QueueCollector(sessions))

    def expose(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _QueueCollector(Collector):
    """Reads the queues at the scrape. A database that is away is a value, not an error: the rest is told."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def describe(self) -> Iterator[Metric]:
        """Name nothing: registering would otherwise run a collection."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dailies_database_up", "1 when the database answered this scrape.")
        try:
            with guarded(), self._sessions() as session:
                living, dead = jobs.count_living(session), jobs.count_dead_letters(session)
        except InfrastructureError as error:
            log.warning("scrape_without_database", error=error.message)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _lanes(living)
        letters = GaugeMetricFamily("dailies_dead_letters", "What was given up on.", labels=["reason"])
        for reason, count in dead.items():
            letters.add_metric([reason], count)
        yield letters


def _lanes(living: list[jobs.LivingRows]) -> Iterator[Metric]:
    rows = GaugeMetricFamily(
        "dailies_queue_rows", "Rows that are not final.", labels=["queue", "job_type", "status"]
    )
    published = GaugeMetricFamily(
        "dailies_queue_published_rows", "Due rows whose message waits in the queue.", labels=["queue"]
    )
    oldest = GaugeMetricFamily(
        "dailies_queue_oldest_waiting_seconds", "How long the oldest due row has waited.", labels=["queue"]
    )
    for each in living:
        rows.add_metric([each.queue, each.job_type, each.status], each.count)
    for queue in sorted({each.queue for each in living}):
        lane = [each for each in living if each.queue == queue]
        published.add_metric([queue], sum(each.published for each in lane))
        oldest.add_metric([queue], max(each.oldest_seconds or 0.0 for each in lane))
    return iter((rows, published, oldest))
