"""Deleting what is old, in small batches: each call is one short transaction, and says how many went."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Delete, delete, exists, func, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from db.models import (
    DeadLetter,
    MediaItem,
    PerceptualHash,
    ProcessingJob,
    SearchDocument,
    Thumbnail,
    Worker,
)
from db.models.base import is_in
from db.models.media import sequence
from db.queue.originals import DESCRIPTION
from pipeline.states import JOB_ACTIVE

#: Rows a batch; a job takes its rows and attempts with it.
JOBS, LETTERS, WORKERS, CARRIED, ENDED = 100, 500, 500, 100, 1_000
#: How long a worker that says nothing any more is remembered.
KEEP_WORKERS = timedelta(hours=1)


def finished_jobs(session: Session, *, keep: timedelta, limit: int = JOBS) -> int:
    """Delete jobs that ended more than ``keep`` ago, with their rows and attempts.

    A job that a dead letter waits to start again stays as long as the letter does.
    """
    awaited = exists().where(DeadLetter.job_id == ProcessingJob.id, DeadLetter.resolved_at.is_(None))
    # The job's row is locked first, as by every writer; one that somebody has is left for the next round.
    old = (
        select(ProcessingJob.id)
        .where(ProcessingJob.completed_at < func.clock_timestamp() - keep, ~awaited)
        .order_by(ProcessingJob.completed_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(ProcessingJob).where(ProcessingJob.id.in_(old)))


def dead_letters(session: Session, *, keep: timedelta, limit: int = LETTERS) -> int:
    """Delete dead letters that were written more than ``keep`` ago, open or resolved."""
    old = (
        select(DeadLetter.id)
        .where(DeadLetter.created_at < func.clock_timestamp() - keep)
        .order_by(DeadLetter.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(DeadLetter).where(DeadLetter.id.in_(old)))


def silent_workers(session: Session, *, keep: timedelta = KEEP_WORKERS, limit: int = WORKERS) -> int:
    """Forget workers that have said nothing for ``keep``."""
    old = (
        select(Worker.id)
        .where(Worker.last_seen_at < func.clock_timestamp() - keep)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return _run(session, delete(Worker).where(Worker.id.in_(old)))


def carried_by_ended_items(session: Session, *, age: timedelta, limit: int = CARRIED) -> int:
    """Delete what items that ended more than ``age`` ago carry, for nobody reaches it any more.

    That is their pictures, which the orphan sweep takes from the bucket then, their search document, hashes
    and description. Only an item that was read carries something, and that one has the hash of its bytes.
    """
    at_work = exists().where(
        ProcessingJob.media_item_id == MediaItem.id, is_in(ProcessingJob.status, JOB_ACTIVE)
    )
    ids = session.scalars(
        select(MediaItem.id)
        .where(MediaItem.deleted_at < func.clock_timestamp() - age, MediaItem.sha256.is_not(None), ~at_work)
        .order_by(MediaItem.deleted_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for carried in (Thumbnail, SearchDocument, PerceptualHash):
        _run(session, delete(carried).where(carried.media_item_id.in_(ids)))
    values = dict.fromkeys(DESCRIPTION) | {"text": "", "details": {}, "sha256": None}
    session.execute(
        update(MediaItem)
        .where(MediaItem.id.in_(ids))
        .values({getattr(MediaItem, name): value for name, value in values.items()})
        .execution_options(synchronize_session=False)
    )
    return len(ids)


def ended_items(session: Session, *, keep: timedelta, limit: int = ENDED) -> int:
    """Forget items that ended more than ``keep`` ago.

    The newest version of a key stays: late events are known by it to be late. So does what somebody may ask
    about: that of a job or a dead letter, which go by an age of their own.
    """
    newer, duplicate = aliased(MediaItem), aliased(MediaItem)
    superseded = exists().where(
        newer.bucket == MediaItem.bucket,
        newer.key == MediaItem.key,
        tuple_(sequence(newer), newer.id) > tuple_(sequence(MediaItem), MediaItem.id),
    )
    old = (
        select(MediaItem.id)
        .where(MediaItem.deleted_at < func.clock_timestamp() - keep, superseded)
        .where(
            ~exists().where(ProcessingJob.media_item_id == MediaItem.id),
            ~exists().where(DeadLetter.media_item_id == MediaItem.id),
            ~exists().where(duplicate.duplicate_of_id == MediaItem.id),
        )
        .order_by(MediaItem.deleted_at)
        .limit(limit)
        .with_for_update(skip_locked=True, of=MediaItem)
    )
    return _run(session, delete(MediaItem).where(MediaItem.id.in_(old)))


def _run(session: Session, statement: Delete) -> int:
    found = session.execute(statement.execution_options(synchronize_session=False))
    return int(found.rowcount)  # type: ignore[attr-defined]  # a DELETE has one
