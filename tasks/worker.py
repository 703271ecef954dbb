"""Celery's worker as this system needs it: events in batches, and a revoke that is a cancel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.control import control_command

from db import queue
from db.session import Sessions, guarded, make_engine, session_factory
from pipeline.errors import InfrastructureError
from pipeline.settings import get_settings

log = structlog.get_logger(__name__)

#: Seconds that a task's event may wait for others. Each batch costs a request to SNS, and two to SQS for each
#: watcher; sent one by one, as Celery does, they cost more than the messages that carry the work.
EVENTS_EVERY = 0.5


class Consumer(CeleryConsumer):
    """Sends task events twice a second at the most, and what is left when it stops."""

    _planned_for = float("-inf")

    def on_send_event_buffered(self) -> None:
        """Plan to send what is buffered, unless that is planned already."""
        now = time.monotonic()
        # By the clock, not by a flag: a reset of the event loop forgets what was planned.
        if self.hub and now > self._planned_for:
            self._planned_for = now + EVENTS_EVERY
            self.hub.call_later(EVENTS_EVERY, self._flush_events)

    def stop(self) -> None:
        """Send what is buffered, then stop."""
        self._flush_events()
        super().stop()


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: str | list[str], **options: Any) -> dict[str, str]:
    """Flower's and Celery's revoke: cancel the jobs of these rows; with ``terminate`` end what runs of them.

    Celery's own remembers the id for hours and throws away every later message of the row unread: the row
    would wait for ever, whatever the steward sends, and could not be retried either.
    """
    ids = {task_id} if isinstance(task_id, str) else set(task_id)
    try:
        with guarded(), _sessions() as sessions:
            cancelled = [one for one in ids if _cancel(sessions, one)]
    except InfrastructureError as error:
        return {"error": error.message}
    if options.get("terminate"):
        for request in [one for one in worker_state.active_requests if one.id in ids]:
            request.terminate(state.consumer.pool, signal=options.get("signal"))
    log.info("revoked", task_ids=sorted(ids), cancelled=sorted(cancelled))
    return {"ok": f"cancelled the jobs of {len(cancelled)} of {len(ids)} tasks"}


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
