"""What a delivery of a message may do with its row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from db.models import TOKEN, Attempt, MediaItem, PausedLane, ProcessingJob, QueueRow
from db.models.base import is_in
from pipeline.stages.base import Asset
from pipeline.states import DUE, FINAL, JobStatus, TaskStatus, sources_of


@dataclass(frozen=True, slots=True)
class Claimed:
    """The row is ours until its lease ends; ``token`` is the fence that every later write shows."""

    row_id: UUID
    job_id: UUID
    job_type: str
    workflow: str
    queue: str
    token: int
    asset: Asset
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Final:
    """Nothing to run. ``successor`` is due and was never published, or is None."""

    successor: UUID | None


@dataclass(frozen=True, slots=True)
class NotDue:
    """Due again at ``until``."""

    until: datetime
    published_at: datetime | None  #: as it was seen; a copy is sent by compare-and-set on it


@dataclass(frozen=True, slots=True)
class Leased:
    """Another worker holds it until ``until``."""

    until: datetime
    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Pending:
    """The stage before has not finished; its completion will publish this row."""


@dataclass(frozen=True, slots=True)
class Paused:
    """The lane is paused; resuming it publishes this row."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Its lease has ended, and the steward has not judged it yet."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No row has this id: not ours."""


Answer = Claimed | Final | NotDue | Leased | Overdue | Pending | Paused | Unknown


def claim(session: Session, row_id: UUID, *, worker: str, lease: timedelta) -> Answer:
    """Try to take the row for ``worker``, in the caller's transaction. One of any number of callers wins.

    Lock order is that of every writer: the job's row first, then the queue row.
    """
    found = _look(session, row_id)
    if found is None:
        return Unknown()
    row, job, item, paused, now = found
    if row.status not in DUE or row.available_at > now:
        return _why_not(session, found)
    if paused:
        _unpublish(session, row_id)
        return Paused()
    _start(session, job.id)  # whatever it was when we looked: a retry may have come between
    token = _take(session, row_id, worker, lease)
    return _overtaken(session, row_id) if token is None else _claimed(row, job, item, token)


class _Found(NamedTuple):
    row: QueueRow
    job: ProcessingJob
    item: MediaItem
    paused: bool
    now: datetime  #: the database's clock


def _look(session: Session, row_id: UUID) -> _Found | None:
    paused = exists().where(PausedLane.queue == QueueRow.queue)
    found = session.execute(
        select(QueueRow, ProcessingJob, MediaItem, paused, func.clock_timestamp())
        .join(ProcessingJob, ProcessingJob.id == QueueRow.job_id)
        .join(MediaItem, MediaItem.id == ProcessingJob.media_item_id)
        .where(QueueRow.id == row_id)
        .execution_options(populate_existing=True)
    ).one_or_none()
    return None if found is None else _Found(*found)


def _why_not(session: Session, found: _Found) -> Answer:
    row = found.row
    if row.status in DUE:
        return NotDue(row.available_at, row.published_at)
    if row.status in FINAL:
        return Final(_unpublished_successor(session, row))
    if row.status == TaskStatus.PROCESSING and row.lease_expires_at is not None:
        over = row.lease_expires_at <= found.now
        return Overdue() if over else Leased(row.lease_expires_at, row.published_at)
    return Pending()


def _overtaken(session: Session, row_id: UUID) -> Answer:
    """Somebody was faster between our look and our move: say what is true now, without a second try."""
    found = _look(session, row_id)
    return Unknown() if found is None else _why_not(session, found)


def _start(session: Session, job_id: UUID) -> None:
    session.execute(
        update(ProcessingJob)
        .where(ProcessingJob.id == job_id, ProcessingJob.status == JobStatus.QUEUED)
        .values(status=JobStatus.PROCESSING, started_at=func.coalesce(ProcessingJob.started_at, func.now()))
    )


def _take(session: Session, row_id: UUID, worker: str, lease: timedelta) -> int | None:
    """The compare-and-set that decides. Returns the token, or None when another was faster."""
    token = session.scalar(
        update(QueueRow)
        .where(
            QueueRow.id == row_id,
            is_in(QueueRow.status, sources_of(TaskStatus.PROCESSING)),
            QueueRow.available_at <= func.clock_timestamp(),
        )
        .values(
            status=TaskStatus.PROCESSING,
            token=TOKEN.next_value(),
            worker=worker,
            started_at=func.clock_timestamp(),
            lease_expires_at=func.clock_timestamp() + lease,
            error_code=None,
            error_message=None,
        )
        .returning(QueueRow.token)
        .execution_options(synchronize_session=False)
    )
    if token is not None:
        session.execute(insert(Attempt).values(token=token, row_id=row_id, worker=worker))
    return token


def _unpublish(session: Session, row_id: UUID) -> None:
    session.execute(
        update(QueueRow).where(QueueRow.id == row_id, is_in(QueueRow.status, DUE)).values(published_at=None)
    )


def _unpublished_successor(session: Session, row: QueueRow) -> UUID | None:
    return session.scalar(
        select(QueueRow.id).where(
            QueueRow.job_id == row.job_id,
            QueueRow.position == row.position + 1,
            is_in(QueueRow.status, DUE),
            QueueRow.published_at.is_(None),
        )
    )


def _claimed(row: QueueRow, job: ProcessingJob, item: MediaItem, token: int) -> Claimed:
    return Claimed(
        row_id=row.id,
        job_id=job.id,
        job_type=row.job_type,
        workflow=job.workflow_type,
        queue=row.queue,
        token=token,
        asset=asset_of(item),
        config=dict(job.config),
    )


def asset_of(item: MediaItem) -> Asset:
    """What a stage is told of a media item."""
    known = item.latitude is not None and item.longitude is not None
    gps = (item.latitude, item.longitude) if known else None
    return Asset(
        media_item_id=item.id,
        bucket=item.bucket,
        key=item.key,
        version_id=item.version_id or None,
        etag=item.etag,
        size=item.size_bytes,
        content_type=item.content_type,
        entity_type=item.entity_type,
        entity_id=item.entity_id,
        mime_type=item.mime_type,
        kind=item.kind,
        sha256=item.sha256,
        width=item.width,
        height=item.height,
        captured_at=item.captured_at,
        gps=gps,
        title=item.title,
        metadata=item.details,
    )
