"""The API on the run's real servers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from answers import BASE_URL
from fastapi.testclient import TestClient

from api.app import create_app
from pipeline.settings import Settings


@pytest.fixture(scope="session")
def api(aws: Settings, database: str) -> Iterator[TestClient]:
    """A client of the application with the run's settings. It follows no redirect."""
    with TestClient(create_app(aws), base_url=BASE_URL, follow_redirects=False) as client:
        yield client


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Let a test configure logging, and take that back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.reset_defaults()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
