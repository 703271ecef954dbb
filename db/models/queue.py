"""Jobs, their queue rows, each attempt, what was given up on, and the lanes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Sequence,
    SmallInteger,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base, Created, Json, JsonList, JsonObject, Touched, UuidKey, in_list, one_of
from db.models.media import MediaItem
from pipeline.states import ACTIVE, DUE, FINAL, JOB_ACTIVE, JOB_FINAL, JobStatus, TaskStatus
from pipeline.workflows import PRIORITY_DEFAULT, PRIORITY_MAX, PRIORITY_MIN, StageName, WorkflowType

#: Grows with every claim, is never reset: one number names one attempt in the whole system. It is the fence.
TOKEN = Sequence("processing_token_seq", metadata=Base.metadata)

FINAL_SQL, DUE_SQL, ACTIVE_SQL = in_list(FINAL), in_list(DUE), in_list(ACTIVE)
JOB_FINAL_SQL, JOB_ACTIVE_SQL = in_list(JOB_FINAL), in_list(JOB_ACTIVE)

#: Finished rows pile up, so dead versions are counted in thousands, not as a share of the table: a vacuum of
#: every 2 % keeps the pages of living rows few, and what the planner knows of each status fresh. The room in
#: each page is for the next version of its rows: what changes no indexed column, as a heartbeat, stays there.
STORAGE = {
    "fillfactor": 85,
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 2000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 2000,
}


class Outcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    SKIPPED = "skipped"
    RETRYING = "retrying"  #: failed, and will be tried again
    FAILED = "failed"  #: failed for good
    CANCELLED = "cancelled"  #: ended from outside while it ran
    LOST = "lost"  #: the lease ended without a word, or its process died; costs a crash
    RELEASED = "released"  #: given back by a worker that was told to stop; costs nothing


class DeadLetterReason(StrEnum):
    """Why something is in ``dead_letters``."""

    PERMANENT_ERROR = "permanent_error"  #: bad input
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"  #: failed as often as it may
    WORKER_LOST = "worker_lost"  #: its process died as often as it may
    NOT_OURS = "not_ours"  #: a message that names no row, or no object event


class Resolution(StrEnum):
    """What became of a dead letter."""

    REDRIVEN = "redriven"  #: its job was started again, or its message sent again
    PURGED = "purged"  #: an operator has no use for it


class ProcessingJob(Touched, Base):
    """One run of a workflow on a media item."""

    __tablename__ = "processing_jobs"
    __table_args__ = (
        one_of("workflow_type", WorkflowType),
        one_of("status", JobStatus),
        CheckConstraint(f"priority BETWEEN {PRIORITY_MIN} AND {PRIORITY_MAX}", name="priority_in_range"),
        CheckConstraint(
            f"(status IN ({JOB_FINAL_SQL})) = (completed_at IS NOT NULL)", name="completed_at_iff_final"
        ),
        Index(
            "uq_processing_jobs_active",
            "media_item_id",
            "workflow_type",
            unique=True,
            postgresql_where=f"status IN ({JOB_ACTIVE_SQL})",
        ),
        Index("ix_processing_jobs_media_item_id", "media_item_id"),
        Index("ix_processing_jobs_status_id", "status", "id"),
        Index("ix_processing_jobs_completed_at", "completed_at", postgresql_where="completed_at IS NOT NULL"),
        Index("ix_processing_jobs_workflow_type_id", "workflow_type", "id"),
        {"postgresql_with": STORAGE},
    )

    id: Mapped[UuidKey]
    media_item_id: Mapped[UUID] = mapped_column(ForeignKey("media_items.id", ondelete="CASCADE"))
    workflow_type: Mapped[str]
    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED)
    priority: Mapped[int] = mapped_column(SmallInteger, default=PRIORITY_DEFAULT)
    config: Mapped[JsonObject]
    warnings: Mapped[JsonList]
    requested_by: Mapped[str] = mapped_column(default="system")
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[Created]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    media_item: Mapped[MediaItem] = relationship()
    rows: Mapped[list[QueueRow]] = relationship(back_populates="job", order_by="QueueRow.position")


class QueueRow(Touched, Base):
    """One stage of one job. Its status is written by ``db.queue`` alone."""

    __tablename__ = "processing_queue"
    __table_args__ = (
        UniqueConstraint("job_id", "position"),
        one_of("job_type", StageName),
        one_of("status", TaskStatus),
        CheckConstraint(
            f"(status IN ({FINAL_SQL})) = (completed_at IS NOT NULL)", name="completed_at_iff_final"
        ),
        CheckConstraint(
            "(status = 'processing') = (lease_expires_at IS NOT NULL)", name="lease_iff_processing"
        ),
        CheckConstraint("status <> 'processing' OR token IS NOT NULL", name="token_while_processing"),
        CheckConstraint("attempts >= 0 AND crashes >= 0", name="budgets_not_negative"),
        # Partial on the living states only: what is finished costs a claim and a sweep nothing.
        Index(
            "ix_processing_queue_unpublished",
            "available_at",
            postgresql_where=f"status IN ({DUE_SQL}) AND published_at IS NULL",
        ),
        Index("ix_processing_queue_due", "queue", "available_at", postgresql_where=f"status IN ({DUE_SQL})"),
        # Not on lease_expires_at: a heartbeat must change no index, and the rows at work are few.
        Index("ix_processing_queue_at_work", "worker", postgresql_where="status = 'processing'"),
        Index("ix_processing_queue_active", "queue", "status", postgresql_where=f"status IN ({ACTIVE_SQL})"),
        # What people list by, newest first.
        Index("ix_processing_queue_status_id", "status", "id"),
        Index("ix_processing_queue_queue_id", "queue", "id"),
        Index("ix_processing_queue_job_type_id", "job_type", "id"),
        {"postgresql_with": STORAGE},
    )

    id: Mapped[UuidKey]
    job_id: Mapped[UUID] = mapped_column(ForeignKey("processing_jobs.id", ondelete="CASCADE"))
    job_type: Mapped[str]
    position: Mapped[int] = mapped_column(SmallInteger)
    queue: Mapped[str]
    status: Mapped[str]
    token: Mapped[int | None] = mapped_column(BigInteger, unique=True)
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    max_attempts: Mapped[int] = mapped_column(SmallInteger, default=3)
    crashes: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    max_crashes: Mapped[int] = mapped_column(SmallInteger, default=3)
    optional: Mapped[bool] = mapped_column(default=False, server_default=false())  #: its failure is a warning
    available_at: Mapped[Created]
    published_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    processor_version: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    created_at: Mapped[Created]

    job: Mapped[ProcessingJob] = relationship(back_populates="rows")
    tries: Mapped[list[Attempt]] = relationship(order_by="Attempt.token")


class Attempt(Base):
    """One try of a queue row: who, when, how it ended, what it cost."""

    __tablename__ = "processing_attempts"
    __table_args__ = (
        one_of("outcome", Outcome),
        CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="finished_iff_outcome"),
        Index("ix_processing_attempts_row_id", "row_id"),
        {"postgresql_with": STORAGE},
    )

    token: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    row_id: Mapped[UUID] = mapped_column(ForeignKey("processing_queue.id", ondelete="CASCADE"))
    worker: Mapped[str]
    started_at: Mapped[Created]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    duration_ms: Mapped[int | None]  #: wall clock of the stage itself
    cpu_ms: Mapped[int | None]  #: user and system time of the process in the stage


class DeadLetter(Base):
    """What was given up on, or was never ours. SQS holds a copy once ``dead_lettered_at`` is set."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        one_of("reason", DeadLetterReason),
        one_of("resolution", Resolution),
        CheckConstraint("(resolution IS NULL) = (resolved_at IS NULL)", name="resolved_iff_resolution"),
        Index("ix_dead_letters_unsent", "created_at", postgresql_where="dead_lettered_at IS NULL"),
        Index("ix_dead_letters_open", "job_type", "error_code", "id", postgresql_where="resolved_at IS NULL"),
        Index("ix_dead_letters_created_at", "created_at"),
        Index("ix_dead_letters_job_id", "job_id"),
        Index("ix_dead_letters_row_id", "row_id"),
        Index("ix_dead_letters_media_item_id", "media_item_id", postgresql_where="media_item_id IS NOT NULL"),
    )

    id: Mapped[UuidKey]
    row_id: Mapped[UUID | None] = mapped_column(ForeignKey("processing_queue.id", ondelete="SET NULL"))
    job_id: Mapped[UUID | None] = mapped_column(ForeignKey("processing_jobs.id", ondelete="SET NULL"))
    media_item_id: Mapped[UUID | None] = mapped_column(ForeignKey("media_items.id", ondelete="SET NULL"))
    queue: Mapped[str | None]  #: where the message came from, or the lane of the row
    job_type: Mapped[str | None]
    reason: Mapped[str]
    error_code: Mapped[str]
    error_message: Mapped[str]
    body: Mapped[str | None]  #: the message as it was, for what was never ours
    created_at: Mapped[Created]
    dead_lettered_at: Mapped[datetime | None]  #: when the copy was sent to the SQS dead-letter queue
    resolution: Mapped[str | None]  #: None while it is open
    resolved_at: Mapped[datetime | None]
    resolved_by: Mapped[str | None]


class PausedLane(Base):
    """A lane that an operator paused. No row: not paused."""

    __tablename__ = "paused_lanes"

    queue: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[Created]
    paused_by: Mapped[str]
    reason: Mapped[str | None]


class WorkerState(StrEnum):
    """What a worker says of itself. One that says nothing for ``worker_silent`` is lost, whatever it said."""

    RUNNING = "running"
    NO_ROOM = "no_room"  #: its spool or disk is full: it starts nothing, and fails nothing
    STOPPING = "stopping"  #: told to end; running stages get their time
    STOPPED = "stopped"


class Worker(Base):
    """A worker process and its last word. Rows name it and its child: ``<id>/<pid>`` in their ``worker``."""

    __tablename__ = "workers"
    __table_args__ = (
        one_of("state", WorkerState),
        Index("ix_workers_last_seen_at", "last_seen_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)  #: <host>:<pid>
    name: Mapped[str]  #: as Celery and Flower know it: worker@host
    host: Mapped[str]
    pid: Mapped[int]
    lanes: Mapped[JsonList]  #: most urgent first
    concurrency: Mapped[int] = mapped_column(SmallInteger)
    version: Mapped[str]  #: of Dailies
    state: Mapped[str] = mapped_column(default=WorkerState.RUNNING)
    reason: Mapped[str | None]  #: a sentence for the state, where it needs one
    started_at: Mapped[Created]
    last_seen_at: Mapped[Created]


class StewardMark(Base):
    """What the steward remembers between its rounds, and over its own restarts; ``db.marks`` names them."""

    __tablename__ = "steward_marks"

    name: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    value: Mapped[str] = mapped_column(default="", server_default="")
