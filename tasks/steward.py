"""The process that keeps rows and broker in step, independent of the broker's health.

Each step is safe to run twice, or in two stewards at once: an advisory lock only saves the work. The steps
are three crews with a thread each, so that a broker or bucket that hangs keeps no lease from being judged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from uuid import UUID

import structlog

from db import marks, queue
from db.session import advisory_lock, guarded
from pipeline import log as logs
from pipeline.errors import InfrastructureError, StageError
from pipeline.queues import LANES, Queue
from pipeline.settings import get_settings
from tasks import dispatch
from tasks.collect import Collector
from tasks.housekeeping import Housekeeping
from tasks.process import Stop
from tasks.queues import SQS_ERRORS, Queues
from tasks.repair import Repair
from tasks.runtime import Runtime, build
from tasks.turns import Turns

log = structlog.get_logger(__name__)

#: Any fixed number will do: two stewards of one database meet here, a number for each crew.
ADVISORY_LOCK = 7_402_002
#: A row counts as overtaken by others of its lane that were published so much later.
OVERTAKEN_BY = timedelta(minutes=2)
BATCH = 200  #: rows that are asked for at a time
PATIENCE = 10.0  #: seconds that a step goes on while there is more to do
#: The steward that holds a crew's lock has begun no round for so long: another one works without it.
STANDBY_AFTER = timedelta(minutes=3)
LAST_WORDS = 10.0  #: seconds that a crew gets to end its step at shutdown
POOL_SIZE = 6  #: each crew holds its lock and one session

Steps = dict[str, Callable[[], int]]


class Steward:
    """Runs its steps in a loop; a step that fails says so and does not keep the others from running."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = Queues(runtime.settings)
        self._due = threading.Event()
        self._releases = Turns()
        self._copies = {lane: Turns() for lane in LANES}
        self.repair = Repair(runtime)
        self.collector = Collector(runtime, self._queues)
        self.housekeeping = Housekeeping(runtime)
        self.crews: tuple[Steps, ...] = (
            {"release_expired": self.release_expired},
            {
                "repair_topology": self.repair.run,
                "publish_lost": self.publish_lost,
                "publish_due": self.publish_due,
            },
            {
                "copy_dead_letters": self.copy_dead_letters,
                "collect_messages": self.collector.run,
                **self.housekeeping.steps(),
            },
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
                if self._takes(number, held=held):
                    for name, step in self.crews[number].items():
                        attempt(name, step)
        except InfrastructureError as error:
            log.warning("steward_waits", error=error.message)
        except Exception:
            log.exception("steward_round_raised")

    def _takes(self, number: int, *, held: bool) -> bool:
        """Whether the round is ours. A holder that is silent, like a suspended machine, holds up nobody."""
        name = f"{marks.ROUND}{number}"
        with self._runtime.sessions.begin() as session:
            if not held and (marks.age(session, name) or timedelta(0)) < STANDBY_AFTER:
                return False
            marks.put(session, name)
        return True

    def release_expired(self, *, watch: bool = True) -> int:
        """Release rows whose lease ended without a word; each costs a crash, unless nobody could renew it.

        ``watch`` is for the process that does this every few seconds. Without it, InfrastructureError says
        that there are such rows and that nobody may judge them now.
        """
        released, turns = 0, self._releases
        while True:
            with self._runtime.sessions() as session:
                found = dict(queue.expired(session, limit=BATCH + len(turns.late)))
            # After each look: the database may have been away before it.
            judgement = self._judge(watch=watch)
            if not judgement.allowed:
                break
            done = turns.each(found, partial(self._release, found, judgement))
            released += done
            if not done:
                break
        if released:
            self._due.set()
        return released

    def _judge(self, *, watch: bool) -> marks.Judgement:
        judge = marks.watch if watch else marks.judgement
        with self._runtime.sessions.begin() as session:
            judgement = judge(session, lease=self._runtime.settings.lease)
            if not watch and not judgement.allowed and queue.expired(session, limit=1):
                raise InfrastructureError(
                    "No steward has watched the database for a whole lease, so nobody knows whether their"
                    " holders could renew. A steward that runs releases them; see that one does.",
                    code="LEASES_NOT_JUDGED",
                )
        return judgement

    def _release(self, tokens: dict[UUID, int], judgement: marks.Judgement, row_id: UUID) -> bool:
        token = tokens[row_id]
        with self._runtime.sessions.begin() as session:
            done = queue.release_expired(session, row_id, token, spared_until=judgement.spared_until)
        if done:
            log.warning("lease_released", row_id=str(row_id), token=token)
        return done

    def publish_due(self) -> int:
        """Publish rows that are due, or will be within SQS's longest delay, and that nobody was told of."""
        sessions, lanes = self._runtime.sessions, list(LANES)
        published, end = 0, time.monotonic() + PATIENCE
        away: InfrastructureError | None = None
        while lanes and time.monotonic() < end:
            for lane in tuple(lanes):
                done = 0
                try:
                    with guarded(), sessions() as session:
                        found = queue.unpublished(session, lane, horizon=queue.SQS_MAX_DELAY, limit=BATCH)
                    with guarded():
                        done = dispatch.publish_all(sessions, found)
                except InfrastructureError as error:  # one that refuses keeps no other waiting
                    log.warning("lane_left", queue=lane, error=error.message)
                    away = error
                published += done
                if not done:
                    lanes.remove(lane)
        if away is not None:
            raise away
        return published

    def publish_lost(self) -> int:
        """Publish again what counts as lost on its way; returns how many rows.

        Everything that waits in an empty queue does, and ``publish_due`` sends it; so does a row that was
        overtaken by others of its lane, of which the oldest get a copy.
        """
        lost, away = 0, None
        for lane in LANES:  # one that does not answer keeps no other waiting
            try:
                lost += self._publish_lost_of(lane)
            except (InfrastructureError, *SQS_ERRORS) as error:
                log.warning("lane_left", queue=lane, error=str(error))
                away = error
        if away is not None:
            raise away
        return lost

    def _publish_lost_of(self, lane: Queue) -> int:
        sessions, wait = self._runtime.sessions, self._runtime.settings.lost_after
        with guarded(), sessions() as session:
            if not queue.any_waiting(session, lane, wait=wait):
                return 0
        if self._queues.waiting(lane) == 0:
            with guarded():
                return self.repair.forget_messages(lane, wait=wait)
        with guarded(), sessions() as session:
            seen = dict(queue.overtaken(session, lane, margin=OVERTAKEN_BY))
        return self._copies[lane].each(
            seen, lambda row_id: dispatch.publish_copy(sessions, row_id, seen=seen[row_id], strict=True)
        )

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
