"""What an object event does to the tables: a media item and its job, or their end."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from db import audit, queue, sidecars
from db.models import MediaItem, ProcessingJob
from db.models.base import is_in
from db.models.media import sequence
from db.queue import originals
from pipeline.events import Change, ObjectEvent, precedes
from pipeline.media.kinds import Kind
from pipeline.states import JOB_ACTIVE, JobStatus
from pipeline.workflows import PRIORITY_DEFAULT, WorkflowType

ACTOR = "listener"
STEWARD = "steward"


@dataclass(frozen=True, slots=True)
class Applied:
    """What an event did. ``job_id`` is set when there is something to publish."""

    what: str  #: created, removed, repeated, outdated, unchanged, overtaken
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
    _lock(session, event.bucket, event.key)
    items = _items(session, event.bucket, event.key, {event.version_id})
    if event.change is Change.REMOVED:
        return _removed(session, event, items)
    return _created(session, event, items, budgets)


#: What the tables know of a key at one moment: to notice when they know more.
Seen = frozenset[tuple[UUID, str, str, bool]]


def seen(session: Session, bucket: str, key: str) -> Seen:
    """What is known of a key, to be taken before the bucket is asked about it."""
    return _seen(_items(session, bucket, key))


def adopt(
    session: Session, found: ObjectEvent, budgets: Budgets, *, before: Seen, older: Sequence[str]
) -> Applied:
    """Bring the tables to an object that was found in the bucket, as if its event had come.

    ``found`` has no sequencer; ``before`` is what was known of the key before the bucket was asked, and where
    more is known now an event came in between: nothing is done. ``older`` are versions that the object hides:
    their events may still come, and are over.
    """
    _lock(session, found.bucket, found.key)
    if seen(session, found.bucket, found.key) != before:
        return Applied("overtaken")
    items = _items(session, found.bucket, found.key, {found.version_id, *older})
    same = _same_version(items, found)
    if same is not None and (found.version_id or same.etag == found.etag):
        same.etag = same.etag or found.etag
        return Applied("repeated" if same.deleted_at is None else "outdated", same.id)
    known = {item.version_id for item in items}
    for version_id in older:
        if version_id not in known:
            _remember_end(session, found, version_id, "replaced before its upload was heard of", STEWARD)
    return _replace(session, found, items, budgets, actor=STEWARD)


def drop(session: Session, bucket: str, key: str, *, before: Seen) -> Applied:
    """End the items of a key without an object; nothing where an event came since ``before``."""
    _lock(session, bucket, key)
    items = _items(session, bucket, key)
    if _seen(items) != before:
        return Applied("overtaken")
    living = [item for item in items if item.deleted_at is None]
    for item in living:
        _end(session, item, reason="its object is gone from the bucket", actor=STEWARD)
    return Applied("removed" if living else "repeated", living[-1].id if living else None)


def _lock(session: Session, bucket: str, key: str) -> None:
    # Two events of one key wait for each other, also where there is no row yet that could be locked.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{bucket}/{key}", 0))))


def _items(session: Session, bucket: str, key: str, versions: Collection[str] = ()) -> list[MediaItem]:
    """What an event of a key is judged by, oldest first, however many versions the key has had.

    That is what lives, the item that was heard of last by S3's order, which all the others precede, and those
    of ``versions`` and of none (""). Each is found by an index of its own, hence no OR.
    """
    here = (MediaItem.bucket == bucket, MediaItem.key == key)
    newest = (sequence(MediaItem).desc(), MediaItem.id.desc())
    last = select(MediaItem.id).where(*here).order_by(*newest).limit(1).subquery()
    wanted = union_all(
        select(MediaItem.id).where(*here, MediaItem.deleted_at.is_(None)),
        select(MediaItem.id).where(*here, MediaItem.version_id.in_(sorted({"", *versions}))),
        select(last.c.id),
    )
    found = select(MediaItem).where(MediaItem.id.in_(wanted)).order_by(MediaItem.created_at, MediaItem.id)
    return list(session.scalars(found))


def _seen(items: Iterable[MediaItem]) -> Seen:
    return frozenset((item.id, item.version_id, item.sequencer, item.deleted_at is None) for item in items)


def _same_version(items: Iterable[MediaItem], event: ObjectEvent) -> MediaItem | None:
    return next((item for item in items if item.version_id == event.version_id), None)


def _created(session: Session, event: ObjectEvent, items: list[MediaItem], budgets: Budgets) -> Applied:
    same = _same_version(items, event)
    if same is not None and same.sequencer == event.sequencer:
        return Applied("repeated", same.id)
    if same is not None and event.version_id and same.deleted_at is not None:
        return Applied("outdated", same.id)  # a version that was deleted never comes back
    if any(precedes(event.sequencer, item.sequencer) for item in items):
        return Applied("outdated", same.id if same else None)
    if same is not None and _was_found_first(same, event):
        same.sequencer = event.sequencer
        session.flush()
        return Applied("repeated", same.id)
    return _replace(session, event, items, budgets, actor=ACTOR)


def _was_found_first(item: MediaItem, event: ObjectEvent) -> bool:
    """Whether the event tells of an upload that a listing of the bucket has found before it."""
    if item.sequencer or item.deleted_at is not None:
        return False
    return bool(event.version_id) or (bool(event.etag) and item.etag == event.etag)


def _replace(
    session: Session, event: ObjectEvent, items: list[MediaItem], budgets: Budgets, *, actor: str
) -> Applied:
    """The newest object of its key: a new item and its job, in place of the living ones, or no work again."""
    living = [item for item in items if item.deleted_at is None]
    unchanged = next((item for item in living if _same_bytes(session, item, event)), None)
    if unchanged is not None:
        unchanged.version_id = event.version_id
        unchanged.sequencer = event.sequencer or unchanged.sequencer
        session.flush()
        return Applied("unchanged", unchanged.id)
    for item in living:
        _end(session, item, reason="replaced by a newer upload of the same key", actor=actor)
    same = _same_version(items, event)
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
        requested_by=actor,
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
    newest = statuses.first()
    if newest is None:  # pruned: what did not end well holds no hash and is nobody's duplicate
        return item.holds_hash or item.duplicate_of_id is not None
    return newest in (JobStatus.COMPLETED, *JOB_ACTIVE)


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
        version_id = "" if event.marker else event.version_id
        why = "removed from the bucket before its upload was heard of"
        _remember_end(session, event, version_id, why, ACTOR, sequencer=sequencer)
    session.flush()
    if gone and len(newer) == len(gone):
        return Applied("outdated", gone[-1].id)
    return Applied("removed", gone[-1].id) if gone else Applied("repeated")


def _remember_end(
    session: Session, event: ObjectEvent, version_id: str, why: str, actor: str, *, sequencer: str = ""
) -> None:
    session.add(
        MediaItem(
            bucket=event.bucket,
            key=event.key,
            version_id=version_id,
            sequencer=sequencer,
            deleted_at=func.clock_timestamp(),
            deleted_by=actor,
            deleted_reason=why,
        )
    )


def _is_meant(event: ObjectEvent, item: MediaItem) -> bool:
    """A delete marker hides the key's newest version; a permanent delete names the version it takes."""
    return event.marker or not event.version_id or item.version_id == event.version_id


def _end(session: Session, item: MediaItem, *, reason: str, actor: str = ACTOR) -> None:
    """Delete a media item by mark: its active jobs are cancelled, its hash goes to the oldest duplicate."""
    _cancel_active(session, item.id, reason, actor)
    originals.bury(session, item.id)
    session.refresh(item)
    item.deleted_at = session.scalar(select(func.clock_timestamp()))
    item.deleted_by, item.deleted_reason = actor, reason
    session.flush()
    # From here on nobody can enqueue for it; what was enqueued a moment ago ends too.
    _cancel_active(session, item.id, reason, actor)
    if item.kind == Kind.SIDECAR:
        sidecars.tell(session, item.bucket, item.key)
    audit.record(
        session,
        entity_type="media_item",
        entity_id=item.id,
        action="media_item_deleted",
        actor=actor,
        details={"bucket": item.bucket, "key": item.key, "reason": reason},
    )
    session.flush()


def _cancel_active(session: Session, item_id: UUID, reason: str, actor: str) -> None:
    active = session.scalars(
        select(ProcessingJob.id).where(
            ProcessingJob.media_item_id == item_id, is_in(ProcessingJob.status, JOB_ACTIVE)
        )
    ).all()
    for job_id in active:
        queue.cancel_job(session, job_id, actor=actor, reason=reason)
