from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import queue
from db.models import (
    Attempt,
    AuditEntry,
    DeadLetter,
    DeadLetterReason,
    Outcome,
    ProcessingJob,
    SearchDocument,
)
from db.queue import Effect
from db.session import Sessions
from pipeline.errors import DailiesError, InfrastructureError, PermanentStageError
from pipeline.queues import Queue
from pipeline.retry import RetryPolicy
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName
from tests.factories import add_document, add_item, now
from tests.support import (
    COST,
    POLICY,
    SLOW,
    advance,
    claimed,
    complete,
    due,
    make_due,
    new_job,
    row_of,
    statuses,
    summaries,
)

T = TaskStatus
BAD = PermanentStageError("The picture is truncated.", code="TRUNCATED_IMAGE")
AWAY = InfrastructureError("The bucket does not answer.", code="STORAGE_UNAVAILABLE")


def _fail(session: Session, job: ProcessingJob, error: DailiesError) -> queue.Again | queue.GaveUp:
    outcome = queue.fail(session, claimed(session, due(session, job.id)), error, POLICY, cost=COST)
    assert not isinstance(outcome, queue.Fenced)
    return outcome


def test_completed_row_keeps_its_result_and_what_it_cost(session: Session) -> None:
    job = new_job(session)
    claim = claimed(session, due(session, job.id))

    settled = complete(session, claim, result={"width": 3}, version="2+pillow")

    row, successor = (row_of(session, job.id, stage) for stage in (StageName.INGEST, StageName.DEDUPE))
    assert settled == queue.Settled(successor.id)
    assert (row.status, row.result, row.processor_version) == (T.COMPLETED, {"width": 3}, "2+pillow")
    assert row.lease_expires_at is None
    assert row.completed_at is not None
    attempt = session.get_one(Attempt, claim.token, populate_existing=True)
    assert (attempt.outcome, attempt.duration_ms, attempt.cpu_ms) == (Outcome.COMPLETED, 12, 10)
    assert attempt.finished_at is not None


def test_successor_is_due_at_once_and_unpublished(session: Session) -> None:
    job = new_job(session)
    complete(session, claimed(session, due(session, job.id)))
    successor = row_of(session, job.id, StageName.DEDUPE)
    assert (successor.status, successor.published_at) == (T.QUEUED, None)
    assert successor.available_at <= now()
    assert statuses(session, job.id) == [T.COMPLETED, T.QUEUED, *[T.PENDING] * 4]


@pytest.mark.parametrize("workflow", ["ingest", "thumbnails", "reindex"])
def test_chain_to_the_end_completes_the_job_with_one_summary(session: Session, workflow: str) -> None:
    job = new_job(session, workflow=workflow)
    advance(session, job.id, to=StageName.AUDIT)
    last = complete(
        session,
        claimed(session, due(session, job.id)),
        lambda _: Effect(summary={"mime_type": "image/png"}),
        warnings=("The name says .jpg, the bytes say PNG.",),
    )

    assert last == queue.Settled(None)
    session.refresh(job)
    assert (job.status, job.error_code) == (JobStatus.COMPLETED, None)
    assert job.completed_at is not None
    assert job.warnings == ["The name says .jpg, the bytes say PNG."]
    assert set(statuses(session, job.id)) == {T.COMPLETED}
    (summary,) = summaries(session, job.id)
    assert summary.details["mime_type"] == "image/png"
    assert [stage["tries"] for stage in summary.details["stages"]] == [1] * len(statuses(session, job.id))
    assert {(stage["status"], stage["ms"]) for stage in summary.details["stages"]} == {(T.COMPLETED, 12)}
    assert summary.details["warnings"] == job.warnings


def test_warnings_of_several_stages_are_kept_together(session: Session) -> None:
    job = new_job(session)
    for warning in ("one", "two"):
        complete(session, claimed(session, due(session, job.id)), warnings=(warning,))
    session.refresh(job)
    assert job.warnings == ["one", "two"]


def test_effect_is_part_of_the_settling_transaction(session: Session) -> None:
    job = new_job(session)
    claim = claimed(session, due(session, job.id))
    session.commit()

    def explode(inner: Session) -> Effect:
        add_document(inner, add_item(inner), "half done")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        complete(session, claim, explode)
    session.rollback()

    assert row_of(session, job.id, StageName.INGEST).status == T.PROCESSING
    assert session.scalar(select(func.count()).select_from(SearchDocument)) == 0
    assert isinstance(complete(session, claim), queue.Settled)


def test_effect_that_skips_the_rest_completes_the_job(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id, to=StageName.METADATA)

    settled = complete(
        session,
        claimed(session, due(session, job.id)),
        lambda _: Effect(skip_rest=True, summary={"bytes_saved": 1000}),
    )

    assert settled == queue.Settled(None)
    assert statuses(session, job.id) == [*[T.COMPLETED] * 3, *[T.SKIPPED] * 3]
    session.refresh(job)
    assert job.status == JobStatus.COMPLETED
    (summary,) = summaries(session, job.id)
    assert summary.details["bytes_saved"] == 1000


def test_permanent_error_fails_row_and_job_at_once(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id, to=StageName.THUMBNAILS)

    outcome = _fail(session, job, BAD)

    assert isinstance(outcome, queue.GaveUp)
    assert statuses(session, job.id) == [*[T.COMPLETED] * 3, T.FAILED, *[T.CANCELLED] * 2]
    row = row_of(session, job.id, StageName.THUMBNAILS)
    assert (row.error_code, row.error_message) == ("TRUNCATED_IMAGE", "The picture is truncated.")
    session.refresh(job)
    assert (job.status, job.error_code) == (JobStatus.FAILED, "TRUNCATED_IMAGE")
    letter = session.get_one(DeadLetter, outcome.dead_letter_id)
    assert (letter.reason, letter.row_id) == (DeadLetterReason.PERMANENT_ERROR, row.id)
    assert (letter.job_id, letter.media_item_id) == (job.id, job.media_item_id)
    (summary,) = summaries(session, job.id)
    assert (summary.action, summary.details["failed_stage"]) == ("job_failed", StageName.THUMBNAILS)
    assert row.token is not None
    attempt = session.get_one(Attempt, row.token, populate_existing=True)
    assert (attempt.outcome, attempt.error_code) == (Outcome.FAILED, "TRUNCATED_IMAGE")


def test_transient_error_lets_the_row_wait_unpublished(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    queue.win_ticket(session, row_id)

    outcome = _fail(session, job, SLOW)

    assert isinstance(outcome, queue.Again)
    assert POLICY.floor <= outcome.delay <= POLICY.base
    row = row_of(session, job.id, StageName.INGEST)
    assert (row.status, row.attempts, row.published_at) == (T.RETRYING, 1, None)
    assert (row.error_code, row.error_message) == ("DISK_SLOW", "The disk was slow.")
    assert now() < row.available_at <= now() + outcome.delay
    session.refresh(job)
    assert job.status == JobStatus.PROCESSING
    assert summaries(session, job.id) == []
    assert session.scalar(select(func.count()).select_from(DeadLetter)) == 0


def test_transient_errors_are_given_up_when_the_attempts_are_used_up(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    outcomes = []
    for _ in range(3):
        make_due(session, row_id)
        outcomes.append(_fail(session, job, SLOW))

    assert [type(outcome) for outcome in outcomes] == [queue.Again, queue.Again, queue.GaveUp]
    row = row_of(session, job.id, StageName.INGEST)
    assert (row.status, row.attempts) == (T.FAILED, 3)
    letter = session.scalars(select(DeadLetter)).one()
    assert (letter.reason, letter.error_code) == (DeadLetterReason.ATTEMPTS_EXHAUSTED, "DISK_SLOW")
    assert len(summaries(session, job.id)) == 1


@pytest.mark.parametrize("allowed", [1, 2, 5])
def test_row_has_the_attempts_that_its_job_was_given(session: Session, allowed: int) -> None:
    job = new_job(session, max_attempts=allowed)
    row_id = due(session, job.id)
    tries = 1
    while isinstance(_fail(session, job, SLOW), queue.Again):
        make_due(session, row_id)
        tries += 1
    assert tries == allowed


def test_budget_is_that_of_the_row_when_the_failure_is_settled(session: Session) -> None:
    """Not that of a look from before: an attempt may have come and gone in between."""
    job = new_job(session, max_attempts=2)
    claim = claimed(session, due(session, job.id))
    row_of(session, job.id, StageName.INGEST).attempts = 1
    session.flush()
    assert isinstance(queue.fail(session, claim, SLOW, POLICY, cost=COST), queue.GaveUp)


def test_infrastructure_errors_cost_nothing_and_back_off(session: Session) -> None:
    job = new_job(session, max_attempts=1)
    row_id = due(session, job.id)
    policy = RetryPolicy(base=timedelta(seconds=1), floor=timedelta(seconds=0), cap=timedelta(hours=1))
    for _ in range(12):
        make_due(session, row_id)
        outcome = queue.fail(session, claimed(session, row_id), AWAY, policy, cost=COST)
        assert isinstance(outcome, queue.Again)

    row = row_of(session, job.id, StageName.INGEST)
    assert (row.status, row.attempts, row.crashes) == (T.RETRYING, 0, 0)
    tries = session.scalar(select(func.count()).where(Attempt.row_id == row_id))
    assert tries == 12
    # The ceiling doubles with every try there was: a wait of the twelfth lies far above the first's.
    waits = [policy.delay_for(tries or 0, AWAY) or timedelta() for _ in range(50)]
    assert max(waits) > policy.ceiling(8)


def test_backoff_of_free_errors_begins_anew_when_the_job_is_started_again(sessions: Sessions) -> None:
    capped = RetryPolicy(base=timedelta(seconds=1), floor=timedelta(0), cap=timedelta(hours=1))

    def tries(count: int) -> list[timedelta]:
        waits = []
        for _ in range(count):
            with sessions.begin() as session:
                make_due(session, row_id)
                outcome = queue.fail(session, claimed(session, row_id), AWAY, capped, cost=COST)
                assert isinstance(outcome, queue.Again)
                waits.append(outcome.delay)
        return waits

    with sessions.begin() as session:
        job = new_job(session)
        row_id = due(session, job.id)
    assert max(tries(14)) > timedelta(seconds=16)
    with sessions.begin() as session:
        queue.cancel_job(session, job.id, actor="ada", reason="no use")
        queue.retry_job(session, job.id, actor="ada")
    assert max(tries(4)) <= timedelta(seconds=8)


@pytest.mark.parametrize("error", [SLOW, AWAY])
def test_row_that_failed_waits_in_the_lane_of_its_jobs_priority(
    session: Session, error: DailiesError
) -> None:
    job = new_job(session)
    claim = claimed(session, due(session, job.id))
    queue.change_priority(session, job.id, 9, actor="ada")
    assert row_of(session, job.id, StageName.INGEST).queue == Queue.STANDARD  # while it runs
    queue.fail(session, claim, error, POLICY, cost=COST)
    assert row_of(session, job.id, StageName.INGEST).queue == Queue.EXPRESS


def test_row_in_the_lane_of_its_stage_stays_there(session: Session) -> None:
    job = new_job(session)
    row_of(session, job.id, StageName.INGEST).queue = Queue.HEAVY
    session.flush()
    _fail(session, job, SLOW)
    assert row_of(session, job.id, StageName.INGEST).queue == Queue.HEAVY


def test_very_long_message_is_cut(session: Session) -> None:
    job = new_job(session)
    _fail(session, job, PermanentStageError("x" * 100_000))
    session.refresh(job)
    assert 1_000 < len(job.error_message or "") < 10_000


@pytest.mark.parametrize(
    "text", ["a NUL \0 in a file's own words", "half a pair \ud800", "\x1b[31m\ufffe 🎬"]
)
@pytest.mark.parametrize("kind", [PermanentStageError, type(SLOW)])
def test_failure_is_settled_whatever_characters_its_message_has(
    session: Session, text: str, kind: type[DailiesError]
) -> None:
    job = new_job(session)
    _fail(session, job, kind(text))
    row = row_of(session, job.id, StageName.INGEST)
    assert row.status in {T.FAILED, T.RETRYING}
    assert row.error_message


@pytest.mark.parametrize("value", ["a NUL \0 from EXIF", "half a pair \ud800"])
@pytest.mark.parametrize("where", ["result", "warnings"])
def test_success_is_settled_whatever_characters_a_file_has(session: Session, value: str, where: str) -> None:
    job = new_job(session)
    given: dict[str, Any] = {"result": {"make": value}} if where == "result" else {"warnings": (value,)}
    assert isinstance(complete(session, claimed(session, due(session, job.id)), **given), queue.Settled)


def test_job_that_waits_for_a_retry_completes_in_the_end(session: Session) -> None:
    job = new_job(session)
    row_id = due(session, job.id)
    _fail(session, job, SLOW)
    make_due(session, row_id)
    advance(session, job.id)
    session.refresh(job)
    assert (job.status, job.error_code) == (JobStatus.COMPLETED, None)
    (summary,) = summaries(session, job.id)
    assert [stage["tries"] for stage in summary.details["stages"]] == [2, 1, 1, 1, 1, 1]


def test_audit_summary_names_the_object(session: Session) -> None:
    item = add_item(session, bucket="footage", key="uploads/été.jpg")
    job = new_job(session, item)
    _fail(session, job, BAD)
    (summary,) = summaries(session, job.id)
    assert isinstance(summary, AuditEntry)
    assert (summary.details["bucket"], summary.details["key"]) == ("footage", "uploads/été.jpg")
    assert summary.details["media_item_id"] == str(item.id)
    assert summary.details["error_code"] == "TRUNCATED_IMAGE"
