from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update

from db import queue
from db.models import AuditEntry, DeadLetter, QueueRow
from db.session import Sessions, advisory_lock
from pipeline.errors import NotOursError
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from tasks.process import Stop
from tasks.queues import Queues
from tasks.runtime import Runtime, build
from tasks.steward import ADVISORY_LOCK, Steward
from tests.factories import now
from tests.support import claimed, due, expire, in_threads, new_job

T = TaskStatus
MINUTE = timedelta(minutes=1)


@pytest.fixture
def runtime(sessions: Sessions, empty_queues: Settings) -> Iterator[Runtime]:
    runtime = build(empty_queues, pool_size=2)
    yield runtime
    runtime.engine.dispose()


@pytest.fixture
def queues(empty_queues: Settings) -> Iterator[Queues]:
    queues = Queues(empty_queues)
    yield queues
    queues.client.close()


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
    assert Steward(runtime).publish_due() == 1
    assert all(_read(sessions, row_id).published_at for row_id in rows)
    assert queues.waiting(Queue.STANDARD) == 2


def test_row_whose_message_was_lost_is_published_again(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    _row(sessions, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
    assert Steward(runtime).publish_lost() == 1
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


def test_two_stewards_send_one_message(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    """Every step is safe without the lock that usually lets one steward work."""
    for _ in range(3):
        _row(sessions)
        _row(sessions, available_at=now() - 9 * MINUTE, published_at=now() - 9 * MINUTE)
    stewards = [Steward(runtime), Steward(runtime)]
    in_threads(2, lambda number: stewards[number].publish_due())
    assert queues.waiting(Queue.STANDARD) == 3
    queues.client.purge_queue(QueueUrl=queues.url(Queue.STANDARD))
    in_threads(2, lambda number: stewards[number].publish_lost())
    assert queues.waiting(Queue.STANDARD) == 3


def test_expired_leases_are_released_and_published(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    row_id, holding = _row(sessions), _row(sessions)
    with sessions.begin() as session:
        claimed(session, row_id)
        claimed(session, holding)
        expire(session, row_id)

    Steward(runtime).step()

    row = _read(sessions, row_id)
    assert (row.status, row.crashes, row.published_at is None) == (T.QUEUED, 1, False)
    assert _read(sessions, holding).status == T.PROCESSING
    assert queues.waiting(Queue.STANDARD) == 1


def test_last_crash_is_failed_and_copied_to_the_dead_letters(
    runtime: Runtime, sessions: Sessions, queues: Queues
) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session, max_crashes=1).id)
        claimed(session, row_id)
        expire(session, row_id)
    Steward(runtime).step()
    assert _read(sessions, row_id).status == T.FAILED
    with sessions() as session:
        letter = session.scalars(select(DeadLetter)).one()
        assert (letter.reason, letter.dead_lettered_at is None) == ("worker_lost", False)
    assert queues.waiting(Queue.DEAD_LETTER) == 1


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
    with advisory_lock(runtime.engine, ADVISORY_LOCK) as held:
        assert held
        other = build(runtime.settings, pool_size=2)
        Steward(other).step()
        other.engine.dispose()
    assert _read(sessions, row_id).published_at is None
    Steward(runtime).step()
    assert _read(sessions, row_id).published_at is not None


def test_round_sweeps_and_makes_partitions_now_and_then(runtime: Runtime, sessions: Sessions) -> None:
    steward = Steward(runtime)
    steward.step()
    with sessions() as session:
        names = session.scalars(text("SELECT relname FROM pg_class WHERE relname LIKE 'audit_log_20%'")).all()
    assert f"audit_log_{now():%Y_%m}" in names
    assert steward.sweep_queues() == 0


def test_broker_that_is_away_keeps_no_step_of_the_database_from_running(
    runtime: Runtime, sessions: Sessions
) -> None:
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
    away = build(runtime.settings.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:9"}), pool_size=2)
    Steward(away).step()  # asks for depths of queues, sweeps, copies: all refused
    away.engine.dispose()
    assert _read(sessions, row_id).status == T.QUEUED


def test_database_that_is_away_is_waited_for(empty_queues: Settings) -> None:
    url = SecretStr("postgresql://nobody@127.0.0.1:9/nothing")
    runtime = build(empty_queues.model_copy(update={"database_url": url}), pool_size=2)
    Steward(runtime).step()
    runtime.engine.dispose()


def test_steward_runs_until_it_is_told_to_stop(runtime: Runtime, sessions: Sessions, queues: Queues) -> None:
    quick = build(
        runtime.settings.model_copy(update={"steward_interval": timedelta(seconds=0.1)}), pool_size=2
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
