"""One whole stack for every end-to-end test that breaks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stacks import Stack, running_stack

#: Fixtures that are dear: the tests that share one run in one xdist worker.
SHARED = ("stack", "shown")


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every end-to-end test, and keep those together that share a fixture."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        item.add_marker(pytest.mark.e2e)
        for name in SHARED:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One stack for every test that breaks nothing."""
    with running_stack() as up:
        yield up
