"""Starting, listing and showing jobs."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import factories
import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient

from db import queue
from db.session import Sessions
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from pipeline.workflows import WorkflowType

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

DONE, QUEUED, RETRYING = TaskStatus.COMPLETED, TaskStatus.QUEUED, TaskStatus.RETRYING


@pytest.fixture
def item_id(sessions: Sessions) -> UUID:
    """A media item without a job."""
    with sessions.begin() as session:
        return factories.add_item(session, key="uploads/lake.jpg").id


def test_new_job_is_stored_and_its_first_row_published(
    api: TestClient, item_id: UUID, empty_queues: Settings, sqs: SQSClient
) -> None:
    response = api.post("/api/v1/jobs", json={"media_item_id": str(item_id)})
    job = data_of(response, 201)
    assert response.headers["Location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["workflow_type"], job["priority"], job["status"]) == ("ingest", 5, "queued")
    assert (job["media_item_id"], job["key"], job["requested_by"]) == (
        str(item_id),
        "uploads/lake.jpg",
        "api",
    )
    rows = [(row["job_type"], row["status"]) for row in job["rows"]]
    stages = ["dedupe", "metadata", "thumbnails", "index", "audit"]
    assert rows == [("ingest", "queued"), *((stage, "pending") for stage in stages)]
    url = sqs.get_queue_url(QueueName=f"{empty_queues.queue_prefix}standard")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert json.loads(base64.b64decode(message["Body"]))["headers"]["id"] == job["rows"][0]["id"]
    assert job["rows"][0]["waiting_because"]["code"] == "IN_QUEUE"


def test_new_job_takes_everything_that_may_be_said_in_camel_case(api: TestClient, item_id: UUID) -> None:
    body = {
        "mediaItemId": str(item_id),
        "workflowType": "thumbnails",
        "priority": 9,
        "config": {"quality": 70},
    }
    job = data_of(api.post("/api/v1/jobs", json=body), 201)
    assert (job["workflow_type"], job["priority"], job["config"]) == ("thumbnails", 9, {"quality": 70})
    assert {row["queue"] for row in job["rows"]} == {"express"}


def test_second_active_job_is_a_conflict_that_names_the_first(api: TestClient, item_id: UUID) -> None:
    first = data_of(api.post("/api/v1/jobs", json={"media_item_id": str(item_id)}), 201)
    again = api.post("/api/v1/jobs", json={"media_item_id": str(item_id)})
    assert first["id"] in error_of(again, 409, "CONFLICT")
    other = {"media_item_id": str(item_id), "workflow_type": "reindex"}
    assert data_of(api.post("/api/v1/jobs", json=other), 201)["id"] != first["id"]


def test_new_job_for_an_unknown_or_deleted_item_is_not_found(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        gone = factories.add_item(session, deleted_at=factories.now(), holds_hash=False)
    for item_id in (uuid4(), gone.id):
        response = api.post("/api/v1/jobs", json={"media_item_id": str(item_id)})
        assert str(item_id) in error_of(response, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"priority": 0}, "priority"),
        ({"priority": 11}, "priority"),
        ({"workflow_type": "bake"}, "workflow_type"),
        ({"media_item_id": "lake"}, "media_item_id"),
        ({"config": []}, "config"),
        ({"config": {"qualty": 70}}, "config.qualty"),
        ({"config": {"quality": 500}}, "config.quality"),
        ({"config": {"quality": "70"}}, "config.quality"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_new_job_that_makes_no_sense_names_the_field(
    api: TestClient, item_id: UUID, wrong: dict[str, Any], field: str
) -> None:
    body = json.dumps({"media_item_id": str(item_id)} | wrong)  # keeps "\ud800" as an escape
    response = api.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    error_of(response, 422, "VALIDATION_ERROR", field)


def test_new_job_without_an_item_names_the_field(api: TestClient) -> None:
    error_of(api.post("/api/v1/jobs", json={}), 422, "VALIDATION_ERROR", "media_item_id")


def test_job_shows_rows_tries_and_warnings(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
        job = factories.add_job(session, item, [DONE] * 6, warnings=["no EXIF"])
    told = data_of(api.get(f"/api/v1/jobs/{job.id}"))
    assert (told["status"], told["warnings"]) == ("completed", ["no EXIF"])
    assert [row["position"] for row in told["rows"]] == list(range(6))
    (attempt,) = told["rows"][0]["tries"]
    assert (attempt["outcome"], attempt["duration_ms"], attempt["worker"]) == ("completed", 42, "worker@test")
    assert attempt["token"] == told["rows"][0]["token"]
    assert [row["waiting_because"] for row in told["rows"]] == [None] * 6


def test_row_that_waits_says_why(api: TestClient, sessions: Sessions) -> None:
    later = factories.now() + timedelta(minutes=7)
    with sessions.begin() as session:
        item = factories.add_item(session)
        job = factories.add_job(session, item, [DONE, RETRYING], rows={1: {"available_at": later}})
    rows = data_of(api.get(f"/api/v1/jobs/{job.id}"))["rows"]
    assert rows[1]["waiting_because"]["code"] == "NOT_DUE"
    assert "STAGE_FAILED (The disk was slow.)" in rows[1]["waiting_because"]["message"]
    assert rows[1]["waiting_because"]["until"] == rows[1]["available_at"]
    assert rows[5]["waiting_because"]["code"] == "PREDECESSOR"
    assert "dedupe" in rows[5]["waiting_because"]["message"]


def test_row_in_a_paused_lane_says_who_paused_it(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = factories.add_job(session, factories.add_item(session))
        queue.pause_lane(session, "standard", actor="ann", reason="disk swap")
    because = data_of(api.get(f"/api/v1/jobs/{job.id}"))["rows"][0]["waiting_because"]
    assert because["code"] == "LANE_PAUSED"
    assert "ann (disk swap)" in because["message"]


def test_unknown_job_is_not_found(api: TestClient) -> None:
    missing = uuid4()
    assert str(missing) in error_of(api.get(f"/api/v1/jobs/{missing}"), 404, "NOT_FOUND")


def test_jobs_are_listed_newest_first_page_by_page(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        made = [str(factories.add_job(session, factories.add_item(session)).id) for _ in range(5)]
    seen, pages, cursor = [], 0, None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        response = api.get("/api/v1/jobs", params=query)
        seen += [job["id"] for job in data_of(response)]
        pages += 1
        assert response.json()["metadata"]["limit"] == 2
        cursor = response.json()["metadata"]["next_cursor"]
        if cursor is None:
            break
    assert (seen, pages) == (made[::-1], 3)


def test_page_that_is_just_full_is_the_last(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        for _ in range(2):
            factories.add_job(session, factories.add_item(session))
    assert api.get("/api/v1/jobs?limit=2").json()["metadata"]["next_cursor"] is None


def test_jobs_of_an_empty_system_are_an_empty_list(api: TestClient, sessions: Sessions) -> None:
    response = api.get("/api/v1/jobs")
    assert data_of(response) == []
    assert response.json()["metadata"]["next_cursor"] is None


def test_jobs_are_filtered(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        item = factories.add_item(session)
        done = factories.add_job(session, item, [DONE] * 6)
        active = factories.add_job(session, item)
        pictures = factories.add_job(session, item, workflow=WorkflowType.THUMBNAILS)
        other = factories.add_job(session, factories.add_item(session))

    def listed(**query: str) -> set[str]:
        return {job["id"] for job in data_of(api.get("/api/v1/jobs", params=query))}

    assert listed(status="completed") == {str(done.id)}
    assert listed(workflow_type="thumbnails") == {str(pictures.id)}
    assert listed(mediaItemId=str(item.id), status="queued") == {str(active.id), str(pictures.id)}
    assert listed(media_item_id=str(other.media_item_id)) == {str(other.id)}


@pytest.mark.parametrize("limit", ["0", "201", "-1", "many", ""])
def test_limit_out_of_range_names_the_field(api: TestClient, limit: str) -> None:
    error_of(api.get("/api/v1/jobs", params={"limit": limit}), 422, "VALIDATION_ERROR", "limit")


def test_cursor_that_was_changed_or_of_another_list_is_refused(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        factories.add_job(session, factories.add_item(session))
        factories.add_job(session, factories.add_item(session))
    cursor = api.get("/api/v1/jobs?limit=1").json()["metadata"]["next_cursor"]
    changed = ("B" if cursor[0] != "B" else "C") + cursor[1:]
    for wrong in (
        changed,
        cursor[:-1],
        cursor + "A",
        "é",
        "'; DROP TABLE processing_jobs",
        "%00",
        "",
        "\x00",
    ):
        response = api.get("/api/v1/jobs", params={"cursor": wrong})
        assert "next_cursor" in error_of(response, 422, "VALIDATION_ERROR", "cursor")
    error_of(api.get("/api/v1/queue", params={"cursor": cursor}), 422, "VALIDATION_ERROR", "cursor")
