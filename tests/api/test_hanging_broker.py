"""While SQS hangs: what is asked for is stored and answered soon, and the steward sends it later."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import factories
import pytest
from answers import BASE_URL, data_of, error_of
from fastapi.testclient import TestClient
from test_control import failed
from test_dlq import foreign, redrive, refusals

from api.app import create_app
from api.asking import LIMIT_S
from api.dependencies import PUBLISHING
from db.session import Sessions
from pipeline.settings import Settings, get_settings
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Hang
from tests.support import asking_at, new_job, wait_until

#: What a request does besides waiting for SQS, on a machine that is busy.
REST_S = 3.0


@pytest.fixture
def proxy(own_logging: None, aws: Settings) -> Iterator[AwsProxy]:
    """This process asks SQS through it, and gets no answer."""
    assert aws.aws_endpoint_url is not None
    with AwsProxy(aws.aws_endpoint_url) as between, asking_at(between.url):
        between.rule(Hang(), "SQS.*")
        yield between


@pytest.fixture
def api(proxy: AwsProxy, sessions: Sessions) -> Iterator[TestClient]:
    """The API of that process."""
    with TestClient(create_app(get_settings()), base_url=BASE_URL) as client:
        yield client


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What the block does takes no longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def first_waits_because(job: dict[str, Any]) -> str:
    """The code of why its first row that is not final waits."""
    code: str = next(row for row in job["rows"] if row["waiting_because"])["waiting_because"]["code"]
    return code


def item(sessions: Sessions) -> dict[str, str]:
    """The order of a job for a new media item."""
    with sessions.begin() as session:
        return {"media_item_id": str(factories.add_item(session).id)}


def test_new_retried_and_moved_jobs_are_answered_as_without_a_broker(
    api: TestClient, sessions: Sessions
) -> None:
    order, job_id = item(sessions), failed(sessions)
    with within(LIMIT_S + REST_S):
        job = data_of(api.post("/api/v1/jobs", json=order), 201)
    assert first_waits_because(job) == "NOT_PUBLISHED"
    with within(LIMIT_S + REST_S):
        assert first_waits_because(data_of(api.post(f"/api/v1/jobs/{job_id}/retry"))) == "NOT_PUBLISHED"
    with within(LIMIT_S + REST_S):
        moved = data_of(api.post(f"/api/v1/jobs/{job_id}/priority", json={"priority": 9}))
    assert (moved["priority"], first_waits_because(moved)) == (9, "NOT_PUBLISHED")


def test_resumed_lane_and_many_jobs_are_answered_before_they_are_sent(
    api: TestClient, sessions: Sessions
) -> None:
    made = [failed(sessions) for _ in range(2)]
    data_of(api.post("/api/v1/queues/bulk/pause"))
    with sessions.begin() as session:
        new_job(session, priority=1)
    with within(LIMIT_S + REST_S):
        resumed = data_of(api.post("/api/v1/queues/bulk/resume"))
    assert (resumed["changed"], resumed["published"]) == (True, 0)
    with within(LIMIT_S + REST_S):
        retried = api.post("/api/v1/jobs/retry", json={"status": "failed"}).json()["data"]
    assert [UUID(each["job_id"]) for each in retried] == made
    assert [each["refused"] for each in retried] == [None, None]


def test_event_that_sqs_does_not_take_stays_open(api: TestClient, sessions: Sessions) -> None:
    letter_id = foreign(sessions, "events", json.dumps({"Records": []}))
    with within(LIMIT_S + REST_S):
        (told,) = api.post("/api/v1/dlq/redrive", json={"ids": [letter_id]}).json()["data"]
    assert told["refused"]["code"] == "QUEUE_UNAVAILABLE"
    assert data_of(api.get(f"/api/v1/dlq/{letter_id}"))["state"] == "open"


def test_next_call_begins_with_what_could_not_be_decided(
    api: TestClient, proxy: AwsProxy, sessions: Sessions
) -> None:
    since = factories.now().isoformat()
    first = failed(sessions)
    event = foreign(sessions, "events", json.dumps({"Records": []}))
    last = failed(sessions)

    def jobs(answer: dict[str, Any]) -> list[str | None]:
        return [each["job_id"] for each in answer["data"]]

    stopped = redrive(api, since=since)
    assert (jobs(stopped), refusals(stopped)) == ([str(first), None], [None, "QUEUE_UNAVAILABLE"])
    assert (stopped["metadata"]["done"], stopped["metadata"]["remaining"]) == (1, 2)
    cursor = stopped["metadata"]["next_cursor"]
    again = redrive(api, since=since, cursor=cursor)  # nothing can be decided: the same cursor is told
    assert (refusals(again), again["metadata"]["next_cursor"]) == (["QUEUE_UNAVAILABLE"], cursor)
    proxy.clear()
    rest = redrive(api, since=since, cursor=cursor)
    assert rest["data"][0]["dead_letter_id"] == event
    assert jobs(rest) == [None, str(last)]
    assert (refusals(rest), rest["metadata"]["next_cursor"]) == ([None, None], None)


def test_request_does_not_wait_for_what_many_wait_for_already(api: TestClient, sessions: Sessions) -> None:
    orders = [item(sessions) for _ in range(PUBLISHING + 1)]
    with ThreadPoolExecutor(PUBLISHING) as many:
        for answer in many.map(lambda order: api.post("/api/v1/jobs", json=order), orders[:-1]):
            assert first_waits_because(data_of(answer, 201)) == "NOT_PUBLISHED"
    with within(LIMIT_S):
        job = data_of(api.post("/api/v1/jobs", json=orders[-1]), 201)
    assert first_waits_because(job) == "NOT_PUBLISHED"


def test_message_is_sent_at_once_when_sqs_answers_again(
    api: TestClient, proxy: AwsProxy, sessions: Sessions
) -> None:
    data_of(api.post("/api/v1/jobs", json=item(sessions)), 201)
    proxy.clear()
    job = data_of(api.post("/api/v1/jobs", json=item(sessions)), 201)
    assert first_waits_because(job) == "IN_QUEUE"


def test_one_reconciliation_goes_on_at_a_time(api: TestClient, proxy: AwsProxy) -> None:
    (hang,) = proxy.rules
    with ThreadPoolExecutor(1) as other:
        first = other.submit(api.get, "/api/v1/reconcile")
        wait_until(lambda: hang.hits > 0)
        for again in (api.get, api.post):
            with within(REST_S):
                error_of(again("/api/v1/reconcile"), 409, "RECONCILE_RUNNING")
        proxy.clear()
        proxy.cut()
        assert data_of(first.result(60))["cut"] == []
    data_of(api.get("/api/v1/reconcile"))
