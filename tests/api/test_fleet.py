"""Queues, pauses and workers."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import TYPE_CHECKING

import factories
from answers import BASE_URL, data_of, error_of
from fastapi.testclient import TestClient
from test_control import entries, visible

from api.app import create_app
from db import queue
from db.queue.lanes import lane_id
from db.session import Sessions
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from tests.support import claimed, due, new_job

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

PROCESSING, RETRYING = TaskStatus.PROCESSING, TaskStatus.RETRYING


def test_queues_tell_messages_rows_and_workers(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    now = factories.now()
    later = {0: {"available_at": now + timedelta(hours=1)}}
    waits = {0: {"available_at": now - timedelta(seconds=90)}}
    with sessions.begin() as session:
        factories.add_job(session, factories.add_item(session), rows=waits, priority=2)
        factories.add_job(session, factories.add_item(session), [PROCESSING], priority=2)
        factories.add_job(session, factories.add_item(session), [RETRYING], rows=later, priority=2)
        factories.add_worker(session, "one")
        factories.add_worker(session, "heavy", lanes=["heavy"])
        factories.add_worker(session, "gone", last_seen_at=now - timedelta(minutes=5))
    url = sqs.get_queue_url(QueueName=f"{empty_queues.queue_prefix}bulk")["QueueUrl"]
    for delay in (0, 0, 600):
        sqs.send_message(QueueUrl=url, MessageBody="hello", DelaySeconds=delay)
    assert sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    told = data_of(api.get("/api/v1/queues"))
    assert [each["name"] for each in told] == [
        "express", "standard", "bulk", "heavy", "events", "dead-letter", "events-dead-letter",
    ]  # fmt: skip
    bulk = told[2]
    assert (bulk["visible"], bulk["in_flight"], bulk["delayed"], bulk["error"]) == (1, 1, 1, None)
    assert (bulk["due"], bulk["waiting"], bulk["processing"], bulk["retrying"]) == (1, 1, 1, 1)
    assert bulk["pending"] == 15
    assert 90 <= bulk["oldest_due_seconds"] < 150
    assert bulk["workers"] == ["one:1"]
    assert told[3]["workers"] == ["heavy:1"]
    assert (told[0]["due"], told[0]["oldest_due_seconds"], told[0]["paused"]) == (0, None, None)
    assert (told[4]["visible"], told[4]["due"]) == (0, None)


def test_queues_tell_the_rows_while_sqs_is_away(own_logging: None, aws: Settings, sessions: Sessions) -> None:
    with sessions.begin() as session:
        new_job(session)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = aws.model_copy(update={"aws_endpoint_url": endpoint})
        with TestClient(create_app(settings), base_url=BASE_URL) as client:
            standard = data_of(client.get("/api/v1/queues"))[1]
    assert (standard["due"], standard["visible"]) == (1, None)
    assert standard["error"] == "SQS has not answered within 3 s."


def test_paused_lane_says_who_and_why_until_it_is_resumed(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    body = {"actor": "ada", "reason": "disk swap"}
    assert data_of(api.post("/api/v1/queues/bulk/pause", json=body))["changed"] is True
    assert data_of(api.post("/api/v1/queues/bulk/pause", json={"actor": "bob"}))["changed"] is False
    with sessions.begin() as session:
        jobs = [new_job(session, priority=1) for _ in range(3)]
        answer = queue.claim(session, due(session, jobs[0].id), worker="w", lease=timedelta(minutes=1))
        assert isinstance(answer, queue.Paused)
    paused = data_of(api.get("/api/v1/queues"))[2]["paused"]
    assert (paused["by"], paused["reason"]) == ("ada", "disk swap")
    assert paused["since"] is not None

    resumed = data_of(api.post("/api/v1/queues/bulk/resume", headers={"X-Actor": "grace"}))

    assert (resumed["changed"], resumed["paused"], resumed["published"]) == (True, False, 3)
    assert visible(sqs, empty_queues, "bulk") == 3
    assert data_of(api.get("/api/v1/queues"))[2]["paused"] is None
    assert data_of(api.post("/api/v1/queues/bulk/resume"))["changed"] is False
    assert entries(sessions, "queue_paused") == [(lane_id("bulk"), "ada", "disk swap")]
    assert entries(sessions, "queue_resumed") == [(lane_id("bulk"), "grace", None)]


def test_what_is_no_lane_cannot_be_paused(api: TestClient, sessions: Sessions) -> None:
    for name in ("events", "dead-letter", "nothing"):
        for what in ("pause", "resume"):
            message = error_of(api.post(f"/api/v1/queues/{name}/{what}"), 404, "NOT_FOUND")
            assert "express, standard, bulk, heavy" in message


def test_workers_tell_their_state_and_what_they_hold(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    with sessions.begin() as session:
        factories.add_worker(session, "one")
        factories.add_worker(session, "full", state="no_room", reason="41 MB are free on its disk.")
        factories.add_worker(session, "gone", last_seen_at=now - timedelta(seconds=91))
        factories.add_worker(session, "ended", state="stopped", last_seen_at=now - timedelta(hours=1))
        job = new_job(session)
        claimed(session, due(session, job.id), worker="one:1/4711")
        other = new_job(session)
        claimed(session, due(session, other.id), worker="one:12/4711")  # whose id begins alike
    told = {each["host"]: each for each in data_of(api.get("/api/v1/workers"))}
    states = {host: each["state"] for host, each in told.items()}
    assert states == {"one": "running", "full": "no_room", "gone": "lost", "ended": "stopped"}
    assert told["full"]["reason"] == "41 MB are free on its disk."
    assert 91 <= told["gone"]["silent_seconds"] < 150
    one = told["one"]
    assert (one["id"], one["name"], one["pid"], one["concurrency"]) == ("one:1", "worker@one", 1, 2)
    assert (one["lanes"], one["version"]) == (["express", "standard", "bulk"], "0.1.0")
    assert [(row["job_id"], row["job_type"]) for row in one["rows"]] == [(str(job.id), "ingest")]
    assert told["full"]["rows"] == []
    (lost,) = data_of(api.get("/api/v1/workers?state=lost"))
    assert lost["host"] == "gone"
    error_of(api.get("/api/v1/workers?state=asleep"), 422, "VALIDATION_ERROR", "state")
