"""What the steward does with the SQS dead-letter queues."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import marks, queue
from db.models import Attempt, DeadLetter, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import NotOursError
from pipeline.queues import Queue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName
from tasks import collect
from tasks.collect import MOST_RETURNS, RETURNS, Collector, row_of
from tasks.dispatch import SCHEMA, copy_dead_letters
from tasks.queues import Queues
from tasks.runtime import Runtime
from tests.factories import now
from tests.support import advance, claimed, due, kombu_message, new_job, summaries, wait_until

T = TaskStatus
EVENT = json.dumps(
    {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "footage"}, "object": {"key": "a.jpg", "sequencer": "01"}},
            }
        ]
    }
)


@pytest.fixture
def collector(stewards: Runtime, sqs_queues: Queues) -> Collector:
    return Collector(stewards, sqs_queues)


def _send(queues: Queues, target: Queue, body: str, **attributes: str) -> None:
    queues.client.send_message(
        QueueUrl=queues.url(target),
        MessageBody=body,
        MessageAttributes={
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        },
    )


def _letters(sessions: Sessions) -> list[DeadLetter]:
    with sessions() as session:
        return list(session.scalars(select(DeadLetter).order_by(DeadLetter.id)))


def _row(sessions: Sessions, **values: Any) -> UUID:
    with sessions.begin() as session:
        row_id = due(session, new_job(session, **values).id)
        session.execute(update(QueueRow).where(QueueRow.id == row_id).values(published_at=now()))
    return row_id


def _read(sessions: Sessions, row_id: UUID) -> QueueRow:
    with sessions() as session:
        return session.get_one(QueueRow, row_id)


def test_message_that_nobody_could_take_costs_a_crash_and_is_due_again(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _row(sessions)
    _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))

    assert collector.collect() == 1
    assert collector.collect() == 0

    row = _read(sessions, row_id)
    assert (row.status, row.crashes, row.attempts, row.published_at) == (T.QUEUED, 1, 0, None)
    with sessions() as session:
        attempt = session.scalars(select(Attempt)).one()
        assert (attempt.outcome, attempt.error_code, attempt.worker) == ("lost", "UNDELIVERED", "steward")
        assert session.scalars(select(ProcessingJob.status)).one() == JobStatus.QUEUED
    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 0
    assert _letters(sessions) == []


def test_last_crash_by_an_undelivered_message_fails_the_job(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _row(sessions, max_crashes=1)
    _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))
    collector.collect()
    row = _read(sessions, row_id)
    assert (row.status, row.error_code) == (T.FAILED, "WORKER_LOST")
    (letter,) = _letters(sessions)
    assert (letter.reason, letter.row_id) == ("worker_lost", row_id)
    with sessions() as session:
        assert len(summaries(session, row.job_id)) == 1


@pytest.mark.parametrize("state", ["processing", "completed", "pending", "not due", "paused"])
def test_message_of_a_row_that_is_not_due_costs_nothing(
    collector: Collector, sessions: Sessions, sqs_queues: Queues, state: str
) -> None:
    row_id = _row(sessions)
    with sessions.begin() as session:
        job_id = session.get_one(QueueRow, row_id).job_id
        if state == "processing":
            claimed(session, row_id)
        elif state == "completed":
            advance(session, job_id, to=StageName.DEDUPE)
        elif state == "pending":
            last = select(QueueRow.id).where(QueueRow.job_id == job_id, QueueRow.position == 3)
            row_id = session.scalars(last).one()
        elif state == "not due":
            session.execute(
                update(QueueRow).where(QueueRow.id == row_id).values(available_at=now().replace(year=2100))
            )
        else:
            queue.pause_lane(session, Queue.STANDARD, actor="ada")
    before = _read(sessions, row_id)
    _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))
    assert collector.collect() == 1
    after = _read(sessions, row_id)
    assert (after.status, after.crashes, after.token) == (before.status, 0, before.token)
    if after.status == T.QUEUED:
        assert after.published_at is None  # its message is gone: it is published when its time comes
    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 0
    assert _letters(sessions) == []


def test_copy_of_an_open_letter_stays_and_is_published_to_nobody(
    collector: Collector, stewards: Runtime, sessions: Sessions, sqs_queues: Queues
) -> None:
    for body in ("one", "two"):
        with sessions.begin() as session:
            queue.keep_foreign(session, source=None, body=body, error=NotOursError("No row has this id."))
    assert copy_dead_letters(sessions, stewards.settings) == 2
    purged, _ = _letters(sessions)
    with sessions.begin() as session:
        queue.purge_letter(session, purged.id, actor="ada")
    _send(sqs_queues, Queue.DEAD_LETTER, json.dumps({"id": str(uuid4())}), dailies="copy")  # pruned long ago

    assert collector.collect() == 2
    assert collector.collect() == 0

    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 1
    assert len(_letters(sessions)) == 2


@pytest.mark.parametrize(
    "body",
    ["no json", '{"hello": 1}', kombu_message("no-uuid"), kombu_message(str(uuid4()), task="theirs.task")],
)
def test_foreign_message_is_kept_with_its_body(
    collector: Collector, sessions: Sessions, sqs_queues: Queues, body: str
) -> None:
    _send(sqs_queues, Queue.DEAD_LETTER, body)
    assert collector.collect() == 1
    (letter,) = _letters(sessions)
    assert (letter.reason, letter.body, letter.queue) == ("not_ours", body, None)
    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 0


def test_message_of_a_row_that_is_gone_is_kept(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = uuid4()
    _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))
    assert collector.collect() == 1
    (letter,) = _letters(sessions)
    assert (letter.reason, letter.body) == ("not_ours", str(row_id))


def test_message_of_a_newer_release_is_left_for_a_newer_steward(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _row(sessions)
    body = kombu_message(str(row_id), SCHEMA + 1)
    assert row_of(body) is None
    _send(sqs_queues, Queue.DEAD_LETTER, body)
    assert collector.collect() == 0
    assert sqs_queues.waiting(Queue.DEAD_LETTER) == 1
    assert _read(sessions, row_id).crashes == 0


def test_event_goes_back_to_the_listener_a_few_times_and_is_kept_then(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    _send(sqs_queues, Queue.EVENTS_DEAD_LETTER, EVENT)
    for turn in range(1, MOST_RETURNS + 1):
        assert collector.collect() == 1
        (message,) = sqs_queues.client.receive_message(
            QueueUrl=sqs_queues.url(Queue.EVENTS), MessageAttributeNames=["All"]
        )["Messages"]
        returned = message["MessageAttributes"][RETURNS]["StringValue"]
        assert (message["Body"], returned) == (EVENT, str(turn))
        sqs_queues.client.delete_message(
            QueueUrl=sqs_queues.url(Queue.EVENTS), ReceiptHandle=message["ReceiptHandle"]
        )
        _send(sqs_queues, Queue.EVENTS_DEAD_LETTER, EVENT, **{RETURNS: returned})
    assert collector.collect() == 1
    assert sqs_queues.waiting(Queue.EVENTS) == sqs_queues.waiting(Queue.EVENTS_DEAD_LETTER) == 0
    (letter,) = _letters(sessions)
    assert (letter.reason, letter.queue, letter.body) == ("attempts_exhausted", Queue.EVENTS, EVENT)
    with sessions.begin() as session:
        assert queue.redrive_letter(session, letter.id, actor="ada") == queue.letters.Resend(EVENT)


def test_foreign_event_is_kept(collector: Collector, sessions: Sessions, sqs_queues: Queues) -> None:
    _send(sqs_queues, Queue.EVENTS_DEAD_LETTER, "junk")
    assert collector.collect() == 1
    (letter,) = _letters(sessions)
    assert (letter.reason, letter.queue, letter.body) == ("not_ours", Queue.EVENTS, "junk")


def test_message_that_an_outage_of_the_database_kept_from_being_claimed_costs_nothing(
    collector: Collector, sessions: Sessions, sqs_queues: Queues
) -> None:
    row_id = _row(sessions, max_crashes=1)
    with sessions.begin() as session:
        marks.put(session, marks.RECOVERED)  # after the row was published
    _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))
    assert collector.collect() == 1
    row = _read(sessions, row_id)
    assert (row.status, row.crashes, row.published_at) == (T.QUEUED, 0, None)
    with sessions() as session:
        attempt = session.scalars(select(Attempt)).one()
        assert (attempt.outcome, attempt.error_code) == ("released", "OUTAGE")


def test_message_sent_before_an_outage_costs_nothing_though_its_row_was_published_since(
    session: Session,
) -> None:
    row_id = due(session, new_job(session).id)
    marks.put(session, marks.RECOVERED, at=now() - timedelta(minutes=1))
    session.execute(update(QueueRow).where(QueueRow.id == row_id).values(published_at=now()))
    assert queue.charge_undelivered(session, row_id, sent_at=now() - timedelta(minutes=2))
    assert session.get_one(QueueRow, row_id, populate_existing=True).crashes == 0
    assert queue.charge_undelivered(session, row_id, sent_at=now())
    assert session.get_one(QueueRow, row_id, populate_existing=True).crashes == 1


@pytest.mark.parametrize("target", [Queue.DEAD_LETTER, Queue.EVENTS_DEAD_LETTER])
def test_message_that_is_nested_too_deeply_is_kept_and_harms_no_other(
    collector: Collector, sessions: Sessions, sqs_queues: Queues, target: Queue
) -> None:
    deep = "[" * 100_000
    inner = json.dumps({"headers": {"task": "dailies.ingest"}, "body": b64encode(deep.encode()).decode()})
    for body in (deep, inner, "a NUL \\u0000 or \\ud800", "junk"):
        _send(sqs_queues, target, body)
    assert collector.collect() == 4
    assert sqs_queues.waiting(target) == 0
    assert len(_letters(sessions)) == 4


def test_message_that_raises_harms_no_other(
    collector: Collector, sessions: Sessions, sqs_queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queue.charge_undelivered

    def odd(session: Session, row_id: UUID, **given: Any) -> bool:
        if row_id == rows[0]:
            raise ValueError
        return real(session, row_id, **given)

    rows = [_row(sessions) for _ in range(3)]
    for row_id in rows:
        _send(sqs_queues, Queue.DEAD_LETTER, kombu_message(str(row_id)))
    monkeypatch.setattr(queue, "charge_undelivered", odd)
    assert collector.collect() == 2
    assert [_read(sessions, row_id).crashes for row_id in rows] == [0, 1, 1]


def test_copies_are_hidden_for_a_moment_only(
    collector: Collector,
    stewards: Runtime,
    sessions: Sessions,
    sqs_queues: Queues,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever watches the depth of the queue sees them, and each pass asks for them once."""
    monkeypatch.setattr(collect, "HIDDEN", 2)
    with sessions.begin() as session:
        queue.keep_foreign(session, source=None, body="?", error=NotOursError("No row has this id."))
    copy_dead_letters(sessions, stewards.settings)
    assert collector.run() == 0

    def visible() -> bool:
        assert collector.run() == 0  # not due
        return sqs_queues.client.get_queue_attributes(
            QueueUrl=sqs_queues.url(Queue.DEAD_LETTER), AttributeNames=["ApproximateNumberOfMessages"]
        )["Attributes"] == {"ApproximateNumberOfMessages": "1"}

    wait_until(visible, seconds=30)


def test_pass_is_bounded(
    collector: Collector, sessions: Sessions, sqs_queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        sqs_queues.client.send_message_batch(
            QueueUrl=sqs_queues.url(Queue.DEAD_LETTER),
            Entries=[{"Id": str(number), "MessageBody": "junk"} for number in range(10)],
        )
    with monkeypatch.context() as hurry:
        hurry.setattr(collect, "PATIENCE", 0)
        assert collector.collect() == 10
    assert collector.collect() == 20
    assert len(_letters(sessions)) == 30
