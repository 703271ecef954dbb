"""Celery's worker as this system needs it.

It receives for its free slots alone and in the order of its lanes (``tasks.poller``), keeps messages hidden
while they are worked on (``tasks.receipts``), looks after rows whose process died and after itself
(``tasks.keeper``), sends its events in batches, and takes a revoke for a cancel.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog
from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from botocore.exceptions import BotoCoreError, ClientError
from celery import bootsteps
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.control import control_command
from celery.worker.request import Request as CeleryRequest
from kombu.exceptions import OperationalError

from db import queue
from db.session import Sessions, guarded, make_engine, session_factory
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.settings import get_settings
from tasks.crew import Crew
from tasks.heart import EXIT_NOT_OURS
from tasks.running import DIED, TIMED_OUT, Running

log = structlog.get_logger(__name__)

#: Seconds that a task's event may wait for others. Each batch costs a request to SNS, and two to SQS for each
#: watcher; sent one by one, as Celery does, they cost more than the messages that carry the work.
EVENTS_EVERY = 0.5
#: What an event may fail with; none is worth a connection.
SEND_ERRORS = (BotoCoreError, ClientError, OperationalError, OSError)

#: What the pool processes of this worker are at work on.
running = Running()


class Request(CeleryRequest):
    """Tells what runs where, and what of it died."""

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """A pool process has begun."""
        running.began(self.id, pid)
        self.message.channel.begun(self.message.delivery_tag)
        super().on_accepted(pid, time_accepted)

    def on_failure(
        self,
        exc_info: Any,
        send_failed_event: bool = True,  # noqa: FBT001, FBT002 - Celery's own
        return_ok: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """The task raised, or its process is gone."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, WorkerLostError) and f"exitcode {EXIT_NOT_OURS}" in str(error):
            # It ended itself: its row was cancelled, or is another's. That is no failure of the task.
            running.ended(self.id, self.worker_pid)
            return self._announce_revoked("terminated", True, "SIGTERM", False)  # noqa: FBT003
        if isinstance(error, WorkerLostError | TimeLimitExceeded | Terminated | SystemExit):
            timed_out = isinstance(error, TimeLimitExceeded)
            running.died(self.id, self.worker_pid, TIMED_OUT if timed_out else DIED)
            # Its place in the lane was at the front, and that of a new message would be at the end.
            self.message.channel.hand_back(self.message.delivery_tag, after=1)
        return super().on_failure(exc_info, send_failed_event, return_ok)

    def acknowledge(self) -> None:
        """The message is done with, and so is the row for now."""
        running.ended(self.id, self.worker_pid)
        super().acknowledge()

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's own
        """The message goes back, or away."""
        running.ended(self.id, self.worker_pid)
        super().reject(requeue)


class Receiving(bootsteps.StartStopStep):
    """Lets the worker's own threads receive, on whatever connection there is."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, consumer: Any) -> None:
        """A connection is there: the first, or the next after one that was lost."""
        first = consumer.crew is None
        if first:
            consumer.crew = Crew(consumer, get_settings(), running)
        consumer.task_consumer.channel.attach(consumer.crew.poller, consumer.crew.receipts)
        if first:
            consumer.crew.start()


class Consumer(CeleryConsumer):
    """Sends task events twice a second at the most, and receives by a crew of its own."""

    crew: Crew | None = None
    _planned_for = float("-inf")

    def on_send_event_buffered(self) -> None:
        """Plan to send what is buffered, unless that is planned already."""
        now = time.monotonic()
        # By the clock, not by a flag: a reset of the event loop forgets what was planned.
        if self.hub and now > self._planned_for:
            self._planned_for = now + EVENTS_EVERY
            self.hub.call_later(EVENTS_EVERY, self._flush_events)

    def _flush_events(self) -> None:
        try:
            super()._flush_events()
        except SEND_ERRORS as error:
            log.warning("events_not_sent", error=str(error))

    def on_close(self) -> None:
        """A connection ends: the worker's last, or one that was lost."""
        if self.crew is not None:
            self.crew.return_unstarted()
        super().on_close()

    def cancel_task_queue(self, queue: Any) -> None:
        """Leave a lane: an operator's word to this worker, by Flower."""
        super().cancel_task_queue(queue)
        if self.crew is not None:
            self.crew.poller.leave(Queue(str(queue)))

    def add_task_queue(self, queue: Any, *args: Any, **kwargs: Any) -> None:
        """Serve a lane more."""
        super().add_task_queue(queue, *args, **kwargs)
        if self.crew is not None:
            self.crew.poller.join(Queue(str(queue)))

    def stop(self) -> None:
        """Receive no more, send what is buffered, then stop."""
        if self.crew is not None:
            self.crew.stop_receiving()
        self._flush_events()
        super().stop()


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(_state: Any, task_id: str | list[str], **_options: Any) -> dict[str, str]:
    """Flower's and Celery's revoke: cancel the jobs of these rows. What runs of them ends within seconds.

    Celery's own remembers the id for hours and throws away every later message of the row unread: the row
    would wait for ever, whatever the steward sends, and could not be retried either.
    """
    ids = {task_id} if isinstance(task_id, str) else set(task_id)
    try:
        with guarded(), _sessions() as sessions:
            cancelled = [one for one in ids if _cancel(sessions, one)]
    except InfrastructureError as error:
        return {"error": error.message}
    log.info("revoked", task_ids=sorted(ids), cancelled=sorted(cancelled))
    return {"ok": f"cancelled the jobs of {len(cancelled)} of {len(ids)} tasks"}


@control_command(
    args=[("signal", str), ("task_id", str)], variadic="task_id", signature="<signal> [id1 [...]]"
)
def terminate(state: Any, signal: str, task_id: str | list[str], **_options: Any) -> dict[str, str]:  # noqa: ARG001
    """Celery's other revoke: the same, whatever the signal."""
    told: dict[str, str] = revoke(state, task_id)
    return told


def _cancel(sessions: Sessions, task_id: str) -> bool:
    """Every worker is asked, and the first cancels: for the others the job is final already."""
    try:
        row_id = UUID(task_id)
    except ValueError:
        return False
    with sessions.begin() as session:
        return queue.cancel_row(session, row_id, actor="remote control", reason="its task was revoked")


@contextmanager
def _sessions() -> Iterator[Sessions]:
    """A connection for this command alone: one that the main process kept would be forked with it."""
    engine = make_engine(get_settings().database_url.get_secret_value(), pool_size=1)
    try:
        yield session_factory(engine)
    finally:
        engine.dispose()
