"""Retrying many jobs by what they have in common."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import factories
import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient
from test_control import entries, failed

from db import queue
from db.models import MediaItem, ProcessingJob
from db.session import Sessions
from pipeline.workflows import StageName
from tests.support import new_job, snapshot


def retry(api: TestClient, **body: Any) -> dict[str, Any]:
    response = api.post("/api/v1/jobs/retry", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def ids(answer: dict[str, Any]) -> list[UUID]:
    return [UUID(each["job_id"]) for each in answer["data"]]


def test_dry_run_says_what_would_happen_and_changes_nothing(api: TestClient, sessions: Sessions) -> None:
    made = [failed(sessions) for _ in range(2)]
    with sessions() as session:
        before = snapshot(session)
    answer = retry(api, status="failed", dryRun=True)
    assert [(each["from_stage"], each["refused"]) for each in answer["data"]] == [("dedupe", None)] * 2
    assert ids(answer) == made
    assert [each["key"] for each in answer["data"]] == [
        data_of(api.get(f"/api/v1/jobs/{job_id}"))["key"] for job_id in made
    ]
    counts = {"dry_run": True, "done": 2, "refused": 0, "remaining": 0, "remaining_more": False}
    assert {name: answer["metadata"][name] for name in counts} == counts
    with sessions() as session:
        assert snapshot(session) == before


def test_jobs_are_retried_page_by_page(api: TestClient, sessions: Sessions) -> None:
    made = [failed(sessions) for _ in range(5)]
    seen, left, cursor = [], [], None
    while True:
        answer = retry(api, error_code="TRUNCATED_IMAGE", limit=2, cursor=cursor, actor="ada", reason="fixed")
        seen += ids(answer)
        left.append(answer["metadata"]["remaining"])
        cursor = answer["metadata"]["next_cursor"]
        if cursor is None:
            break
    assert (seen, left) == (made, [3, 1, 0])
    assert entries(sessions, "job_retried") == [(job_id, "ada", "fixed") for job_id in made]
    assert data_of(api.get("/api/v1/jobs?status=failed")) == []


def test_jobs_are_found_by_what_they_have_in_common(api: TestClient, sessions: Sessions) -> None:
    early = failed(sessions, StageName.INGEST, key="uploads/day 1/a.jpg")
    late = failed(sessions, StageName.METADATA, key="uploads/day_1/b.jpg")
    pictures = failed(sessions, StageName.THUMBNAILS, key="uploads/day 2/c.jpg", workflow="thumbnails")
    with sessions.begin() as session:
        cancelled = new_job(session)
        queue.cancel_job(session, cancelled.id, actor="ada", reason="a test")
        session.get_one(ProcessingJob, early).created_at = factories.now() - timedelta(days=2)
    yesterday = (factories.now() - timedelta(days=1)).isoformat()

    def found(**by: Any) -> set[UUID]:
        return set(ids(retry(api, dry_run=True, **by)))

    assert found(status="failed") == {early, late, pictures}
    assert found(status="cancelled") == {cancelled.id}
    assert found(stage="metadata") == {late}
    assert found(stage="ingest") == {early}
    assert found(stage="ingest", status="cancelled") == {cancelled.id}
    assert found(stage="index", status="cancelled") == set()
    assert found(key_prefix="uploads/day_1/") == {late}
    assert found(workflow_type="thumbnails") == {pictures}
    assert found(created_since=yesterday) == {late, pictures}
    assert found(created_until=yesterday) == {early}
    assert found(error_code="OTHER") == set()


def test_only_the_newest_job_of_an_item_that_is_there_counts(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
    failed(sessions, item=item)
    newest = failed(sessions, item=item)
    with sessions.begin() as session:
        deleted = factories.add_item(session)
    failed(sessions, item=deleted)
    with sessions.begin() as session:
        session.get_one(MediaItem, deleted.id).deleted_at = factories.now()
    assert ids(retry(api, status="failed")) == [newest]


def test_job_that_cannot_be_retried_is_told_and_stops_no_other(api: TestClient, sessions: Sessions) -> None:
    failed(sessions, StageName.THUMBNAILS, workflow="thumbnails")
    other = failed(sessions)
    answer = retry(api, status="failed", from_stage="ingest")
    assert [each["refused"] and each["refused"]["code"] for each in answer["data"]] == [
        "VALIDATION_ERROR",
        None,
    ]
    assert (answer["metadata"]["done"], answer["metadata"]["refused"]) == (1, 1)
    assert data_of(api.get(f"/api/v1/jobs/{other}"))["status"] == "queued"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "status"),
        ({"dry_run": True}, "status"),
        ({"status": "completed"}, "status"),
        ({"status": "failed", "limit": 501}, "limit"),
        ({"created_since": "yesterday"}, "created_since"),
        ({"key_prefix": ""}, "key_prefix"),
        ({"status": "failed", "cursor": "nonsense"}, "cursor"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_filter_that_makes_no_sense_names_the_field(
    api: TestClient, sessions: Sessions, body: dict[str, Any], field: str
) -> None:
    error_of(api.post("/api/v1/jobs/retry", json=body), 422, "VALIDATION_ERROR", field)


def test_jobs_are_listed_by_error_and_by_key(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions, key="uploads/50%/a.jpg")
    failed(sessions, key="uploads/50/b.jpg", workflow="ingest")
    with sessions.begin() as session:
        new_job(session, factories.add_item(session, key="uploads/50%/c.jpg"))
    listed = data_of(
        api.get("/api/v1/jobs", params={"key_prefix": "uploads/50%/", "errorCode": "TRUNCATED_IMAGE"})
    )
    assert [job["id"] for job in listed] == [str(job_id)]
    assert data_of(api.get("/api/v1/jobs?error_code=OTHER")) == []
