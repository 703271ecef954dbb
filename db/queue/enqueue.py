"""Jobs come into being here: the job and all its rows in one transaction."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from uuid_utils.compat import uuid7

from db.models import MediaItem, ProcessingJob, QueueRow
from db.models.base import is_in
from pipeline.errors import ConflictError, NotFoundError
from pipeline.queues import Queue, lane_for
from pipeline.settings import get_settings
from pipeline.states import DUE, JOB_ACTIVE, JobStatus, TaskStatus
from pipeline.workflows import PRIORITY_DEFAULT, StageName, WorkflowType, check_config, stages_of


def enqueue(
    session: Session,
    *,
    media_item_id: UUID,
    workflow: str,
    priority: int = PRIORITY_DEFAULT,
    config: dict[str, Any] | None = None,
    requested_by: str = "system",
    max_attempts: int = 3,
    max_crashes: int = 3,
) -> ProcessingJob:
    """Add a job of ``workflow`` for a media item: the first row due now, the others pending.

    Nothing is published: the caller commits, then publishes (``tasks.dispatch.publish_job``).

    Raises:
        NotFoundError: there is no such media item, or it is deleted.
        ConflictError: the item has an active job of this workflow already.
        InvalidRequestError: the workflow or the priority is none that exists, or no stage reads the config.
    """
    stages, lane, checked = stages_of(workflow), lane_for(priority), check_config(config or {})
    item = session.get(MediaItem, media_item_id, with_for_update={"read": True}, populate_existing=True)
    if item is None or item.deleted_at is not None:
        raise NotFoundError(f"There is no media item {media_item_id}, or it was deleted.")
    job_id = _insert_job(
        session,
        media_item_id=media_item_id,
        workflow_type=workflow,
        priority=priority,
        config=checked,
        requested_by=requested_by,
    )
    budgets = {"max_attempts": max_attempts, "max_crashes": max_crashes}
    for position, stage in enumerate(stages):
        status = TaskStatus.PENDING if position else TaskStatus.QUEUED
        place = {"job_id": job_id, "position": position, "status": status}
        session.add(QueueRow(**place, **_treatment(workflow, stage, lane), **budgets))
    session.flush()
    return session.get_one(ProcessingJob, job_id)


def _treatment(workflow: str, stage: StageName, lane: Queue) -> dict[str, Any]:
    """What the settings say of a stage. Where it is what the job is for, its failure is the job's."""
    settings = get_settings()
    return {
        "job_type": stage,
        "queue": Queue.HEAVY if stage in settings.heavy_stages else lane,
        "optional": workflow == WorkflowType.INGEST and stage in settings.optional_stages,
    }


def _insert_job(session: Session, *, media_item_id: UUID, workflow_type: str, **values: Any) -> UUID:
    job_id: UUID | None = session.scalar(
        insert(ProcessingJob)
        .values(
            id=uuid7(),
            media_item_id=media_item_id,
            workflow_type=workflow_type,
            status=JobStatus.QUEUED,
            **values,
        )
        .on_conflict_do_nothing(
            index_elements=["media_item_id", "workflow_type"],
            index_where=is_in(ProcessingJob.status, JOB_ACTIVE),
        )
        .returning(ProcessingJob.id)
    )
    if job_id is None:
        active = active_job_id(session, media_item_id, workflow_type)
        raise ConflictError(
            f"Media item {media_item_id} has an active {workflow_type} job ({active});"
            " wait for it or cancel it."
        )
    return job_id


def due_row(session: Session, job_id: UUID) -> UUID | None:
    """The row of a job that is due, or will be, if there is one."""
    return session.scalar(
        select(QueueRow.id)
        .where(QueueRow.job_id == job_id, is_in(QueueRow.status, DUE))
        .order_by(QueueRow.position)
        .limit(1)
    )


def active_job_id(session: Session, media_item_id: UUID, workflow: str) -> UUID | None:
    """The active job of ``workflow`` for a media item, if there is one."""
    return session.scalar(
        select(ProcessingJob.id).where(
            ProcessingJob.media_item_id == media_item_id,
            ProcessingJob.workflow_type == workflow,
            is_in(ProcessingJob.status, JOB_ACTIVE),
        )
    )
