"""Stages whose failure is a warning: the chain goes on without them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import queue
from db.models import Attempt, DeadLetter, Outcome, ProcessingJob, QueueRow, SearchDocument
from pipeline.errors import DailiesError, PermanentStageError
from pipeline.settings import get_settings
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, stages_of
from tasks import dispatch
from tests.floor import PHOTO, Floor
from tests.support import (
    COST,
    POLICY,
    SLOW,
    advance,
    claimed,
    due,
    expire,
    make_due,
    new_job,
    row_of,
    statuses,
    summaries,
    uploaded,
    wait_until,
)

T = TaskStatus
BAD = PermanentStageError("The picture is truncated.", code="TRUNCATED_IMAGE")
LEFT_OUT = [T.COMPLETED, T.COMPLETED, T.SKIPPED, T.COMPLETED, T.COMPLETED, T.COMPLETED]


@pytest.fixture(autouse=True)
def _metadata_is_optional() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAILIES_OPTIONAL_STAGES", "metadata")
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


def _at_metadata(session: Session) -> tuple[ProcessingJob, queue.Claimed]:
    job = new_job(session)
    advance(session, job.id, to=StageName.METADATA)
    return job, claimed(session, due(session, job.id))


def _fail(session: Session, claim: queue.Claimed, error: DailiesError) -> queue.GaveUp:
    outcome = queue.fail(session, claim, error, POLICY, cost=COST)
    assert isinstance(outcome, queue.GaveUp)
    return outcome


def _letters(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(DeadLetter)) or 0


@pytest.mark.parametrize(
    ("workflow", "optional"), [("ingest", {"metadata"}), ("reindex", set()), ("thumbnails", set())]
)
def test_stage_is_optional_in_an_uploads_chain_and_not_where_the_job_is_for_it(
    session: Session, workflow: str, optional: set[str]
) -> None:
    job = new_job(session, workflow=workflow)
    assert len(job.rows) == len(stages_of(workflow))
    assert {row.job_type for row in job.rows if row.optional} == optional


def test_bad_input_skips_the_row_and_the_chain_goes_on_to_a_job_with_a_warning(session: Session) -> None:
    job, claim = _at_metadata(session)

    outcome = _fail(session, claim, BAD)

    row, next_row = (row_of(session, job.id, stage) for stage in (StageName.METADATA, StageName.THUMBNAILS))
    assert outcome == queue.GaveUp(None, next_row.id)
    assert (row.status, row.error_code, row.error_message) == (T.SKIPPED, BAD.code, BAD.message)
    assert row.completed_at is not None
    assert (next_row.status, next_row.published_at) == (T.QUEUED, None)
    assert session.get_one(Attempt, claim.token, populate_existing=True).outcome == Outcome.FAILED
    advance(session, job.id)
    session.refresh(job)
    assert (job.status, statuses(session, job.id)) == (JobStatus.COMPLETED, LEFT_OUT)
    assert job.warnings == ["metadata was left out: The picture is truncated. (TRUNCATED_IMAGE)"]
    assert (job.error_code, _letters(session)) == (None, 0)
    (summary,) = summaries(session, job.id)
    assert summary.details["warnings"] == job.warnings


def test_other_errors_use_up_the_attempts_first(session: Session) -> None:
    job, claim = _at_metadata(session)
    for _ in range(2):
        assert isinstance(queue.fail(session, claim, SLOW, POLICY, cost=COST), queue.Again)
        make_due(session, claim.row_id)
        claim = claimed(session, claim.row_id)
    assert _fail(session, claim, SLOW).successor == due(session, job.id)
    assert row_of(session, job.id, StageName.METADATA).attempts == 3


def test_last_crash_skips_the_row_and_leaves_the_next_to_the_steward(session: Session) -> None:
    job, claim = _at_metadata(session)
    for crashes in range(3):
        assert row_of(session, job.id, StageName.METADATA).crashes == crashes
        expire(session, claim.row_id)
        assert queue.release_expired(session, claim.row_id, claim.token)
        if crashes < 2:
            claim = claimed(session, claim.row_id)
    row = row_of(session, job.id, StageName.METADATA)
    assert (row.status, row.error_code) == (T.SKIPPED, "WORKER_LOST")
    assert queue.unpublished(session, horizon=queue.SQS_MAX_DELAY) == [due(session, job.id)]
    advance(session, job.id)
    assert statuses(session, job.id) == LEFT_OUT


def test_message_that_comes_again_publishes_the_next_row_if_nobody_has(session: Session) -> None:
    job, claim = _at_metadata(session)
    _fail(session, claim, BAD)
    answer = queue.claim(session, claim.row_id, worker="w", lease=POLICY.cap)
    assert answer == queue.Final(due(session, job.id))


def test_retry_of_the_job_begins_at_what_was_left_out(session: Session) -> None:
    job, claim = _at_metadata(session)
    _fail(session, claim, BAD)
    advance(session, job.id)

    first = queue.retry_job(session, job.id, actor="ada")

    assert (first.job_type, first.error_code, job.warnings) == (StageName.METADATA, None, [])
    advance(session, job.id)
    assert set(statuses(session, job.id)) == {T.COMPLETED}
    assert len(summaries(session, job.id)) == 2


def test_row_keeps_what_it_was_told_when_its_job_was_made(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, claim = _at_metadata(session)
    monkeypatch.setenv("DAILIES_OPTIONAL_STAGES", "")
    get_settings.cache_clear()
    _fail(session, claim, BAD)
    session.refresh(job)
    assert job.status == JobStatus.PROCESSING


def test_worker_finishes_files_whose_metadata_cannot_be_read_or_kills_its_process(floor: Floor) -> None:
    broken = uploaded(floor.sessions, floor.s3, floor.bucket, PHOTO[: len(PHOTO) // 2], name="broken.jpg")
    dispatch.publish_job(floor.sessions, broken.id)
    poison = uploaded(
        floor.sessions, floor.s3, floor.bucket, PHOTO + os.urandom(16), name="poison-1.jpg", max_crashes=1
    )
    dispatch.publish_job(floor.sessions, poison.id)

    with floor.worker():
        wait_until(lambda: floor.row(broken.id, "thumbnails").status == T.FAILED)  # it is not optional
        wait_until(lambda: floor.row(poison.id, "metadata").status == T.SKIPPED)
        dispatch.publish_job(floor.sessions, poison.id)  # as the steward does
        floor.wait_for(poison.id, JobStatus.COMPLETED)

    assert floor.row(broken.id, "metadata").error_code == "TRUNCATED_IMAGE"
    assert floor.row(poison.id, "metadata").error_code == "WORKER_LOST"
    with floor.sessions() as session:
        told = session.get_one(ProcessingJob, poison.id)
        assert [warning.partition(":")[0] for warning in told.warnings] == ["metadata was left out"]
        found = select(SearchDocument).where(SearchDocument.media_item_id == told.media_item_id)
        assert session.scalars(found).one().title.startswith("poison")
        rows = session.scalars(select(QueueRow).where(QueueRow.job_id == poison.id)).all()
        assert sorted(row.status for row in rows) == [*[T.COMPLETED] * 5, T.SKIPPED]
