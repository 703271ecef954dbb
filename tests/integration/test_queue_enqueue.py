from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db import queue
from db.models import MediaItem, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import ConflictError, InvalidRequestError, NotFoundError
from pipeline.queues import Queue
from pipeline.settings import get_settings
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import WorkflowType, stages_of
from tests.factories import add_item, now
from tests.support import advance, claimed, due, in_threads, new_job, statuses

T = TaskStatus


@pytest.mark.parametrize("workflow", WorkflowType)
def test_job_comes_with_all_its_rows_and_the_first_is_due(session: Session, workflow: WorkflowType) -> None:
    item = add_item(session)
    job = queue.enqueue(
        session,
        media_item_id=item.id,
        workflow=workflow,
        priority=8,
        config={"quality": 70},
        requested_by="ada",
        max_attempts=4,
        max_crashes=2,
    )
    rows = session.scalars(
        select(QueueRow).where(QueueRow.job_id == job.id).order_by(QueueRow.position)
    ).all()
    assert [row.job_type for row in rows] == list(stages_of(workflow))
    assert [row.status for row in rows] == [T.QUEUED, *[T.PENDING] * (len(rows) - 1)]
    assert {(row.queue, row.max_attempts, row.max_crashes) for row in rows} == {(Queue.EXPRESS, 4, 2)}
    assert {(row.attempts, row.crashes, row.token, row.published_at) for row in rows} == {(0, 0, None, None)}
    assert (job.status, job.priority, job.requested_by) == (JobStatus.QUEUED, 8, "ada")
    assert job.config == {"quality": 70}
    assert queue.due_row(session, job.id) == rows[0].id
    assert queue.active_job_id(session, item.id, workflow) == job.id


@pytest.mark.parametrize(("priority", "lane"), [(1, Queue.BULK), (5, Queue.STANDARD), (10, Queue.EXPRESS)])
def test_priority_chooses_the_lane(session: Session, priority: int, lane: Queue) -> None:
    job = new_job(session, priority=priority)
    lanes = session.scalars(select(QueueRow.queue).where(QueueRow.job_id == job.id).distinct())
    assert list(lanes) == [lane]


def test_stage_with_a_fleet_of_its_own_waits_in_its_lane(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAILIES_HEAVY_STAGES", "thumbnails, index")
    get_settings.cache_clear()
    try:
        job = new_job(session, priority=9)
    finally:
        monkeypatch.undo()
        get_settings.cache_clear()

    def lanes() -> dict[str, str]:
        session.expire_all()
        return {row.job_type: row.queue for row in job.rows}

    own = {"thumbnails": Queue.HEAVY, "index": Queue.HEAVY}
    others = ("ingest", "dedupe", "metadata", "audit")
    assert lanes() == dict.fromkeys(others, Queue.EXPRESS) | own
    queue.change_priority(session, job.id, 2, actor="test")  # moves no stage out of its fleet
    assert lanes() == dict.fromkeys(others, Queue.BULK) | own


def test_second_active_job_of_a_workflow_is_refused_by_the_name_of_the_first(session: Session) -> None:
    job = new_job(session)
    item = session.get_one(MediaItem, job.media_item_id)
    with pytest.raises(ConflictError, match=str(job.id)):
        new_job(session, item)
    new_job(session, item, workflow="thumbnails")  # another workflow may run beside it
    advance(session, job.id)
    assert new_job(session, item).id != job.id


def test_item_that_is_unknown_or_deleted_gets_no_job(session: Session) -> None:
    gone = add_item(session, deleted_at=now(), holds_hash=False)
    for item_id in (uuid4(), gone.id):
        with pytest.raises(NotFoundError, match=str(item_id)):
            queue.enqueue(session, media_item_id=item_id, workflow="ingest")


@pytest.mark.parametrize(
    ("values", "field"), [({"workflow": "transcribe"}, "workflow_type"), ({"priority": 0}, "priority")]
)
def test_job_that_cannot_be_is_refused_and_leaves_nothing(
    session: Session, values: dict[str, object], field: str
) -> None:
    item = add_item(session)
    with pytest.raises(InvalidRequestError) as caught:
        new_job(session, item, **values)
    assert caught.value.field == field
    assert session.scalar(select(func.count()).select_from(ProcessingJob)) == 0


def test_of_sixteen_that_ask_at_once_one_gets_the_job(sessions: Sessions) -> None:
    for _ in range(5):
        with sessions.begin() as session:
            item_id = add_item(session).id

        def ask(_: int, item_id: UUID = item_id) -> bool:
            try:
                with sessions.begin() as session:
                    queue.enqueue(session, media_item_id=item_id, workflow="ingest")
            except ConflictError:
                return False
            return True

        assert sum(in_threads(16, ask)) == 1
        with sessions() as session:
            rows = session.scalars(
                select(QueueRow).join(ProcessingJob).where(ProcessingJob.media_item_id == item_id)
            ).all()
            assert len(rows) == 6


def test_queue_works_with_the_plans_that_a_long_connection_comes_to_use(session: Session) -> None:
    """A generic plan does not see the values of parameters, and so no partial index that they would match."""
    session.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
    for _ in range(10):  # the driver prepares a statement after some uses
        item = add_item(session)
        job = new_job(session, item)
        with pytest.raises(ConflictError):
            new_job(session, item)
        advance(session, job.id)
        assert set(statuses(session, job.id)) == {T.COMPLETED}


def test_item_deleted_after_it_was_read_gets_no_job(sessions: Sessions) -> None:
    with sessions.begin() as session:
        item_id = add_item(session).id
    with sessions() as route:
        read = route.get_one(MediaItem, item_id)
        assert read.deleted_at is None
        with sessions.begin() as other:
            other.execute(
                update(MediaItem)
                .where(MediaItem.id == item_id)
                .values(deleted_at=func.now(), holds_hash=False)
            )
        with pytest.raises(NotFoundError):
            queue.enqueue(route, media_item_id=read.id, workflow="ingest")


NONSENSE: list[tuple[str, Callable[[QueueRow], None]]] = [
    ("final without an end", lambda row: setattr(row, "status", T.COMPLETED)),
    ("an end without being final", lambda row: setattr(row, "completed_at", now())),
    ("at work without a lease", lambda row: setattr(row, "status", T.PROCESSING)),
    ("a lease without being at work", lambda row: setattr(row, "lease_expires_at", now())),
    ("a status that is none", lambda row: setattr(row, "status", "sleeping")),
    ("a stage that is none", lambda row: setattr(row, "job_type", "transcribe")),
    ("fewer than no attempts", lambda row: setattr(row, "attempts", -1)),
]


@pytest.mark.parametrize(("_what", "spoil"), NONSENSE, ids=[what for what, _ in NONSENSE])
def test_table_refuses_nonsense(session: Session, _what: str, spoil: Callable[[QueueRow], None]) -> None:
    job = new_job(session)
    row = session.get_one(QueueRow, due(session, job.id))
    spoil(row)
    with pytest.raises(IntegrityError, match="ck_processing_queue_"):
        session.flush()


def test_table_refuses_a_second_row_with_the_same_token(session: Session) -> None:
    claim = claimed(session, due(session, new_job(session).id))
    other = session.get_one(QueueRow, due(session, new_job(session).id))
    other.token = claim.token
    with pytest.raises(IntegrityError, match="uq_processing_queue_token"):
        session.flush()


def test_finished_job_has_no_row_that_is_due(session: Session) -> None:
    job = new_job(session)
    advance(session, job.id)
    assert queue.due_row(session, job.id) is None
    assert set(statuses(session, job.id)) == {T.COMPLETED}
