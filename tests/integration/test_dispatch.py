from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from db import queue
from db.models import DeadLetter, QueueRow
from db.session import Sessions
from pipeline.errors import InfrastructureError, NotOursError, PermanentStageError
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.workflows import StageName
from tasks import dispatch
from tasks.queues import Queues
from tests.factories import now
from tests.support import (
    COST,
    POLICY,
    advance,
    asking_at,
    claimed,
    due,
    in_threads,
    kombu_message,
    new_job,
    row_of,
)

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing listens there


def _receive(settings: Settings, lane: Queue) -> list[dict[str, Any]]:
    """The messages of a lane, taken off it; kombu's envelope with its body decoded."""
    queues = Queues(settings)
    found = queues.client.receive_message(
        QueueUrl=queues.url(lane),
        MaxNumberOfMessages=10,
        MessageAttributeNames=["All"],
    ).get("Messages", [])
    for message in found:
        queues.client.delete_message(QueueUrl=queues.url(lane), ReceiptHandle=message["ReceiptHandle"])
    queues.client.close()
    return [dict(message) for message in found]


def _envelope(message: dict[str, Any]) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(b64decode(message["Body"]))
    envelope["body"] = json.loads(b64decode(envelope["body"]))
    return envelope


def _published(sessions: Sessions, row_id: UUID) -> Any:
    with sessions() as session:
        return session.get_one(QueueRow, row_id).published_at


def _failed(session: Session) -> queue.GaveUp:
    job = new_job(session)
    error = PermanentStageError("The file is empty.", code="EMPTY_FILE")
    outcome = queue.fail(session, claimed(session, due(session, job.id)), error, POLICY, cost=COST)
    assert isinstance(outcome, queue.GaveUp)
    return outcome


@pytest.fixture
def broker_away() -> Iterator[Settings]:
    """A process whose AWS endpoint does not answer."""
    with asking_at(NOWHERE) as settings:
        yield settings


def test_message_says_which_row_and_which_schema_and_nothing_else(
    sessions: Sessions, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        job = new_job(session, priority=9, config={"quality": 71})
        advance(session, job.id, to=StageName.METADATA)
        row_id = due(session, job.id)
        first, before = (row_of(session, job.id, stage).id for stage in (StageName.INGEST, StageName.DEDUPE))

    assert dispatch.publish(sessions, row_id)

    (message,) = _receive(empty_queues, Queue.EXPRESS)
    envelope = _envelope(message)
    args, kwargs, embed = envelope["body"]
    assert (args, kwargs) == ([str(row_id), dispatch.SCHEMA], {})
    assert not any(embed.values())  # no canvas: the rows are the chain
    headers = envelope["headers"]
    assert (headers["task"], headers["id"]) == ("dailies.metadata", str(row_id))
    assert (headers["parent_id"], headers["root_id"]) == (str(before), str(first))
    assert (headers["eta"], headers["retries"]) == (None, 0)
    assert envelope["content-type"] == "application/json"


def test_row_is_published_once(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
    assert in_threads(4, lambda _: dispatch.publish(sessions, row_id)).count(True) == 1
    assert _published(sessions, row_id) is not None
    assert len(_receive(empty_queues, Queue.STANDARD)) == 1


def test_publishing_a_job_publishes_its_row_that_is_due(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        job = new_job(session, priority=1)
        done = new_job(session)
        advance(session, done.id)
    assert dispatch.publish_job(sessions, job.id)
    assert not dispatch.publish_job(sessions, job.id)
    assert not dispatch.publish_job(sessions, done.id)
    assert not dispatch.publish_job(sessions, uuid4())
    (message,) = _receive(empty_queues, Queue.BULK)
    assert _envelope(message)["headers"]["task"] == "dailies.ingest"


def test_row_that_waits_is_published_into_sqs_own_delay(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        row = session.get_one(QueueRow, due(session, new_job(session).id))
        row.available_at = now() + timedelta(minutes=10)
    assert dispatch.publish(sessions, row.id)
    assert _receive(empty_queues, Queue.STANDARD) == []
    queues = Queues(empty_queues)
    delayed = queues.client.get_queue_attributes(
        QueueUrl=queues.url(Queue.STANDARD), AttributeNames=["ApproximateNumberOfMessagesDelayed"]
    )["Attributes"]
    assert delayed == {"ApproximateNumberOfMessagesDelayed": "1"}
    assert queues.waiting(Queue.STANDARD) == 1
    queues.client.close()


def test_copy_is_sent_by_what_was_seen(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        row = session.get_one(QueueRow, due(session, new_job(session).id))
        row.published_at = now() - timedelta(minutes=1)
    seen = _published(sessions, row.id)
    assert dispatch.publish_copy(sessions, row.id, seen=seen)
    assert not dispatch.publish_copy(sessions, row.id, seen=seen)
    assert len(_receive(empty_queues, Queue.STANDARD)) == 1


def test_row_says_that_nothing_was_sent_when_the_broker_is_away(
    sessions: Sessions, broker_away: Settings
) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
    assert not dispatch.publish(sessions, row_id)
    assert _published(sessions, row_id) is None
    with pytest.raises(InfrastructureError, match="broker does not answer"):  # the steward wants to know
        dispatch.publish_copy(sessions, row_id, seen=None, strict=True)
    assert _published(sessions, row_id) is None
    with sessions() as session:
        assert queue.unpublished(session, horizon=queue.SQS_MAX_DELAY) == [row_id]


def test_dead_letter_is_copied_once_with_ids_and_reason(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        letter = session.get_one(DeadLetter, _failed(session).dead_letter_id)

    assert dispatch.copy_dead_letters(sessions, empty_queues) == 1
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 0

    (message,) = _receive(empty_queues, Queue.DEAD_LETTER)
    told = json.loads(message["Body"])
    assert (told["id"], told["row_id"], told["job_id"]) == tuple(
        map(str, (letter.id, letter.row_id, letter.job_id))
    )
    assert (told["reason"], told["error_code"]) == ("permanent_error", "EMPTY_FILE")
    assert (told["job_type"], told["error_message"]) == ("ingest", "The file is empty.")
    assert dispatch.COPY_MARK in message["MessageAttributes"]  # so that nobody takes it for a row's message
    with sessions() as session:
        assert session.get_one(DeadLetter, letter.id).dead_lettered_at is not None


def test_foreign_message_is_copied_to_the_events_dead_letters_without_its_body(
    sessions: Sessions, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        error = NotOursError("Not an S3 event: \x01 \u2028 \ufffe.")
        queue.keep_foreign(session, source=Queue.EVENTS, body="password: hunter2", error=error)
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 1
    (message,) = _receive(empty_queues, Queue.EVENTS_DEAD_LETTER)
    assert json.loads(message["Body"])["reason"] == "not_ours"
    assert "hunter2" not in message["Body"]


def test_dead_letters_stay_uncopied_when_the_broker_is_away(
    sessions: Sessions, broker_away: Settings, empty_queues: Settings
) -> None:
    with sessions.begin() as session:
        for _ in range(2):
            _failed(session)
    assert dispatch.copy_dead_letters(sessions, broker_away) == 0
    with sessions() as session:
        assert len(queue.without_copy(session, limit=9)) == 2
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 2


def test_copy_that_was_sent_is_known_though_the_next_send_ends_the_process(
    sessions: Sessions, empty_queues: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction is open during a send, so neither a slow nor a deadly one makes the others again."""
    with sessions.begin() as session:
        for _ in range(2):
            _failed(session)
    of_ours = "datname = current_database() AND state = 'idle in transaction'"
    idle = text(f"SELECT count(*) FROM pg_stat_activity WHERE {of_ours}")  # noqa: S608
    real = dispatch._send_copy
    sent: list[DeadLetter] = []

    def deadly(settings: Settings, letter: DeadLetter) -> None:
        with sessions() as session:
            assert session.scalar(idle) == 0
        if sent:
            raise KeyboardInterrupt
        real(settings, letter)
        sent.append(letter)

    monkeypatch.setattr(dispatch, "_send_copy", deadly)
    with pytest.raises(KeyboardInterrupt):
        dispatch.copy_dead_letters(sessions, empty_queues)
    monkeypatch.undo()
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 1


def test_one_sends_copies_at_a_time(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        _failed(session)
    with queue.copying(sessions) as session:
        assert session is not None
        assert dispatch.copy_dead_letters(sessions, empty_queues) == 0
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 1


def test_copies_are_sent_some_at_a_time(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        for _ in range(3):
            _failed(session)
    assert dispatch.copy_dead_letters(sessions, empty_queues, limit=2) == 2
    assert dispatch.copy_dead_letters(sessions, empty_queues, limit=2) == 1


def test_message_that_the_tests_make_is_like_ours(sessions: Sessions, empty_queues: Settings) -> None:
    """Otherwise what they send to a worker would prove nothing."""
    with sessions.begin() as session:
        job = new_job(session)
    dispatch.publish_job(sessions, job.id)
    (message,) = _receive(empty_queues, Queue.STANDARD)
    sent, made = _envelope(message), _envelope({"Body": kombu_message(str(uuid4()), 1)})
    assert made.keys() == sent.keys()
    assert made["properties"].keys() <= sent["properties"].keys()
    assert made["headers"].keys() <= sent["headers"].keys()
    assert made["content-type"] == sent["content-type"]
