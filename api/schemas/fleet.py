"""Queues, workers and drift as the API tells them."""

from __future__ import annotations

from uuid import UUID

from api.dependencies import Input
from api.envelope import Envelope, Out, Utc
from db.fleet import SeenState
from pipeline.queues import Queue
from pipeline.workflows import StageName


class Pause(Out):
    """Who paused a lane."""

    by: str
    reason: str | None
    since: Utc


class QueueState(Out):
    """One queue: its messages, and the rows that they speak of."""

    name: Queue
    visible: int | None
    """Messages that wait, as SQS counts (approximate); null when it does not answer."""
    in_flight: int | None
    """Messages received and not deleted yet."""
    delayed: int | None
    """Messages that become visible later."""
    due: int | None
    """Rows that could start now; this and what follows is null for what is no lane."""
    waiting: int | None
    """Rows that are due later: the wait before a retry."""
    processing: int | None
    retrying: int | None
    """Of those due and waiting, the ones that failed before."""
    pending: int | None
    """Rows that wait for the stage before."""
    estimated: bool | None
    """There are so many rows that they were not all counted: the counts are the database's estimate."""
    oldest_due_seconds: float | None
    """How long the oldest due row has waited; null when none is due."""
    paused: Pause | None
    """Null when it is not paused."""
    workers: list[str]
    """The workers that serve it and are there: ids, as in `GET /workers`."""
    error: str | None
    """Why the counts of messages are null."""


class CurrentRow(Out):
    """A row that a worker holds."""

    id: UUID
    """Also the id of its task in Flower."""
    job_id: UUID
    job_type: StageName
    started_at: Utc | None
    lease_expires_at: Utc | None


class Worker(Out):
    """A worker process and its last word."""

    id: str
    """`<host>:<pid>`; rows name it in `worker`, followed by the pid of the pool's child."""
    name: str
    """As Celery and Flower know it."""
    host: str
    pid: int
    lanes: list[Queue]
    """Most urgent first."""
    concurrency: int
    version: str
    """Of Dailies."""
    state: SeenState
    """Its own last word, or `lost` when there has been none for too long (DAILIES_WORKER_SILENT)."""
    reason: str | None
    """A sentence for the state, where it needs one."""
    started_at: Utc
    last_seen_at: Utc
    silent_seconds: float
    rows: list[CurrentRow]
    """What it holds now."""


class WorkersQuery(Input):
    """Which workers to list."""

    state: SeenState | None = None


class Finding(Out):
    """One way in which rows, messages and objects disagree."""

    kind: str
    """Stable, for machines."""
    count: int
    more: bool
    """There are more than were counted."""
    samples: list[str]
    """Ids or keys of some."""
    drift: bool
    """False for what somebody wants to be so, like a paused lane."""
    what: str
    """What it is, for people."""
    mended_by: str
    """What mends it."""


class Drift(Out):
    """How far rows, messages and objects disagree now."""

    clean: bool
    findings: list[Finding]
    cut: list[str]
    """What was not looked through to its end, because it took too long."""
    seconds: float


class Mended(Out):
    """What the steward's steps have done now."""

    steps: dict[str, int]
    """What each step changed, by its name."""
    failed: dict[str, str]
    """The steps that could not be taken, and why."""
    seconds: float


class QueuesAnswer(Envelope[list[QueueState]]):
    """Every queue, most urgent lane first."""


class WorkersAnswer(Envelope[list[Worker]]):
    """The workers of the last day, who spoke last first."""


class DriftAnswer(Envelope[Drift]):
    """How far rows, messages and objects disagree now."""


class MendedAnswer(Envelope[Mended]):
    """What the steward's steps have done now."""
