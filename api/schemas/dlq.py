"""Dead letters as the API tells them."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from api.dependencies import CursorQuery, Input
from api.envelope import CursorPage, Envelope, Out, Utc
from api.schemas.control import BulkMetadata, Code, Many, Moment, Refusal, Why
from db.letters import LetterFilter, LetterState
from db.models import DeadLetter as Stored
from db.models import DeadLetterReason
from pipeline.workflows import StageName


class GroupsQuery(Input):
    """Which dead letters to group."""

    state: LetterState | Literal["any"] = LetterState.OPEN
    error_code: Code | None = None
    stage: StageName | None = None
    reason: DeadLetterReason | None = None
    since: Moment | None = None
    """Given up on at or after this moment."""
    until: Moment | None = None
    """Given up on before this moment."""

    def filter(self) -> LetterFilter:
        """The same, as the database reads it."""
        return LetterFilter(
            state=None if self.state == "any" else self.state,
            error_code=self.error_code,
            stage=self.stage,
            reason=self.reason,
            since=self.since,
            until=self.until,
        )


class LettersQuery(GroupsQuery, CursorQuery):
    """Which dead letters to list."""


class DeadLetterSummary(Out):
    """What was given up on, or was never ours."""

    id: UUID
    state: LetterState
    job_id: UUID | None
    """Null for a foreign message, and when the job was pruned."""
    row_id: UUID | None
    media_item_id: UUID | None
    key: str | None
    """The media item's key in the bucket."""
    queue: str | None
    """Where the message came from, or the lane of the row."""
    stage: StageName | None
    reason: DeadLetterReason
    error_code: str
    error_message: str
    created_at: Utc
    dead_lettered_at: Utc | None
    """When the SQS dead-letter queue got its copy."""
    resolved_at: Utc | None
    resolved_by: str | None

    @classmethod
    def told(cls, letter: Stored, key: str | None) -> Self:
        """The letter with the key of its media item."""
        names = set(cls.model_fields) - {"state", "key", "stage"}
        return cls(
            **{name: getattr(letter, name) for name in names},
            state=LetterState(letter.resolution or LetterState.OPEN),
            key=key,
            stage=letter.job_type,
        )


class DeadLetter(DeadLetterSummary):
    """What was given up on, with the message where it was never ours."""

    body: str | None
    """The message as it came; null for a row of ours."""


class DeadLetterGroup(Out):
    """Dead letters of one stage, error code and reason."""

    stage: StageName | None
    error_code: str
    reason: DeadLetterReason
    count: int
    first_at: Utc
    last_at: Utc
    sample_id: UUID
    """The newest of them."""
    sample_message: str


class Redrive(Many):
    """Which dead letters to redrive: by their ids, or by what they have in common."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"error_code": "STORAGE_REFUSED", "stage": "ingest", "dry_run": True, "actor": "ada"},
                {"ids": ["0199f3a2-7a54-7c50-9d3e-6f6f0f1f2a3b"], "from": "start"},
            ]
        }
    )

    ids: Annotated[list[UUID], Field(min_length=1, max_length=500)] | None = None
    error_code: Code | None = None
    stage: StageName | None = None
    since: Moment | None = None
    until: Moment | None = None
    from_: Literal["failed_stage", "start"] = Field("failed_stage", alias="from")
    """Where the jobs start again."""

    @model_validator(mode="after")
    def _ids_or_filter(self) -> Self:
        by = any((self.error_code, self.stage, self.since, self.until))
        if (self.ids is None) == (not by):
            raise ValueError("Give ids, or a filter (error_code, stage, since, until), and not both.")
        return self

    def filter(self) -> LetterFilter:
        """The open letters that are asked for."""
        return LetterFilter(
            error_code=self.error_code,
            stage=self.stage,
            since=self.since,
            until=self.until,
        )


class PurgeQuery(Why):
    """Who purges it and why."""


class RedrivenLetter(Out):
    """What became, or would become, of one dead letter."""

    dead_letter_id: UUID
    job_id: UUID | None
    key: str | None
    """The key of the file that it is about, where it is about one that is known."""
    from_stage: StageName | None
    """Where its job starts again; null for an S3 event, which goes to the listener again."""
    refused: Refusal | None


class DeadLetterAnswer(Envelope[DeadLetter]):
    """One dead letter."""


class DeadLettersPage(CursorPage[DeadLetterSummary]):
    """Dead letters, newest first."""


class DeadLetterGroupsAnswer(Envelope[list[DeadLetterGroup]]):
    """Dead letters by stage and error code, the largest group first."""


class RedrivenLetters(Out):
    """The letters that were redriven, or would be, and those that could not."""

    data: list[RedrivenLetter]
    metadata: BulkMetadata
