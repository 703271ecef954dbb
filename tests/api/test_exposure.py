"""Without authentication the API is for its own machine: what it binds to, and the names it answers to."""

from __future__ import annotations

from uuid import UUID

import pytest
from answers import BASE_URL, data_of, error_of
from fastapi.testclient import TestClient

from api.app import create_app
from db import jobs
from db.session import Sessions
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from tests.e2e.stacks import dailies

FOREIGN = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "evil.example@127.0.0.1",
    "localhost:8000.evil.example",
    "[::1].evil.example",
    "testserver",
    "192.168.1.7",
    "",
]


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/health", "/metrics", "/docs", "/api/v1/jobs", "/nothing"])
def test_foreign_host_reads_nothing(api: TestClient, host: str, path: str) -> None:
    assert "DAILIES_API_URL" in error_of(api.get(path, headers={"Host": host}), 400, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "LocalHost:1", "[::1]", "[::1]:8000"])
def test_machine_of_its_own_is_answered(api: TestClient, host: str) -> None:
    assert data_of(api.get("/health", headers={"Host": host})) == {"status": "alive"}


@pytest.mark.parametrize(
    "said",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:3000"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1.evil.example"},
        {"Sec-Fetch-Site": "none", "Origin": "null"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/v1/queues/bulk/pause"), ("DELETE", f"/api/v1/dlq/{UUID(int=7)}"), ("PUT", "/nothing")],
)
def test_page_of_another_site_changes_nothing(
    api: TestClient, sessions: Sessions, said: dict[str, str], method: str, path: str
) -> None:
    error_of(api.request(method, path, headers=said), 403, "CROSS_SITE_REQUEST")
    with sessions() as session:
        assert jobs.paused_lanes(session) == {}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL},
        {"Origin": "http://localhost:8000"},
        {"Origin": "http://[::1]:8000"},
    ],
)
def test_own_page_and_programs_change_things(
    api: TestClient, sessions: Sessions, said: dict[str, str]
) -> None:
    assert data_of(api.post("/api/v1/queues/bulk/pause", headers=said))["changed"] is True


def test_page_of_another_site_may_ask_for_what_changes_nothing(api: TestClient) -> None:
    for method in ("GET", "HEAD", "OPTIONS"):
        assert api.request(method, "/health", headers={"Sec-Fetch-Site": "cross-site"}).status_code != 403


def test_page_of_another_site_changes_nothing_where_the_network_is_trusted(
    own_logging: None, aws: Settings, sessions: Sessions
) -> None:
    trusted, path = aws.model_copy(update={"api_trusted_network": True}), "/api/v1/queues/bulk/pause"
    with TestClient(create_app(trusted), base_url="http://api:8000") as client:
        foreign = client.post(path, headers={"Origin": "http://evil.example:8000"})
        error_of(foreign, 403, "CROSS_SITE_REQUEST")
        data_of(client.post(path, headers={"Origin": "http://api:8000"}))
        # Behind a proxy that asks under another name, the browser itself says that the page is the API's.
        own = {"Origin": "https://dailies.example", "Sec-Fetch-Site": "same-origin"}
        data_of(client.post(path, headers=own))


def test_host_of_the_url_that_is_set_is_answered(own_logging: None, aws: Settings) -> None:
    named = aws.model_copy(update={"api_url": "https://Dailies.example:8443/media/"})
    with TestClient(create_app(named), base_url=BASE_URL) as client:
        data_of(client.get("/health", headers={"Host": "dailies.example"}))
        error_of(client.get("/health", headers={"Host": "media"}), 400, "HOST_NOT_ALLOWED")


def test_every_host_is_answered_where_the_network_is_trusted(own_logging: None, aws: Settings) -> None:
    trusted = aws.model_copy(update={"api_trusted_network": True, "api_host": "0.0.0.0"})  # noqa: S104
    with TestClient(create_app(trusted), base_url="http://api:8000") as client:
        data_of(client.get("/health"))


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.7", "dailies.example"])  # noqa: S104
def test_network_is_refused_until_it_is_said_to_be_trusted(aws: Settings, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no authentication yet.*DAILIES_API_TRUSTED_NETWORK=true"):
        create_app(aws.model_copy(update={"api_host": host}))


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.2"])
def test_loopback_has_more_than_one_name(own_logging: None, aws: Settings, host: str) -> None:
    url = f"http://[{host}]" if ":" in host else f"http://{host}"
    with TestClient(create_app(aws.model_copy(update={"api_host": host})), base_url=url) as client:
        data_of(client.get("/health"))


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("DAILIES_API_HOST", "0.0.0.0", "The API has no authentication yet"),  # noqa: S104
        ("DAILIES_DATABASE_URL", "", "DAILIES_DATABASE_URL is empty or no URL"),
        ("DAILIES_DATABASE_URL", "the database", "DAILIES_DATABASE_URL is empty or no URL"),
    ],
)
def test_command_tells_a_wrong_setting_in_one_line(
    aws: Settings, setting: str, value: str, sentence: str
) -> None:
    right = {"DAILIES_DATABASE_URL": aws.database_url.get_secret_value(), "DAILIES_API_PORT": "0"}
    done = dailies("api", **{**right, setting: value})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error CONFIGURATION_ERROR: {sentence}")
