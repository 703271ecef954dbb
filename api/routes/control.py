"""What people may do to jobs: end one, start it again, make it more or less urgent."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import structlog
from fastapi import APIRouter

from api.dependencies import Resources, ResourcesDep, decode_cursor, encode_cursor
from api.errors import ANY_OPERATION, CONFLICT, NOT_FOUND
from api.publishing import in_time, publish_due
from api.routes.jobs import tell_job
from api.schemas.control import (
    ActorHeader,
    BulkMetadata,
    ChangePriority,
    Refusal,
    RetriedJob,
    RetriedJobs,
    RetryJob,
    RetryJobs,
    Why,
)
from api.schemas.jobs import JobAnswer
from db import ended, queue
from db.ended import COUNTED, EndedFilter
from db.models import ProcessingJob
from db.session import guarded
from pipeline.errors import ConflictError, InfrastructureError, InvalidRequestError
from pipeline.states import JobStatus
from tasks.control import Handled, retry_jobs
from tasks.dispatch import publish_all

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/api/v1", tags=["jobs"], responses=ANY_OPERATION)


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses={**NOT_FOUND, **CONFLICT})
def cancel_job(
    job_id: UUID, held: ResourcesDep, x_actor: ActorHeader = None, why: Why | None = None
) -> JobAnswer:
    """End a job: what waits at once, what runs within seconds, and nothing that it does still counts.

    Cancelling a cancelled job changes nothing; one that has completed or failed is a conflict.
    """
    why = why or Why()
    actor = why.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        ended_now = queue.cancel_job(session, job_id, actor=actor, reason=why.reason or "no reason given")
        job = session.get_one(ProcessingJob, job_id)
        if not ended_now and job.status != JobStatus.CANCELLED:
            raise ConflictError(f"Job {job_id} is {job.status} already.", code="JOB_ENDED")
    log.info("job_cancelled", actor=actor, reason=why.reason, changed=ended_now)
    return JobAnswer(data=tell_job(held.sessions, job_id))


@router.post("/jobs/{job_id}/retry", summary="Retry a job", responses={**NOT_FOUND, **CONFLICT})
def retry_job(
    job_id: UUID, held: ResourcesDep, x_actor: ActorHeader = None, how: RetryJob | None = None
) -> JobAnswer:
    """Start a job that has ended again, with new budgets. Its open dead letters are redriven with it."""
    how = how or RetryJob()
    actor = how.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        row = queue.retry_job(session, job_id, actor=actor, stage=how.stage, reason=how.reason)
    log.info("job_retried", actor=actor, reason=how.reason, from_stage=row.job_type)
    publish_due(held, job_id)
    return JobAnswer(data=tell_job(held.sessions, job_id))


@router.post(
    "/jobs/{job_id}/priority", summary="Change a job's priority", responses={**NOT_FOUND, **CONFLICT}
)
def change_priority(
    job_id: UUID, change: ChangePriority, held: ResourcesDep, x_actor: ActorHeader = None
) -> JobAnswer:
    """Move what waits of a job to the lane of another priority. A stage that runs is left to run."""
    actor = change.by(x_actor)
    with guarded(), held.sessions.begin() as session:
        changed = queue.change_priority(session, job_id, change.priority, actor=actor, reason=change.reason)
    log.info("job_priority_changed", actor=actor, priority=change.priority, changed=changed)
    if changed:
        publish_due(held, job_id)
    return JobAnswer(data=tell_job(held.sessions, job_id))


@router.post("/jobs/retry", summary="Retry many jobs")
def retry_many(what: RetryJobs, held: ResourcesDep, x_actor: ActorHeader = None) -> RetriedJobs:
    """Start the jobs again that a filter finds, oldest first, at most `limit` in a call. Try `dry_run` first.

    Each is decided for itself: one that cannot be started again is told in its entry.
    """
    only = _filter(what)
    after = decode_cursor("jobs/retry", what.cursor)
    with guarded(), held.sessions() as session:
        ids = ended.matching(session, only, after=after, limit=what.limit)
    actor = what.by(x_actor)
    handled = retry_jobs(
        held.sessions, ids, actor=actor, reason=what.reason, stage=what.from_stage, dry_run=what.dry_run
    )
    publish_handled(held, handled)
    last = last_decided(handled, after)
    with guarded(), held.sessions() as session:
        left = ended.count_matching(session, only, after=last)
        keys = ended.keys_of(session, ids)
    log.info("jobs_retried", actor=actor, reason=what.reason, dry_run=what.dry_run, count=len(handled))
    return RetriedJobs(
        data=[
            RetriedJob(
                job_id=one.id, key=keys.get(one.id), from_stage=one.stage, refused=Refusal.of(one.error)
            )
            for one in handled
        ],
        metadata=bulk("jobs/retry", last, handled, dry_run=what.dry_run, remaining=left),
    )


def _filter(what: RetryJobs) -> EndedFilter:
    names = (
        "workflow_type",
        "error_code",
        "stage",
        "key_prefix",
        "created_since",
        "created_until",
    )
    given = {name: getattr(what, name) for name in names if getattr(what, name) is not None}
    if not given and what.status is None:
        raise InvalidRequestError(
            f"Say which jobs: give status, {', '.join(names)}, or some of them.", field="status"
        )
    return EndedFilter(status=what.status or JobStatus.FAILED, **given)


def publish_handled(held: Resources, handled: list[Handled]) -> None:
    """Publish what is due of many that were started again."""
    rows = [one.row_id for one in handled if one.row_id is not None]
    if rows:
        in_time(held, partial(publish_all, held.sessions, rows))


def last_decided(handled: Sequence[Handled], after: UUID | None) -> UUID | None:
    """Where the next call goes on: behind the last that was decided, and before one that could not be."""
    decided = [one.id for one in handled if not isinstance(one.error, InfrastructureError)]
    return decided[-1] if decided else after


def bulk(
    listing: str | None, last: UUID | None, handled: list[Handled], *, dry_run: bool, remaining: int
) -> BulkMetadata:
    """The metadata of a call that has handled many, ``remaining`` being left behind the ``last`` decided.

    ``remaining`` above ``COUNTED`` says that there are more. ``listing`` names the list that its cursor goes
    on with; None when there is nothing to go on with.
    """
    refused = sum(one.error is not None for one in handled)
    return BulkMetadata(
        dry_run=dry_run,
        done=len(handled) - refused,
        refused=refused,
        remaining=min(remaining, COUNTED),
        remaining_more=remaining > COUNTED,
        next_cursor=encode_cursor(listing, last) if listing and last and remaining else None,
    )
