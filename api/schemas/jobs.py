"""Jobs, queue rows and attempts as the API tells them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AliasPath, ConfigDict, Field

from api.dependencies import CursorQuery, Input, Text
from api.envelope import CursorPage, Envelope, Out, Utc
from api.waiting import WaitingBecause, waiting_because
from db.models import Outcome, PausedLane, ProcessingJob
from pipeline.queues import Queue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import (
    PRIORITY_DEFAULT,
    PRIORITY_MAX,
    PRIORITY_MIN,
    JobConfig,
    StageName,
    WorkflowType,
)


class NewJob(Input):
    """A job to start."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "media_item_id": "0199f3a2-7a54-7c50-9d3e-6f6f0f1f2a3b",
                    "workflow_type": "thumbnails",
                    "priority": 8,
                    "config": {"quality": 90},
                }
            ]
        }
    )

    media_item_id: UUID
    workflow_type: WorkflowType = WorkflowType.INGEST
    priority: int = Field(PRIORITY_DEFAULT, ge=PRIORITY_MIN, le=PRIORITY_MAX)
    """10 is most urgent."""
    config: JobConfig = Field(default_factory=JobConfig)
    """What the stages are told beyond their defaults."""


class JobsQuery(CursorQuery):
    """Which jobs to list."""

    status: JobStatus | None = None
    workflow_type: WorkflowType | None = None
    media_item_id: UUID | None = None
    error_code: Text | None = Field(None, min_length=1, max_length=100)
    key_prefix: Text | None = Field(None, min_length=1, max_length=1024)
    """What the media item's key begins with."""


class QueueQuery(CursorQuery):
    """Which queue rows to list."""

    status: TaskStatus | None = None
    queue: Queue | None = None
    job_type: StageName | None = None
    job_id: UUID | None = None


class Attempt(Out):
    """One try of a queue row."""

    token: int
    """Names this attempt in the whole system."""
    worker: str
    started_at: Utc
    finished_at: Utc | None
    outcome: Outcome | None
    """Null while it runs."""
    error_code: str | None
    error_message: str | None
    duration_ms: int | None
    """Wall clock of the stage itself."""
    cpu_ms: int | None


class QueueItem(Out):
    """One stage of one job."""

    id: UUID
    """Also the id of its task in Flower."""
    job_id: UUID
    job_type: StageName
    position: int
    """Place in the job's chain, from 0."""
    queue: str
    status: TaskStatus
    attempts: int
    """Errors of the stage so far."""
    max_attempts: int
    crashes: int
    """Leases that ended without a word."""
    max_crashes: int
    token: int | None
    available_at: Utc
    """Due from here."""
    published_at: Utc | None
    """When the newest copy of its message became, or becomes, visible."""
    lease_expires_at: Utc | None
    worker: str | None
    started_at: Utc | None
    completed_at: Utc | None
    result: dict[str, Any] | None
    processor_version: str | None
    error_code: str | None
    error_message: str | None
    created_at: Utc
    updated_at: Utc


class JobRow(QueueItem):
    """One stage of a job, with every try and what it waits for."""

    tries: list[Attempt]
    waiting_because: WaitingBecause | None = None
    """Why it is not finished; null when it is."""


class JobSummary(Out):
    """One run of a workflow on a media item."""

    id: UUID
    media_item_id: UUID
    key: str = Field(validation_alias=AliasPath("media_item", "key"))
    """The media item's key in the bucket."""
    workflow_type: WorkflowType
    status: JobStatus
    priority: int
    config: dict[str, Any]
    warnings: list[Any]
    requested_by: str
    error_code: str | None
    error_message: str | None
    created_at: Utc
    started_at: Utc | None
    completed_at: Utc | None
    updated_at: Utc


class Job(JobSummary):
    """One run of a workflow, stage by stage."""

    rows: list[JobRow]

    @classmethod
    def told(cls, job: ProcessingJob, *, paused: Mapping[str, PausedLane], now: datetime) -> Job:
        """The job with a word on each row that waits."""
        told = cls.model_validate(job)
        for row, stored in zip(told.rows, job.rows, strict=True):
            row.waiting_because = waiting_because(stored, rows=job.rows, paused=paused, now=now)
        return told


class JobAnswer(Envelope[Job]):
    """One job, stage by stage."""


class JobsPage(CursorPage[JobSummary]):
    """Jobs, newest first."""


class QueuePage(CursorPage[QueueItem]):
    """Queue rows, newest first."""
