"""One whole stack for every end-to-end test that breaks nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stacks import Stack, running_stack


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test below is an end-to-end test."""
    item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One stack for every test that breaks nothing."""
    with running_stack() as up:
        yield up
