"""Dead letters: listed, grouped, redriven, purged."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import factories
import pytest
from answers import data_of, error_of
from fastapi.testclient import TestClient
from sqlalchemy import select
from test_control import entries, failed, visible

from db import queue
from db.models import DeadLetter, DeadLetterReason, MediaItem, ProcessingJob
from db.session import Sessions
from pipeline.errors import NotOursError
from pipeline.settings import Settings
from pipeline.workflows import StageName
from tests.support import claimed, complete, due, new_job, snapshot

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient


def letter_of(sessions: Sessions, job_id: UUID) -> str:
    with sessions() as session:
        query = select(DeadLetter.id).where(DeadLetter.job_id == job_id).order_by(DeadLetter.id.desc())
        return str(session.scalars(query.limit(1)).one())


def foreign(sessions: Sessions, source: str, body: str = "hello") -> str:
    with sessions.begin() as session:
        error = NotOursError("The message names no row of ours.")
        return str(queue.keep_foreign(session, source=source, body=body, error=error).id)


def redrive(api: TestClient, **body: Any) -> dict[str, Any]:
    response = api.post("/api/v1/dlq/redrive", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refusals(answer: dict[str, Any]) -> list[str | None]:
    return [each["refused"] and each["refused"]["code"] for each in answer["data"]]


def test_letters_are_listed_with_the_file_and_shown(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions, key="uploads/lake.jpg")
    strange = foreign(sessions, "standard")
    newest, oldest = data_of(api.get("/api/v1/dlq"))
    assert (newest["id"], newest["reason"], newest["job_id"], newest["key"]) == (
        strange,
        "not_ours",
        None,
        None,
    )
    assert (oldest["key"], oldest["stage"], oldest["error_code"], oldest["state"]) == (
        "uploads/lake.jpg",
        "metadata",
        "TRUNCATED_IMAGE",
        "open",
    )
    assert "body" not in newest
    assert data_of(api.get(f"/api/v1/dlq/{strange}"))["body"] == "hello"
    shown = data_of(api.get(f"/api/v1/dlq/{letter_of(sessions, job_id)}"))
    assert (shown["job_id"], shown["queue"], shown["body"]) == (str(job_id), "standard", None)


def test_letters_are_filtered_and_paged(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    with sessions.begin() as session:
        old = factories.add_dead_letter(session, created_at=now - timedelta(days=2), job_type="ingest")
        purged = factories.add_dead_letter(session, resolution="purged", resolved_at=now, resolved_by="ada")
        lost = factories.add_dead_letter(
            session, error_code="WORKER_LOST", reason=DeadLetterReason.WORKER_LOST, job_type="metadata"
        )
    yesterday = (now - timedelta(days=1)).isoformat()

    def listed(**query: str) -> set[str]:
        return {letter["id"] for letter in data_of(api.get("/api/v1/dlq", params=query))}

    assert listed() == {str(old.id), str(lost.id)}
    assert listed(state="purged") == {str(purged.id)}
    assert listed(state="redriven") == set()
    assert listed(state="any") == {str(old.id), str(purged.id), str(lost.id)}
    assert listed(errorCode="WORKER_LOST") == {str(lost.id)}
    assert listed(stage="ingest") == {str(old.id)}
    assert listed(reason="worker_lost") == {str(lost.id)}
    assert listed(since=yesterday) == {str(lost.id)}
    assert listed(until=yesterday) == {str(old.id)}
    first = api.get("/api/v1/dlq?limit=1&state=any")
    cursor = first.json()["metadata"]["next_cursor"]
    second = data_of(api.get("/api/v1/dlq", params={"limit": 2, "state": "any", "cursor": cursor}))
    assert [letter["id"] for letter in second] == [str(purged.id), str(old.id)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"state": "closed"}, None),
        ({"stage": "bake"}, "stage"),
        ({"reason": "boredom"}, "reason"),
        ({"since": "yesterday"}, "since"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_question_that_makes_no_sense_is_refused(
    api: TestClient, sessions: Sessions, query: dict[str, str], field: str | None
) -> None:
    response = api.get("/api/v1/dlq", params=query)
    if field is not None:
        error_of(response, 422, "VALIDATION_ERROR", field)
    assert response.status_code == 422


def test_letters_are_grouped_by_stage_and_error(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    with sessions.begin() as session:
        first = factories.add_dead_letter(session, job_type="metadata", created_at=now - timedelta(hours=1))
        last = factories.add_dead_letter(session, job_type="metadata", error_message="Neither is this.")
        factories.add_dead_letter(session, job_type="thumbnails")
        factories.add_dead_letter(session, resolution="purged", resolved_at=now, resolved_by="ada")
    largest, other = data_of(api.get("/api/v1/dlq/groups"))
    assert (largest["stage"], largest["error_code"], largest["count"]) == ("metadata", "BAD_INPUT", 2)
    assert (largest["sample_id"], largest["sample_message"]) == (str(last.id), "Neither is this.")
    assert largest["first_at"] < largest["last_at"]
    assert first.created_at.isoformat()[:19] == largest["first_at"][:19]
    assert (other["stage"], other["count"]) == ("thumbnails", 1)
    assert {group["stage"] for group in data_of(api.get("/api/v1/dlq/groups?state=any"))} == {
        "metadata",
        "thumbnails",
        None,
    }


def test_groups_take_every_filter_of_the_list(api: TestClient, sessions: Sessions) -> None:
    now = factories.now()
    with sessions.begin() as session:
        factories.add_dead_letter(session, job_type="metadata", error_code="ONE")
        factories.add_dead_letter(session, job_type="ingest", error_code="TWO")
        lost = {"job_type": "index", "reason": DeadLetterReason.WORKER_LOST}
        factories.add_dead_letter(session, error_code="OLD", created_at=now - timedelta(days=2), **lost)
    yesterday = (now - timedelta(days=1)).isoformat()
    every: list[tuple[dict[str, str], set[str]]] = [
        ({"stage": "metadata"}, {"ONE"}),
        ({"errorCode": "TWO"}, {"TWO"}),
        ({"reason": "worker_lost"}, {"OLD"}),
        ({"since": yesterday}, {"ONE", "TWO"}),
        ({"until": yesterday}, {"OLD"}),
        ({"stage": "metadata", "error_code": "TWO"}, set()),
    ]
    for query, codes in every:
        groups = data_of(api.get("/api/v1/dlq/groups", params=query))
        assert {group["error_code"] for group in groups} == codes, query
    error_of(api.get("/api/v1/dlq/groups?stage=bake"), 422, "VALIDATION_ERROR", "stage")


def test_unknown_letter_is_not_found(api: TestClient, sessions: Sessions) -> None:
    missing = uuid4()
    assert str(missing) in error_of(api.get(f"/api/v1/dlq/{missing}"), 404, "NOT_FOUND")
    assert str(missing) in error_of(api.delete(f"/api/v1/dlq/{missing}"), 404, "NOT_FOUND")
    assert refusals(redrive(api, ids=[str(missing)])) == ["NOT_FOUND"]


def test_redriven_letter_starts_its_job_and_is_open_no_more(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    job_id = failed(sessions)
    letter_id = letter_of(sessions, job_id)
    answer = redrive(api, ids=[letter_id, letter_id], actor="ada", reason="new codec")
    key = data_of(api.get(f"/api/v1/jobs/{job_id}"))["key"]
    redriven = {"dead_letter_id": letter_id, "job_id": str(job_id), "key": key}
    assert answer["data"] == [redriven | {"from_stage": "dedupe", "refused": None}]
    assert answer["metadata"]["done"] == 1
    assert visible(sqs, empty_queues, "standard") == 1
    told = data_of(api.get(f"/api/v1/dlq/{letter_id}"))
    assert (told["state"], told["resolved_by"]) == ("redriven", "ada")
    assert told["resolved_at"] is not None
    assert data_of(api.get("/api/v1/dlq")) == []
    assert entries(sessions, "dead_letter_redriven") == [(UUID(letter_id), "ada", "new codec")]
    assert entries(sessions, "job_retried") == [(job_id, "ada", "new codec")]
    assert refusals(redrive(api, ids=[letter_id])) == ["ALREADY_RESOLVED"]


def test_redrive_from_the_start(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions, StageName.INDEX)
    answer = redrive(api, ids=[letter_of(sessions, job_id)], **{"from": "start"})
    assert answer["data"][0]["from_stage"] == "ingest"


def test_late_holder_of_a_redriven_row_is_fenced(api: TestClient, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = new_job(session, max_crashes=1)
        late = claimed(session, due(session, job.id))
        assert queue.release_held(
            session, late.row_id, "worker@test", crash=True, error=("WORKER_LOST", "Gone.")
        )
    redrive(api, ids=[letter_of(sessions, job.id)])
    with sessions.begin() as session:
        assert complete(session, late) == queue.Fenced()
        again = claimed(session, due(session, job.id))
        assert again.token > late.token
        assert complete(session, late) == queue.Fenced()
        assert isinstance(complete(session, again), queue.Settled)


def test_dry_run_of_a_redrive_changes_nothing(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    job_id = failed(sessions)
    event = foreign(sessions, "events")
    with sessions() as session:
        before = snapshot(session)
    answer = redrive(api, ids=[letter_of(sessions, job_id), event], dry_run=True)
    assert [each["from_stage"] for each in answer["data"]] == ["dedupe", None]
    assert refusals(answer) == [None, None]
    with sessions() as session:
        assert snapshot(session) == before
    assert visible(sqs, empty_queues, "events") == 0


def test_letters_are_redriven_by_what_they_have_in_common(api: TestClient, sessions: Sessions) -> None:
    metadata = [failed(sessions) for _ in range(3)]
    thumbnails = failed(sessions, StageName.THUMBNAILS)
    first = redrive(api, stage="metadata", error_code="TRUNCATED_IMAGE", limit=2)
    assert first["metadata"]["remaining"] == 1
    second = redrive(api, stage="metadata", cursor=first["metadata"]["next_cursor"])
    assert second["metadata"]["next_cursor"] is None
    redriven = [each["job_id"] for each in first["data"] + second["data"]]
    assert redriven == [str(job_id) for job_id in metadata]
    (left,) = data_of(api.get("/api/v1/dlq"))
    assert left["job_id"] == str(thumbnails)


def test_each_letter_that_cannot_be_redriven_says_why(api: TestClient, sessions: Sessions) -> None:
    deleted, busy, retried, done = (failed(sessions) for _ in range(4))
    pruned = failed(sessions)
    ids = [letter_of(sessions, job_id) for job_id in (deleted, busy, pruned, done)]
    strange = foreign(sessions, "standard")
    active = letter_of(sessions, retried)
    with sessions.begin() as session:
        item = session.get_one(ProcessingJob, deleted).media_item
        item.deleted_at = factories.now()
        new_job(session, session.get_one(ProcessingJob, busy).media_item)
        session.get_one(DeadLetter, UUID(ids[2])).job_id = None
        session.get_one(ProcessingJob, done).status = "completed"
    api.post(f"/api/v1/jobs/{retried}/retry")
    answer = redrive(api, ids=[*ids, strange, active])
    assert refusals(answer) == [
        "ITEM_DELETED",
        "ITEM_BUSY",
        "JOB_GONE",
        "JOB_COMPLETED",
        "FOREIGN_MESSAGE",
        "ALREADY_RESOLVED",
    ]
    assert (answer["metadata"]["done"], answer["metadata"]["refused"]) == (0, 6)
    assert all(each["refused"]["message"] for each in answer["data"])


def test_event_that_was_given_up_on_goes_to_the_listener_again(
    api: TestClient, sessions: Sessions, empty_queues: Settings, sqs: SQSClient
) -> None:
    body = json.dumps({"Records": []})
    letter_id = foreign(sessions, "events", body)
    answer = redrive(api, ids=[letter_id], actor="ada")
    assert refusals(answer) == [None]
    url = sqs.get_queue_url(QueueName=f"{empty_queues.queue_prefix}events")["QueueUrl"]
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == body
    assert data_of(api.get(f"/api/v1/dlq/{letter_id}"))["state"] == "redriven"
    assert [actor for _, actor, _ in entries(sessions, "dead_letter_redriven")] == ["ada"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, None),
        ({"dry_run": True}, None),
        ({"ids": [], "dry_run": True}, "ids"),
        ({"ids": [str(uuid4())], "stage": "ingest"}, None),
        ({"ids": ["one"]}, "ids.0"),
        ({"stage": "ingest", "from": "middle"}, "from"),
        ({"stage": "bake"}, "stage"),
        ({"stage": "ingest", "limit": 0}, "limit"),
        ({"stage": "ingest", "cursor": "nonsense"}, "cursor"),
    ],
)
def test_redrive_that_makes_no_sense_names_the_field(
    api: TestClient, sessions: Sessions, body: dict[str, Any], field: str | None
) -> None:
    error_of(api.post("/api/v1/dlq/redrive", json=body), 422, "VALIDATION_ERROR", field)


def test_purged_letter_is_open_no_more_and_its_job_stays_failed(api: TestClient, sessions: Sessions) -> None:
    job_id = failed(sessions)
    letter_id = letter_of(sessions, job_id)
    for _ in range(2):
        told = data_of(
            api.delete(f"/api/v1/dlq/{letter_id}", params={"actor": "ada", "reason": "a test file"})
        )
        assert (told["state"], told["resolved_by"]) == ("purged", "ada")
    assert entries(sessions, "dead_letter_purged") == [(UUID(letter_id), "ada", "a test file")]
    assert data_of(api.get(f"/api/v1/jobs/{job_id}"))["status"] == "failed"
    assert refusals(redrive(api, ids=[letter_id])) == ["ALREADY_RESOLVED"]
    with sessions.begin() as session:
        assert queue.without_copy(session, limit=10) == []


def test_redriven_letter_is_not_purged(api: TestClient, sessions: Sessions) -> None:
    letter_id = letter_of(sessions, failed(sessions))
    redrive(api, ids=[letter_id])
    error_of(api.delete(f"/api/v1/dlq/{letter_id}"), 409, "ALREADY_RESOLVED")


def test_item_of_a_letter_may_be_gone(api: TestClient, sessions: Sessions) -> None:
    letter_id = letter_of(sessions, failed(sessions))
    with sessions.begin() as session:
        letter = session.get_one(DeadLetter, UUID(letter_id))
        session.delete(session.get_one(MediaItem, letter.media_item_id))
    told = data_of(api.get(f"/api/v1/dlq/{letter_id}"))
    assert (told["key"], told["job_id"], told["row_id"]) == (None, None, None)
