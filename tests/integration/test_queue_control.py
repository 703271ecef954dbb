from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import queue
from db.models import (
    Attempt,
    AuditEntry,
    DeadLetter,
    MediaItem,
    Outcome,
    PausedLane,
    ProcessingJob,
    QueueRow,
)
from db.session import Sessions
from pipeline.errors import ConflictError, InvalidRequestError, NotFoundError, PermanentStageError
from pipeline.queues import Queue, lane_for
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, stages_of
from tests.factories import add_dead_letter, add_item, add_job, now
from tests.support import (
    COST,
    LEASE,
    POLICY,
    SLOW,
    advance,
    broken_promises,
    claimed,
    complete,
    due,
    in_threads,
    new_job,
    row_of,
    snapshot,
    statuses,
    summaries,
)

T = TaskStatus
BAD = PermanentStageError("The picture is truncated.", code="TRUNCATED_IMAGE")


def _failed_at(session: Session, stage: StageName) -> ProcessingJob:
    job = new_job(session)
    advance(session, job.id, to=stage)
    row_id = due(session, job.id)
    assert queue.win_ticket(session, row_id) is not None
    queue.fail(session, claimed(session, row_id), BAD, POLICY, cost=COST)
    return job


def _retry(session: Session, job: ProcessingJob, stage: StageName | None = None) -> QueueRow:
    return queue.retry_job(session, job.id, actor="ada", stage=stage)


def test_cancel_ends_every_row_that_is_not_final(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id, to=StageName.DEDUPE)
    running = claimed(session, due(session, job.id))

    assert queue.cancel_job(session, job.id, actor="ada", reason="wrong file")

    assert statuses(session, job.id) == [T.COMPLETED, *[T.CANCELLED] * 5]
    session.refresh(job)
    assert job.status == JobStatus.CANCELLED
    (summary,) = summaries(session, job.id)
    assert (summary.action, summary.actor) == ("job_cancelled", "ada")
    assert summary.details["reason"] == "wrong file"
    assert session.get_one(Attempt, running.token, populate_existing=True).outcome == Outcome.CANCELLED
    assert complete(session, running) == queue.Fenced()


def test_cancel_by_a_row_ends_its_job(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    assert queue.cancel_row(session, row_id, actor="ada", reason="its task was revoked")
    assert not queue.cancel_row(session, row_id, actor="ada", reason="again")
    assert not queue.cancel_row(session, uuid4(), actor="ada", reason="no row")
    assert set(statuses(session, job.id)) == {T.CANCELLED}


def test_cancel_keeps_how_an_attempt_ended_that_waits_for_its_retry(session: Session) -> None:
    job = new_job(session)
    claim = claimed(session, due(session, job.id))
    queue.fail(session, claim, SLOW, POLICY, cost=COST)
    queue.cancel_job(session, job.id, actor="ada", reason="wrong file")
    assert session.get_one(Attempt, claim.token, populate_existing=True).outcome == Outcome.RETRYING


def test_cancel_of_a_final_job_changes_nothing(session: Session) -> None:
    for job in (new_job(session), _failed_at(session, StageName.INGEST)):
        advance(session, job.id)
        before = snapshot(session)
        assert not queue.cancel_job(session, job.id, actor="ada", reason="too late")
        assert snapshot(session) == before


def test_retry_begins_at_the_stage_that_failed(session: Session) -> None:
    job = _failed_at(session, StageName.THUMBNAILS)
    session.get_one(MediaItem, job.media_item_id).holds_hash = True  # nobody took it meanwhile
    session.flush()

    first = _retry(session, job)

    assert (first.job_type, first.status, first.published_at) == (StageName.THUMBNAILS, T.QUEUED, None)
    assert statuses(session, job.id) == [*[T.COMPLETED] * 3, T.QUEUED, *[T.PENDING] * 2]
    session.refresh(job)
    assert (job.status, job.error_code, job.completed_at) == (JobStatus.QUEUED, None, None)
    entries = session.scalars(select(AuditEntry).where(AuditEntry.action == "job_retried"))
    assert [(entry.entity_id, entry.actor) for entry in entries] == [(job.id, "ada")]


def test_retry_gives_new_budgets_and_keeps_the_token_growing(session: Session) -> None:
    job = new_job(session, max_attempts=1)
    old = claimed(session, due(session, job.id))
    queue.fail(session, old, SLOW, POLICY, cost=COST)
    first = _retry(session, job)
    assert (first.attempts, first.crashes, first.error_code, first.token) == (0, 0, None, old.token)

    new = claimed(session, first.id)

    assert new.token > old.token
    assert complete(session, old) == queue.Fenced()
    assert isinstance(complete(session, new), queue.Settled)


def test_retried_rows_are_published_anew(session: Session) -> None:
    job = _failed_at(session, StageName.THUMBNAILS)
    _retry(session, job, StageName.INGEST)
    told = session.scalars(select(QueueRow.published_at).where(QueueRow.job_id == job.id))
    assert set(told) == {None}


def test_retried_job_ends_with_a_summary_of_its_own(session: Session) -> None:
    job = _failed_at(session, StageName.METADATA)
    _retry(session, job)
    advance(session, job.id)
    assert [summary.action for summary in summaries(session, job.id)] == ["job_failed", "job_completed"]
    assert broken_promises(session, [job.id]) == []


def test_completed_job_starts_from_its_first_stage_or_from_the_one_named(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id)
    assert _retry(session, job).job_type == StageName.INGEST
    advance(session, job.id)
    assert _retry(session, job, StageName.INDEX).job_type == StageName.INDEX
    assert statuses(session, job.id) == [*[T.COMPLETED] * 4, T.QUEUED, T.PENDING]


def test_retry_never_leaves_a_stage_behind_that_did_not_complete(session: Session) -> None:
    job = _failed_at(session, StageName.METADATA)
    first = _retry(session, job, StageName.INDEX)
    assert first.position <= row_of(session, job.id, StageName.METADATA).position
    advance(session, job.id)
    assert set(statuses(session, job.id)) == {T.COMPLETED}
    assert broken_promises(session, [job.id]) == []


def test_item_that_lost_its_hash_starts_no_later_than_dedupe(session: Session) -> None:
    job = _failed_at(session, StageName.INDEX)
    assert not session.get_one(MediaItem, job.media_item_id, populate_existing=True).holds_hash
    assert _retry(session, job, StageName.INDEX).job_type == StageName.DEDUPE


def test_retry_of_a_job_at_work_is_refused(session: Session) -> None:
    job = new_job(session)
    before = snapshot(session)
    with pytest.raises(ConflictError, match="is queued"):
        _retry(session, job)
    assert snapshot(session) == before


def test_retry_beside_another_job_at_work_is_refused(session: Session) -> None:
    job = _failed_at(session, StageName.INGEST)
    other = new_job(session, session.get_one(MediaItem, job.media_item_id))
    with pytest.raises(ConflictError, match=str(other.id)):
        _retry(session, job)


def test_retry_for_a_deleted_item_is_refused(session: Session) -> None:
    item = add_item(session, deleted_at=now(), holds_hash=False)
    job = add_job(session, item, [T.CANCELLED] * 6)
    with pytest.raises(ConflictError, match="was deleted"):
        _retry(session, job)


def test_retry_from_a_stage_that_the_workflow_has_not_is_refused(session: Session) -> None:
    job = new_job(session, workflow="thumbnails")
    advance(session, job.id)
    with pytest.raises(InvalidRequestError, match="no stage") as caught:
        _retry(session, job, StageName.DEDUPE)
    assert caught.value.field == "stage"


def test_retry_resolves_the_letters_of_its_job_and_no_other(session: Session) -> None:
    job, other = _failed_at(session, StageName.METADATA), _failed_at(session, StageName.METADATA)
    purged = add_dead_letter(
        session, job_id=job.id, resolution="purged", resolved_at=now(), resolved_by="grace"
    )
    _retry(session, job)
    letters = session.scalars(select(DeadLetter).execution_options(populate_existing=True)).all()
    assert {(letter.job_id, letter.resolution, letter.resolved_by) for letter in letters} == {
        (job.id, "redriven", "ada"),
        (purged.job_id, "purged", "grace"),
        (other.id, None, None),
    }
    assert {letter.job_id for letter in queue.without_copy(session, limit=10)} == {other.id}


def test_of_eight_redrives_of_a_letter_one_wins(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = _failed_at(session, StageName.INGEST)
        letter = session.scalars(select(DeadLetter)).one()

    def redrive(number: int) -> str:
        try:
            with sessions.begin() as session:
                queue.redrive_letter(session, letter.id, actor=f"operator-{number}")
        except ConflictError as error:
            return error.code
        return "won"

    assert sorted(in_threads(8, redrive)) == [*["ALREADY_RESOLVED"] * 7, "won"]
    with sessions() as session:
        assert session.get_one(ProcessingJob, job.id).status == JobStatus.QUEUED


def test_letter_of_a_job_that_failed_again_is_the_only_open_one(session: Session) -> None:
    job = _failed_at(session, StageName.INGEST)
    first = session.scalars(select(DeadLetter.id)).one()
    queue.redrive_letter(session, first, actor="ada")
    queue.fail(session, claimed(session, due(session, job.id)), BAD, POLICY, cost=COST)
    (left,) = session.scalars(select(DeadLetter).where(DeadLetter.resolved_at.is_(None)))
    assert (left.job_id, left.id != first) == (job.id, True)
    with pytest.raises(ConflictError) as caught:
        queue.redrive_letter(session, first, actor="ada")
    assert caught.value.code == "ALREADY_RESOLVED"


def test_priority_and_claim_at_once_leave_a_row_that_one_worker_has(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = new_job(session, priority=1).id
        row_id = due(session, job_id)

    def work(number: int) -> bool:
        with sessions.begin() as session:
            if number % 2:
                return not queue.change_priority(session, job_id, 4 + number, actor="ada")
            answer = queue.claim(session, row_id, worker="worker@test", lease=LEASE)
            return isinstance(answer, queue.Claimed)

    assert sum(in_threads(6, work)) == 1
    with sessions() as session:
        queues = [row_of(session, job_id, stage).queue for stage in stages_of("ingest")]
        assert queues[0] in {Queue.BULK, Queue.STANDARD, Queue.EXPRESS}
        assert len(set(queues[1:])) == 1
        assert queues[1] == lane_for(session.get_one(ProcessingJob, job_id).priority)
        assert broken_promises(session, [job_id]) == []


def test_of_eight_retries_one_wins(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = _failed_at(session, StageName.INGEST)

    def retry(_: int) -> bool:
        try:
            with sessions.begin() as session:
                _retry(session, job)
        except ConflictError:
            return False
        return True

    assert sum(in_threads(8, retry)) == 1


def test_of_retries_of_two_jobs_of_an_item_one_wins(sessions: Sessions) -> None:
    for _ in range(5):
        with sessions.begin() as session:
            one = _failed_at(session, StageName.INGEST)
            other = add_job(session, session.get_one(MediaItem, one.media_item_id), [T.CANCELLED] * 6)
        jobs = [one, other]

        def retry_or_enqueue(number: int, jobs: list[ProcessingJob] = jobs) -> bool:
            try:
                with sessions.begin() as session:
                    if number < len(jobs):
                        _retry(session, jobs[number])
                    else:
                        queue.enqueue(session, media_item_id=jobs[0].media_item_id, workflow="ingest")
            except ConflictError:
                return False
            return True

        assert sum(in_threads(3, retry_or_enqueue)) == 1


def test_retry_sees_the_rows_as_they_are_and_not_as_they_were_read(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        advance(session, job.id, to=StageName.METADATA)
    with sessions() as route:
        read = list(route.get_one(ProcessingJob, job.id).rows)  # as a route does, to show them
        with sessions.begin() as other:
            advance(other, job.id, to=StageName.INDEX)
            queue.cancel_job(other, job.id, actor="ada", reason="wrong file")
            other.get_one(MediaItem, job.media_item_id, populate_existing=True).holds_hash = True
        assert _retry(route, job).job_type == StageName.INDEX
        assert len(read) == 6


def test_job_that_is_unknown_is_not_found(session: Session) -> None:
    with pytest.raises(NotFoundError):
        queue.cancel_job(session, uuid4(), actor="ada", reason="a typing error")
    with pytest.raises(NotFoundError):
        queue.retry_job(session, uuid4(), actor="ada")


def test_pausing_twice_is_pausing_once(session: Session) -> None:
    queue.pause_lane(session, Queue.BULK, actor="ada", reason="backfill")
    queue.pause_lane(session, Queue.BULK, actor="bob")
    lane = session.scalars(select(PausedLane)).one()
    assert (lane.queue, lane.paused_by, lane.reason) == (Queue.BULK, "ada", "backfill")
    for _ in range(2):
        queue.resume_lane(session, Queue.BULK, actor="grace", reason="done")
    assert session.scalars(select(PausedLane)).all() == []
    told = session.scalars(select(AuditEntry).where(AuditEntry.entity_type == "queue"))
    assert {(each.action, each.actor, each.details["reason"]) for each in told} == {
        ("queue_paused", "ada", "backfill"),
        ("queue_resumed", "grace", "done"),
    }


def test_of_eight_that_pause_a_lane_at_once_all_succeed(sessions: Sessions) -> None:
    def pause(number: int) -> None:
        with sessions.begin() as session:
            queue.pause_lane(session, Queue.BULK, actor=f"operator-{number}")

    in_threads(8, pause)
    with sessions() as session:
        assert len(session.scalars(select(PausedLane)).all()) == 1
