"""Many rows at once: ten messages a call, and what becomes of those that SQS does not take."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest

from db import queue
from db.models import QueueRow
from db.session import Sessions
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.settings import Settings
from tasks import dispatch
from tasks.bundle import BUNDLE
from tasks.queues import Queues
from tests.factories import now
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Answer, Call, Fault, Refuse
from tests.support import asking_at, due, new_job

BATCH = "SQS.SendMessageBatch"


class RefuseSecond(Fault):
    """SQS takes all messages of a call but the second."""

    def before(self, call: Call) -> Answer:
        """Answer as SQS does: with success, and the one that failed in it."""
        entries = call.payload["Entries"]
        told = call.ask("SendMessageBatch", {**call.payload, "Entries": [entries[0], *entries[2:]]})
        failed = {"Id": entries[1]["Id"], "SenderFault": False, "Code": "InternalError"}
        return Answer(200, json.dumps({**told, "Failed": [failed]}).encode())


@pytest.fixture
def proxy(empty_queues: Settings) -> Iterator[AwsProxy]:
    """What this process publishes goes through it; nobody else's calls do."""
    assert empty_queues.aws_endpoint_url is not None
    with AwsProxy(empty_queues.aws_endpoint_url) as between, asking_at(between.url):
        yield between


def _rows(sessions: Sessions, count: int, **values: object) -> list[UUID]:
    found = []
    for _ in range(count):
        with sessions.begin() as session:
            row = session.get_one(QueueRow, due(session, new_job(session).id))
            for name, value in values.items():
                setattr(row, name, value)
            found.append(row.id)
    return found


def _untold(sessions: Sessions, rows: list[UUID]) -> list[UUID]:
    with sessions() as session:
        return [row_id for row_id in rows if session.get_one(QueueRow, row_id).published_at is None]


def _ids_by_task(call: Call) -> list[tuple[str, str]]:
    envelopes = [json.loads(b64decode(entry["MessageBody"])) for entry in call.payload["Entries"]]
    return [(envelope["headers"]["task"], envelope["headers"]["id"]) for envelope in envelopes]


def test_many_rows_leave_ten_a_call_in_their_order(
    sessions: Sessions, empty_queues: Settings, proxy: AwsProxy
) -> None:
    calls: list[Call] = []
    proxy.hook = lambda call, moment: calls.append(call) if moment == "before" else None
    rows = _rows(sessions, BUNDLE + 2)

    assert dispatch.publish_all(sessions, rows) == BUNDLE + 2
    assert dispatch.publish_all(sessions, rows) == 0

    sent = [_ids_by_task(call) for call in calls if call.action == BATCH]
    assert [len(each) for each in sent] == [BUNDLE, 2]
    assert [one for each in sent for one in each] == [("dailies.ingest", str(row_id)) for row_id in rows]
    queues = Queues(empty_queues)
    assert queues.waiting(Queue.STANDARD) == BUNDLE + 2
    (single,) = _rows(sessions, 1)
    assert dispatch.publish(sessions, single)  # the same channel, and at once
    assert queues.waiting(Queue.STANDARD) == BUNDLE + 3
    queues.client.close()


def test_rows_that_wait_take_their_delay_with_them(sessions: Sessions, empty_queues: Settings) -> None:
    rows = _rows(sessions, 2, available_at=now() + timedelta(minutes=10)) + _rows(sessions, 1)
    assert dispatch.publish_all(sessions, rows) == len(rows)
    queues = Queues(empty_queues)
    told = queues.client.get_queue_attributes(
        QueueUrl=queues.url(Queue.STANDARD),
        AttributeNames=["ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessages"],
    )["Attributes"]
    assert told == {"ApproximateNumberOfMessagesDelayed": "2", "ApproximateNumberOfMessages": "1"}
    queues.client.close()


def test_message_that_is_refused_takes_no_other_with_it(sessions: Sessions, proxy: AwsProxy) -> None:
    rows = _rows(sessions, 4)
    proxy.rule(RefuseSecond(), BATCH, count=1)
    assert dispatch.publish_all(sessions, rows) == len(rows) - 1
    assert _untold(sessions, rows) == [rows[1]]
    assert dispatch.publish_all(sessions, rows) == 1


def test_broker_that_takes_nothing_is_told_of_and_the_rows_wait(sessions: Sessions, proxy: AwsProxy) -> None:
    rows = _rows(sessions, BUNDLE + 3)
    refused = proxy.rule(Refuse(403, "AccessDenied"), BATCH)
    with pytest.raises(InfrastructureError, match="broker does not answer"):
        dispatch.publish_all(sessions, rows)
    assert refused.hits == 1  # nobody waits for it again with the rest
    assert _untold(sessions, rows) == rows


def test_broker_that_goes_away_in_between_leaves_the_rest_waiting(
    sessions: Sessions, proxy: AwsProxy
) -> None:
    rows = _rows(sessions, BUNDLE + 3)
    proxy.hook = lambda call, moment: (
        proxy.rules or proxy.rule(Refuse(403, "AccessDenied"), BATCH)
        if (call.action, moment) == (BATCH, "after")
        else None
    )
    assert dispatch.publish_all(sessions, rows) == BUNDLE
    assert _untold(sessions, rows) == rows[BUNDLE:]
    proxy.hook = None
    proxy.clear()
    with sessions() as session:
        assert set(queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)) == set(rows[BUNDLE:])
    assert dispatch.publish_all(sessions, rows) == 3
