"""What Prometheus reads: requests as they are handled, queues as the database has them at the scrape."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from db import fleet, jobs, letters, marks, stats
from db.session import Sessions, guarded
from pipeline.errors import InfrastructureError
from pipeline.queues import LANES

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

    def watch_queues(self, sessions: Sessions, *, silent: timedelta) -> None:
        """Have every scrape count the queues as well; a worker without a word for ``silent`` is lost."""
        self.registry.register(_QueueCollector(sessions, silent))

    def expose(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self.registry)


class _QueueCollector(Collector):
    """Reads the queues at the scrape. A database that is away is a value, not an error: the rest is told."""

    def __init__(self, sessions: Sessions, silent: timedelta) -> None:
        self._sessions = sessions
        self._silent = silent

    def describe(self) -> Iterator[Metric]:
        """Name nothing: registering would otherwise run a collection."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("dailies_database_up", "1 when the database answered this scrape.")
        try:
            with guarded(), self._sessions() as session:
                living, waits = stats.count_living(session), stats.oldest_waiting(session)
                dead = jobs.count_dead_letters(session)
                still_open, paused = letters.count_open(session), jobs.paused_lanes(session)
                workers = fleet.count_states(session, silent=self._silent)
                steward = marks.age(session, marks.WATCHED)
        except InfrastructureError as error:
            log.warning("scrape_without_database", error=error.message)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _lanes(living, waits)
        by_reason = GaugeMetricFamily("dailies_dead_letters", "What was given up on.", labels=["reason"])
        for reason, count in dead.items():
            by_reason.add_metric([reason], count)
        yield by_reason
        yield _open_letters(still_open)
        yield from _fleet(workers, paused)
        watched = GaugeMetricFamily("dailies_steward_silent_seconds", "Since a steward was last heard of.")
        if steward is not None:
            watched.add_metric([], steward.total_seconds())
        yield watched


def _lanes(living: list[stats.LivingRows], waits: Mapping[str, float | None]) -> Iterator[Metric]:
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
    for queue, seconds in sorted(waits.items()):
        published.add_metric([queue], sum(each.published for each in living if each.queue == queue))
        oldest.add_metric([queue], seconds or 0.0)
    return iter((rows, published, oldest))


def _open_letters(counted: list[tuple[str | None, str, int]]) -> Metric:
    letters = GaugeMetricFamily(
        "dailies_dead_letters_open",
        "Dead letters that nobody has redriven or purged.",
        labels=["job_type", "error_code"],
    )
    for stage, code, count in counted:
        letters.add_metric([stage or "", code], count)
    return letters


def _fleet(workers: Mapping[fleet.SeenState, int], paused: Collection[str]) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "dailies_workers",
        "Workers of the last day by state: lost fell silent, no_room has a full disk.",
        labels=["state"],
    )
    for state, count in workers.items():
        states.add_metric([state], count)
    lanes = GaugeMetricFamily("dailies_queue_paused", "1 when the lane is paused.", labels=["queue"])
    for lane in LANES:
        lanes.add_metric([lane], lane in paused)
    return iter((states, lanes))
