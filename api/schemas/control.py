"""What people may do to jobs and lanes, and what they are told of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import Header
from pydantic import AfterValidator, ConfigDict, Field

from api.dependencies import Input, Text
from api.envelope import Envelope, Metadata, Out
from pipeline.errors import DailiesError
from pipeline.states import JobStatus
from pipeline.workflows import PRIORITY_MAX, PRIORITY_MIN, StageName, WorkflowType

#: Who does something, until there is a login.
NOBODY_NAMED = "operator"

Name = Annotated[Text, Field(min_length=1, max_length=100)]
Code = Annotated[Text, Field(min_length=1, max_length=100)]
#: A moment of the client's; without an offset it is UTC.
Moment = Annotated[
    datetime, AfterValidator(lambda told: told if told.tzinfo is not None else told.replace(tzinfo=UTC))
]
ActorHeader = Annotated[
    Name | None,
    Header(alias="X-Actor", description="Who does it, for the audit log; `actor` in the body goes before."),
]


class Why(Input):
    """Who does it and why: both are in the audit log."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"actor": "ada", "reason": "the wrong cut was uploaded"}]}
    )

    actor: Name | None = None
    """Who does it; the header `X-Actor` unless given."""
    reason: Annotated[Text, Field(max_length=500)] | None = None
    """Why, for those who read the audit log later."""

    def by(self, header: str | None) -> str:
        """Who does it, as far as anybody said."""
        return self.actor or header or NOBODY_NAMED


class RetryJob(Why):
    """From where a job starts again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"stage": "thumbnails", "actor": "ada"}]})

    stage: StageName | None = None
    """The stage to start from; the first that did not complete unless given, and never one after that."""


class ChangePriority(Why):
    """How urgent a job is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"priority": 9, "actor": "ada", "reason": "on air at eight"}]}
    )

    priority: int = Field(ge=PRIORITY_MIN, le=PRIORITY_MAX)
    """10 is most urgent: 8 to 10 wait in `express`, 4 to 7 in `standard`, 1 to 3 in `bulk`."""


class Many(Why):
    """How many of what is asked for, and whether it is to happen."""

    limit: int = Field(100, ge=1, le=500)
    """How many to handle in this call."""
    cursor: str | None = Field(None, max_length=100)
    """The `next_cursor` of the call before, to go on with what is left."""
    dry_run: bool = False
    """Say what would happen, and change nothing."""


class RetryJobs(Many):
    """Which jobs to start again: the newest of its workflow for each item that was not deleted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "failed",
                    "error_code": "STORAGE_REFUSED",
                    "created_since": "2026-11-20T22:00:00Z",
                    "dry_run": True,
                }
            ]
        }
    )

    status: Literal[JobStatus.FAILED, JobStatus.CANCELLED] | None = None
    """`failed` unless given."""
    workflow_type: WorkflowType | None = None
    error_code: Code | None = None
    stage: StageName | None = None
    """The stage that failed, or that a cancelled job had come to."""
    key_prefix: Annotated[Text, Field(min_length=1, max_length=1024)] | None = None
    created_since: Moment | None = None
    created_until: Moment | None = None
    from_stage: StageName | None = None
    """The stage to start from, as in the retry of one job."""


class Refusal(Out):
    """Why it could not be done."""

    code: str
    message: str

    @classmethod
    def of(cls, error: DailiesError | None) -> Refusal | None:
        """The refusal that an error is."""
        return None if error is None else cls(code=error.code, message=error.message)


class RetriedJob(Out):
    """What became, or would become, of one of the jobs."""

    job_id: UUID
    key: str | None
    """Its file's key in the bucket; null when there is no such job."""
    from_stage: StageName | None
    """Null when it was refused."""
    refused: Refusal | None


class BulkMetadata(Metadata):
    """About a call that handles many."""

    dry_run: bool
    done: int
    """Handled as asked; with `dry_run`, what would be."""
    refused: int
    remaining: int
    """Left for later calls, counted up to 10,000: go on with `next_cursor`. What database or queue kept from
    being decided is among them, and the call ended there."""
    remaining_more: bool
    """There are more than were counted."""
    next_cursor: str | None
    """Null when nothing is left; also where ids were given, or nothing of the first call could be decided:
    ask again for what is left."""


class RetriedJobs(Out):
    """The jobs that were started again, or would be, and those that could not."""

    data: list[RetriedJob]
    metadata: BulkMetadata


class PublishedLane(Out):
    """A lane, and what resuming it has sent."""

    name: str
    paused: bool
    changed: bool
    """False when it was so already."""
    published: int
    """Messages sent at once; the steward sends the rest within seconds."""


class PublishedLaneAnswer(Envelope[PublishedLane]):
    """A lane, and what resuming it has sent."""
