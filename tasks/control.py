"""What the API may ask of the broker, and what it may set going: redrives, retries, lanes, the reconciler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

import structlog

from db import queue
from db.session import Session, Sessions, guarded
from pipeline.errors import (
    ConflictError,
    DailiesError,
    InfrastructureError,
    InvalidRequestError,
    NotFoundError,
)
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from pipeline.workflows import StageName
from tasks.dispatch import publish_all
from tasks.queues import SQS_ERRORS, Queues, queues_of
from tasks.runtime import Runtime, build

if TYPE_CHECKING:
    from tasks.reconcile import Drift, Mended

log = structlog.get_logger(__name__)

#: Rows that a resumed lane publishes at once; the steward does the rest, some hundred a second.
PUBLISHED_AT_ONCE = 100
#: What is wrong with one of many and says nothing about the others.
REFUSALS = (NotFoundError, ConflictError, InvalidRequestError)


@dataclass(frozen=True, slots=True)
class Depth:
    """Messages in a queue (approximate, as SQS counts)."""

    visible: int
    in_flight: int  #: received, and not deleted yet
    delayed: int


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of one of many: started again from ``stage``, or refused with ``error``."""

    id: UUID  #: of the job or dead letter asked for
    job_id: UUID | None = None
    stage: StageName | None = None  #: None for an S3 event, which goes to the listener again
    error: DailiesError | None = None
    row_id: UUID | None = None  #: is to be published; None after a dry run


def queues_reachable(settings: Settings) -> None:
    """Raise InfrastructureError unless every lane and the events queue answer."""
    queues = queues_of(settings)
    for name in (*LANES, Queue.EVENTS):
        try:
            queues.waiting(name)
        except SQS_ERRORS as error:
            raise InfrastructureError(
                f"The queue {name} does not answer: {error}", code="QUEUE_UNAVAILABLE"
            ) from error


def depths(settings: Settings) -> dict[Queue, Depth]:
    """The depth of every queue. Raises InfrastructureError when one is not there or SQS does not answer."""
    queues = queues_of(settings)
    names = ("Messages", "MessagesNotVisible", "MessagesDelayed")
    found = {}
    for name in Queue:
        try:
            told = queues.client.get_queue_attributes(
                QueueUrl=queues.url(name),
                AttributeNames=[f"ApproximateNumberOf{each}" for each in names],  # type: ignore[misc]
            )["Attributes"]
        except SQS_ERRORS as error:
            raise InfrastructureError(
                f"The queue {name} does not answer: {error}", code="QUEUE_UNAVAILABLE"
            ) from error
        found[name] = Depth(*(int(told[f"ApproximateNumberOf{each}"]) for each in names))  # type: ignore[index]
    return found


def publish_lane(sessions: Sessions, lane: Queue) -> int:
    """Publish what is due in a lane that was resumed, the longest due first; returns how many were sent."""
    with guarded(), sessions() as session:
        rows = queue.unpublished(session, lane, horizon=queue.SQS_MAX_DELAY, limit=PUBLISHED_AT_ONCE)
    return publish_all(sessions, rows)


def retry_jobs(
    sessions: Sessions,
    job_ids: Sequence[UUID],
    *,
    actor: str,
    reason: str | None = None,
    stage: StageName | None = None,
    dry_run: bool = False,
) -> list[Handled]:
    """Start each job again, each in a transaction of its own; what is due then is for the caller to publish.

    With ``dry_run`` every transaction is undone, so the answer is what would happen, and nothing does.
    """

    def retry(session: Session, job_id: UUID) -> Handled:
        row = queue.retry_job(session, job_id, actor=actor, reason=reason, stage=stage)
        return Handled(job_id, job_id, StageName(row.job_type), row_id=None if dry_run else row.id)

    return _each(sessions, job_ids, retry, dry_run=dry_run)


def redrive(
    sessions: Sessions,
    settings: Settings,
    letter_ids: Sequence[UUID],
    *,
    actor: str,
    reason: str | None = None,
    from_start: bool = False,
    dry_run: bool = False,
) -> list[Handled]:
    """Redrive each dead letter, as ``retry_jobs`` does with jobs. An S3 event goes to its queue again.

    When SQS does not take an event, it stays open and the letters after it are left alone.
    """

    def one(session: Session, letter_id: UUID) -> Handled:
        done = queue.redrive_letter(session, letter_id, actor=actor, reason=reason, from_start=from_start)
        if isinstance(done, queue.Redriven):
            return Handled(letter_id, done.job_id, done.stage, row_id=None if dry_run else done.row_id)
        if not dry_run:
            # Before the commit that says so: a crash in between sends it twice, which the listener bears.
            _send_event(settings, done.body)
        return Handled(letter_id)

    return _each(sessions, letter_ids, one, dry_run=dry_run)


def _each(
    sessions: Sessions,
    ids: Sequence[UUID],
    work: Callable[[Session, UUID], Handled],
    *,
    dry_run: bool,
) -> list[Handled]:
    handled: list[Handled] = []
    for one in ids:
        try:
            with guarded(), sessions() as session:
                told = work(session, one)
                if not dry_run:
                    session.commit()
        except REFUSALS as error:
            told = Handled(one, error=error)
        except InfrastructureError as error:
            log.warning("bulk_stopped", code=error.code, error=error.message, left=len(ids) - len(handled))
            handled.append(Handled(one, error=error))
            break
        handled.append(told)
    return handled


@lru_cache(maxsize=4)
def _impatient(settings: Settings) -> Queues:
    """A request waits for these, with a transaction open."""
    return Queues(settings, read_timeout=3, attempts=1)


def _send_event(settings: Settings, body: str) -> None:
    queues = _impatient(settings)
    try:
        queues.client.send_message(QueueUrl=queues.url(Queue.EVENTS), MessageBody=body)
    except SQS_ERRORS as error:
        raise InfrastructureError(
            f"The events queue does not take the message: {error}", code="QUEUE_UNAVAILABLE"
        ) from error


def drift(settings: Settings) -> Drift:
    """How far rows, messages and objects disagree now. Changes nothing."""
    from tasks import reconcile

    with _runtime(settings) as runtime, guarded():
        return reconcile.drift(runtime)


def mend(settings: Settings, *, actor: str, reason: str | None = None) -> Mended:
    """Run the steward's steps now, and say what each did."""
    from tasks import reconcile

    with _runtime(settings) as runtime, guarded():
        return reconcile.mend(runtime, actor=actor, reason=reason or "")


@contextmanager
def _runtime(settings: Settings) -> Iterator[Runtime]:
    """A runtime of its own: requests keep their connections while it looks through the buckets."""
    runtime = build(settings, pool_size=2)
    try:
        yield runtime
    finally:
        runtime.engine.dispose()
