"""Originals and duplicates: who holds a hash, who is linked to whom, who takes over.

Everything here runs under one lock on the hash, so that linking, ending, deleting and promoting see each
other's results. The unique partial index on the holder is the second line of defence.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session, aliased

from db.models import MediaItem
from db.queue.enqueue import active_job_id, enqueue
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
    "details",
)


def claim_hash(session: Session, item_id: UUID, sha256: str) -> UUID | None:
    """Make the item the original of its bytes, or link it to the one there is.

    Returns the original's id, or None when the item is the original.
    """
    _lock_hash(session, sha256)
    holder = session.scalar(
        select(MediaItem.id).where(MediaItem.sha256 == sha256, MediaItem.holds_hash.is_(True))
    )
    original = None if holder == item_id else holder
    session.execute(
        update(MediaItem)
        .where(MediaItem.id == item_id)
        .values(sha256=sha256, holds_hash=original is None, duplicate_of_id=original)
    )
    if original is not None:
        source = aliased(MediaItem)
        session.execute(
            update(MediaItem)
            .where(MediaItem.id == item_id, source.id == original)
            .values({getattr(MediaItem, name): getattr(source, name) for name in DESCRIPTION})
            .execution_options(synchronize_session=False)
        )
    return original


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
    """Take the hash from an item that was deleted, or whose job failed or was cancelled.

    With ``promote`` the oldest living duplicate becomes the original: the others point at it, and it runs the
    whole chain for itself, in the job that it has or in a new one (due now; the steward publishes it).
    Returns the promoted item's id, or None.
    """
    sha256 = session.scalar(
        select(MediaItem.sha256).where(MediaItem.id == item_id, MediaItem.sha256.is_not(None))
    )
    if sha256 is None:
        return None
    _lock_hash(session, sha256)
    released = session.execute(
        update(MediaItem)
        .where(MediaItem.id == item_id, MediaItem.holds_hash.is_(True))
        .values(holds_hash=False)
        .returning(MediaItem.id)
    ).one_or_none()
    if released is None or not promote:
        return None
    heir = session.scalar(
        select(MediaItem.id)
        .where(MediaItem.duplicate_of_id == item_id, MediaItem.deleted_at.is_(None))
        .order_by(MediaItem.created_at, MediaItem.id)
        .limit(1)
    )
    if heir is None:
        return None
    session.execute(
        update(MediaItem).where(MediaItem.id == heir).values(duplicate_of_id=None, holds_hash=True)
    )
    session.execute(
        update(MediaItem)
        .where(MediaItem.duplicate_of_id == item_id, MediaItem.id != heir)
        .values(duplicate_of_id=heir)
    )
    if active_job_id(session, heir, WorkflowType.INGEST) is None:
        enqueue(session, media_item_id=heir, workflow=WorkflowType.INGEST, requested_by="promotion")
    return heir


def _lock_hash(session: Session, sha256: str) -> None:
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(sha256, 0))))
