"""Finding jobs that have ended, to start many of them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session, aliased

from db.models import MediaItem, ProcessingJob, QueueRow
from db.models.base import is_in
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType

#: What is left is counted to one more than this: nobody needs to know more, and no count takes long.
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class EndedFilter:
    """Which jobs; what is None is not asked about."""

    status: JobStatus = JobStatus.FAILED  #: failed or cancelled
    workflow_type: WorkflowType | None = None
    error_code: str | None = None
    stage: StageName | None = None  #: that failed, or that a cancelled job had come to
    key_prefix: str | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None


def matching(session: Session, only: EndedFilter, *, after: UUID | None, limit: int) -> list[UUID]:
    """At most ``limit`` ids of jobs, oldest first, younger than ``after``.

    Of an item's jobs of one workflow only the newest counts: what an older one was to do has been done since,
    or failed since.
    """
    query = _filtered(only, after).order_by(ProcessingJob.id).limit(limit)
    return list(session.scalars(query))


def count_matching(session: Session, only: EndedFilter, *, after: UUID | None) -> int:
    """How many jobs there are younger than ``after``; above ``COUNTED`` says that there are more."""
    some = _filtered(only, after).limit(COUNTED + 1).subquery()
    return session.scalar(select(func.count()).select_from(some)) or 0


def keys_of(session: Session, job_ids: Sequence[UUID]) -> dict[UUID, str]:
    """The keys of the jobs' files."""
    keys = select(ProcessingJob.id, MediaItem.key).join(ProcessingJob.media_item)
    return dict(session.execute(keys.where(ProcessingJob.id.in_(job_ids))).all())


def _filtered(only: EndedFilter, after: UUID | None) -> Select[UUID]:
    newer = aliased(ProcessingJob)
    superseded = exists().where(
        newer.media_item_id == ProcessingJob.media_item_id,
        newer.workflow_type == ProcessingJob.workflow_type,
        newer.id > ProcessingJob.id,
    )
    query = (
        select(ProcessingJob.id)
        .join(MediaItem, MediaItem.id == ProcessingJob.media_item_id)
        .where(is_in(ProcessingJob.status, {only.status}), MediaItem.deleted_at.is_(None), ~superseded)
    )
    if after is not None:
        query = query.where(ProcessingJob.id > after)
    if only.workflow_type is not None:
        query = query.where(ProcessingJob.workflow_type == only.workflow_type)
    if only.error_code is not None:
        query = query.where(ProcessingJob.error_code == only.error_code)
    if only.stage is not None:
        query = query.where(_ended_at(only.stage))
    if only.key_prefix is not None:
        query = query.where(MediaItem.key.startswith(only.key_prefix, autoescape=True))
    return _between(query, only)


def _between(query: Select[UUID], only: EndedFilter) -> Select[UUID]:
    if only.created_since is not None:
        query = query.where(ProcessingJob.created_at >= only.created_since)
    if only.created_until is not None:
        query = query.where(ProcessingJob.created_at < only.created_until)
    return query


def _ended_at(stage: StageName) -> ColumnElement[bool]:
    """The stage is the first of the job that failed or was cancelled."""
    ended = {TaskStatus.FAILED, TaskStatus.CANCELLED}
    earlier = aliased(QueueRow)
    before = exists().where(
        earlier.job_id == QueueRow.job_id,
        earlier.position < QueueRow.position,
        earlier.status.in_(sorted(ended)),
    )
    return exists().where(
        QueueRow.job_id == ProcessingJob.id,
        QueueRow.job_type == stage,
        is_in(QueueRow.status, ended),
        ~before,
    )
