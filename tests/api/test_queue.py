"""Queue rows, counted and listed."""

from __future__ import annotations

from datetime import timedelta

import factories
from answers import data_of, error_of
from fastapi.testclient import TestClient

from db.session import Sessions
from pipeline.states import TaskStatus

DONE, QUEUED, RETRYING = TaskStatus.COMPLETED, TaskStatus.QUEUED, TaskStatus.RETRYING
PROCESSING, PENDING = TaskStatus.PROCESSING, TaskStatus.PENDING


def test_rows_are_listed_newest_first_page_by_page(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = factories.add_job(session, factories.add_item(session), [DONE, PROCESSING])
    first = api.get("/api/v1/queue?limit=4")
    cursor = first.json()["metadata"]["next_cursor"]
    second = api.get("/api/v1/queue", params={"limit": 4, "cursor": cursor})
    rows = data_of(first) + data_of(second)
    assert [row["position"] for row in rows] == [5, 4, 3, 2, 1, 0]
    assert second.json()["metadata"]["next_cursor"] is None
    assert rows[4]["status"] == "processing"
    assert rows[4]["lease_expires_at"] is not None
    assert {row["job_id"] for row in rows} == {str(job.id)}


def test_rows_are_filtered(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        plain = factories.add_job(session, factories.add_item(session), [DONE, RETRYING])
        urgent = factories.add_job(session, factories.add_item(session), priority=10)

    def listed(**query: str) -> list[tuple[str, str]]:
        return [(row["job_id"], row["job_type"]) for row in data_of(api.get("/api/v1/queue", params=query))]

    assert listed(status="retrying") == [(str(plain.id), "dedupe")]
    assert listed(queue="express", jobType="ingest") == [(str(urgent.id), "ingest")]
    assert listed(job_id=str(plain.id), job_type="audit") == [(str(plain.id), "audit")]
    error_of(api.get("/api/v1/queue?queue=slow"), 422, "VALIDATION_ERROR", "queue")


def test_stats_of_an_empty_system_are_zero(api: TestClient, sessions: Sessions) -> None:
    stats = data_of(api.get("/api/v1/queue/stats"))
    assert stats["by_status"] == {status.value: 0 for status in TaskStatus}
    assert (stats["by_queue"], stats["by_job_type"], stats["oldest_waiting_seconds"]) == ({}, {}, {})
    assert (stats["living"], stats["total"]) == (0, 0)


def test_stats_count_living_rows_by_lane_and_stage_and_all_by_status(
    api: TestClient, sessions: Sessions
) -> None:
    long_ago = {"available_at": factories.now() - timedelta(hours=1)}
    later = {"available_at": factories.now() + timedelta(hours=1)}
    with sessions.begin() as session:
        factories.add_job(session, factories.add_item(session), [DONE] * 6)
        factories.add_job(
            session, factories.add_item(session), [DONE, QUEUED], rows={1: long_ago, 2: long_ago}
        )
        factories.add_job(session, factories.add_item(session), [QUEUED])
        factories.add_job(session, factories.add_item(session), [RETRYING], rows={0: later}, priority=1)
    stats = data_of(api.get("/api/v1/queue/stats"))
    expected = dict.fromkeys(TaskStatus, 0) | {DONE: 7, QUEUED: 2, RETRYING: 1, PENDING: 14}
    assert stats["by_status"] == {status.value: count for status, count in expected.items()}
    assert stats["by_queue"] == {
        "standard": {"queued": 2, "pending": 9},
        "bulk": {"retrying": 1, "pending": 5},
    }
    assert stats["by_job_type"]["ingest"] == {"queued": 1, "retrying": 1}
    assert stats["by_job_type"]["dedupe"] == {"queued": 1, "pending": 2}
    assert 3600 <= stats["oldest_waiting_seconds"]["standard"] < 3700
    assert stats["oldest_waiting_seconds"]["bulk"] is None
    assert (stats["living"], stats["total"]) == (17, 24)
