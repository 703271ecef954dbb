"""Alive, ready, measured."""

from __future__ import annotations

import socket
from datetime import timedelta

import factories
import pytest
from answers import BASE_URL, data_of
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from api.app import create_app
from db import marks, queue
from db.models import DeadLetterReason
from db.session import Sessions
from pipeline.settings import Settings
from pipeline.states import TaskStatus

CLOSED = "127.0.0.1:9"  # the discard port, where nothing listens


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_health_asks_nobody(own_logging: None, aws: Settings) -> None:
    nowhere = aws.model_copy(update={"database_url": SecretStr(f"postgresql://x@{CLOSED}/x")})
    with TestClient(create_app(nowhere), base_url=BASE_URL) as client:
        assert data_of(client.get("/health")) == {"status": "alive"}


@pytest.fixture(autouse=True)
def steward_at_work(sessions: Sessions) -> None:
    """One has just been heard of."""
    with sessions.begin() as session:
        marks.put(session, marks.WATCHED)


def test_ready_tells_how_long_each_dependency_took(api: TestClient) -> None:
    told = data_of(api.get("/ready"))
    assert told["ready"] is True
    assert set(told["checks"]) == {"database", "queues", "bucket", "room", "steward"}
    for check in told["checks"].values():
        assert (check["ok"], check["error"]) == (True, None)
        assert check["latency_ms"] > 0


@pytest.mark.parametrize(
    ("broken", "changes"),
    [
        ("database", {"database_url": SecretStr(f"postgresql://x@{CLOSED}/x")}),
        ("queues", {"queue_prefix": "not-there-"}),
        ("bucket", {"thumbnail_bucket": "not-there"}),
    ],
)
def test_ready_says_which_dependency_is_away(
    own_logging: None, aws: Settings, database: str, broken: str, changes: dict[str, object]
) -> None:
    with TestClient(create_app(aws.model_copy(update=changes)), base_url=BASE_URL) as client:
        told = data_of(client.get("/ready"), 503)
    assert told["ready"] is False
    assert {name for name, check in told["checks"].items() if not check["ok"]} == {broken}
    assert told["checks"][broken]["error"]


def test_ready_waits_for_nobody_for_long(own_logging: None, aws: Settings, database: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with TestClient(
            create_app(aws.model_copy(update={"aws_endpoint_url": endpoint})), base_url=BASE_URL
        ) as client:
            checks = data_of(client.get("/ready"), 503)["checks"]
    assert [checks[name]["ok"] for name in ("database", "queues", "bucket")] == [True, False, False]
    assert checks["bucket"]["error"] == "No answer within 3 s."


def test_ready_says_which_worker_has_no_room(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    with sessions.begin() as session:
        factories.add_worker(session, "fine")
        factories.add_worker(session, "full", state="no_room", reason="41 MB are free on its disk.")
        factories.add_worker(session, "gone", state="no_room", last_seen_at=now - timedelta(minutes=5))
    told = data_of(api.get("/ready"), 503)
    assert told["checks"]["room"]["error"] == "full:1: 41 MB are free on its disk."
    assert {name for name, check in told["checks"].items() if not check["ok"]} == {"room"}


@pytest.mark.parametrize(
    ("minutes", "told"), [(None, "has ever been heard of"), (5, "has been heard of for 300 s")]
)
def test_ready_says_that_no_steward_is_at_work(
    api: TestClient, sessions: Sessions, minutes: int | None, told: str
) -> None:
    with sessions.begin() as session:
        marks.remove(session, marks.WATCHED)
        if minutes is not None:
            marks.put(session, marks.WATCHED, at=factories.now() - timedelta(minutes=minutes))
    checks = data_of(api.get("/ready"), 503)["checks"]
    assert {name for name, check in checks.items() if not check["ok"]} == {"steward"}
    assert told in checks["steward"]["error"]
    silent = samples(api.get("/metrics").text).get(("dailies_steward_silent_seconds", frozenset()))
    assert (silent is None) if minutes is None else 300 <= (silent or 0) < 360


def test_metrics_count_requests_by_route(api: TestClient, sessions: Sessions) -> None:
    for number in (1, 2):
        api.get(f"/api/v1/jobs/{number}")
    api.request("BREW", "/a/path/of/its/own")
    text = api.get("/metrics").text
    route = frozenset({("method", "GET"), ("route", "/api/v1/jobs/{job_id}")})
    found = samples(text)
    assert found["dailies_http_requests_total", route | {("status", "422")}] >= 2
    assert found["dailies_http_request_duration_seconds_count", route] >= 2
    unknown = frozenset({("method", "OTHER"), ("route", "unmatched"), ("status", "404")})
    assert found["dailies_http_requests_total", unknown] >= 1
    assert "/a/path/of/its/own" not in text


def test_metrics_tell_the_queues_as_they_are(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    sent = {0: {"published_at": now - timedelta(seconds=1), "available_at": now - timedelta(seconds=90)}}
    later = {0: {"available_at": now + timedelta(hours=1)}}
    with sessions.begin() as session:
        factories.add_job(session, factories.add_item(session), rows=sent)
        factories.add_job(session, factories.add_item(session), [TaskStatus.PROCESSING])
        factories.add_job(session, factories.add_item(session), [TaskStatus.RETRYING], rows=later, priority=9)
        factories.add_job(session, factories.add_item(session), [TaskStatus.COMPLETED] * 6)
        factories.add_dead_letter(session)
        factories.add_dead_letter(session)
        factories.add_dead_letter(session, reason=DeadLetterReason.NOT_OURS, body="hello")
    response = api.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    found = samples(response.text)

    def value(name: str, **labels: str) -> float | None:
        return found.get((f"dailies_{name}", frozenset(labels.items())))

    assert value("database_up") == 1
    assert value("queue_rows", queue="standard", job_type="ingest", status="queued") == 1
    assert value("queue_rows", queue="standard", job_type="ingest", status="processing") == 1
    assert value("queue_rows", queue="standard", job_type="audit", status="pending") == 2
    assert value("queue_rows", queue="standard", job_type="ingest", status="completed") is None
    assert value("queue_published_rows", queue="standard") == 1
    assert value("queue_published_rows", queue="express") == 0
    assert 90 <= (value("queue_oldest_waiting_seconds", queue="standard") or 0) < 150
    assert value("queue_oldest_waiting_seconds", queue="express") == 0
    assert value("dead_letters", reason="permanent_error") == 2
    assert value("dead_letters", reason="not_ours") == 1


def test_metrics_tell_the_workers_the_pauses_and_the_open_letters(
    api: TestClient, sessions: Sessions
) -> None:
    now = factories.now()
    with sessions.begin() as session:
        factories.add_worker(session, "one")
        factories.add_worker(session, "full", state="no_room")
        factories.add_worker(session, "gone", last_seen_at=now - timedelta(minutes=5))
        queue.pause_lane(session, "bulk", actor="ada")
        factories.add_dead_letter(session, job_type="metadata")
        factories.add_dead_letter(
            session, job_type="metadata", resolution="purged", resolved_at=now, resolved_by="ada"
        )
        factories.add_dead_letter(session, reason=DeadLetterReason.NOT_OURS, error_code="NOT_OURS")
    found = samples(api.get("/metrics").text)

    def values(name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {labels: value for (each, labels), value in found.items() if each == f"dailies_{name}"}

    states = {dict(labels)["state"]: value for labels, value in values("workers").items()}
    assert states == {"running": 1, "no_room": 1, "lost": 1, "stopping": 0, "stopped": 0}
    assert {dict(labels)["queue"]: value for labels, value in values("queue_paused").items()} == {
        "express": 0,
        "standard": 0,
        "bulk": 1,
        "heavy": 0,
    }
    assert values("dead_letters_open") == {
        frozenset({("job_type", "metadata"), ("error_code", "BAD_INPUT")}): 1,
        frozenset({("job_type", ""), ("error_code", "NOT_OURS")}): 1,
    }


def test_metrics_survive_a_database_that_is_away(own_logging: None, aws: Settings) -> None:
    nowhere = aws.model_copy(update={"database_url": SecretStr(f"postgresql://x@{CLOSED}/x")})
    with TestClient(create_app(nowhere), base_url=BASE_URL) as client:
        client.get("/health")
        found = samples(client.get("/metrics").text)
    assert found["dailies_database_up", frozenset()] == 0
    assert any(name == "dailies_http_requests_total" for name, _ in found)
