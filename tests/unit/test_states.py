from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import IllegalTransitionError
from pipeline.states import (
    ACTIVE,
    DUE,
    FINAL,
    JOB_ACTIVE,
    JOB_FINAL,
    JobStatus,
    TaskStatus,
    derive_job_status,
    ensure_allowed,
    is_allowed,
    sources_of,
)

T = TaskStatus

#: Written out by hand from design.md section 4, to compare the code with something else.
LEGAL = {
    (T.PENDING, T.QUEUED),  # the stage before completed
    (T.PENDING, T.SKIPPED),  # the bytes are a duplicate's
    (T.PENDING, T.CANCELLED),
    (T.QUEUED, T.PROCESSING),  # claimed
    (T.QUEUED, T.CANCELLED),
    (T.RETRYING, T.PROCESSING),
    (T.RETRYING, T.CANCELLED),
    (T.PROCESSING, T.COMPLETED),
    (T.PROCESSING, T.SKIPPED),
    (T.PROCESSING, T.RETRYING),
    (T.PROCESSING, T.QUEUED),  # its lease ended
    (T.PROCESSING, T.FAILED),
    (T.PROCESSING, T.CANCELLED),
}
REVIVALS = set(product(FINAL, (T.QUEUED, T.PENDING)))


@pytest.mark.parametrize(("src", "dst"), [*product(TaskStatus, TaskStatus)])
@pytest.mark.parametrize("revive", [False, True])
def test_transition_is_allowed_exactly_when_the_protocol_has_it(
    src: TaskStatus, dst: TaskStatus, *, revive: bool
) -> None:
    legal = (src, dst) in LEGAL or (revive and (src, dst) in REVIVALS)
    assert is_allowed(src, dst, revive=revive) is legal
    if legal:
        ensure_allowed(src, dst, revive=revive)
    else:
        with pytest.raises(IllegalTransitionError, match=f"from {src} to {dst}"):
            ensure_allowed(src, dst, revive=revive)


@pytest.mark.parametrize("dst", TaskStatus)
def test_sources_of_a_state_are_those_that_may_go_there(dst: TaskStatus) -> None:
    assert sources_of(dst) == {src for src, target in LEGAL if target == dst}


def test_states_are_split_into_final_due_and_the_rest() -> None:
    assert frozenset(TaskStatus) == FINAL | ACTIVE
    assert not FINAL & ACTIVE
    assert DUE < ACTIVE
    assert frozenset(JobStatus) == JOB_FINAL | JOB_ACTIVE
    assert not JOB_FINAL & JOB_ACTIVE


rows_of_a_job = st.lists(st.sampled_from(TaskStatus), min_size=1, max_size=6)


@given(rows_of_a_job)
def test_job_with_a_failed_row_is_failed(rows: list[TaskStatus]) -> None:
    assert derive_job_status([*rows, T.FAILED]) == JobStatus.FAILED


@given(rows_of_a_job)
def test_job_is_final_exactly_when_a_row_failed_or_all_are_final(rows: list[TaskStatus]) -> None:
    final = T.FAILED in rows or set(rows) <= FINAL
    assert (derive_job_status(rows) in JOB_FINAL) is final


@given(st.lists(st.sampled_from([T.COMPLETED, T.SKIPPED]), min_size=1, max_size=6))
def test_job_of_completed_and_skipped_rows_is_completed(rows: list[TaskStatus]) -> None:
    assert derive_job_status(rows) == JobStatus.COMPLETED


@given(st.lists(st.sampled_from([T.COMPLETED, T.SKIPPED, T.CANCELLED]), max_size=5))
def test_job_that_ended_with_a_cancelled_row_is_cancelled(rows: list[TaskStatus]) -> None:
    assert derive_job_status([*rows, T.CANCELLED]) == JobStatus.CANCELLED


@pytest.mark.parametrize(("started", "status"), [(False, JobStatus.QUEUED), (True, JobStatus.PROCESSING)])
def test_active_job_is_queued_until_a_row_was_claimed(*, started: bool, status: JobStatus) -> None:
    assert derive_job_status([T.QUEUED, T.PENDING], started=started) == status
