from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.settings import Settings, get_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Neither the test run's own settings nor a developer's ``.env``."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DAILIES_{name.upper()}", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.chdir(tmp_path)
    yield
    get_settings.cache_clear()  # or whoever asks next would be given these


def test_defaults_are_consistent_and_bind_to_loopback() -> None:
    settings = Settings()
    assert (settings.api_host, settings.flower_host) == ("127.0.0.1", "127.0.0.1")
    assert not settings.api_trusted_network
    assert settings.soft_time_limit < settings.hard_time_limit


@pytest.mark.parametrize("text", ["300", "PT5M"])
def test_duration_is_read_as_seconds_or_iso_8601(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DAILIES_LEASE", text)
    assert Settings().lease == timedelta(minutes=5)


@pytest.mark.parametrize(("text", "size"), [("200MB", 200_000_000), ("1GiB", 1024**3), ("1048576", 1024**2)])
def test_size_is_read_as_bytes_or_with_a_unit(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("DAILIES_UPLOAD_LIMIT", text)
    assert Settings().upload_limit == size


def test_stages_are_named_with_commas_and_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().heavy_stages == frozenset()
    monkeypatch.setenv("DAILIES_HEAVY_STAGES", "thumbnails, index")
    assert Settings().heavy_stages == {"thumbnails", "index"}
    monkeypatch.setenv("DAILIES_HEAVY_STAGES", "thumbnail")
    with pytest.raises(ValidationError, match="heavy_stages"):
        Settings()


def test_only_stages_that_the_chain_can_do_without_may_be_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAILIES_OPTIONAL_STAGES", "thumbnails, metadata")
    assert Settings().optional_stages == {"thumbnails", "metadata"}
    monkeypatch.setenv("DAILIES_OPTIONAL_STAGES", "thumbnails, ingest, audit")
    with pytest.raises(ValidationError, match="cannot go on without audit, ingest; only metadata and"):
        Settings()


def test_region_has_the_name_that_aws_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert Settings().aws_region == "eu-central-1"


def test_env_file_is_read_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DAILIES_MAX_ATTEMPTS=7\nDAILIES_JPEG_QUALITY=70\nOTHER=1\n")
    monkeypatch.setenv("DAILIES_JPEG_QUALITY", "90")
    settings = Settings()
    assert (settings.max_attempts, settings.jpeg_quality) == (7, 90)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("LEASE", "1"),
        ("POLL_WAIT", "21"),
        ("MAX_ATTEMPTS", "0"),
        ("JPEG_QUALITY", "101"),
        ("API_PORT", "65536"),
        ("LOG_FORMAT", "xml"),
        ("QUEUE_PREFIX", "dailies dev"),
        ("ENVIRONMENT", "Prod"),
        ("STEWARD_INTERVAL", "0"),
        ("UPLOAD_LIMIT", "much"),
    ],
)
def test_value_out_of_range_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv(f"DAILIES_{name}", text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [error["loc"] for error in caught.value.errors()] == [(name.lower(),)]


@pytest.mark.parametrize(("name", "seconds"), [("SOFT_TIME_LIMIT", 930), ("HARD_TIME_LIMIT", 900)])
def test_soft_limit_that_is_not_below_the_hard_one_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, seconds: int
) -> None:
    monkeypatch.setenv(f"DAILIES_{name}", str(seconds))
    with pytest.raises(ValidationError, match="soft_time_limit < hard_time_limit must hold"):
        Settings()


@pytest.mark.parametrize("name", ["DATABASE_URL", "FLOWER_BASIC_AUTH"])
def test_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"DAILIES_{name}", "postgresql://dailies:hunter2@db/dailies")
    settings = Settings()
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().max_attempts = 5  # type: ignore[misc]


def test_process_reads_its_settings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_settings()
    monkeypatch.setenv("DAILIES_MAX_ATTEMPTS", "9")
    assert get_settings() is before
