"""The process that keeps rows and broker in step, independent of the broker's health.

Each step is safe to run twice, or in two stewards at once: an advisory lock only saves the work.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from db import audit, queue
from db.session import advisory_lock, guarded
from pipeline import log as logs
from pipeline.errors import InfrastructureError
from pipeline.queues import LANES
from pipeline.settings import get_settings
from tasks import broker, dispatch
from tasks.process import Stop
from tasks.queues import SQS_ERRORS, Queues
from tasks.runtime import Runtime, build

log = structlog.get_logger(__name__)

#: Any fixed number will do: two stewards of one database meet here.
ADVISORY_LOCK = 7_402_002
#: How long a published row may wait in a queue that is empty before its message counts as lost.
LOST_AFTER = timedelta(seconds=30)
SWEEP_EVERY = 300.0  #: seconds between sweeps of queues and partitions


class Steward:
    """Runs its steps in a loop; a step that fails says so and does not keep the others from running."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = Queues(runtime.settings)
        self._swept = float("-inf")

    def run(self, stop: Stop) -> None:
        """Step until ``stop`` is set."""
        while not stop.asked:
            self.step()
            stop.wait(self._runtime.settings.steward_interval.total_seconds())

    def step(self) -> None:
        """One round, under the advisory lock; nothing where another steward holds it."""
        try:
            with guarded(), advisory_lock(self._runtime.engine, ADVISORY_LOCK) as held:
                if held:
                    self._round()
        except InfrastructureError as error:
            log.warning("steward_waits", error=error.message)

    def _round(self) -> None:
        self._try("release_expired", self.release_expired)
        self._try("publish_due", self.publish_due)
        self._try("publish_lost", self.publish_lost)
        self._try("copy_dead_letters", self.copy_dead_letters)
        if time.monotonic() - self._swept > SWEEP_EVERY:
            self._swept = time.monotonic()
            self._try("sweep_queues", self.sweep_queues)
            self._try("ensure_partitions", self.ensure_partitions)

    def _try(self, name: str, step: Callable[[], int]) -> None:
        try:
            with guarded():
                count = step()
        except (InfrastructureError, *SQS_ERRORS) as error:
            log.warning("steward_step_failed", step=name, error=str(error))
        except Exception:
            log.exception("steward_step_raised", step=name)
        else:
            if count:
                log.info("steward_step", step=name, count=count)

    def release_expired(self) -> int:
        """Release rows whose lease ended without a word; each costs a crash."""
        with self._runtime.sessions() as session:
            found = queue.expired(session)
        released = 0
        for row_id, token in found:
            with self._runtime.sessions.begin() as session:
                done = queue.release_expired(session, row_id, token)
            released += done
            if done:
                log.warning("lease_released", row_id=str(row_id), token=token)
        return released

    def publish_due(self) -> int:
        """Publish rows that are due, or will be within SQS's longest delay, and that nobody was told of."""
        with self._runtime.sessions() as session:
            found = queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
        return sum(dispatch.publish(self._runtime.sessions, row_id, strict=True) for row_id in found)

    def publish_lost(self) -> int:
        """Publish again what has waited for half a minute while its queue was empty: its message is gone."""
        published = 0
        for lane in LANES:
            with self._runtime.sessions() as session:
                found = queue.waiting_since(session, lane, wait=LOST_AFTER)
            if found and self._queues.waiting(lane) == 0:
                published += sum(
                    dispatch.publish_copy(self._runtime.sessions, row_id, seen=seen, strict=True)
                    for row_id, seen in found
                )
        return published

    def copy_dead_letters(self) -> int:
        """Send the copies of dead letters whose send was lost."""
        return dispatch.copy_dead_letters(self._runtime.sessions, self._runtime.settings)

    def sweep_queues(self) -> int:
        """Delete the queues and subscriptions that event captures and inspections left."""
        return len(broker.sweep(self._runtime.settings))

    def ensure_partitions(self) -> int:
        """Make the audit log's partitions of the coming months."""
        with self._runtime.sessions.begin() as session:
            audit.ensure_partitions(session, dt.datetime.now(dt.UTC).date())
        return 0


def main() -> None:
    """The ``steward`` process."""
    settings = get_settings()
    logs.configure(settings, role="steward")
    stop = Stop().install()
    runtime = build(settings, pool_size=2)
    log.info("steward_started")
    Steward(runtime).run(stop)
    runtime.engine.dispose()
    log.info("steward_stopped")
