"""Jobs and the queue rows they are made of."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Response

from api.dependencies import ResourcesDep, decode_cursor, encode_cursor
from api.envelope import CursorMetadata
from api.errors import ANY_OPERATION, CONFLICT, NOT_FOUND
from api.publishing import publish_due
from api.schemas.jobs import (
    Job,
    JobAnswer,
    JobsPage,
    JobsQuery,
    JobSummary,
    NewJob,
    QueueItem,
    QueuePage,
    QueueQuery,
)
from db import jobs
from db.queue import enqueue
from db.session import Sessions, guarded

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1", responses=ANY_OPERATION)


@router.post(
    "/jobs",
    status_code=HTTPStatus.CREATED,
    tags=["jobs"],
    summary="Start a job",
    responses={**NOT_FOUND, **CONFLICT},
)
def create_job(new: NewJob, held: ResourcesDep, response: Response) -> JobAnswer:
    """Run a workflow on a media item. One active job for an item and workflow: a second one is a CONFLICT.

    The job is stored before anything is sent. When no message can be sent now, the steward sends it later.
    """
    with guarded(), held.sessions.begin() as session:
        job_id = enqueue(
            session,
            media_item_id=new.media_item_id,
            workflow=new.workflow_type,
            priority=new.priority,
            config=new.config.model_dump(exclude_none=True),
            requested_by="api",
            max_attempts=held.settings.max_attempts,
            max_crashes=held.settings.max_crashes,
        ).id
    structlog.contextvars.bind_contextvars(job_id=str(job_id), media_item_id=str(new.media_item_id))
    log.info("job_requested", workflow=new.workflow_type, priority=new.priority)
    publish_due(held, job_id)
    response.headers["Location"] = f"/api/v1/jobs/{job_id}"
    return JobAnswer(data=tell_job(held.sessions, job_id))


@router.get("/jobs", tags=["jobs"], summary="List jobs")
def list_jobs(query: Annotated[JobsQuery, Query()], held: ResourcesDep) -> JobsPage:
    """Jobs, newest first."""
    with guarded(), held.sessions() as session:
        found = jobs.list_jobs(
            session,
            limit=query.limit + 1,
            before=decode_cursor("jobs", query.cursor),
            status=query.status,
            workflow_type=query.workflow_type,
            media_item_id=query.media_item_id,
            error_code=query.error_code,
            key_prefix=query.key_prefix,
        )
        page = [JobSummary.model_validate(job) for job in found[: query.limit]]
    following = encode_cursor("jobs", page[-1].id) if len(found) > query.limit else None
    return JobsPage(data=page, metadata=CursorMetadata(limit=query.limit, next_cursor=following))


@router.get("/jobs/{job_id}", tags=["jobs"], summary="One job, stage by stage", responses=NOT_FOUND)
def get_job(job_id: UUID, held: ResourcesDep) -> JobAnswer:
    """The job with its rows, every try of each, and for each row that is not final why it waits."""
    return JobAnswer(data=tell_job(held.sessions, job_id))


def tell_job(sessions: Sessions, job_id: UUID) -> Job:
    """The job as the API tells it now. Raises NotFoundError."""
    with guarded(), sessions() as session:
        job = jobs.get_job(session, job_id)
        return Job.told(job, paused=jobs.paused_lanes(session), now=jobs.database_now(session))


@router.get("/queue", tags=["queue"], summary="List queue rows")
def list_queue(query: Annotated[QueueQuery, Query()], held: ResourcesDep) -> QueuePage:
    """Queue rows, newest first: one for each stage of each job."""
    with guarded(), held.sessions() as session:
        found = jobs.list_rows(
            session,
            limit=query.limit + 1,
            before=decode_cursor("queue", query.cursor),
            status=query.status,
            queue=query.queue,
            job_type=query.job_type,
            job_id=query.job_id,
        )
        page = [QueueItem.model_validate(row) for row in found[: query.limit]]
    following = encode_cursor("queue", page[-1].id) if len(found) > query.limit else None
    return QueuePage(data=page, metadata=CursorMetadata(limit=query.limit, next_cursor=following))
