"""The states of jobs and queue rows, what is true in each, and the one table of what may follow what."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pipeline.errors import IllegalTransitionError


class TaskStatus(StrEnum):
    """Where one ``processing_queue`` row is in its life."""

    PENDING = "pending"  #: the stage before has not finished
    QUEUED = "queued"  #: due from available_at; unowned; published_at says whether a message was sent
    PROCESSING = "processing"  #: one worker holds token, and the lease until lease_expires_at
    RETRYING = "retrying"  #: an attempt failed; due again from available_at
    COMPLETED = "completed"  #: final: the stage's effects are in the database
    SKIPPED = "skipped"  #: final: not applicable, the bytes are a duplicate's, or optional and given up on
    FAILED = "failed"  #: final: given up on; a dead letter says why
    CANCELLED = "cancelled"  #: final: an operator, a removal or an earlier failure ended it


class JobStatus(StrEnum):
    """Where one ``processing_jobs`` row is in its life; derived from its queue rows."""

    QUEUED = "queued"  #: no stage was claimed yet
    PROCESSING = "processing"  #: at least one stage was claimed, not all are final
    COMPLETED = "completed"  #: every stage completed or was skipped, possibly with warnings
    FAILED = "failed"  #: a stage failed; the ones after it are cancelled
    CANCELLED = "cancelled"  #: ended before its stages were


FINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.SKIPPED, TaskStatus.FAILED, TaskStatus.CANCELLED})
DUE = frozenset({TaskStatus.QUEUED, TaskStatus.RETRYING})
ACTIVE = frozenset(TaskStatus) - FINAL

JOB_FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
JOB_ACTIVE = frozenset(JobStatus) - JOB_FINAL

_T = TaskStatus
#: Every move that the engine makes by itself. A row whose lease ended goes back to QUEUED.
ALLOWED: dict[TaskStatus, frozenset[TaskStatus]] = {
    _T.PENDING: frozenset({_T.QUEUED, _T.SKIPPED, _T.CANCELLED}),
    _T.QUEUED: frozenset({_T.PROCESSING, _T.CANCELLED}),
    _T.RETRYING: frozenset({_T.PROCESSING, _T.CANCELLED}),
    _T.PROCESSING: frozenset({_T.COMPLETED, _T.SKIPPED, _T.RETRYING, _T.QUEUED, _T.FAILED, _T.CANCELLED}),
    _T.COMPLETED: frozenset(),
    _T.SKIPPED: frozenset(),
    _T.FAILED: frozenset(),
    _T.CANCELLED: frozenset(),
}
#: What an explicit retry or redrive may do to a final row, and nothing else may.
REVIVED = frozenset({_T.QUEUED, _T.PENDING})


def is_allowed(src: TaskStatus, dst: TaskStatus, *, revive: bool = False) -> bool:
    """Whether ``src -> dst`` is a legal move; ``revive`` is true for an explicit retry or redrive."""
    return dst in ALLOWED[src] or (revive and src in FINAL and dst in REVIVED)


def ensure_allowed(src: TaskStatus, dst: TaskStatus, *, revive: bool = False) -> None:
    """Raise IllegalTransitionError unless ``src -> dst`` is a legal move."""
    if not is_allowed(src, dst, revive=revive):
        raise IllegalTransitionError(f"A queue row cannot go from {src} to {dst}.")


def sources_of(dst: TaskStatus) -> frozenset[TaskStatus]:
    """The states from which the engine may move a row to ``dst``: the guard of every compare-and-set."""
    return frozenset(src for src, targets in ALLOWED.items() if dst in targets)


def derive_job_status(rows: Iterable[TaskStatus], *, started: bool = True) -> JobStatus:
    """The status of a job from its rows' statuses.

    A failed row fails the job. Otherwise it is active while any row is; a cancelled row makes it cancelled.
    ``started`` says whether any stage was ever claimed.
    """
    states = list(rows)
    if _T.FAILED in states:
        return JobStatus.FAILED
    if any(state not in FINAL for state in states):
        return JobStatus.PROCESSING if started else JobStatus.QUEUED
    return JobStatus.CANCELLED if _T.CANCELLED in states else JobStatus.COMPLETED
