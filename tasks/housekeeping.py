"""What the steward does now and then: listings of the buckets, sweeps, pruning."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

import structlog

from db import audit, prune
from db.session import Session
from tasks.runtime import Runtime
from tasks.scan import BucketScan, OrphanSweep
from tasks.sweep import sweep

log = structlog.get_logger(__name__)

SWEEP_EVERY = 300.0  #: seconds between sweeps of queues, partitions, and what is old
PATIENCE = 10.0  #: seconds a round that a listing or the pruning goes on


class Housekeeping:
    """Steps that nothing waits for."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.scan = BucketScan(runtime)
        self.orphans = OrphanSweep(runtime)
        self._done: dict[str, float] = {}

    def steps(self) -> dict[str, Callable[[], int]]:
        """Every step by name; each knows whether its time has come."""
        return {
            "scan_bucket": self.scan_bucket,
            "sweep_orphans": self.sweep_orphans,
            "sweep_queues": self._now_and_then("sweep_queues", self.sweep_queues),
            "turn_audit_log": self._now_and_then("turn_audit_log", self.turn_audit_log),
            "prune": self._now_and_then("prune", self.prune),
        }

    def _now_and_then(self, name: str, step: Callable[[], int]) -> Callable[[], int]:
        def run() -> int:
            if time.monotonic() - self._done.get(name, float("-inf")) < SWEEP_EVERY:
                return 0
            self._done[name] = time.monotonic()
            return step()

        return run

    def scan_bucket(self) -> int:
        """Go on with the comparison of bucket and media items, when one is due."""
        return self.scan.run(patience=PATIENCE)[0] if self.scan.progress.due() else 0

    def sweep_orphans(self) -> int:
        """Go on with the search for orphaned pictures, when one is due."""
        return self.orphans.run(patience=PATIENCE)[0] if self.orphans.progress.due() else 0

    def sweep_queues(self) -> int:
        """Delete the queues and subscriptions that event captures and inspections left."""
        return len(sweep(self._runtime.settings, self._runtime.sessions))

    def turn_audit_log(self) -> int:
        """Make the audit log's partitions of the coming months, and drop those that are past their time."""
        now = dt.datetime.now(dt.UTC)
        with self._runtime.sessions.begin() as session:
            audit.ensure_partitions(session, now.date())
        with self._runtime.sessions.begin() as session:
            return audit.drop_months(session, (now - self._runtime.settings.keep_audit).date())

    def prune(self) -> int:
        """Delete jobs, items, dead letters and workers that are past their time, in small transactions.

        When there is more than ``PATIENCE`` is enough for, it goes on in the next round.
        """
        settings, end, total = self._runtime.settings, time.monotonic() + PATIENCE, 0
        kinds: tuple[Callable[[Session], int], ...] = (
            prune.silent_workers,
            lambda session: prune.dead_letters(session, keep=settings.keep_dead_letters),
            lambda session: prune.finished_jobs(session, keep=settings.keep_finished),
            lambda session: prune.carried_by_ended_items(session, age=settings.orphan_age),
            lambda session: prune.ended_items(session, keep=settings.keep_ended_items),
        )
        for delete in kinds:
            while done := self._batch(delete):
                total += done
                if time.monotonic() >= end:
                    self._done.pop("prune", None)
                    return total
        return total

    def _batch(self, delete: Callable[[Session], int]) -> int:
        with self._runtime.sessions.begin() as session:
            return delete(session)
