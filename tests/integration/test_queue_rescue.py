from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import queue
from db.models import Attempt, DeadLetter, DeadLetterReason, Outcome, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import NotOursError
from pipeline.queues import Queue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName
from tests.factories import add_dead_letter
from tests.support import (
    advance,
    claimed,
    due,
    expire,
    in_threads,
    new_job,
    row_of,
    snapshot,
    statuses,
    summaries,
)

T = TaskStatus


def _dead(session: Session, job: ProcessingJob) -> tuple[QueueRow, int]:
    """A row of the job whose process died and whose lease is over."""
    row_id = due(session, job.id)
    claim = claimed(session, row_id)
    expire(session, row_id)
    return session.get_one(QueueRow, row_id, populate_existing=True), claim.token


def test_expired_rows_are_those_whose_lease_is_over_oldest_first(session: Session) -> None:
    claimed(session, due(session, new_job(session).id))
    one, other = _dead(session, new_job(session)), _dead(session, new_job(session))
    one[0].lease_expires_at = (one[0].lease_expires_at or one[0].created_at) + timedelta(milliseconds=500)
    session.flush()
    assert queue.expired(session) == [(other[0].id, other[1]), (one[0].id, one[1])]
    assert queue.expired(session, limit=1) == [(other[0].id, other[1])]


def test_released_row_is_due_again_at_the_cost_of_a_crash(session: Session) -> None:
    job = new_job(session)
    row, token = _dead(session, job)

    assert queue.release_expired(session, row.id, token)

    row = row_of(session, job.id, StageName.INGEST)
    assert (row.status, row.crashes, row.attempts, row.published_at) == (T.QUEUED, 1, 0, None)
    assert row.lease_expires_at is None
    assert session.get_one(Attempt, token, populate_existing=True).outcome == Outcome.LOST
    session.refresh(job)
    assert job.status == JobStatus.PROCESSING
    assert queue.expired(session) == []


def test_released_row_waits_in_the_lane_of_its_jobs_priority(session: Session) -> None:
    job = new_job(session)
    row, token = _dead(session, job)
    queue.change_priority(session, job.id, 1, actor="ada")
    assert queue.release_expired(session, row.id, token)
    assert row_of(session, job.id, StageName.INGEST).queue == Queue.BULK


def test_release_of_a_lease_that_holds_changes_nothing(session: Session) -> None:
    claim = claimed(session, due(session, new_job(session).id))
    before = snapshot(session)
    assert not queue.release_expired(session, claim.row_id, claim.token)
    assert not queue.release_expired(session, uuid4(), claim.token)
    assert snapshot(session) == before


def test_release_of_a_row_without_budget_fails_it_with_its_job(session: Session) -> None:
    job = new_job(session, max_crashes=1)
    advance(session, job.id, to=StageName.DEDUPE)
    row, token = _dead(session, job)

    assert queue.release_expired(session, row.id, token)

    assert statuses(session, job.id) == [T.COMPLETED, T.FAILED, *[T.CANCELLED] * 4]
    session.refresh(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "WORKER_LOST")
    assert session.scalars(select(DeadLetter.reason)).one() == DeadLetterReason.WORKER_LOST
    assert len(summaries(session, job.id)) == 1


def test_of_sixteen_stewards_and_workers_one_releases(sessions: Sessions) -> None:
    for _ in range(5):
        with sessions.begin() as session:
            job = new_job(session)
            row, token = _dead(session, job)

        def release(_: int, row: QueueRow = row, token: int = token) -> bool:
            with sessions.begin() as session:
                return queue.release_expired(session, row.id, token)

        assert sum(in_threads(16, release)) == 1
        with sessions() as session:
            assert row_of(session, job.id, StageName.INGEST).crashes == 1


def test_foreign_message_is_kept_with_its_reason(session: Session) -> None:
    error = NotOursError("Not an S3 event: neither Records nor source aws.s3.")
    letter = queue.keep_foreign(session, source=Queue.EVENTS, body='{"hello": 1}', error=error)
    session.refresh(letter)
    assert (letter.reason, letter.error_code, letter.body) == ("not_ours", "NOT_OURS", '{"hello": 1}')
    assert letter.error_message == error.message
    assert (letter.row_id, letter.queue) == (None, Queue.EVENTS)


def test_foreign_message_is_kept_whatever_its_characters(session: Session) -> None:
    for body in ("a\0b", "half a pair \ud800", "\ufffe\uffff", "x" * 300_000, ""):
        letter = queue.keep_foreign(session, source=None, body=body, error=NotOursError("What is \0 it?"))
        session.refresh(letter)
        assert letter.body == body.replace("\0", "\ufffd").replace("\ud800", "\ufffd")


def test_letters_without_copy_are_given_oldest_first_until_marked(session: Session) -> None:
    letters = [add_dead_letter(session) for _ in range(3)]
    assert [letter.id for letter in queue.without_copy(session, limit=2)] == [
        letter.id for letter in letters[:2]
    ]
    queue.mark_copied(session, [letter.id for letter in letters[:2]])
    assert [letter.id for letter in queue.without_copy(session, limit=9)] == [letters[2].id]
    session.refresh(letters[0])
    assert letters[0].dead_lettered_at is not None
