"""Reading jobs and their queue rows. What writes them is ``db.queue``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Integer, Select, func, literal_column, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload, selectinload

from db.models import DeadLetter, MediaItem, PausedLane, ProcessingJob, QueueRow
from db.models.base import is_in
from pipeline.errors import NotFoundError
from pipeline.queues import Queue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType


def get_job(session: Session, job_id: UUID) -> ProcessingJob:
    """The job with its media item, its rows in order and their attempts. Raises NotFoundError."""
    job = session.scalar(
        select(ProcessingJob)
        .where(ProcessingJob.id == job_id)
        .options(
            joinedload(ProcessingJob.media_item),
            selectinload(ProcessingJob.rows).selectinload(QueueRow.tries),
        )
    )
    if job is None:
        raise NotFoundError(f"There is no job {job_id}.")
    return job


def list_jobs(
    session: Session,
    *,
    limit: int,
    before: UUID | None = None,
    status: JobStatus | None = None,
    workflow_type: WorkflowType | None = None,
    media_item_id: UUID | None = None,
    error_code: str | None = None,
    key_prefix: str | None = None,
) -> Sequence[ProcessingJob]:
    """At most ``limit`` jobs with their media items, newest first, older than the job ``before``."""
    query = select(ProcessingJob.id)
    if before is not None:
        query = query.where(ProcessingJob.id < before)
    if status is not None:
        query = query.where(is_in(ProcessingJob.status, {status}))
    if workflow_type is not None:
        query = query.where(is_in(ProcessingJob.workflow_type, {workflow_type}))
    if media_item_id is not None:
        query = query.where(ProcessingJob.media_item_id == media_item_id)
    if error_code is not None:
        # Only a failed job has one, and the index on the status finds these.
        query = query.where(
            ProcessingJob.error_code == error_code, is_in(ProcessingJob.status, {JobStatus.FAILED})
        )
    if key_prefix:
        query = query.where(
            ProcessingJob.media_item.has(MediaItem.key.startswith(key_prefix, autoescape=True))
        )
    newest = _newest(query.order_by(ProcessingJob.id.desc()), limit)
    jobs = select(ProcessingJob).where(ProcessingJob.id.in_(newest)).order_by(ProcessingJob.id.desc())
    return session.scalars(jobs.options(joinedload(ProcessingJob.media_item))).all()


def _newest(ids: Select[UUID], limit: int) -> Select[UUID]:
    """The first ids of a list, for the rows to be fetched by: the indexes tell them without the table.

    Asked for whole rows at once, the planner would rather walk through all rows, newest first, until it has
    met enough of a kind. It has to know the limit, also when it prepares the statement.
    """
    return ids.limit(literal_column(str(int(limit)), Integer))


def latest_jobs(session: Session, media_item_ids: Collection[UUID]) -> dict[UUID, ProcessingJob]:
    """The newest job of each media item that has one."""
    query = (
        select(ProcessingJob)
        .where(ProcessingJob.media_item_id.in_(media_item_ids))
        .ext(distinct_on(ProcessingJob.media_item_id))
        .order_by(ProcessingJob.media_item_id, ProcessingJob.id.desc())
        .options(joinedload(ProcessingJob.media_item))
    )
    return {job.media_item_id: job for job in session.scalars(query)}


def list_rows(
    session: Session,
    *,
    limit: int,
    before: UUID | None = None,
    status: TaskStatus | None = None,
    queue: Queue | None = None,
    job_type: StageName | None = None,
    job_id: UUID | None = None,
) -> Sequence[QueueRow]:
    """At most ``limit`` queue rows, newest first, older than the row ``before``."""
    query = select(QueueRow.id)
    if before is not None:
        query = query.where(QueueRow.id < before)
    if status is not None:
        query = query.where(is_in(QueueRow.status, {status}))
    if queue is not None:
        query = query.where(is_in(QueueRow.queue, {queue}))
    if job_type is not None:
        query = query.where(is_in(QueueRow.job_type, {job_type}))
    if job_id is not None:
        query = query.where(QueueRow.job_id == job_id)
    newest = _newest(query.order_by(QueueRow.id.desc()), limit)
    return session.scalars(select(QueueRow).where(QueueRow.id.in_(newest)).order_by(QueueRow.id.desc())).all()


def count_dead_letters(session: Session) -> dict[str, int]:
    """Count what was given up on, by reason."""
    found = session.execute(select(DeadLetter.reason, func.count()).group_by(DeadLetter.reason))
    return {str(reason): int(count) for reason, count in found}


def paused_lanes(session: Session) -> dict[str, PausedLane]:
    """The lanes that are paused, by queue."""
    return {lane.queue: lane for lane in session.scalars(select(PausedLane))}


def database_now(session: Session) -> datetime:
    """The database's clock, by which rows are due and leases end."""
    now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return now
