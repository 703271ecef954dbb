"""Everything at once on a few jobs, at random; afterwards every promise of the protocol must hold."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import effects, queue
from db.effects import Done
from db.models import Attempt, DeadLetter, MediaItem, Outcome, ProcessingJob, QueueRow
from db.queue import Claimed, Effect
from db.session import Sessions, guarded
from pipeline.errors import ConflictError, InfrastructureError, PermanentStageError
from pipeline.retry import RetryPolicy
from pipeline.stages.dedupe import DedupeValue
from pipeline.states import JOB_FINAL, JobStatus, TaskStatus
from pipeline.workflows import StageName
from tests.factories import add_item
from tests.support import (
    COST,
    LEASE,
    SLOW,
    broken_promises,
    complete,
    expire,
    in_threads,
    new_job,
    statuses,
    summaries,
)

THREADS, JOBS = 8, 6
MOVES = 150  #: of each thread; a number, not a time: a slow machine tests as much
#: A retry is due at once, so that threads meet at it.
AT_ONCE = RetryPolicy(floor=timedelta(), base=timedelta(), cap=timedelta())
BAD = PermanentStageError("The picture is truncated.")


class Chaos:
    """Workers, stewards, operators and crashes in one thread, one random move after the other."""

    def __init__(self, sessions: Sessions, jobs: list[UUID], seed: int) -> None:
        self.sessions = sessions
        self.jobs = jobs
        self.random = random.Random(seed)  # noqa: S311 - a test that can be run again
        self.held: list[Claimed] = []  # claims of ours, some of them lost long ago
        self.settled = 0
        self.waits: list[str] = []  # locks that were not given
        moves: dict[Callable[[Session], None], int] = {
            self.claim: 8,
            self.complete: 6,
            self.fail: 2,
            self.publish: 3,
            self.crash: 2,
            self.release: 3,
            self.cancel: 1,
            self.retry: 2,
        }
        self.moves = [move for move, weight in moves.items() for _ in range(weight)]

    def run(self, moves: int) -> None:
        for _ in range(moves):
            try:
                with guarded(), self.sessions.begin() as session:
                    self.random.choice(self.moves)(session)
            except ConflictError:
                pass  # an operator is told so
            except InfrastructureError as error:
                self.waits.append(str(error.__cause__))

    def claim(self, session: Session) -> None:
        row_id = queue.due_row(session, self.random.choice(self.jobs))
        answer = row_id and queue.claim(session, row_id, worker="chaos", lease=LEASE)
        if isinstance(answer, Claimed):
            self.held.append(answer)

    def complete(self, session: Session) -> None:
        if self.held:
            claim = self.random.choice(self.held)
            self.settled += isinstance(complete(session, claim, _effect_of(claim)), queue.Settled)

    def fail(self, session: Session) -> None:
        if self.held:
            error = self.random.choice([SLOW, SLOW, BAD, InfrastructureError("Away.")])
            queue.fail(session, self.random.choice(self.held), error, AT_ONCE, cost=COST)

    def publish(self, session: Session) -> None:
        row_id = queue.due_row(session, self.random.choice(self.jobs))
        if row_id is not None:
            queue.win_ticket(session, row_id)

    def crash(self, session: Session) -> None:
        if self.held:
            claim = self.random.choice(self.held)
            row = session.get_one(QueueRow, claim.row_id, with_for_update=True)
            if row.token == claim.token and row.status == TaskStatus.PROCESSING:
                expire(session, claim.row_id)

    def release(self, session: Session) -> None:
        for row_id, token in queue.expired(session, limit=1):
            queue.release_expired(session, row_id, token)

    def cancel(self, session: Session) -> None:
        queue.cancel_job(session, self.random.choice(self.jobs), actor="ada", reason="chaos")

    def retry(self, session: Session) -> None:
        queue.retry_job(session, self.random.choice(self.jobs), actor="ada")


def _effect_of(claim: Claimed) -> Callable[[Session], Effect]:
    if claim.job_type != StageName.DEDUPE:
        return lambda _: Effect()
    done = Done(claim.asset, DedupeValue(sha256=claim.asset.sha256 or ""))
    return lambda session: effects.apply(session, StageName.DEDUPE, done)


def _finish(sessions: Sessions) -> list[UUID]:
    """Let every job that is left come to its end, without faults. Returns all jobs there are."""
    with sessions.begin() as session:
        for row_id in session.scalars(select(QueueRow.id).where(QueueRow.status == TaskStatus.PROCESSING)):
            expire(session, row_id)
    for _ in range(500):
        with sessions.begin() as session:
            for row_id, token in queue.expired(session):
                queue.release_expired(session, row_id, token)
            due = session.scalars(
                select(QueueRow.id).where(QueueRow.status.in_(["queued", "retrying"]))
            ).all()
            for row_id in due:
                answer = queue.claim(session, row_id, worker="last", lease=LEASE)
                assert isinstance(answer, Claimed | queue.Final), answer
                if isinstance(answer, Claimed):
                    complete(session, answer, _effect_of(answer))
            if not due:
                break
    with sessions() as session:
        return list(session.scalars(select(ProcessingJob.id)))


@pytest.mark.parametrize("seed", [1, 2])
def test_promises_hold_after_everything_at_once(sessions: Sessions, seed: int) -> None:
    with sessions.begin() as session:
        items = [add_item(session, sha256="5" * 64, holds_hash=False) for _ in range(JOBS)]
        jobs = [new_job(session, item, max_crashes=9).id for item in items]
    chaos = [Chaos(sessions, jobs, seed * 1000 + number) for number in range(THREADS)]

    in_threads(THREADS, lambda number: chaos[number].run(MOVES))

    assert [wait for one in chaos for wait in one.waits] == []
    with sessions() as session:
        assert broken_promises(session, jobs) == []
        _check_attempts(session, sum(one.settled for one in chaos))
    every = _finish(sessions)
    with sessions() as session:
        assert broken_promises(session, every) == []
        for job_id in every:
            _check_end(session, job_id)
        _check_family(session)


def _check_attempts(session: Session, settled: int) -> None:
    """Each success that a worker was told of is one attempt, and no attempt ended twice."""
    outcomes = select(func.count()).select_from(Attempt).where(Attempt.outcome == Outcome.COMPLETED)
    assert session.scalar(outcomes) == settled > 0
    open_tries = set(session.scalars(select(Attempt.token).where(Attempt.outcome.is_(None))))
    at_work = set(session.scalars(select(QueueRow.token).where(QueueRow.status == TaskStatus.PROCESSING)))
    assert open_tries == at_work


def _check_end(session: Session, job_id: UUID) -> None:
    """One summary for every end, one dead letter for every failure, nothing left to do."""
    job = session.get_one(ProcessingJob, job_id)
    rows = statuses(session, job_id)
    assert job.status in JOB_FINAL, rows
    ends = summaries(session, job_id)
    assert ends[-1].action == f"job_{job.status}"
    failures = sum(end.action == "job_failed" for end in ends)
    letters = session.scalar(select(func.count()).where(DeadLetter.job_id == job_id))
    assert letters == failures
    if job.status == JobStatus.COMPLETED:
        assert set(rows) <= {TaskStatus.COMPLETED, TaskStatus.SKIPPED}


def _check_family(session: Session) -> None:
    """Of equal bytes at most one is the original, and who is linked is linked to it."""
    items = session.scalars(select(MediaItem)).all()
    holders = [item for item in items if item.holds_hash]
    assert len(holders) <= 1
    linked = {item.duplicate_of_id for item in items} - {None}
    if holders:
        assert linked <= {holders[0].id}
    originals = {item.id for item in items if item.duplicate_of_id is None}
    assert linked <= originals  # nobody is a duplicate of a duplicate
