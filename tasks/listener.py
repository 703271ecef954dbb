"""From S3's events to jobs: row first, publish after the commit, delete last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import structlog
from structlog.contextvars import bound_contextvars

from db import events, queue
from db.session import guarded
from pipeline import log as logs
from pipeline.errors import InfrastructureError, NotOursError
from pipeline.events import parse
from pipeline.queues import Queue
from pipeline.settings import get_settings
from tasks import dispatch
from tasks.process import Stop
from tasks.queues import SQS_ERRORS, Queues
from tasks.runtime import Runtime, build

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

BATCH = 10  #: messages a receive; the most that SQS gives
PAUSE_AFTER_ERROR = 2.0  #: seconds before asking again what did not answer


class Listener:
    """Receives events in batches and turns each into rows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._queues = Queues(runtime.settings)
        settings = runtime.settings
        self._stop = Stop()
        self._budgets = events.Budgets(max_attempts=settings.max_attempts, max_crashes=settings.max_crashes)

    def run(self, stop: Stop) -> None:
        """Poll until ``stop`` is set. Nothing that arrives ends the loop."""
        self._stop = stop
        while not stop.asked:
            try:
                self.poll()
            except (*SQS_ERRORS, InfrastructureError) as error:
                log.warning("poll_failed", error=str(error))
                stop.wait(PAUSE_AFTER_ERROR)

    def poll(self) -> int:
        """Receive one batch and handle it; returns how many messages were handled and deleted."""
        url = self._queues.url(Queue.EVENTS)
        received = self._receive(url)
        # Told to stop: what has come meanwhile, and what has not begun, goes back for another listener.
        handled = [message for message in received if not self._stop.asked and self._handle(message)]
        if handled:
            self._queues.client.delete_message_batch(
                QueueUrl=url,
                Entries=[{"Id": name, "ReceiptHandle": handle} for name, handle in _named(handled)],
            )
        if self._stop.asked and len(handled) < len(received):
            left = [message for message in received if message not in handled]
            self._queues.client.change_message_visibility_batch(
                QueueUrl=url,
                Entries=[
                    {"Id": name, "ReceiptHandle": handle, "VisibilityTimeout": 0}
                    for name, handle in _named(left)
                ],
            )
        return len(handled)

    def _receive(self, url: str) -> list[MessageTypeDef]:
        return self._queues.client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=BATCH,
            WaitTimeSeconds=int(self._runtime.settings.poll_wait.total_seconds()),
        ).get("Messages", [])

    def _handle(self, message: MessageTypeDef) -> bool:
        """Handle one message; returns whether it may be deleted. A message never harms its neighbours."""
        with bound_contextvars(message_id=message.get("MessageId")):
            try:
                with guarded():
                    self._apply(message["Body"])
            except InfrastructureError as error:
                log.warning("event_postponed", error=error.message)
                return False  # visible again after its timeout, after twenty times in the DLQ
            except Exception:
                log.exception("event_raised")
                return False
            return True

    def _apply(self, body: str) -> None:
        sessions = self._runtime.sessions
        try:
            changes = parse(body)
        except NotOursError as error:
            log.warning("event_not_ours", error=error.message)
            with sessions.begin() as session:
                queue.keep_foreign(session, source=Queue.EVENTS, body=body, error=error)
            dispatch.copy_dead_letters(sessions, self._runtime.settings)
            return
        for event in changes:
            with sessions.begin() as session:
                applied = events.apply(session, event, self._budgets)
            ids: dict[str, Any] = {"media_item_id": applied.media_item_id, "job_id": applied.job_id}
            log.info("event_applied", what=applied.what, bucket=event.bucket, key=event.key, **ids)
            if applied.job_id is not None:
                dispatch.publish_job(sessions, applied.job_id)


def _named(messages: Sequence[MessageTypeDef]) -> list[tuple[str, str]]:
    """The receipt handles, each with a name for the answer to a batch."""
    return [(str(number), message["ReceiptHandle"]) for number, message in enumerate(messages)]


def main() -> None:
    """The ``listener`` process."""
    settings = get_settings()
    logs.configure(settings, role="listener")
    stop = Stop().install()
    runtime = build(settings, pool_size=1)
    log.info("listener_started", bucket=settings.storage_bucket)
    Listener(runtime).run(stop)
    runtime.engine.dispose()
    log.info("listener_stopped")
