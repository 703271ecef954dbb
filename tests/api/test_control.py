"""Cancelling, retrying and moving jobs; who did it and why is in the audit log."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import factories
import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient
from sqlalchemy import select

from db import queue
from db.models import AuditEntry, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import PermanentStageError
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from pipeline.workflows import StageName
from tests.support import (
    COST,
    POLICY,
    advance,
    broken_promises,
    claimed,
    complete,
    due,
    new_job,
    row_of,
    snapshot,
    statuses,
)

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

T = TaskStatus
BAD = PermanentStageError("The picture is truncated.", code="TRUNCATED_IMAGE")


def failed(sessions: Sessions, stage: StageName = StageName.METADATA, **values: Any) -> UUID:
    """A job that failed at ``stage``, of a new item unless told."""
    item = values.pop("item", None)
    with sessions.begin() as session:
        item = item or factories.add_item(session, **({"key": values.pop("key")} if "key" in values else {}))
        job = new_job(session, item, **values)
        advance(session, job.id, to=stage)
        queue.fail(session, claimed(session, due(session, job.id)), BAD, POLICY, cost=COST)
        return job.id


def entries(sessions: Sessions, action: str) -> list[tuple[UUID, str, str | None]]:
    """Entity, actor and reason of each audit entry of an action."""
    with sessions() as session:
        found = session.scalars(
            select(AuditEntry).where(AuditEntry.action == action).order_by(AuditEntry.created_at)
        )
        return [(entry.entity_id, entry.actor, entry.details.get("reason")) for entry in found]


def visible(sqs: SQSClient, settings: Settings, name: str) -> int:
    url = sqs.get_queue_url(QueueName=f"{settings.queue_prefix}{name}")["QueueUrl"]
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(told["Attributes"]["ApproximateNumberOfMessages"])


def test_cancelled_job_says_who_and_why(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        advance(session, job.id, to=StageName.METADATA)
        running = claimed(session, due(session, job.id))
    body = {"actor": "ada", "reason": "the wrong cut"}
    told = data_of(api.post(f"/api/v1/jobs/{job.id}/cancel", json=body))
    assert told["status"] == "cancelled"
    assert [row["status"] for row in told["rows"]] == ["completed"] * 2 + ["cancelled"] * 4
    assert entries(sessions, "job_cancelled") == [(job.id, "ada", "the wrong cut")]
    with sessions.begin() as session:
        assert complete(session, running) == queue.Fenced()
    again = data_of(api.post(f"/api/v1/jobs/{job.id}/cancel"))
    assert again["status"] == "cancelled"
    assert len(entries(sessions, "job_cancelled")) == 1


def test_actor_is_taken_from_the_header_and_is_operator_without(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        jobs = [new_job(session).id for _ in range(3)]
    api.post(f"/api/v1/jobs/{jobs[0]}/cancel", headers={"X-Actor": "grace"})
    api.post(f"/api/v1/jobs/{jobs[1]}/cancel", headers={"X-Actor": "grace"}, json={"actor": "ada"})
    api.post(f"/api/v1/jobs/{jobs[2]}/cancel")
    assert [actor for _, actor, _ in entries(sessions, "job_cancelled")] == ["grace", "ada", "operator"]


def test_job_that_has_ended_is_not_cancelled(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions)
    error_of(api.post(f"/api/v1/jobs/{job_id}/cancel"), 409, "JOB_ENDED")


@pytest.mark.parametrize("what", ["cancel", "retry", "priority"])
def test_job_that_is_unknown_is_not_found(api: TestClient, what: str) -> None:
    body = {"priority": 9} if what == "priority" else None
    missing = uuid4()
    response = api.post(f"/api/v1/jobs/{missing}/{what}", json=body)
    assert str(missing) in error_of(response, 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("cancel", {"reson": "a typing error"}, "reson"),
        ("cancel", {"actor": ""}, "actor"),
        ("cancel", {"reason": "\0"}, "reason"),
        ("retry", {"stage": "bake"}, "stage"),
        ("priority", {}, "priority"),
        ("priority", {"priority": 11}, "priority"),
    ],
)
def test_order_that_makes_no_sense_names_the_field(
    api: TestClient, what: str, body: dict[str, Any], field: str
) -> None:
    error_of(api.post(f"/api/v1/jobs/{uuid4()}/{what}", json=body), 422, "VALIDATION_ERROR", field)


def test_retried_job_is_published_from_the_stage_that_failed(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    job_id = failed(sessions)
    told = data_of(api.post(f"/api/v1/jobs/{job_id}/retry", json={"actor": "ada", "reason": "new codec"}))
    # The item lost its hash with the failure, so dedupe looks for an original again.
    assert [row["status"] for row in told["rows"]] == ["completed", "queued", *["pending"] * 4]
    assert told["rows"][1]["published_at"] is not None
    assert visible(sqs, empty_queues, "standard") == 1
    assert entries(sessions, "job_retried") == [(job_id, "ada", "new codec")]


def test_retry_from_a_stage_and_of_what_cannot_be_retried(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions)
    told = data_of(api.post(f"/api/v1/jobs/{job_id}/retry", json={"stage": "ingest"}))
    assert told["rows"][0]["status"] == "queued"
    error_of(api.post(f"/api/v1/jobs/{job_id}/retry"), 409, "JOB_ACTIVE")
    with sessions.begin() as session:
        pictures = new_job(session, workflow="thumbnails")
        advance(session, pictures.id)
        deleted = factories.add_item(session, deleted_at=factories.now(), holds_hash=False)
        gone = factories.add_job(session, deleted, [T.CANCELLED] * 6)
    response = api.post(f"/api/v1/jobs/{pictures.id}/retry", json={"stage": "dedupe"})
    error_of(response, 422, "VALIDATION_ERROR", "stage")
    why = error_of(api.post(f"/api/v1/jobs/{gone.id}/retry"), 409, "ITEM_DELETED")
    assert "upload it again" in why
    with sessions.begin() as session:
        factories.add_item(session, key=deleted.key, version_id="2")
    why = error_of(api.post(f"/api/v1/jobs/{gone.id}/retry"), 409, "ITEM_DELETED")
    assert "replaced by a newer upload" in why


def test_retry_beside_a_newer_job_at_work_is_a_conflict(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions)
    with sessions.begin() as session:
        item = session.get_one(ProcessingJob, job_id).media_item
        other = new_job(session, item)
    assert str(other.id) in error_of(api.post(f"/api/v1/jobs/{job_id}/retry"), 409, "ITEM_BUSY")


def test_priority_moves_what_waits_to_its_lane(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    with sessions.begin() as session:
        item_id = factories.add_item(session).id
    job = data_of(api.post("/api/v1/jobs", json={"media_item_id": str(item_id), "priority": 2}), 201)
    assert visible(sqs, empty_queues, "bulk") == 1
    body = {"priority": 9, "actor": "ada", "reason": "on air at eight"}
    told = data_of(api.post(f"/api/v1/jobs/{job['id']}/priority", json=body))
    assert told["priority"] == 9
    assert {row["queue"] for row in told["rows"]} == {"express"}
    assert visible(sqs, empty_queues, "express") == 1
    (entry,) = entries(sessions, "job_priority_changed")
    assert entry == (UUID(job["id"]), "ada", "on air at eight")
    # The copy in the old lane, and the message in the new one: the first claims, the second finds it leased.
    with sessions.begin() as session:
        row_id = UUID(job["rows"][0]["id"])
        assert isinstance(queue.claim(session, row_id, worker="w", lease=timedelta(minutes=1)), queue.Claimed)
        assert isinstance(queue.claim(session, row_id, worker="w", lease=timedelta(minutes=1)), queue.Leased)
    # Again, and within the lane: nothing is sent.
    api.post(f"/api/v1/jobs/{job['id']}/priority", json=body)
    assert len(entries(sessions, "job_priority_changed")) == 1
    assert visible(sqs, empty_queues, "express") == 1


def test_priority_leaves_a_running_stage_in_its_lane(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session, priority=2)
        advance(session, job.id, to=StageName.DEDUPE)
        claim = claimed(session, due(session, job.id))
    data_of(api.post(f"/api/v1/jobs/{job.id}/priority", json={"priority": 8}))
    with sessions.begin() as session:
        assert row_of(session, job.id, StageName.DEDUPE).queue == "bulk"
        assert row_of(session, job.id, StageName.METADATA).queue == "express"
        assert isinstance(complete(session, claim), queue.Settled)
        advance(session, job.id)
        assert set(statuses(session, job.id)) == {T.COMPLETED}
        assert broken_promises(session, [job.id]) == []


def test_priority_within_a_lane_sends_no_second_message(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    with sessions.begin() as session:
        item_id = factories.add_item(session).id
    job = data_of(api.post("/api/v1/jobs", json={"media_item_id": str(item_id)}), 201)
    told = data_of(api.post(f"/api/v1/jobs/{job['id']}/priority", json={"priority": 6}))
    assert (told["priority"], told["rows"][0]["published_at"]) == (6, job["rows"][0]["published_at"])
    assert visible(sqs, empty_queues, "standard") == 1


def test_row_in_a_queue_of_its_stage_is_not_moved(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = factories.add_job(session, factories.add_item(session), rows={3: {"queue": "heavy"}})
    told = data_of(api.post(f"/api/v1/jobs/{job.id}/priority", json={"priority": 1}))
    assert [row["queue"] for row in told["rows"]] == ["bulk"] * 3 + ["heavy"] + ["bulk"] * 2


def test_priority_of_a_job_that_has_ended_is_a_conflict(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions)
    with sessions() as session:
        before = snapshot(session)
    error_of(api.post(f"/api/v1/jobs/{job_id}/priority", json={"priority": 9}), 409, "JOB_ENDED")
    with sessions() as session:
        assert snapshot(session) == before
        assert session.scalar(select(QueueRow.id).where(QueueRow.queue == "express")) is None
