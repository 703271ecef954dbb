from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from db import queue
from db.models import ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.queues import Queue
from pipeline.states import TaskStatus
from pipeline.workflows import StageName
from tests.factories import add_item, add_job, now
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
    new_job,
    row_of,
)

T = TaskStatus
MINUTE = timedelta(minutes=1)


def _row(session: Session, **values: object) -> QueueRow:
    """The first row of a new job, with ``values``."""
    job = new_job(session)
    row = row_of(session, job.id, StageName.INGEST)
    for name, value in values.items():
        setattr(row, name, value)
    session.flush()
    return row


def _published(session: Session, row: QueueRow) -> datetime | None:
    return session.get_one(QueueRow, row.id, populate_existing=True).published_at


def _copy(session: Session, row: QueueRow) -> queue.Ticket | None:
    """Win a copy by what the row says now."""
    return queue.win_copy(session, row.id, seen=_published(session, row))


def test_ticket_for_a_due_row_is_won_once(session: Session) -> None:
    row = _row(session)
    ticket = queue.win_ticket(session, row.id)
    told = _published(session, row)
    assert told is not None
    assert ticket == queue.Ticket(row.id, StageName.INGEST, Queue.STANDARD, 0, None, row.id, told)
    assert queue.win_ticket(session, row.id) is None


def test_ticket_names_the_row_before_and_the_first(session: Session) -> None:
    job = new_job(session, priority=10)
    advance(session, job.id, to=StageName.METADATA)
    ticket = queue.win_ticket(session, due(session, job.id))
    assert ticket is not None
    assert ticket.queue == Queue.EXPRESS
    assert ticket.predecessor == row_of(session, job.id, StageName.DEDUPE).id
    assert ticket.root == row_of(session, job.id, StageName.INGEST).id


def test_ticket_for_a_row_that_waits_says_for_how_long(session: Session) -> None:
    row = _row(session, available_at=now() + 10 * MINUTE)
    ticket = queue.win_ticket(session, row.id)
    assert ticket is not None
    assert 590 < ticket.delay <= 600
    published_at = _published(session, row)
    assert published_at == row.available_at  # when the message becomes visible


@pytest.mark.parametrize("copy", [False, True])
def test_row_due_past_the_longest_delay_is_left_to_the_steward(session: Session, *, copy: bool) -> None:
    row = _row(session, available_at=now() + 16 * MINUTE, published_at=now() - MINUTE if copy else None)
    assert (_copy(session, row) if copy else queue.win_ticket(session, row.id)) is None
    assert _published(session, row) is None


@pytest.mark.parametrize("status", [T.PENDING, T.PROCESSING, *sorted({T.COMPLETED, T.FAILED, T.CANCELLED})])
def test_row_that_is_not_due_is_not_published(session: Session, status: TaskStatus) -> None:
    job = add_job(session, add_item(session), [status], rows={0: {"published_at": None}})
    assert queue.win_ticket(session, row_of(session, job.id, StageName.INGEST).id) is None


@pytest.mark.parametrize("status", [T.PENDING, T.COMPLETED, T.SKIPPED, T.FAILED, T.CANCELLED])
def test_row_that_no_worker_will_want_is_not_copied(session: Session, status: TaskStatus) -> None:
    job = add_job(session, add_item(session), [status], rows={0: {"published_at": now() - MINUTE}})
    assert _copy(session, row_of(session, job.id, StageName.INGEST)) is None


def test_unknown_row_is_not_published(session: Session) -> None:
    assert queue.win_ticket(session, uuid4()) is None
    assert queue.win_copy(session, uuid4(), seen=None) is None


def test_copy_is_sent_when_the_message_before_became_visible(session: Session) -> None:
    early = now() + 2 * MINUTE
    row = _row(session, available_at=early, published_at=early)
    assert _copy(session, row) is None  # that copy is still under way

    row.published_at = now() - MINUTE
    session.flush()
    ticket = _copy(session, row)

    assert ticket is not None
    assert 110 < ticket.delay <= 120
    assert _copy(session, row) is None


def test_copy_for_a_leased_row_comes_when_its_lease_ends(session: Session) -> None:
    row = _row(session, published_at=now() - MINUTE)
    claimed(session, row.id)
    ticket = _copy(session, row)
    assert ticket is not None
    assert LEASE - MINUTE < timedelta(seconds=ticket.delay) <= LEASE
    assert _copy(session, row) is None


def test_change_to_due_forgets_the_message_of_before(session: Session) -> None:
    row = _row(session)
    queue.win_ticket(session, row.id)
    claim = claimed(session, row.id)
    assert _published(session, row) is not None  # claiming is no change of who was told
    queue.fail(session, claim, SLOW, POLICY, cost=COST)
    assert _published(session, row) is None

    other = _row(session)
    queue.win_ticket(session, other.id)
    claimed(session, other.id)
    expire(session, other.id)
    token = session.get_one(QueueRow, other.id, populate_existing=True).token
    assert queue.release_expired(session, other.id, token)
    assert _published(session, other) is None


def test_send_that_failed_is_given_back(session: Session) -> None:
    row = _row(session)
    ticket = queue.win_ticket(session, row.id)
    assert ticket is not None
    queue.give_back(session, ticket)
    assert _published(session, row) is None
    assert queue.win_ticket(session, row.id) is not None


def test_giving_back_a_row_that_moved_on_changes_nothing(session: Session) -> None:
    row = _row(session)
    ticket = queue.win_ticket(session, row.id)
    assert ticket is not None
    complete(session, claimed(session, row.id))
    before = _published(session, row)
    queue.give_back(session, ticket)
    assert _published(session, row) == before is not None


def test_copy_is_not_sent_by_who_decided_by_an_older_message(session: Session) -> None:
    row = _row(session, published_at=now() - MINUTE)
    seen = _published(session, row)
    assert queue.win_copy(session, row.id, seen=seen) is not None
    assert queue.win_copy(session, row.id, seen=seen) is None
    assert queue.win_copy(session, row.id, seen=None) is None


@pytest.mark.parametrize(
    ("available", "published", "copy"),
    [
        (timedelta(), None, False),  # due, never published
        (timedelta(), -MINUTE, True),  # due, its message was lost: two stewards
        (5 * MINUTE, None, False),
        (5 * MINUTE, -MINUTE, True),  # two deliveries that came too early
    ],
)
def test_of_sixteen_publishers_one_wins(
    sessions: Sessions, available: timedelta, published: timedelta | None, *, copy: bool
) -> None:
    for _ in range(5):
        with sessions.begin() as session:
            row = _row(
                session,
                available_at=now() + available - timedelta(seconds=1),
                published_at=None if published is None else now() + published,
            )

        def publish(_: int, row: QueueRow = row) -> queue.Ticket | None:
            with sessions.begin() as session:
                if copy:
                    return queue.win_copy(session, row.id, seen=row.published_at)
                return queue.win_ticket(session, row.id)

        assert sum(ticket is not None for ticket in in_threads(16, publish)) == 1


def test_unpublished_rows_are_those_that_are_due_soon_and_not_paused(session: Session) -> None:
    late = _row(session, available_at=now() - 2 * MINUTE)
    later = _row(session, available_at=now() - MINUTE)
    soon = _row(session, available_at=now() + 14 * MINUTE)
    _row(session, available_at=now() + 16 * MINUTE)
    _row(session, published_at=now())
    claimed(session, _row(session).id)
    paused = new_job(session, priority=1)
    queue.pause_lane(session, Queue.BULK, actor="operator")

    found = queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
    assert found == [late.id, later.id, soon.id]
    assert queue.unpublished(session, horizon=queue.SQS_MAX_DELAY, limit=1) == [late.id]
    queue.resume_lane(session, Queue.BULK)
    assert due(session, paused.id) in queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)


def test_waiting_rows_are_counted_from_when_they_could_be_claimed(session: Session) -> None:
    lost = _row(session, available_at=now() - 5 * MINUTE, published_at=now() - 5 * MINUTE)
    _row(session, available_at=now() - 5 * MINUTE, published_at=now())  # told just now
    _row(session, available_at=now(), published_at=now() - 5 * MINUTE)  # due just now
    _row(session, available_at=now() - 5 * MINUTE)  # never published: another rule's
    _row(session, available_at=now() + 5 * MINUTE, published_at=now() + 5 * MINUTE)
    other: ProcessingJob = new_job(session, priority=9)
    row_of(session, other.id, StageName.INGEST).published_at = now() - 5 * MINUTE
    row_of(session, other.id, StageName.INGEST).available_at = now() - 5 * MINUTE
    session.flush()

    found = queue.waiting_since(session, Queue.STANDARD, wait=timedelta(seconds=30))
    assert found == [(lost.id, lost.published_at)]
    queue.pause_lane(session, Queue.STANDARD, actor="operator")
    assert queue.waiting_since(session, Queue.STANDARD, wait=timedelta(seconds=30)) == []


@pytest.mark.parametrize(("others", "later", "found"), [(3, 5, True), (2, 5, False), (3, 1, False)])
def test_row_is_overtaken_when_enough_that_were_published_later_have_been_claimed(
    session: Session, others: int, later: int, *, found: bool
) -> None:
    lost = _row(session, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
    elsewhere = _row(
        session, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE, queue=Queue.BULK
    )
    at = now() - (9 - later) * MINUTE
    for number in range(others):
        row = _row(session, available_at=at, published_at=at)
        claim = claimed(session, row.id)
        if number:  # whether it has ended since makes no difference
            complete(session, claim)
    for _ in range(others):  # what is tried again comes to the front, and says nothing
        row = _row(session)
        claim = claimed(session, row.id)
        expire(session, row.id)
        queue.release_expired(session, row.id, claim.token)
        queue.win_ticket(session, row.id)
        claimed(session, row.id)
    _row(session, available_at=at, published_at=at)  # not claimed

    overtaken = queue.overtaken(session, Queue.STANDARD, margin=2 * MINUTE, by=3)

    assert overtaken == ([(lost.id, lost.published_at)] if found else [])
    assert queue.overtaken(session, Queue.BULK, margin=2 * MINUTE, by=3) == []
    assert elsewhere.status == T.QUEUED
