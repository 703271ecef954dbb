"""Rows for tests. Each function makes a legal row, so that a test names only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import (
    TOKEN,
    Attempt,
    DeadLetter,
    DeadLetterReason,
    MediaItem,
    Outcome,
    ProcessingJob,
    QueueRow,
    SearchDocument,
    Thumbnail,
    Worker,
)
from pipeline.queues import lane_for
from pipeline.states import DUE, FINAL, JOB_FINAL, TaskStatus, derive_job_status
from pipeline.workflows import PRIORITY_DEFAULT, WorkflowType, stages_of

VARIANTS = {"primary": (1280, 720), "medium": (640, 360), "small": (320, 180)}


def now() -> datetime:
    return datetime.now(UTC)


def add_item(session: Session, **values: Any) -> MediaItem:
    """A photograph that is the original of its bytes."""
    digest = sha256(uuid4().bytes).hexdigest()
    given = {
        "bucket": "storage",
        "key": f"uploads/{uuid4()}.jpg",
        "size_bytes": 1000,
        "content_type": "image/jpeg",
        "mime_type": "image/jpeg",
        "kind": "image",
        "sha256": digest,
        "holds_hash": True,
        "width": 4000,
        "height": 3000,
    } | values
    item = MediaItem(**given)
    session.add(item)
    session.flush()
    return item


def add_duplicate(session: Session, original: MediaItem, **values: Any) -> MediaItem:
    """An item with the bytes of ``original``, as dedupe leaves it."""
    linked = {"sha256": original.sha256, "holds_hash": False, "duplicate_of_id": original.id}
    return add_item(session, **(linked | {"width": None, "height": None} | values))


def add_thumbnails(session: Session, item: MediaItem, *, token: int = 1) -> list[Thumbnail]:
    """The three variants of ``item``, made by the attempt ``token``."""
    entity_type, entity_id = (item.entity_type, item.entity_id) if item.entity_id else ("media_item", item.id)
    pictures = [
        Thumbnail(
            entity_type=entity_type,
            entity_id=entity_id,
            size_variant=variant,
            media_item_id=item.id,
            file_reference=f"{entity_type}s/{entity_id}/{variant}.0123456789abcdef.{token}.jpg",
            width=width,
            height=height,
            file_size_bytes=width * 10,
        )
        for variant, (width, height) in VARIANTS.items()
    ]
    session.add_all(pictures)
    session.flush()
    return pictures


def add_document(session: Session, item: MediaItem, title: str, **values: Any) -> SearchDocument:
    """What ``item`` is found by; the facets are those of its kind unless told."""
    facets = {"kind": item.kind, "mime_type": item.mime_type} if item.duplicate_of_id is None else {}
    given = {"entity_type": "media_item", "entity_id": item.id, "title": title, "facets": facets} | values
    document = SearchDocument(media_item_id=item.id, **given)
    session.add(document)
    session.flush()
    return document


def add_job(
    session: Session,
    item: MediaItem,
    statuses: Sequence[TaskStatus] | None = None,
    *,
    workflow: WorkflowType = WorkflowType.INGEST,
    rows: dict[int, dict[str, Any]] | None = None,
    **values: Any,
) -> ProcessingJob:
    """A job of ``workflow`` whose rows have ``statuses`` in order: queued and pending when not told.

    ``rows`` are values for single rows, by their position.
    """
    stages = stages_of(workflow)
    told = list(statuses or [TaskStatus.QUEUED])
    told += [TaskStatus.PENDING] * (len(stages) - len(told))
    started = any(status not in {TaskStatus.QUEUED, TaskStatus.PENDING} for status in told)
    status = derive_job_status(told, started=started)
    given = {
        "media_item_id": item.id,
        "workflow_type": workflow,
        "status": status,
        "priority": PRIORITY_DEFAULT,
        "started_at": now() if started else None,
        "completed_at": now() if status in JOB_FINAL else None,
    } | values
    job = ProcessingJob(**given)
    session.add(job)
    session.flush()
    lane = lane_for(job.priority)
    for position, (stage, row_status) in enumerate(zip(stages, told, strict=True)):
        row = {"job_type": stage, "position": position, "queue": lane} | (rows or {}).get(position, {})
        add_row(session, job, row_status, **row)
    return job


def add_row(session: Session, job: ProcessingJob, status: TaskStatus, **values: Any) -> QueueRow:
    """A queue row of ``job``, with the attempt that its status implies."""
    given = {"job_id": job.id, "status": status, "available_at": now() - timedelta(seconds=1)}
    was_claimed = status not in {
        TaskStatus.PENDING,
        TaskStatus.QUEUED,
        TaskStatus.SKIPPED,
        TaskStatus.CANCELLED,
    }
    if was_claimed:
        token = session.scalar(select(TOKEN.next_value()))
        given |= {"token": token, "worker": "worker@test", "started_at": now(), "published_at": now()}
    if status in FINAL:
        given["completed_at"] = now()
    if status == TaskStatus.PROCESSING:
        given["lease_expires_at"] = now() + timedelta(minutes=5)
    if status in {TaskStatus.RETRYING, TaskStatus.FAILED}:
        given |= {"attempts": 1, "error_code": "STAGE_FAILED", "error_message": "The disk was slow."}
    row = QueueRow(**(given | values))
    session.add(row)
    session.flush()
    if was_claimed:
        _add_attempt(session, row)
    return row


def _add_attempt(session: Session, row: QueueRow) -> None:
    running = row.status == TaskStatus.PROCESSING
    attempt = Attempt(token=row.token, row_id=row.id, worker="worker@test")
    if not running:
        attempt.finished_at = now()
        attempt.outcome = Outcome.RETRYING if row.status in DUE else Outcome(row.status)
        attempt.duration_ms, attempt.cpu_ms = 42, 40
        attempt.error_code, attempt.error_message = row.error_code, row.error_message
    session.add(attempt)
    session.flush()


def add_dead_letter(session: Session, row_id: UUID | None = None, **values: Any) -> DeadLetter:
    """What was given up on."""
    given = {
        "row_id": row_id,
        "reason": DeadLetterReason.PERMANENT_ERROR,
        "error_code": "BAD_INPUT",
        "error_message": "It is no picture.",
    } | values
    letter = DeadLetter(**given)
    session.add(letter)
    session.flush()
    return letter


def add_worker(session: Session, host: str, **values: Any) -> Worker:
    """A worker process that has just spoken."""
    given = {
        "id": f"{host}:1",
        "name": f"worker@{host}",
        "host": host,
        "pid": 1,
        "lanes": ["express", "standard", "bulk"],
        "concurrency": 2,
        "version": "0.1.0",
    } | values
    worker = Worker(**given)
    session.add(worker)
    session.flush()
    return worker
