"""Reading media items."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session, aliased

from db.models import MediaItem, ProcessingJob
from pipeline.errors import NotFoundError
from pipeline.states import JobStatus


def get_item(session: Session, item_id: UUID) -> MediaItem:
    """The media item. Raises NotFoundError when there is none or it was deleted."""
    item = find_item(session, item_id)
    if item is None:
        raise NotFoundError(f"There is no media item {item_id}, or it was deleted.")
    return item


def find_item(session: Session, item_id: UUID) -> MediaItem | None:
    """The media item, or None when there is none or it was deleted."""
    item = session.get(MediaItem, item_id)
    return None if item is None or item.deleted_at is not None else item


def list_items(
    session: Session,
    *,
    limit: int,
    before: UUID | None = None,
    kind: str | None = None,
    status: JobStatus | None = None,
    key_prefix: str | None = None,
) -> Sequence[MediaItem]:
    """At most ``limit`` living media items, newest first, older than the item ``before``.

    ``status`` is that of the item's newest job.
    """
    query = select(MediaItem).where(MediaItem.deleted_at.is_(None))
    if before is not None:
        query = query.where(MediaItem.id < before)
    if kind is not None:
        query = query.where(MediaItem.kind == kind)
    if status is not None:
        query = query.where(_newest_job_is(status))
    if key_prefix:
        query = query.where(MediaItem.key.startswith(key_prefix, autoescape=True))
    return session.scalars(query.order_by(MediaItem.id.desc()).limit(limit)).all()


def _newest_job_is(status: JobStatus) -> ColumnElement[bool]:
    newer = aliased(ProcessingJob)
    return exists().where(
        ProcessingJob.media_item_id == MediaItem.id,
        ProcessingJob.status == status,
        ~exists().where(newer.media_item_id == ProcessingJob.media_item_id, newer.id > ProcessingJob.id),
    )


def duplicates_of(session: Session, item_id: UUID, *, limit: int) -> Sequence[MediaItem]:
    """At most ``limit`` living items with the same bytes as the original ``item_id``, oldest first."""
    return session.scalars(
        select(MediaItem)
        .where(MediaItem.duplicate_of_id == item_id, MediaItem.deleted_at.is_(None))
        .order_by(MediaItem.id)
        .limit(limit)
    ).all()
