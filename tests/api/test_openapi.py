"""The OpenAPI document is what people read first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

ENDPOINTS = {
    ("get", "/api/v1"),
    ("post", "/api/v1/jobs"),
    ("get", "/api/v1/jobs"),
    ("get", "/api/v1/jobs/{job_id}"),
    ("post", "/api/v1/jobs/{job_id}/cancel"),
    ("post", "/api/v1/jobs/{job_id}/retry"),
    ("post", "/api/v1/jobs/{job_id}/priority"),
    ("post", "/api/v1/jobs/retry"),
    ("get", "/api/v1/dlq"),
    ("get", "/api/v1/dlq/groups"),
    ("get", "/api/v1/dlq/{dead_letter_id}"),
    ("delete", "/api/v1/dlq/{dead_letter_id}"),
    ("post", "/api/v1/dlq/redrive"),
    ("get", "/api/v1/queues"),
    ("post", "/api/v1/queues/{name}/pause"),
    ("post", "/api/v1/queues/{name}/resume"),
    ("get", "/api/v1/workers"),
    ("get", "/api/v1/reconcile"),
    ("post", "/api/v1/reconcile"),
    ("get", "/api/v1/queue"),
    ("get", "/api/v1/queue/stats"),
    ("get", "/api/v1/media-items"),
    ("get", "/api/v1/media-items/{media_item_id}"),
    ("get", "/api/v1/media-items/{media_item_id}/similar"),
    ("get", "/api/v1/search"),
    ("get", "/api/v1/thumbnails/{entity_type}/{entity_id}"),
    ("get", "/api/v1/thumbnails/{entity_type}/{entity_id}/{variant}"),
    ("get", "/health"),
    ("get", "/ready"),
    ("get", "/metrics"),
}


@pytest.fixture(scope="module")
def document(api: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_document_has_every_endpoint_and_no_other(document: dict[str, Any]) -> None:
    assert set(operations(document)) == ENDPOINTS


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document).items():
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        assert "_" in operation["operationId"] or operation["operationId"].islower(), name
    assert len({each["operationId"] for each in operations(document).values()}) == len(ENDPOINTS)


def test_every_operation_under_the_version_tells_its_errors_in_the_envelope(document: dict[str, Any]) -> None:
    for (method, path), operation in operations(document).items():
        if not path.startswith("/api/v1"):
            continue
        names_one = "{" in path or (method, path) == ("post", "/api/v1/jobs")
        expected = {"422", "500", "503"} | ({"404"} if names_one else set())
        assert expected <= set(operation["responses"]), path
        for status in expected:
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}, (path, status)
    assert "409" in document["paths"]["/api/v1/jobs"]["post"]["responses"]


def test_answers_are_named_after_what_they_hold(document: dict[str, Any]) -> None:
    names = set(document["components"]["schemas"])
    assert {"JobAnswer", "JobsPage", "MediaItemAnswer", "SearchPage", "ErrorEnvelope"} <= names
    assert not any(name.endswith("_") or "Validation" in name for name in names)


def test_parameters_are_told_in_snake_case_with_their_choices(document: dict[str, Any]) -> None:
    parameters = {each["name"]: each for each in document["paths"]["/api/v1/jobs"]["get"]["parameters"]}
    names = {"limit", "cursor", "status", "workflow_type", "media_item_id", "error_code", "key_prefix"}
    assert set(parameters) == names
    assert parameters["limit"]["description"]
    assert "failed" in json.dumps(document["components"]["schemas"]["JobStatus"])


def test_new_job_has_an_example_that_is_accepted(document: dict[str, Any], api: TestClient) -> None:
    schema = document["components"]["schemas"]["NewJob"]
    response = api.post("/api/v1/jobs", json=schema["examples"][0])
    assert response.status_code == 404, "understood, and there is no such item"


def test_examples_of_what_people_may_do_are_accepted(document: dict[str, Any], api: TestClient) -> None:
    for name, path in (("RetryJobs", "jobs/retry"), ("Redrive", "dlq/redrive")):
        for example in document["components"]["schemas"][name]["examples"]:
            assert api.post(f"/api/v1/{path}", json=example).status_code == 200, example


def test_docs_page_is_there(api: TestClient) -> None:
    assert "openapi.json" in api.get("/docs").text
