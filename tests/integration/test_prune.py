from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import prune
from db.models import Attempt, DeadLetter, MediaItem, ProcessingJob, QueueRow, Worker
from db.session import Sessions
from pipeline.states import TaskStatus
from tasks import housekeeping
from tasks.housekeeping import Housekeeping
from tasks.runtime import Runtime
from tests.factories import add_dead_letter, add_item, add_job, add_thumbnails, now

DAY = timedelta(days=1)
DONE = [TaskStatus.COMPLETED] * 6
FAILED = [TaskStatus.COMPLETED, TaskStatus.FAILED, *[TaskStatus.CANCELLED] * 4]


def _count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def test_ended_jobs_go_with_rows_and_attempts_in_batches(session: Session) -> None:
    old = [add_job(session, add_item(session), DONE, completed_at=now() - 91 * DAY) for _ in range(5)]
    kept = add_job(session, add_item(session), DONE, completed_at=now() - 89 * DAY)
    active = add_job(session, add_item(session), created_at=now() - 200 * DAY)
    add_thumbnails(session, session.get_one(MediaItem, old[0].media_item_id))

    assert [prune.finished_jobs(session, keep=90 * DAY, limit=2) for _ in range(4)] == [2, 2, 1, 0]

    assert set(session.scalars(select(ProcessingJob.id))) == {kept.id, active.id}
    assert (_count(session, QueueRow), _count(session, Attempt), _count(session, MediaItem)) == (12, 6, 7)


def test_job_that_an_open_letter_waits_for_stays(session: Session) -> None:
    job = add_job(session, add_item(session), FAILED, completed_at=now() - 91 * DAY)
    letter = add_dead_letter(session, job.rows[1].id, job_id=job.id)
    assert prune.finished_jobs(session, keep=90 * DAY) == 0
    letter.resolution, letter.resolved_at = "purged", now()
    session.flush()
    assert prune.finished_jobs(session, keep=90 * DAY) == 1
    session.refresh(letter)
    assert (letter.row_id, letter.job_id, letter.error_code) == (None, None, "BAD_INPUT")


def test_letters_go_by_age_open_or_not(session: Session) -> None:
    for age in (181, 181, 179):
        add_dead_letter(session, created_at=now() - age * DAY)
    assert [prune.dead_letters(session, keep=180 * DAY, limit=1) for _ in range(3)] == [1, 1, 0]
    assert _count(session, DeadLetter) == 1


def test_workers_that_say_nothing_any_more_are_forgotten(session: Session) -> None:
    for number, silent in enumerate((61, 59)):
        given = {"name": "worker@here", "host": "here", "pid": number, "lanes": [], "concurrency": 2}
        last = now() - timedelta(minutes=silent)
        session.add(Worker(id=f"here:{number}", version="1", last_seen_at=last, **given))
    session.flush()
    assert prune.silent_workers(session) == 1
    assert session.scalars(select(Worker.id)).all() == ["here:1"]


def test_job_that_somebody_is_at_is_left_for_the_next_round(sessions: Sessions) -> None:
    with sessions.begin() as session:
        job_id = add_job(session, add_item(session), DONE, completed_at=now() - 91 * DAY).id
    with sessions.begin() as other:
        other.get_one(ProcessingJob, job_id, with_for_update=True)
        with sessions.begin() as session:
            assert prune.finished_jobs(session, keep=90 * DAY) == 0
    with sessions.begin() as session:
        assert prune.finished_jobs(session, keep=90 * DAY) == 1


@pytest.mark.usefixtures("sqs_queues")
def test_pruning_that_was_cut_goes_on_in_the_next_round(
    stewards: Runtime, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.begin() as session:
        job = add_job(session, add_item(session), FAILED, completed_at=now() - 200 * DAY)
        add_dead_letter(session, job.rows[1].id, job_id=job.id, created_at=now() - 200 * DAY)
        add_job(session, add_item(session), DONE, completed_at=now() - 200 * DAY)
    monkeypatch.setattr(housekeeping, "PATIENCE", 0)
    step = Housekeeping(stewards).steps()["prune"]
    assert [step() for _ in range(3)] == [1, 2, 0]
    with sessions.begin() as session:
        add_job(session, add_item(session), DONE, completed_at=now() - 200 * DAY)
    assert step() == 0  # all was done: not due again for a while


@pytest.mark.usefixtures("sqs_queues")
def test_steward_prunes_everything_that_is_old(stewards: Runtime, sessions: Sessions) -> None:
    with sessions.begin() as session:
        for _ in range(3):
            job = add_job(session, add_item(session), FAILED, completed_at=now() - 200 * DAY)
            add_dead_letter(session, job.rows[1].id, job_id=job.id, created_at=now() - 200 * DAY)
    house = Housekeeping(stewards)
    assert house.steps()["prune"]() == 6
    assert house.prune() == 0
    with sessions() as session:
        assert (_count(session, ProcessingJob), _count(session, QueueRow), _count(session, Attempt)) == (
            0,
            0,
            0,
        )
