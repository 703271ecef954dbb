from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from sqlalchemy import event, func, select, text, update
from sqlalchemy.orm import Session

from db import marks, queue
from db.models import AuditEntry, ProcessingJob, QueueRow
from db.queue.due import OVERTAKERS
from db.session import Sessions, advisory_lock
from pipeline.errors import InfrastructureError, NotOursError
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from tasks import dispatch
from tasks.process import Stop
from tasks.queues import Queues
from tasks.runtime import Runtime, build
from tasks.steward import ADVISORY_LOCK, POOL_SIZE, STANDBY_AFTER, Steward
from tests.factories import now
from tests.integration.conftest import in_view
from tests.support import claimed, due, expire, in_threads, new_job

T = TaskStatus
MINUTE = timedelta(minutes=1)


@pytest.fixture
def runtime(stewards: Runtime) -> Runtime:
    return stewards


@pytest.fixture
def queues(sqs_queues: Queues) -> Queues:
    return sqs_queues


def _row(sessions: Sessions, **values: Any) -> UUID:
    """The first row of a new job, with ``values``."""
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        if values:
            session.execute(update(QueueRow).where(QueueRow.id == row_id).values(**values))
    return row_id


def _read(sessions: Sessions, row_id: UUID) -> QueueRow:
    with sessions() as session:
        return session.get_one(QueueRow, row_id)


def test_rows_that_nobody_was_told_of_are_published(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    rows = [_row(sessions), _row(sessions, available_at=now() + 10 * MINUTE)]
    late = _row(sessions, available_at=now() + 60 * MINUTE)
    _row(sessions, published_at=now())

    assert Steward(runtime).publish_due() == 2
    assert Steward(runtime).publish_due() == 0

    assert all(_read(sessions, row_id).published_at for row_id in rows)
    assert _read(sessions, late).published_at is None
    assert queues.waiting(Queue.STANDARD) == 2


def test_paused_lane_is_left_alone_until_it_is_resumed(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    rows = [
        _row(sessions),
        _row(sessions, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE),
    ]
    with sessions.begin() as session:
        queue.pause_lane(session, Queue.STANDARD, actor="ada")
    Steward(runtime).step()
    assert queues.waiting(Queue.STANDARD) == 0
    with sessions.begin() as session:
        queue.resume_lane(session, Queue.STANDARD)
    assert Steward(runtime).publish_lost() == 1
    assert Steward(runtime).publish_due() == 2
    assert all(_read(sessions, row_id).published_at for row_id in rows)
    assert queues.waiting(Queue.STANDARD) == 2


def test_row_whose_message_was_lost_is_published_again(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    _row(sessions, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
    assert Steward(runtime).publish_lost() == 1
    assert Steward(runtime).publish_due() == 1
    assert Steward(runtime).publish_lost() == 0
    assert queues.waiting(Queue.STANDARD) == 1


def test_long_backlog_is_not_multiplied(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    rows = [_row(sessions) for _ in range(3)]
    steward = Steward(runtime)
    steward.publish_due()
    with sessions.begin() as session:  # they have waited for long, because workers are busy
        old = now() - 60 * MINUTE
        session.execute(
            update(QueueRow).where(QueueRow.id.in_(rows)).values(available_at=old, published_at=old)
        )
    for _ in range(3):
        assert steward.publish_lost() == 0
    assert queues.waiting(Queue.STANDARD) == 3


def _working(sessions: Sessions, *, published: datetime, started: datetime) -> UUID:
    """A row that is being processed."""
    row_id = _row(sessions)
    with sessions.begin() as session:
        claimed(session, row_id)
        session.execute(
            update(QueueRow)
            .where(QueueRow.id == row_id)
            .values(published_at=published, started_at=started, available_at=published)
        )
    return row_id


def test_row_that_others_overtook_gets_a_copy_once(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    steward = Steward(runtime)
    _row(sessions)
    steward.publish_due()  # the queue is not empty
    old = now() - 9 * MINUTE
    rows = [_row(sessions, available_at=old, published_at=old + n * MINUTE) for n in (0, 1, 6)]
    for _ in range(OVERTAKERS):
        assert steward.publish_lost() == 0
        _working(sessions, published=old + 5 * MINUTE, started=now())

    assert steward.publish_lost() == 2
    assert steward.publish_lost() == 0

    assert [
        _read(sessions, row_id).published_at == old + n * MINUTE
        for row_id, n in zip(rows, (0, 1, 6), strict=True)
    ] == [
        False,
        False,
        True,
    ]
    assert queues.waiting(Queue.STANDARD) == 3


def test_backlog_that_moves_in_its_order_is_left_alone(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    """Also when a working row got a copy meanwhile, and when another lane is faster."""
    steward = Steward(runtime)
    old = now() - 60 * MINUTE
    for minute in range(5, 50, 9):
        _row(sessions, available_at=old, published_at=old + minute * MINUTE)
    _working(sessions, published=old + 6 * MINUTE, started=now())
    copied = _working(sessions, published=now(), started=now() - 5 * MINUTE)
    express = _working(sessions, published=now() - MINUTE, started=now())
    with sessions.begin() as session:
        session.execute(update(QueueRow).where(QueueRow.id == express).values(queue=Queue.EXPRESS))
    _row(sessions)
    steward.publish_due()
    assert steward.publish_lost() == 0
    assert queues.waiting(Queue.STANDARD) == 1
    assert _read(sessions, copied).status == T.PROCESSING


def test_two_stewards_send_one_message(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    """Every step is safe without the lock that usually lets one steward work."""
    for _ in range(3):
        _row(sessions)
        _row(sessions, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
    stewards = [Steward(runtime), Steward(runtime)]
    in_threads(2, lambda number: stewards[number].publish_due())
    assert queues.waiting(Queue.STANDARD) == 3
    queues.client.purge_queue(QueueUrl=queues.url(Queue.STANDARD))
    old = now() - 9 * MINUTE
    with sessions.begin() as session:
        session.execute(
            update(QueueRow).where(QueueRow.status == T.QUEUED).values(published_at=old, available_at=old)
        )
    assert sum(in_threads(2, lambda number: stewards[number].publish_lost())) == 6
    in_threads(2, lambda number: stewards[number].publish_due())
    assert queues.waiting(Queue.STANDARD) == 6


def test_copy_of_a_dead_letter_that_was_lost_is_sent(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    with sessions.begin() as session:
        queue.keep_foreign(session, source=None, body="?", error=NotOursError("No row has this id."))
    assert Steward(runtime).copy_dead_letters() == 1
    assert Steward(runtime).copy_dead_letters() == 0
    assert queues.waiting(Queue.DEAD_LETTER) == 1


def test_steward_that_does_not_hold_the_lock_does_nothing(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    row_id = _row(sessions)
    publishing = ADVISORY_LOCK + 1  # each crew has a lock of its own
    with advisory_lock(runtime.engine, publishing) as held:
        assert held
        other = build(runtime.settings, pool_size=POOL_SIZE)
        Steward(other).step()
        other.engine.dispose()
    assert _read(sessions, row_id).published_at is None
    Steward(runtime).step()
    assert _read(sessions, row_id).published_at is not None


def test_lock_of_a_steward_that_is_silent_holds_up_nobody(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    """As a suspended machine's, whose session the server keeps."""
    row_id = _row(sessions)
    with advisory_lock(runtime.engine, ADVISORY_LOCK + 1) as held:
        assert held
        with sessions.begin() as session:
            marks.put(session, f"{marks.ROUND}1", at=now() - STANDBY_AFTER)
        other = build(runtime.settings, pool_size=POOL_SIZE)
        Steward(other).step()
        other.engine.dispose()
    assert _read(sessions, row_id).published_at is not None


def test_server_notices_a_client_that_vanishes(runtime: Runtime) -> None:
    with runtime.engine.connect() as connection:
        told = [
            connection.scalar(text(f"SHOW tcp_keepalives_{name}")) for name in ("idle", "interval", "count")
        ]
    assert told == ["10", "5", "3"]


def test_round_makes_partitions(runtime: Runtime, sessions: Sessions) -> None:
    Steward(runtime).step()
    with sessions() as session:
        names = session.scalars(text("SELECT relname FROM pg_class WHERE relname LIKE 'audit_log_20%'")).all()
    assert f"audit_log_{now():%Y_%m}" in names


def test_broker_that_is_away_keeps_no_lease_from_being_judged(runtime: Runtime, sessions: Sessions) -> None:
    row_id = _row(sessions)
    with sessions.begin() as session:
        claimed(session, row_id)
        expire(session, row_id)
        lost = due(session, new_job(session).id)
        session.execute(
            update(QueueRow)
            .where(QueueRow.id == lost)
            .values(available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
        )
    nowhere = {"aws_endpoint_url": "http://127.0.0.1:9"}
    away = build(runtime.settings.model_copy(update=nowhere), pool_size=POOL_SIZE)
    steward = Steward(away)
    in_view(sessions)
    steward.step()  # asks for depths of queues, lists, sweeps, copies: all refused
    away.engine.dispose()
    assert _read(sessions, row_id).status == T.QUEUED


def _hold(session: Session, row_id: UUID) -> None:
    """Lock a row and its job, as somebody with a transaction that stays open does."""
    row = session.get_one(QueueRow, row_id, with_for_update=True)
    session.get_one(ProcessingJob, row.job_id, with_for_update=True)


def test_row_that_somebody_has_locked_keeps_no_other_lease_from_being_released(
    runtime: Runtime, sessions: Sessions
) -> None:
    rows = [_row(sessions) for _ in range(3)]
    with sessions.begin() as session:
        for row_id in rows:
            claimed(session, row_id)
            expire(session, row_id)
    steward = Steward(runtime)
    in_view(sessions)
    with sessions.begin() as other:
        _hold(other, rows[0])
        assert steward.release_expired() == 2
    in_view(sessions)
    assert steward.release_expired() == 1


def test_row_that_somebody_has_locked_keeps_no_other_from_being_published(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    rows = [_row(sessions) for _ in range(3)]
    quick = build(runtime.settings, pool_size=POOL_SIZE)
    event.listen(
        quick.engine, "connect", lambda connection, _: connection.execute("SET lock_timeout = '50ms'")
    )
    steward = Steward(quick)
    with sessions.begin() as other:
        _hold(other, rows[0])
        assert steward.publish_due() == 2
    assert steward.publish_due() == 1
    assert queues.waiting(Queue.STANDARD) == 3
    quick.engine.dispose()


def test_lane_that_refuses_keeps_no_other_lane_waiting(
    runtime: Runtime, sessions: Sessions, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue that is missing, or that we may not send to, with the oldest rows."""
    asked = []

    def refusing(ticket: queue.Ticket, **options: Any) -> None:
        asked.append(ticket.queue)
        if ticket.queue == Queue.EXPRESS:
            raise OperationalError("AWS.SimpleQueueService.NonExistentQueue")
        send(ticket, **options)

    send = dispatch._send
    monkeypatch.setattr(dispatch, "_send", refusing)
    for lane in (Queue.EXPRESS, Queue.EXPRESS, Queue.EXPRESS, Queue.BULK, Queue.STANDARD):
        _row(sessions, queue=lane)
    with pytest.raises(InfrastructureError):  # it says so, after the others had their turn
        Steward(runtime).publish_due()
    assert asked.count(Queue.EXPRESS) == 1
    assert (queues.waiting(Queue.BULK), queues.waiting(Queue.STANDARD)) == (1, 1)


def test_lane_that_does_not_answer_keeps_no_other_from_being_looked_at(
    runtime: Runtime, sessions: Sessions
) -> None:
    old = now() - 9 * MINUTE
    _row(sessions, queue=Queue.EXPRESS, available_at=old, published_at=old)
    lost = _row(sessions, queue=Queue.BULK, available_at=old, published_at=old)
    steward = Steward(runtime)
    steward._queues._urls[Queue.EXPRESS] = steward._queues.url(Queue.EXPRESS) + "-no-more"
    with pytest.raises(Exception, match=r"NonExistent|does not exist"):
        steward.publish_lost()
    assert _read(sessions, lost).published_at is None


def test_database_that_is_away_is_waited_for(empty_queues: Settings) -> None:
    url = SecretStr("postgresql://nobody@127.0.0.1:9/nothing")
    runtime = build(empty_queues.model_copy(update={"database_url": url}), pool_size=POOL_SIZE)
    Steward(runtime).step()
    runtime.engine.dispose()


def test_steward_runs_until_it_is_told_to_stop(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    quick = build(
        runtime.settings.model_copy(update={"steward_interval": timedelta(seconds=0.1)}), pool_size=POOL_SIZE
    )
    stop = Stop()
    thread = threading.Thread(target=Steward(quick).run, args=(stop,))
    thread.start()
    rows = [_row(sessions) for _ in range(2)]
    for _ in range(300):
        if all(_read(sessions, row_id).published_at for row_id in rows):
            break
        stop.wait(0.1)
    stop.set()
    thread.join(timeout=30)
    quick.engine.dispose()
    assert not thread.is_alive()
    assert queues.waiting(Queue.STANDARD) == 2
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == 0
