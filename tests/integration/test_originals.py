from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import effects, events, queue, search
from db.effects import Done
from db.models import MediaItem, ProcessingJob, SearchDocument
from db.queue import originals
from db.session import Sessions
from pipeline.errors import PermanentStageError
from pipeline.events import Change, ObjectEvent
from pipeline.stages.dedupe import DedupeValue
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType
from tests.factories import add_item
from tests.support import (
    COST,
    POLICY,
    SLOW,
    advance,
    broken_promises,
    claimed,
    complete,
    due,
    in_threads,
    make_due,
    new_job,
    statuses,
    summaries,
)

T = TaskStatus
BAD = PermanentStageError("The picture is truncated.", code="TRUNCATED_IMAGE")


def _upload(session: Session, digest: str, name: str = "otters") -> MediaItem:
    """An item whose job has come as far as dedupe."""
    item = add_item(session, holds_hash=False, sha256=digest, key=f"uploads/{uuid4()}/{name}.jpg")
    advance(session, new_job(session, item).id, to=StageName.DEDUPE)
    return item


def _job(session: Session, item: MediaItem) -> ProcessingJob:
    """The item's newest ingest job."""
    return session.scalars(
        select(ProcessingJob)
        .where(ProcessingJob.media_item_id == item.id, ProcessingJob.workflow_type == WorkflowType.INGEST)
        .order_by(ProcessingJob.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).one()


def _dedupe(session: Session, item: MediaItem) -> queue.Settled | queue.Fenced:
    """Run dedupe as a worker does, with its effect in the settling transaction."""
    claim = claimed(session, due(session, _job(session, item).id))
    assert claim.job_type == StageName.DEDUPE
    assert claim.asset.sha256
    done = Done(claim.asset, DedupeValue(sha256=claim.asset.sha256))
    return complete(session, claim, lambda inner: effects.apply(inner, StageName.DEDUPE, done))


def _family(session: Session, count: int, *, finished: bool = True) -> list[MediaItem]:
    """An original and its duplicates, oldest first; the original's job at metadata unless finished."""
    digest = sha256(uuid4().bytes).hexdigest()
    items = [_upload(session, digest, f"otters-{number}") for number in range(count)]
    for item in items:
        _dedupe(session, item)
    if finished:
        advance(session, _job(session, items[0]).id)
    return items


def _fail(session: Session, item: MediaItem, *, permanent: bool) -> None:
    row_id = due(session, _job(session, item).id)
    while True:
        make_due(session, row_id)
        error = BAD if permanent else SLOW
        if isinstance(queue.fail(session, claimed(session, row_id), error, POLICY, cost=COST), queue.GaveUp):
            return


def _remove(session: Session, item: MediaItem) -> None:
    gone = ObjectEvent(
        change=Change.REMOVED, bucket=item.bucket, key=item.key, version_id=item.version_id, sequencer="FF"
    )
    assert events.apply(session, gone, events.Budgets()).what == "removed"


def _links(session: Session, items: Sequence[MediaItem]) -> list[int | str | None]:
    """For each item: "holds" the hash, the place of the item it is linked to, or None."""
    session.flush()
    for item in items:
        session.refresh(item)
    place = {item.id: number for number, item in enumerate(items)}
    return ["holds" if item.holds_hash else place.get(item.duplicate_of_id or UUID(int=0)) for item in items]


def test_first_of_equal_bytes_is_the_original_and_goes_on(session: Session) -> None:
    item = _upload(session, "a" * 64)
    settled = _dedupe(session, item)
    assert isinstance(settled, queue.Settled)
    assert settled.successor is not None
    assert _links(session, [item]) == ["holds"]


def test_second_of_equal_bytes_is_linked_and_done(session: Session) -> None:
    original, duplicate = _family(session, 2)

    assert _links(session, [original, duplicate]) == ["holds", 0]
    job = _job(session, duplicate)
    assert job.status == JobStatus.COMPLETED
    assert statuses(session, job.id) == [*[T.COMPLETED] * 2, *[T.SKIPPED] * 4]
    (summary,) = summaries(session, job.id)
    assert summary.details["duplicate_of_id"] == str(original.id)
    assert summary.details["bytes_saved"] == duplicate.size_bytes
    for query in ("otters", "otters-1", duplicate.key.rsplit("/", 1)[-1]):
        found = search.search(session, query, limit=10)
        assert [hit.item.id for hit in found.hits] == [duplicate.id], query


def test_other_bytes_are_no_duplicate(session: Session) -> None:
    one, other = _upload(session, "a" * 64), _upload(session, "b" * 64)
    _dedupe(session, one)
    _dedupe(session, other)
    assert _links(session, [one, other]) == ["holds", "holds"]


def test_of_eight_uploads_at_the_same_moment_one_is_the_original(sessions: Sessions) -> None:
    for _ in range(5):
        digest = sha256(uuid4().bytes).hexdigest()
        with sessions.begin() as session:
            items = [_upload(session, digest) for _ in range(8)]

        def dedupe(number: int, items: list[MediaItem] = items) -> None:
            with sessions.begin() as session:
                _dedupe(session, items[number])

        in_threads(8, dedupe)

        with sessions() as session:
            read = [session.get_one(MediaItem, item.id) for item in items]
            (original,) = [item for item in read if item.holds_hash]
            assert original.duplicate_of_id is None
            assert {item.duplicate_of_id for item in read if item is not original} == {original.id}
            for item in read:
                job = _job(session, item)
                expected = [*[T.COMPLETED] * 2, *[T.SKIPPED] * 4]
                if item is original:
                    expected = [*[T.COMPLETED] * 2, T.QUEUED, *[T.PENDING] * 3]
                assert statuses(session, job.id) == expected
                assert len(summaries(session, job.id)) == (item is not original)
                assert (session.get(SearchDocument, item.id) is None) == (item is original)


@pytest.mark.parametrize("how", ["cancelled", "failed", "deleted"])
def test_oldest_duplicate_takes_over_from_an_original_that_ends(session: Session, how: str) -> None:
    items = _family(session, 4, finished=False)
    if how == "cancelled":
        queue.cancel_job(session, _job(session, items[0]).id, actor="ada", reason="wrong file")
    elif how == "failed":
        _fail(session, items[0], permanent=False)
    else:
        _remove(session, items[0])

    assert _links(session, items) == [None, "holds", 1, 1]
    job = _job(session, items[1])
    assert (job.status, job.requested_by) == (JobStatus.QUEUED, "promotion")
    assert queue.due_row(session, job.id) in queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
    advance(session, job.id, to=StageName.DEDUPE)
    _dedupe(session, items[1])
    advance(session, job.id)
    assert _links(session, items) == [None, "holds", 1, 1]


def test_after_a_permanent_failure_nobody_takes_over(session: Session) -> None:
    items = _family(session, 3, finished=False)
    _fail(session, items[0], permanent=True)
    assert _links(session, items) == [None, 0, 0]
    assert [_job(session, item).status for item in items[1:]] == [JobStatus.COMPLETED] * 2


def test_original_without_duplicates_ends_alone(session: Session) -> None:
    (item,) = _family(session, 1, finished=False)
    queue.cancel_job(session, _job(session, item).id, actor="ada", reason="wrong file")
    assert _links(session, [item]) == [None]


def test_deleted_duplicate_is_not_promoted(session: Session) -> None:
    items = _family(session, 3)
    _remove(session, items[1])
    assert _links(session, items) == ["holds", None, 0]
    _remove(session, items[0])
    assert _links(session, items) == [None, None, "holds"]


@pytest.mark.parametrize("workflow", ["thumbnails", "reindex"])
@pytest.mark.parametrize("permanent", [True, False])
def test_later_job_of_an_original_may_fail_without_taking_its_hash(
    session: Session, workflow: str, *, permanent: bool
) -> None:
    items = _family(session, 2)
    job = new_job(session, items[0], workflow=workflow, max_attempts=1)
    if permanent:
        queue.fail(session, claimed(session, due(session, job.id)), BAD, POLICY, cost=COST)
    else:
        queue.cancel_job(session, job.id, actor="ada", reason="not now")
    assert _links(session, items) == ["holds", 0]


def test_deleting_a_failed_original_leaves_nobody_linked_to_it(session: Session) -> None:
    items = _family(session, 3, finished=False)
    _fail(session, items[0], permanent=True)
    _remove(session, items[0])
    assert _links(session, items) == [None, "holds", 1]
    assert _job(session, items[1]).status == JobStatus.QUEUED


def test_duplicates_of_a_failed_original_go_to_the_one_that_holds_the_hash_when_it_is_deleted(
    session: Session,
) -> None:
    items = _family(session, 2, finished=False)
    _fail(session, items[0], permanent=True)
    items.append(_upload(session, items[0].sha256 or ""))
    _dedupe(session, items[2])
    _remove(session, items[0])
    assert _links(session, items) == [None, 2, "holds"]


def test_failed_original_that_becomes_a_duplicate_hands_its_duplicates_on(session: Session) -> None:
    items = _family(session, 2, finished=False)
    _fail(session, items[0], permanent=True)
    items.append(_upload(session, items[0].sha256 or ""))
    _dedupe(session, items[2])
    queue.retry_job(session, _job(session, items[0]).id, actor="ada")
    _dedupe(session, items[0])
    assert _links(session, items) == [2, 2, "holds"]


def test_retried_duplicate_loses_its_link_and_finds_it_again(session: Session) -> None:
    items = _family(session, 2)
    job = _job(session, items[1])
    assert queue.retry_job(session, job.id, actor="ada", stage=StageName.INDEX).job_type == StageName.DEDUPE
    assert _links(session, items) == ["holds", None]
    _dedupe(session, items[1])
    assert _links(session, items) == ["holds", 0]
    assert _job(session, items[1]).status == JobStatus.COMPLETED
    assert broken_promises(session, [job.id]) == []


def test_duplicate_that_is_being_retried_takes_over_in_the_job_it_has(session: Session) -> None:
    items = _family(session, 2)
    items.append(_upload(session, items[0].sha256 or ""))
    job = _job(session, items[1])
    queue.retry_job(session, job.id, actor="ada")
    # Its link is gone until dedupe; the next one in line takes over, or nobody is left without an original.
    _remove(session, items[0])
    for item in items[1:]:
        _dedupe(session, item)
    assert sorted(map(str, _links(session, items))) == ["1", "None", "holds"]


def test_original_that_failed_comes_back_as_a_duplicate_of_its_heir(session: Session) -> None:
    items = _family(session, 3, finished=False)
    _fail(session, items[0], permanent=False)
    queue.retry_job(session, _job(session, items[0]).id, actor="ada")
    _dedupe(session, items[0])
    assert _links(session, items) == [1, "holds", 1]


def test_promotion_meets_a_job_that_somebody_asks_for_at_that_moment(sessions: Sessions) -> None:
    with sessions.begin() as session:
        items = _family(session, 2, finished=False)
        job_id = _job(session, items[0]).id
    with sessions() as route:
        queue.enqueue(route, media_item_id=items[1].id, workflow="ingest", requested_by="ada")

        def cancel_or_commit(number: int) -> bool:
            if number:
                route.connection().exec_driver_sql("SELECT pg_sleep(0.5)")
                route.commit()
                return True
            with sessions.begin() as session:
                return queue.cancel_job(session, job_id, actor="ada", reason="wrong file")

        assert in_threads(2, cancel_or_commit) == [True, True]
    with sessions() as session:
        read = [session.get_one(MediaItem, item.id) for item in items]
        assert _links(session, read) == [None, "holds"]
        assert _job(session, items[1]).requested_by == "ada"


def test_ends_and_links_at_the_same_moment_leave_one_original(sessions: Sessions) -> None:
    for _ in range(5):
        with sessions.begin() as session:
            items = _family(session, 3, finished=False)
            items += [_upload(session, items[0].sha256 or "") for _ in range(3)]

        def move(number: int, items: list[MediaItem] = items) -> None:
            with sessions.begin() as session:
                if number == 0:
                    queue.cancel_job(session, _job(session, items[0]).id, actor="ada", reason="wrong")
                elif number < 3:
                    _remove(session, session.get_one(MediaItem, items[number].id))
                else:
                    _dedupe(session, items[number])

        in_threads(6, move)

        with sessions() as session:
            read = [session.get_one(MediaItem, item.id) for item in items]
            (original,) = [item for item in read if item.holds_hash]
            assert original.deleted_at is None
            assert {item.duplicate_of_id for item in read[3:] if item is not original} == {original.id}
            assert [item.deleted_at is not None for item in read[1:3]] == [True, True]
            assert broken_promises(session, [_job(session, item).id for item in items]) == []


def test_what_is_known_of_the_bytes_is_known_of_every_item_that_has_them(session: Session) -> None:
    items = _family(session, 2)
    values = dict.fromkeys(originals.DESCRIPTION) | {
        "width": 4000,
        "height": 3000,
        "text": "At the sea",
        "details": {"make": "Leica"},
    }
    originals.describe(session, items[0].id, items[0].sha256 or "", values)
    late = _upload(session, items[0].sha256 or "")
    _dedupe(session, late)
    for item in (*items, late):
        session.refresh(item)
        assert (item.width, item.text, item.details) == (4000, "At the sea", {"make": "Leica"})
