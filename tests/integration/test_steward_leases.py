"""Which leases the steward judges, and when: an outage of the database costs nobody a crash."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from db import marks
from db.models import Attempt, DeadLetter, Outcome, QueueRow
from db.session import Sessions
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.states import TaskStatus
from tasks.queues import Queues
from tasks.runtime import Runtime
from tasks.steward import Steward
from tests.factories import now
from tests.integration.conftest import LEASE, in_view
from tests.support import claimed, due, new_job, wait_until

T = TaskStatus


def _held(sessions: Sessions, *, ended_ago: timedelta, max_crashes: int = 3) -> UUID:
    """A row that a worker holds, with a lease that ended ``ended_ago``."""
    with sessions.begin() as session:
        row_id = due(session, new_job(session, max_crashes=max_crashes).id)
        claimed(session, row_id)
        session.execute(
            update(QueueRow)
            .where(QueueRow.id == row_id)
            .values(lease_expires_at=func.clock_timestamp() - ended_ago)
        )
    return row_id


def _read(sessions: Sessions, row_id: UUID) -> QueueRow:
    with sessions() as session:
        return session.get_one(QueueRow, row_id)


def _outcome(sessions: Sessions, row_id: UUID) -> tuple[str | None, str | None]:
    with sessions() as session:
        found = session.scalars(select(Attempt).where(Attempt.row_id == row_id)).one()
        return found.outcome, found.error_code


def test_expired_leases_are_released_and_published(
    stewards: Runtime, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _held(sessions, ended_ago=timedelta(seconds=1))
    holding = _held(sessions, ended_ago=-timedelta(minutes=5))

    steward = Steward(stewards)
    in_view(sessions)
    steward.step()

    row = _read(sessions, row_id)
    assert (row.status, row.crashes, row.published_at is None) == (T.QUEUED, 1, False)
    assert _outcome(sessions, row_id) == (Outcome.LOST, "LEASE_EXPIRED")
    assert _read(sessions, holding).status == T.PROCESSING
    assert sqs_queues.waiting(Queue.STANDARD) == 1


def test_last_crash_is_failed_and_copied_to_the_dead_letters(
    stewards: Runtime, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _held(sessions, ended_ago=timedelta(seconds=1), max_crashes=1)
    steward = Steward(stewards)
    in_view(sessions)
    steward.step()
    assert _read(sessions, row_id).status == T.FAILED
    with sessions() as session:
        letter = session.scalars(select(DeadLetter)).one()
        assert (letter.reason, letter.dead_lettered_at is None) == ("worker_lost", False)
    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 1


@pytest.mark.parametrize("gap", [None, timedelta(seconds=3)])
def test_after_a_gap_leases_wait_for_one_lease_and_cost_no_crash(
    stewards: Runtime, sessions: Sessions, gap: timedelta | None
) -> None:
    """The database was away for moments; or no steward has ever watched it."""
    with sessions.begin() as session:
        marks.remove(session, marks.RECOVERED)
        marks.put(session, marks.WATCHED, at=now() - (gap or timedelta(0)))
        if gap is None:
            marks.remove(session, marks.WATCHED)
    row_id = _held(sessions, ended_ago=timedelta(milliseconds=500), max_crashes=1)
    steward = Steward(stewards)
    begun = now()

    wait_until(steward.release_expired, seconds=60)

    assert now() - begun >= LEASE - timedelta(milliseconds=100)
    row = _read(sessions, row_id)
    assert (row.status, row.crashes, row.published_at) == (T.QUEUED, 0, None)
    assert _outcome(sessions, row_id) == (Outcome.RELEASED, "OUTAGE")


def test_lease_that_was_renewed_after_the_gap_is_judged_as_ever(
    stewards: Runtime, sessions: Sessions
) -> None:
    steward = Steward(stewards)
    row_id = _held(sessions, ended_ago=timedelta(milliseconds=500))
    in_view(sessions)
    with sessions.begin() as session:
        marks.put(session, marks.RECOVERED, at=now() - LEASE - timedelta(seconds=2))
    assert steward.release_expired() == 1
    assert _read(sessions, row_id).crashes == 1


def test_rounds_that_follow_each_other_are_no_gap(stewards: Runtime, sessions: Sessions) -> None:
    steward = Steward(stewards)
    in_view(sessions)
    with sessions() as session:
        before = marks.get(session, marks.RECOVERED)
        assert before is not None
    for _ in range(3):
        steward.release_expired()
    with sessions() as session:
        after = marks.get(session, marks.RECOVERED)
        assert after is not None
        assert after.at == before.at


def test_somebody_who_only_looks_is_no_watcher(stewards: Runtime, sessions: Sessions) -> None:
    """`reconcile --fix` judges while a steward watches, and not when none does."""
    row_id = _held(sessions, ended_ago=timedelta(seconds=1))
    with sessions.begin() as session:
        marks.put(session, marks.WATCHED, at=now() - timedelta(minutes=1))
    steward = Steward(stewards)
    with pytest.raises(InfrastructureError, match="No steward has watched"):
        steward.release_expired(watch=False)
    assert _read(sessions, row_id).status == T.PROCESSING
    in_view(sessions)
    assert steward.release_expired(watch=False) == 1
