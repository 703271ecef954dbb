from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InfrastructureError, PermanentStageError, TransientStageError
from pipeline.retry import RetryPolicy

attempts = st.integers(min_value=1, max_value=10_000)
draws = st.floats(min_value=0, max_value=1, exclude_max=True)
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(min_value=1, max_value=20),
    base=st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(minutes=5)),
    cap=st.timedeltas(min_value=timedelta(minutes=5), max_value=timedelta(hours=2)),
)
TRANSIENT = TransientStageError("The disk was slow.")
AWAY = InfrastructureError("The database does not answer.")


@given(policies, attempts, draws)
def test_permanent_error_is_given_up_at_once(policy: RetryPolicy, attempt: int, draw: float) -> None:
    assert policy.delay_for(attempt, PermanentStageError("It is no picture."), draw=draw) is None


@given(policies, attempts, draws)
def test_infrastructure_error_is_never_given_up(policy: RetryPolicy, attempt: int, draw: float) -> None:
    delay = policy.delay_for(attempt, AWAY, draw=draw)
    assert delay is not None
    assert policy.floor <= delay <= policy.cap


@given(policies, attempts)
def test_other_errors_are_given_up_when_the_attempts_are_used_up(policy: RetryPolicy, attempt: int) -> None:
    assert (policy.delay_for(attempt, TRANSIENT) is None) == (attempt >= policy.max_attempts)


@given(policies, attempts)
def test_unexpected_error_is_retried_like_a_transient_one(policy: RetryPolicy, attempt: int) -> None:
    unexpected = policy.delay_for(attempt, ValueError("unforeseen"), draw=0.5)
    assert unexpected == policy.delay_for(attempt, TRANSIENT, draw=0.5)


@given(policies, attempts, draws)
def test_wait_lies_between_the_floor_and_the_ceiling_of_the_try(
    policy: RetryPolicy, attempt: int, draw: float
) -> None:
    delay = policy.delay_for(attempt, AWAY, draw=draw)
    assert delay is not None
    assert policy.floor <= delay <= max(policy.floor, policy.ceiling(attempt))


@given(policies, attempts)
def test_ceiling_never_falls_and_never_passes_the_cap(policy: RetryPolicy, attempt: int) -> None:
    assert policy.ceiling(attempt) <= policy.ceiling(attempt + 1) <= policy.cap


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (99, 600)])
def test_ceiling_doubles_from_the_base_up_to_the_cap(attempt: int, seconds: int) -> None:
    assert RetryPolicy().ceiling(attempt) == timedelta(seconds=seconds)


def test_wait_is_drawn_over_the_whole_range() -> None:
    policy = RetryPolicy(base=timedelta(seconds=100))
    waits = {policy.delay_for(1, TRANSIENT) for _ in range(200)}
    assert all(wait is not None and policy.floor <= wait <= policy.base for wait in waits)
    assert len(waits) > 100  # jobs that failed together do not come back together
