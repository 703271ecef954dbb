"""The process that keeps rows and broker in step, independent of the broker's health.

Each step is safe to run twice, or in two stewards at once: an advisory lock only saves the work. The steps
are three crews with a thread each, so that a broker or bucket that hangs keeps no lease from being judged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import structlog

from db import marks, queue
from db.session import advisory_lock, guarded
from pipeline import log as logs
from pipeline.errors import InfrastructureError, StageError
from pipeline.queues import LANES
from pipeline.settings import get_settings
from tasks import dispatch
from tasks.collect import Collector
from tasks.housekeeping import Housekeeping
from tasks.process import Stop
from tasks.queues import SQS_ERRORS, Queues
from tasks.repair import Repair
from tasks.runtime import Runtime, build

log = structlog.get_logger(__name__)

#: Any fixed number will do: two stewards of one database meet here, a number for each crew.
ADVISORY_LOCK = 7_402_002
#: A row counts as overtaken by others of its lane that were published so much later.
OVERTAKEN_BY = timedelta(minutes=2)
PATIENCE = 10.0  #: seconds that a step goes on while there is more to do
LAST_WORDS = 10.0  #: seconds that a crew gets to end its step at shutdown
POOL_SIZE = 6  #: each crew holds its lock and one session

Steps = dict[str, Callable[[], int]]


class Steward:
    """Runs its steps in a loop; a step that fails says so and does not keep the others from running."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = Queues(runtime.settings)
        self._due = threading.Event()
        self.repair = Repair(runtime)
        self.collector = Collector(runtime, self._queues)
        self.housekeeping = Housekeeping(runtime)
        self.crews: tuple[Steps, ...] = (
            {"release_expired": self.release_expired},
            {
                "repair_topology": self.repair.run,
                "collect_messages": self.collector.collect,
                "publish_lost": self.publish_lost,
                "publish_due": self.publish_due,
                "copy_dead_letters": self.copy_dead_letters,
            },
            self.housekeeping.steps(),
        )

    def run(self, stop: Stop) -> None:
        """Step until ``stop`` is set."""
        interval = self._runtime.settings.steward_interval.total_seconds()
        # Judging has to notice pauses that are short against a lease.
        watching = min(interval, self._runtime.settings.lease.total_seconds() / 6)
        others = [
            threading.Thread(target=self._loop, args=(stop, number, interval), daemon=True)
            for number in range(1, len(self.crews))
        ]
        for thread in others:
            thread.start()
        self._loop(stop, 0, watching)
        self._due.set()
        for thread in others:
            thread.join(LAST_WORDS)

    def step(self) -> None:
        """One round of every crew."""
        for number in range(len(self.crews)):
            self._round(number)

    def _loop(self, stop: Stop, number: int, interval: float) -> None:
        while not stop.asked:
            self._round(number)
            if number == 1:
                self._due.wait(interval)
                self._due.clear()
            else:
                stop.wait(interval)

    def _round(self, number: int) -> None:
        """One round of a crew, under its advisory lock; nothing where another steward holds it."""
        try:
            with guarded(), advisory_lock(self._runtime.engine, ADVISORY_LOCK + number) as held:
                if held:
                    for name, step in self.crews[number].items():
                        attempt(name, step)
        except InfrastructureError as error:
            log.warning("steward_waits", error=error.message)
        except Exception:
            log.exception("steward_round_raised")

    def release_expired(self, *, watch: bool = True) -> int:
        """Release rows whose lease ended without a word; each costs a crash, unless nobody could renew it.

        ``watch`` is for the process that does this every few seconds.
        """
        judge = marks.watch if watch else marks.judgement
        with self._runtime.sessions.begin() as session:
            judgement = judge(session, lease=self._runtime.settings.lease)
        released = 0
        while judgement.allowed:
            with self._runtime.sessions() as session:
                found = queue.expired(session)
            done = sum(self._release(row_id, token, judgement) for row_id, token in found)
            released += done
            if not done:
                break
        if released:
            self._due.set()
        return released

    def _release(self, row_id: UUID, token: int, judgement: marks.Judgement) -> bool:
        with self._runtime.sessions.begin() as session:
            done = queue.release_expired(session, row_id, token, spared_until=judgement.spared_until)
        if done:
            log.warning("lease_released", row_id=str(row_id), token=token)
        return done

    def publish_due(self) -> int:
        """Publish rows that are due, or will be within SQS's longest delay, and that nobody was told of."""
        published, end = 0, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with self._runtime.sessions() as session:
                found = queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
            done = sum(dispatch.publish(self._runtime.sessions, row_id, strict=True) for row_id in found)
            published += done
            if not done:
                break
        return published

    def publish_lost(self) -> int:
        """Publish again what counts as lost on its way; returns how many rows.

        Everything that waits in an empty queue does, and ``publish_due`` sends it; so does a row that was
        overtaken by others of its lane, of which the oldest get a copy.
        """
        settings, lost = self._runtime.settings, 0
        for lane in LANES:
            with self._runtime.sessions() as session:
                waiting = queue.waiting_since(session, lane, wait=settings.lost_after, limit=1)
                passed = queue.overtaken(session, lane, margin=OVERTAKEN_BY) if waiting else []
            if waiting and self._queues.waiting(lane) == 0:
                lost += self.repair.forget_messages(lane, wait=settings.lost_after)
                continue
            lost += sum(
                dispatch.publish_copy(self._runtime.sessions, row_id, seen=seen, strict=True)
                for row_id, seen in passed
            )
        return lost

    def copy_dead_letters(self) -> int:
        """Send the copies of dead letters whose send was lost."""
        copied, end = 0, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            done = dispatch.copy_dead_letters(self._runtime.sessions, self._runtime.settings)
            copied += done
            if not done:
                break
        return copied


def attempt(name: str, step: Callable[[], int]) -> int | str:
    """What ``step`` did, or why it failed; either is in the log."""
    try:
        with guarded():
            count = step()
    except (InfrastructureError, StageError, *SQS_ERRORS) as error:
        log.warning("steward_step_failed", step=name, error=str(error))
        return str(error)
    except Exception as error:
        log.exception("steward_step_raised", step=name)
        return f"{type(error).__name__}: {error}"
    if count:
        log.info("steward_step", step=name, count=count)
    return count


def main() -> None:
    """The ``steward`` process."""
    settings = get_settings()
    logs.configure(settings, role="steward")
    stop = Stop().install()
    runtime = build(settings, pool_size=POOL_SIZE)
    log.info("steward_started")
    Steward(runtime).run(stop)
    runtime.engine.dispose()
    log.info("steward_stopped")
