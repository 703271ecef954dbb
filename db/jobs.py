"""Reading jobs and their queue rows. What writes them is ``db.queue``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload, selectinload

from db.models import DeadLetter, PausedLane, ProcessingJob, QueueRow
from db.models.queue import ACTIVE_SQL, DUE_SQL
from pipeline.errors import NotFoundError
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
) -> Sequence[ProcessingJob]:
    """At most ``limit`` jobs with their media items, newest first, older than the job ``before``."""
    query = select(ProcessingJob).options(joinedload(ProcessingJob.media_item))
    if before is not None:
        query = query.where(ProcessingJob.id < before)
    if status is not None:
        query = query.where(ProcessingJob.status == status)
    if workflow_type is not None:
        query = query.where(ProcessingJob.workflow_type == workflow_type)
    if media_item_id is not None:
        query = query.where(ProcessingJob.media_item_id == media_item_id)
    return session.scalars(query.order_by(ProcessingJob.id.desc()).limit(limit)).all()


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
    queue: str | None = None,
    job_type: StageName | None = None,
    job_id: UUID | None = None,
) -> Sequence[QueueRow]:
    """At most ``limit`` queue rows, newest first, older than the row ``before``."""
    query = select(QueueRow)
    if before is not None:
        query = query.where(QueueRow.id < before)
    if status is not None:
        query = query.where(QueueRow.status == status)
    if queue is not None:
        query = query.where(QueueRow.queue == queue)
    if job_type is not None:
        query = query.where(QueueRow.job_type == job_type)
    if job_id is not None:
        query = query.where(QueueRow.job_id == job_id)
    return session.scalars(query.order_by(QueueRow.id.desc()).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class LivingRows:
    """Rows that are not final, counted by queue, stage and status."""

    queue: str
    job_type: StageName
    status: TaskStatus
    count: int
    published: int  #: of them due, with a message that is visible in the queue
    oldest_seconds: float | None  #: how long the oldest due row has waited; None when none is due


def count_living(session: Session) -> list[LivingRows]:
    """Count the rows that are not final. Reads the partial index on them: finished rows cost nothing."""
    due_now = text(f"status IN ({DUE_SQL}) AND available_at <= now()")
    waited = func.extract("epoch", func.now() - func.min(QueueRow.available_at).filter(due_now))
    published = func.count().filter(due_now, QueueRow.published_at <= func.now())
    found = session.execute(
        select(QueueRow.queue, QueueRow.job_type, QueueRow.status, func.count(), published, waited)
        .where(text(f"status IN ({ACTIVE_SQL})"))
        .group_by(QueueRow.queue, QueueRow.job_type, QueueRow.status)
    )
    return [
        LivingRows(
            queue, StageName(stage), TaskStatus(status), count, sent, None if age is None else float(age)
        )
        for queue, stage, status, count, sent, age in found
    ]


def count_by_status(session: Session) -> dict[TaskStatus, int]:
    """Count all rows there are, by status; a status that no row has counts 0."""
    found = session.execute(select(QueueRow.status, func.count()).group_by(QueueRow.status))
    return dict.fromkeys(TaskStatus, 0) | {TaskStatus(status): count for status, count in found}


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
