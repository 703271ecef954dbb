from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import queue
from db.models import Attempt, DeadLetter, DeadLetterReason, MediaItem, Outcome, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.queues import Queue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName
from tests.factories import now
from tests.support import (
    COST,
    LEASE,
    POLICY,
    SLOW,
    advance,
    claimed,
    complete,
    due,
    expire,
    in_threads,
    make_due,
    new_job,
    row_of,
    snapshot,
    statuses,
    summaries,
)

RACERS = 16


def _claim(session: Session, row_id: UUID) -> queue.Answer:
    return queue.claim(session, row_id, worker="other@test", lease=LEASE)


def _crash(session: Session, job: ProcessingJob, times: int) -> QueueRow:
    """Let the process that works on a job's row die ``times`` times, each found by the steward."""
    row_id = due(session, job.id)
    for _ in range(times):
        token = claimed(session, row_id).token
        expire(session, row_id)
        assert queue.release_expired(session, row_id, token)
    return row_of(session, job.id, session.get_one(QueueRow, row_id).job_type)


def test_claim_of_a_due_row_takes_it(session: Session) -> None:
    job = new_job(session, config={"quality": 70})
    row_id = due(session, job.id)

    claim = claimed(session, row_id, worker="host:7")

    row = row_of(session, job.id, StageName.INGEST)
    assert (row.status, row.token, row.worker) == (TaskStatus.PROCESSING, claim.token, "host:7")
    assert row.lease_expires_at is not None
    assert abs(row.lease_expires_at - now() - LEASE) < timedelta(minutes=1)
    attempt = session.get_one(Attempt, claim.token)
    assert (attempt.row_id, attempt.worker, attempt.outcome) == (row_id, "host:7", None)
    session.refresh(job)
    assert job.status == JobStatus.PROCESSING
    assert job.started_at is not None


def test_claim_says_what_the_stage_needs_to_know(session: Session) -> None:
    job = new_job(session, config={"quality": 70}, max_attempts=5)
    item = session.get_one(MediaItem, job.media_item_id)
    item.latitude, item.longitude, item.details = 48.2, 16.4, {"make": "Leica"}
    session.flush()

    claim = claimed(session, due(session, job.id))

    assert (claim.job_type, claim.queue) == (StageName.INGEST, Queue.STANDARD)
    assert claim.config == {"quality": 70}
    assert (claim.asset.key, claim.asset.version_id, claim.asset.size) == (item.key, None, 1000)
    assert (claim.asset.gps, claim.asset.metadata) == ((48.2, 16.4), {"make": "Leica"})


def test_second_delivery_finds_the_row_leased(session: Session) -> None:
    row_id = due(session, new_job(session).id)
    claimed(session, row_id)
    before = snapshot(session)

    answer = _claim(session, row_id)

    assert isinstance(answer, queue.Leased)
    row = session.get_one(QueueRow, row_id, populate_existing=True)
    assert (answer.until, answer.published_at) == (row.lease_expires_at, None)
    assert snapshot(session) == before


def test_delivery_before_the_row_is_due_is_told_when_it_is(session: Session) -> None:
    job = new_job(session)
    row = row_of(session, job.id, StageName.INGEST)
    row.available_at = now() + timedelta(minutes=3)
    row.published_at = now()
    session.flush()

    answer = _claim(session, row.id)

    assert isinstance(answer, queue.NotDue)
    assert (answer.until, answer.published_at) == (row.available_at, row.published_at)


def test_row_whose_predecessor_is_at_work_is_pending(session: Session) -> None:
    job = new_job(session)
    assert _claim(session, row_of(session, job.id, StageName.DEDUPE).id) == queue.Pending()


def test_final_row_tells_of_a_successor_that_nobody_was_told_of(session: Session) -> None:
    job = new_job(session)
    first = due(session, job.id)
    advance(session, job.id, to=StageName.DEDUPE)
    successor = row_of(session, job.id, StageName.DEDUPE)

    assert _claim(session, first) == queue.Final(successor.id)
    queue.win_ticket(session, successor.id)
    assert _claim(session, first) == queue.Final(None)


def test_last_row_that_is_final_has_no_successor(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id)
    assert _claim(session, row_of(session, job.id, StageName.AUDIT).id) == queue.Final(None)


def test_row_that_waits_for_its_retry_is_claimed_when_due(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    first = claimed(session, row_id)
    queue.fail(session, first, SLOW, POLICY, cost=COST)
    assert isinstance(_claim(session, row_id), queue.NotDue)
    make_due(session, row_id)

    second = claimed(session, row_id)

    assert second.token > first.token
    assert row_of(session, job.id, "ingest").attempts == 1
    assert row_of(session, job.id, StageName.INGEST).error_code is None  # of the attempt before


def test_unknown_row_is_not_ours(session: Session) -> None:
    before = snapshot(session)
    assert _claim(session, uuid4()) == queue.Unknown()
    assert snapshot(session) == before


def test_paused_lane_starts_nothing_and_forgets_the_message(session: Session) -> None:
    row_id = due(session, new_job(session).id)
    queue.win_ticket(session, row_id)
    queue.pause_lane(session, Queue.STANDARD, actor="operator")

    assert _claim(session, row_id) == queue.Paused()

    row = session.get_one(QueueRow, row_id, populate_existing=True)
    assert (row.status, row.published_at) == (TaskStatus.QUEUED, None)
    queue.resume_lane(session, Queue.STANDARD)
    claimed(session, row_id)


def test_pause_of_one_lane_leaves_the_others_alone(session: Session) -> None:
    queue.pause_lane(session, Queue.BULK, actor="operator")
    claimed(session, due(session, new_job(session, priority=9).id))


def test_expired_lease_is_left_to_the_steward_and_claimed_after_it(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    first = claimed(session, row_id)
    expire(session, row_id)

    assert _claim(session, row_id) == queue.Overdue()
    assert row_of(session, job.id, StageName.INGEST).crashes == 0
    assert queue.release_expired(session, row_id, first.token)
    second = claimed(session, row_id, worker="host:8")

    row = row_of(session, job.id, StageName.INGEST)
    assert (row.crashes, row.attempts, row.worker) == (1, 0, "host:8")
    assert second.token > first.token
    lost = session.get_one(Attempt, first.token, populate_existing=True)
    assert (lost.outcome, lost.error_code) == (Outcome.LOST, "LEASE_EXPIRED")


def test_row_whose_processes_always_die_is_failed_with_its_job(session: Session) -> None:
    job = new_job(session, max_crashes=2)
    advance(session, job.id, to=StageName.METADATA)
    row = _crash(session, job, times=2)

    done, left = [TaskStatus.COMPLETED] * 2, [TaskStatus.CANCELLED] * 3
    assert statuses(session, job.id) == [*done, TaskStatus.FAILED, *left]
    session.refresh(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "WORKER_LOST")
    letter = session.scalars(select(DeadLetter).where(DeadLetter.row_id == row.id)).one()
    assert (letter.reason, letter.error_code) == (DeadLetterReason.WORKER_LOST, "WORKER_LOST")
    assert (letter.job_id, letter.job_type) == (job.id, StageName.METADATA)
    assert letter.dead_lettered_at is None
    (summary,) = summaries(session, job.id)
    assert summary.action == "job_failed"
    assert summary.details["failed_stage"] == StageName.METADATA
    tries = session.scalars(select(Attempt.outcome).where(Attempt.row_id == row.id))
    assert list(tries) == [Outcome.LOST, Outcome.LOST]
    assert _claim(session, row.id) == queue.Final(None)


def test_crashes_do_not_use_up_attempts_nor_attempts_crashes(session: Session) -> None:
    job = new_job(session, max_attempts=2, max_crashes=2)
    row = _crash(session, job, times=1)
    queue.fail(session, claimed(session, row.id), SLOW, POLICY, cost=COST)

    found = row_of(session, job.id, StageName.INGEST)
    assert (found.status, found.attempts, found.crashes) == (TaskStatus.RETRYING, 1, 1)


def test_claim_of_a_row_of_a_job_that_was_cancelled_finds_it_final(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    queue.cancel_job(session, job.id, actor="operator", reason="wrong file")
    assert _claim(session, row_id) == queue.Final(None)


def test_tokens_grow_over_all_rows(session: Session) -> None:
    claims = [claimed(session, due(session, new_job(session).id)) for _ in range(3)]
    tokens = [claim.token for claim in claims]
    assert tokens == sorted(set(tokens))


def test_of_sixteen_racers_one_claims_the_row(sessions: Sessions) -> None:
    for _ in range(20):
        with sessions.begin() as session:
            job = new_job(session)
            row_id = due(session, job.id)

        def race(number: int, row_id: UUID = row_id) -> queue.Answer:
            with sessions.begin() as session:
                return queue.claim(session, row_id, worker=f"racer-{number}", lease=LEASE)

        answers = in_threads(RACERS, race)

        winners = [answer for answer in answers if isinstance(answer, queue.Claimed)]
        assert len(winners) == 1
        assert sum(isinstance(answer, queue.Leased) for answer in answers) == RACERS - 1
        with sessions() as session:
            row = row_of(session, job.id, StageName.INGEST)
            assert (row.token, row.crashes) == (winners[0].token, 0)
            attempts = session.scalars(select(Attempt.token).where(Attempt.row_id == row_id))
            assert max(attempts) == winners[0].token


def test_claim_waits_for_a_cancel_that_is_under_way(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        row_id = due(session, job.id)

    def cancel_or_claim(number: int) -> object:
        with sessions.begin() as session:
            if number == 0:
                return queue.cancel_job(session, job.id, actor="operator", reason="wrong file")
            return _claim(session, row_id)

    for _ in range(3):
        in_threads(4, cancel_or_claim)
    with sessions() as session:
        assert set(statuses(session, job.id)) == {TaskStatus.CANCELLED}
        assert len(summaries(session, job.id)) == 1
        open_tries = session.scalars(select(Attempt.token).where(Attempt.outcome.is_(None)))
        assert list(open_tries) == []


def test_settling_after_the_lease_ended_still_holds_while_nobody_took_the_row(session: Session) -> None:
    row_id = due(session, new_job(session).id)
    claim = claimed(session, row_id)
    expire(session, row_id)
    assert isinstance(complete(session, claim), queue.Settled)
