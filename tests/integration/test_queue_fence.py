"""A worker that lost its row changes nothing at all: not the row, not a picture, not a log entry."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from db import effects, queue
from db.effects import Done, Stored
from db.models import QueueRow
from pipeline.errors import DailiesError, InfrastructureError, PermanentStageError
from pipeline.stages.thumbnails import ThumbnailsValue
from pipeline.workflows import StageName
from tests.factories import add_item, add_thumbnails
from tests.support import (
    COST,
    POLICY,
    SLOW,
    advance,
    claimed,
    complete,
    due,
    expire,
    make_due,
    new_job,
    snapshot,
)


def _released(session: Session, row_id: UUID) -> None:
    expire(session, row_id)
    token = session.get_one(QueueRow, row_id, populate_existing=True).token
    assert queue.release_expired(session, row_id, token)


def _claimed_by_another(session: Session, row_id: UUID) -> None:
    _released(session, row_id)
    claimed(session, row_id, worker="other")


def _completed_by_another(session: Session, row_id: UUID) -> None:
    _released(session, row_id)
    complete(session, claimed(session, row_id, worker="other"))


def _cancelled(session: Session, row_id: UUID) -> None:
    job_id = session.get_one(QueueRow, row_id).job_id
    queue.cancel_job(session, job_id, actor="operator", reason="wrong file")


def _retried(session: Session, row_id: UUID) -> None:
    _cancelled(session, row_id)
    queue.retry_job(session, session.get_one(QueueRow, row_id).job_id, actor="operator")
    advance(session, session.get_one(QueueRow, row_id).job_id, to=StageName.THUMBNAILS)
    claimed(session, row_id, worker="other")


def _waits_for_a_retry(session: Session, row_id: UUID) -> None:
    _released(session, row_id)
    queue.fail(session, claimed(session, row_id), SLOW, POLICY, cost=COST)


LOSSES = [_released, _claimed_by_another, _completed_by_another, _cancelled, _retried, _waits_for_a_retry]


def _thumbnails_done(session: Session, claim: queue.Claimed) -> Callable[[Session], queue.Effect]:
    stored = Stored("primary", "media_items/x/primary.late.jpg", 1280, 720, 9, "image/jpeg")
    done = Done(claim.asset, ThumbnailsValue(variants=()), ("a warning",), (stored,))
    return lambda inner: effects.apply(inner, StageName.THUMBNAILS, done)


def _late_worker(session: Session) -> queue.Claimed:
    item = add_item(session)
    add_thumbnails(session, item)
    job = new_job(session, item)
    advance(session, job.id, to=StageName.THUMBNAILS)
    return claimed(session, due(session, job.id), worker="late")


@pytest.mark.parametrize("lose", LOSSES)
def test_success_settled_too_late_changes_nothing(
    session: Session, lose: Callable[[Session, UUID], None]
) -> None:
    late = _late_worker(session)
    lose(session, late.row_id)
    before = snapshot(session)

    outcome = complete(session, late, _thumbnails_done(session, late), warnings=("late",), result={"late": 1})

    assert outcome == queue.Fenced()
    session.flush()
    assert snapshot(session) == before


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("error", [SLOW, PermanentStageError("Late."), InfrastructureError("Late.")])
def test_failure_settled_too_late_changes_nothing(
    session: Session, lose: Callable[[Session, UUID], None], error: DailiesError
) -> None:
    late = _late_worker(session)
    lose(session, late.row_id)
    before = snapshot(session)

    assert queue.fail(session, late, error, POLICY, cost=COST) == queue.Fenced()
    session.flush()
    assert snapshot(session) == before


def test_settling_twice_changes_nothing_the_second_time(session: Session) -> None:
    claim = _late_worker(session)
    complete(session, claim, _thumbnails_done(session, claim))
    before = snapshot(session)
    assert complete(session, claim, _thumbnails_done(session, claim)) == queue.Fenced()
    assert queue.fail(session, claim, SLOW, POLICY, cost=COST) == queue.Fenced()
    session.flush()
    assert snapshot(session) == before


def test_settle_that_holds_changes_the_picture(session: Session) -> None:
    """The fence's tests above would pass if nothing ever changed."""
    claim = _late_worker(session)
    before = snapshot(session)
    complete(session, claim, _thumbnails_done(session, claim))
    after = snapshot(session)
    changed = {name for name in before if before[name] != after[name]}
    assert changed >= {"processing_queue", "processing_attempts", "thumbnails"}


def test_old_release_of_a_lease_does_not_hit_the_new_holder(session: Session) -> None:
    late = _late_worker(session)
    _claimed_by_another(session, late.row_id)
    expire(session, late.row_id)
    before = snapshot(session)
    assert not queue.release_expired(session, late.row_id, late.token)
    assert not queue.release_expired(session, late.row_id, None)
    assert snapshot(session) == before


def test_failure_that_waits_is_claimed_by_the_next_worker_only(session: Session) -> None:
    late = _late_worker(session)
    _waits_for_a_retry(session, late.row_id)
    make_due(session, late.row_id)
    current = claimed(session, late.row_id)
    assert complete(session, late) == queue.Fenced()
    assert isinstance(complete(session, current), queue.Settled)
