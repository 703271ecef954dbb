"""What holds for every request: the envelope, the errors, the request's id, the log line."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from answers import BASE_URL, data_of, error_of
from fastapi.testclient import TestClient

from api.app import create_app
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings


def test_root_answers_with_what_it_is(api: TestClient) -> None:
    assert data_of(api.get("/api/v1"))["name"] == "Dailies"


def test_unknown_path_is_not_found(api: TestClient) -> None:
    assert "/api/v1/nothing" in error_of(api.get("/api/v1/nothing"), 404, "NOT_FOUND")


def test_wrong_method_says_which_are_right(api: TestClient) -> None:
    response = api.delete("/api/v1/jobs")
    assert "GET, POST" in error_of(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"] == "GET, POST"
    assert api.post("/docs").headers["Allow"] == "GET"


def test_id_that_is_none_names_the_field(api: TestClient) -> None:
    error_of(api.get("/api/v1/jobs/42"), 422, "VALIDATION_ERROR", "job_id")


def test_unknown_query_parameter_is_refused(api: TestClient) -> None:
    error_of(api.get("/api/v1/jobs?sttus=failed"), 422, "VALIDATION_ERROR", "sttus")


def test_each_wrong_part_has_an_error_of_its_own(api: TestClient) -> None:
    response = api.get("/api/v1/jobs?limit=0&status=lost")
    assert {error["field"] for error in response.json()["errors"]} == {"limit", "status"}


@pytest.mark.parametrize("body", ["{", "[]", "null", "", '{"media_item_id": NaN}'])
def test_body_that_is_no_object_is_refused(api: TestClient, body: str) -> None:
    response = api.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert {error["code"] for error in response.json()["errors"]} == {"VALIDATION_ERROR"}


def test_deeply_nested_body_is_refused(api: TestClient) -> None:
    body = '{"config":' + '{"a":' * 100_000 + "1" + "}" * 100_001
    response = api.post("/api/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in {400, 422}
    assert response.json()["errors"][0]["code"] == "VALIDATION_ERROR"


def test_huge_body_is_refused(api: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    for content in (b" " * 1_000_001, (b" " * 1_000 for _ in range(1_001))):  # with its length, and in chunks
        error_of(api.post("/api/v1/jobs", content=content, headers=headers), 413, "BODY_TOO_LARGE")


@pytest.mark.parametrize("given", ["abc-1.2_Z", "x" * 128])
def test_request_id_is_taken_over(api: TestClient, given: str) -> None:
    response = api.get("/health", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == given
    assert response.json()["metadata"]["request_id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"a b", b"a\tb", b'a"b', "ä".encode()])
def test_request_id_that_may_not_stand_in_a_log_is_replaced(api: TestClient, given: bytes) -> None:
    response = api.get("/health", headers={b"X-Request-ID": given})
    assert UUID(response.headers["X-Request-ID"]).version == 4


def test_errors_have_the_request_id_too(api: TestClient) -> None:
    response = api.get("/nothing", headers={"X-Request-ID": "mine"})
    assert response.json()["metadata"]["request_id"] == "mine"


def failing(settings: Settings) -> TestClient:
    """The application with two more paths that fail."""
    app = create_app(settings)

    @app.get("/crash")
    def crash() -> None:
        secret = "hunter2"
        raise RuntimeError(secret)

    @app.get("/misconfigured")
    def misconfigured() -> None:
        raise ConfigurationError("hunter2")

    return TestClient(app, base_url=BASE_URL)


@pytest.mark.parametrize("path", ["/crash", "/misconfigured"])
def test_fault_of_the_server_tells_nothing_of_its_inside(own_logging: None, aws: Settings, path: str) -> None:
    with failing(aws) as client:
        response = client.get(path)
    assert "request_id" in error_of(response, 500, "INTERNAL_ERROR")
    assert "hunter2" not in response.text


def test_database_that_is_away_is_503_with_a_time_to_come_back(own_logging: None, aws: Settings) -> None:
    away = aws.model_copy(update={"database_url": type(aws.database_url)("postgresql://x:y@127.0.0.1:9/z")})
    with TestClient(create_app(away), base_url=BASE_URL) as client:
        response = client.get(f"/api/v1/jobs/{uuid4()}")
        error_of(response, 503, "DATABASE_UNAVAILABLE")
        assert int(response.headers["Retry-After"]) > 0


def test_every_request_leaves_one_log_line(
    own_logging: None, aws: Settings, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job_id = str(uuid4())
    with TestClient(create_app(aws.model_copy(update={"log_format": "json"})), base_url=BASE_URL) as client:
        client.get(f"/api/v1/jobs/{job_id}?x=1", headers={"X-Request-ID": "seen"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line["event"] == "request_handled"]
    assert (line["method"], line["path"], line["status"]) == ("GET", f"/api/v1/jobs/{job_id}", 404)
    assert (line["request_id"], line["job_id"], line["role"]) == ("seen", job_id, "api")
    assert line["duration_ms"] > 0


@pytest.mark.parametrize("path", ["/crash", "/misconfigured"])
def test_fault_is_logged_with_its_reason(
    own_logging: None, aws: Settings, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    with failing(aws) as client:
        client.get(path, headers={"X-Request-ID": "boom"})
    (line,) = [line for line in capsys.readouterr().err.splitlines() if '"request_failed"' in line]
    assert json.loads(line)["request_id"] == "boom"
    assert "hunter2" in line
