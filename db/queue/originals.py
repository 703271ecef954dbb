"""Originals and duplicates: who holds a hash, who is linked to whom, who takes over.

Everything here runs under one lock on the hash, so that linking, ending, deleting and promoting see each
other's results. The unique partial index on the holder is the second line of defence.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import MediaItem, ProcessingJob
from db.models.base import is_in
from db.queue.enqueue import active_job_id, enqueue
from pipeline.errors import ConflictError
from pipeline.states import JOB_ACTIVE
from pipeline.workflows import WorkflowType

#: Columns that describe the bytes, and so hold for every item that has them.
DESCRIPTION = (
    "width",
    "height",
    "duration_seconds",
    "captured_at",
    "latitude",
    "longitude",
    "thumbhash",
    "title",
    "text",
    "details",
)


def claim_hash(session: Session, item_id: UUID, sha256: str) -> UUID | None:
    """Make the item the original of its bytes, or link it to the one there is.

    Returns the original's id, or None when the item is the original.
    """
    _lock_hash(session, sha256)
    holder = _holder(session, sha256) or _elder(session, item_id, sha256)
    if holder in {None, item_id}:
        _change(session, item_id, sha256=sha256, holds_hash=True, duplicate_of_id=None)
        return None
    _change(session, item_id, sha256=sha256, holds_hash=False, duplicate_of_id=holder)
    # What was linked to this item before (it was an original that failed) follows it to the holder.
    _point(session, item_id, holder)
    source = aliased(MediaItem)
    session.execute(
        update(MediaItem)
        .where(MediaItem.id == item_id, source.id == holder, source.sha256 == MediaItem.sha256)
        .values({getattr(MediaItem, name): getattr(source, name) for name in DESCRIPTION})
        .execution_options(synchronize_session=False)
    )
    return holder


def describe(session: Session, item_id: UUID, sha256: str, values: dict[str, Any]) -> None:
    """Write what is known of the bytes (columns of ``DESCRIPTION``) to the item and all its duplicates."""
    _lock_hash(session, sha256)
    session.execute(
        update(MediaItem)
        .where(or_(MediaItem.id == item_id, MediaItem.duplicate_of_id == item_id))
        .values({getattr(MediaItem, name): values[name] for name in DESCRIPTION})
        .execution_options(synchronize_session=False)
    )


def release(session: Session, item_id: UUID, *, promote: bool) -> UUID | None:
    """Take the hash from an item whose ingest failed or was cancelled.

    With ``promote`` the oldest living duplicate takes its place. Returns the promoted item's id, or None.
    """
    sha256 = _locked_hash_of(session, item_id)
    if sha256 is None or _holder(session, sha256) != item_id:
        return None
    _change(session, item_id, holds_hash=False)
    return _promote(session, item_id) if promote else None


def bury(session: Session, item_id: UUID) -> UUID | None:
    """Take a deleted item out of its family: no hash, no link, and nothing is linked to it any more.

    Its duplicates go to whoever holds the hash, or to the oldest of them. Returns who was promoted, or None.
    """
    sha256 = _locked_hash_of(session, item_id)
    _change(session, item_id, holds_hash=False, duplicate_of_id=None)
    if sha256 is None:
        return None
    holder = _holder(session, sha256)
    if holder is None:
        return _promote(session, item_id)
    _point(session, item_id, holder)
    return None


def _promote(session: Session, item_id: UUID) -> UUID | None:
    """Make the oldest living duplicate of ``item_id`` the original; the others point at it.

    It runs the whole chain for itself, in the job that it has or in a new one, which the steward publishes.
    """
    heir = session.scalar(
        select(MediaItem.id)
        .where(MediaItem.duplicate_of_id == item_id, MediaItem.deleted_at.is_(None))
        .order_by(MediaItem.created_at, MediaItem.id)
        .limit(1)
    )
    if heir is None:
        return None
    _change(session, heir, duplicate_of_id=None, holds_hash=True)
    _point(session, item_id, heir)
    if active_job_id(session, heir, WorkflowType.INGEST) is None:
        with suppress(ConflictError):  # somebody asked for one at this moment, and that one will do
            enqueue(session, media_item_id=heir, workflow=WorkflowType.INGEST, requested_by="promotion")
    return heir


def _holder(session: Session, sha256: str) -> UUID | None:
    return session.scalar(
        select(MediaItem.id).where(MediaItem.sha256 == sha256, MediaItem.holds_hash.is_(True))
    )


def _elder(session: Session, item_id: UUID, sha256: str) -> UUID | None:
    """The item with these bytes that was uploaded first and is on its way here; it gets the hash at once.

    Without this, which of two uploads becomes the original would depend on which worker was faster.
    """
    on_its_way = exists().where(
        ProcessingJob.media_item_id == MediaItem.id,
        ProcessingJob.workflow_type == WorkflowType.INGEST,
        is_in(ProcessingJob.status, JOB_ACTIVE),
    )
    elder = session.scalar(
        select(MediaItem.id)
        .where(
            MediaItem.sha256 == sha256, MediaItem.deleted_at.is_(None), MediaItem.duplicate_of_id.is_(None)
        )
        .where(or_(MediaItem.id == item_id, on_its_way))
        .order_by(MediaItem.created_at, MediaItem.id)
        .limit(1)
    )
    if elder not in {None, item_id}:
        _change(session, elder, holds_hash=True)
    return elder


def _point(session: Session, old: UUID, new: UUID | None) -> None:
    session.execute(
        update(MediaItem)
        .where(MediaItem.duplicate_of_id == old, MediaItem.id != new)
        .values(duplicate_of_id=new)
        .execution_options(synchronize_session=False)
    )


def _change(session: Session, item_id: UUID, **values: Any) -> None:
    session.execute(
        update(MediaItem)
        .where(MediaItem.id == item_id)
        .values(values)
        .execution_options(synchronize_session=False)
    )


def _locked_hash_of(session: Session, item_id: UUID) -> str | None:
    sha256 = session.scalar(select(MediaItem.sha256).where(MediaItem.id == item_id))
    if sha256 is not None:
        _lock_hash(session, sha256)
    return sha256


def _lock_hash(session: Session, sha256: str) -> None:
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))
