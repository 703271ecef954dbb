"""What an object event does to the tables: a media item and its job, or their end."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import audit, queue
from db.models import MediaItem, ProcessingJob
from db.models.base import is_in
from db.queue import originals
from pipeline.events import Change, ObjectEvent, precedes
from pipeline.states import JOB_ACTIVE, JobStatus
from pipeline.workflows import PRIORITY_DEFAULT, WorkflowType

ACTOR = "listener"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an event did. ``job_id`` is set when there is something to publish."""

    what: str  #: created, removed, repeated, outdated, unchanged
    media_item_id: UUID | None = None
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a new job may cost."""

    priority: int = PRIORITY_DEFAULT
    max_attempts: int = 3
    max_crashes: int = 3


def apply(session: Session, event: ObjectEvent, budgets: Budgets) -> Applied:
    """Bring the tables to what ``event`` says, in the caller's transaction. It may come twice, or late."""
    # Two events of one key wait for each other, also where there is no row yet that could be locked.
    session.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended(f"{event.bucket}/{event.key}", 0)))
    )
    items = list(
        session.scalars(
            select(MediaItem)
            .where(MediaItem.bucket == event.bucket, MediaItem.key == event.key)
            .order_by(MediaItem.created_at, MediaItem.id)
        )
    )
    if event.change is Change.REMOVED:
        return _removed(session, event, items)
    return _created(session, event, items, budgets)


def _created(session: Session, event: ObjectEvent, items: list[MediaItem], budgets: Budgets) -> Applied:
    same = next((item for item in items if item.version_id == event.version_id), None)
    if same is not None and same.sequencer == event.sequencer:
        return Applied("repeated", same.id)
    if same is not None and event.version_id and same.deleted_at is not None:
        return Applied("outdated", same.id)  # a version that was deleted never comes back
    if any(precedes(event.sequencer, item.sequencer) for item in items):
        return Applied("outdated", same.id if same else None)
    living = [item for item in items if item.deleted_at is None]
    unchanged = next((item for item in living if _same_bytes(session, item, event)), None)
    if unchanged is not None:
        unchanged.version_id, unchanged.sequencer = event.version_id, event.sequencer
        session.flush()
        return Applied("unchanged", unchanged.id)
    for item in living:
        _end(session, item, reason="replaced by a newer upload of the same key")
    if same is not None:
        # An unversioned bucket: the row of the old bytes keeps its history under a version of its own.
        same.version_id = f"replaced-{same.id}"
        session.flush()
    item = MediaItem(
        bucket=event.bucket,
        key=event.key,
        version_id=event.version_id,
        sequencer=event.sequencer,
        etag=event.etag,
        size_bytes=event.size,
    )
    session.add(item)
    session.flush()
    job = queue.enqueue(
        session,
        media_item_id=item.id,
        workflow=WorkflowType.INGEST,
        priority=budgets.priority,
        requested_by=ACTOR,
        max_attempts=budgets.max_attempts,
        max_crashes=budgets.max_crashes,
    )
    return Applied("created", item.id, job.id)


def _same_bytes(session: Session, item: MediaItem, event: ObjectEvent) -> bool:
    """Whether the same bytes came again, and what was or is being done for them still holds."""
    if not event.etag or (item.etag, item.size_bytes) != (event.etag, event.size):
        return False
    statuses = session.scalars(
        select(ProcessingJob.status)
        .where(ProcessingJob.media_item_id == item.id, ProcessingJob.workflow_type == WorkflowType.INGEST)
        .order_by(ProcessingJob.id.desc())
        .limit(1)
    )
    return statuses.first() in (JobStatus.COMPLETED, *JOB_ACTIVE)


def _removed(session: Session, event: ObjectEvent, items: list[MediaItem]) -> Applied:
    # The end of one version says nothing of when the others came; a marker, or no version at all, does.
    sequencer = "" if event.version_id and not event.marker else event.sequencer
    gone = [item for item in items if item.deleted_at is None and _is_meant(event, item)]
    newer = [item for item in gone if precedes(event.sequencer, item.sequencer)]
    for item in gone:
        if item not in newer:
            _end(session, item, reason="removed from the bucket")
            item.sequencer = sequencer or item.sequencer
    if not any(_is_meant(event, item) for item in items):
        # The upload's event may still be under way, or never come: remember that it is over already.
        session.add(
            MediaItem(
                bucket=event.bucket,
                key=event.key,
                version_id="" if event.marker else event.version_id,
                sequencer=sequencer,
                deleted_at=func.clock_timestamp(),
                deleted_by=ACTOR,
                deleted_reason="removed from the bucket before its upload was heard of",
            )
        )
    session.flush()
    if gone and len(newer) == len(gone):
        return Applied("outdated", gone[-1].id)
    return Applied("removed", gone[-1].id) if gone else Applied("repeated")


def _is_meant(event: ObjectEvent, item: MediaItem) -> bool:
    """A delete marker hides the key's newest version; a permanent delete names the version it takes."""
    return event.marker or not event.version_id or item.version_id == event.version_id


def _end(session: Session, item: MediaItem, *, reason: str) -> None:
    """Delete a media item by mark: its active jobs are cancelled, its hash goes to the oldest duplicate."""
    _cancel_active(session, item.id, reason)
    originals.bury(session, item.id)
    session.refresh(item)
    item.deleted_at = session.scalar(select(func.clock_timestamp()))
    item.deleted_by, item.deleted_reason = ACTOR, reason
    session.flush()
    # From here on nobody can enqueue for it; what was enqueued a moment ago ends too.
    _cancel_active(session, item.id, reason)
    audit.record(
        session,
        entity_type="media_item",
        entity_id=item.id,
        action="media_item_deleted",
        actor=ACTOR,
        details={"bucket": item.bucket, "key": item.key, "reason": reason},
    )
    session.flush()


def _cancel_active(session: Session, item_id: UUID, reason: str) -> None:
    active = session.scalars(
        select(ProcessingJob.id).where(
            ProcessingJob.media_item_id == item_id, is_in(ProcessingJob.status, JOB_ACTIVE)
        )
    ).all()
    for job_id in active:
        queue.cancel_job(session, job_id, actor=ACTOR, reason=reason)
