from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import events, queue
from db.events import Applied, Budgets
from db.models import AuditEntry, MediaItem, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.events import Change, ObjectEvent
from pipeline.queues import Queue
from pipeline.states import JOB_ACTIVE, JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType
from tests.support import (
    advance,
    broken_promises,
    claimed,
    complete,
    due,
    in_threads,
    new_job,
    row_of,
    snapshot,
    statuses,
    summaries,
)

KEY = "uploads/été à la mer/baie + ville 100%.jpg"
T = TaskStatus


def _event(change: Change = Change.CREATED, **values: Any) -> ObjectEvent:
    given = {"bucket": "footage", "key": KEY, "size": 9, "etag": "e1", "sequencer": "0010"} | values
    return ObjectEvent(change=change, **given)


def _removal(**values: Any) -> ObjectEvent:
    return _event(Change.REMOVED, **({"size": None, "etag": None, "sequencer": "0020"} | values))


def _apply(session: Session, event: ObjectEvent) -> Applied:
    return events.apply(session, event, Budgets())


def _items(session: Session) -> list[MediaItem]:
    return list(
        session.scalars(select(MediaItem).order_by(MediaItem.id).execution_options(populate_existing=True))
    )


def _jobs(session: Session) -> list[ProcessingJob]:
    found = select(ProcessingJob).order_by(ProcessingJob.id).execution_options(populate_existing=True)
    return list(session.scalars(found))


def _finish(session: Session, applied: Applied) -> None:
    assert applied.job_id is not None
    advance(session, applied.job_id)


def test_upload_makes_an_item_and_its_job(session: Session) -> None:
    applied = events.apply(
        session, _event(version_id="v1"), Budgets(priority=9, max_attempts=2, max_crashes=1)
    )

    assert applied.what == "created"
    (item,) = _items(session)
    assert (item.id, item.bucket, item.key, item.version_id) == (applied.media_item_id, "footage", KEY, "v1")
    assert (item.size_bytes, item.etag, item.sequencer) == (9, "e1", "0010")
    (job,) = _jobs(session)
    assert (job.id, job.workflow_type) == (applied.job_id, WorkflowType.INGEST)
    assert (job.priority, job.requested_by, job.status) == (9, "listener", JobStatus.QUEUED)
    row = row_of(session, job.id, StageName.INGEST)
    assert (row.queue, row.max_attempts, row.max_crashes) == (Queue.EXPRESS, 2, 1)
    assert row.published_at is None  # the caller publishes, after its commit


@pytest.mark.parametrize("version", ["", "v1"])
def test_event_that_comes_again_changes_nothing(session: Session, version: str) -> None:
    first = _apply(session, _event(version_id=version))
    before = snapshot(session)
    again = _apply(session, _event(version_id=version))
    assert (again.what, again.media_item_id, again.job_id) == ("repeated", first.media_item_id, None)
    assert snapshot(session) == before


def test_event_that_comes_again_after_everything_is_done_changes_nothing(session: Session) -> None:
    _finish(session, _apply(session, _event()))
    before = snapshot(session)
    assert _apply(session, _event()).what == "repeated"
    assert snapshot(session) == before


@pytest.mark.parametrize("version", ["", "v0"])
def test_older_event_that_comes_late_changes_nothing(session: Session, version: str) -> None:
    _apply(session, _event(version_id="v1" if version else "", sequencer="0030"))
    before = snapshot(session)
    assert _apply(session, _event(version_id=version, sequencer="002F", etag="older")).what == "outdated"
    assert _apply(session, _removal(sequencer="0025", marker=bool(version))).what == "outdated"
    assert snapshot(session) == before


@pytest.mark.parametrize(("old", "new"), [("", ""), ("v1", "v2")])
@pytest.mark.parametrize("finished", [True, False])
def test_same_bytes_again_are_no_work_again(session: Session, old: str, new: str, *, finished: bool) -> None:
    first = _apply(session, _event(version_id=old))
    if finished:
        _finish(session, first)

    again = _apply(session, _event(version_id=new, sequencer="0011"))

    assert (again.what, again.media_item_id, again.job_id) == ("unchanged", first.media_item_id, None)
    (item,) = _items(session)
    assert (item.version_id, item.sequencer) == (new, "0011")
    assert len(_jobs(session)) == 1


@pytest.mark.parametrize(("holds", "what"), [(True, "unchanged"), (False, "created")])
def test_same_bytes_again_after_the_job_was_pruned_are_work_only_if_they_failed(
    session: Session, *, holds: bool, what: str
) -> None:
    _finish(session, _apply(session, _event()))
    session.execute(delete(ProcessingJob))
    (item,) = _items(session)
    item.sha256, item.holds_hash = "ab" * 32, holds
    assert _apply(session, _event(sequencer="0011")).what == what


@pytest.mark.parametrize("change", [{"etag": "e2"}, {"size": 10}, {"etag": None}])
@pytest.mark.parametrize(("old", "new"), [("", ""), ("v1", "v2")])
def test_other_bytes_of_the_same_key_replace_the_item(
    session: Session, change: dict[str, Any], old: str, new: str
) -> None:
    first = _apply(session, _event(version_id=old))
    second = _apply(session, _event(version_id=new, sequencer="0011", **change))

    assert second.what == "created"
    gone, living = _items(session)
    assert (gone.id, living.id) == (first.media_item_id, second.media_item_id)
    assert gone.deleted_at is not None
    assert "newer upload" in (gone.deleted_reason or "")
    assert (living.version_id, living.deleted_at) == (new, None)
    assert [job.status for job in _jobs(session)] == [JobStatus.CANCELLED, JobStatus.QUEUED]
    assert _apply(session, _event(version_id=old)).what in {"outdated", "repeated"}


def test_same_bytes_after_a_failure_are_tried_again(session: Session) -> None:
    first = _apply(session, _event())
    assert first.job_id is not None
    queue.cancel_job(session, first.job_id, actor="ada", reason="wrong file")
    again = _apply(session, _event(sequencer="0011"))
    assert again.what == "created"
    assert again.media_item_id != first.media_item_id


@pytest.mark.parametrize(
    ("version", "gone"),
    [
        ("", {}),
        ("v1", {"version_id": "v1"}),  # this version was deleted for good
        ("v1", {"version_id": "marker-1", "marker": True}),  # whatever is newest was hidden
    ],
)
def test_removal_cancels_the_job_and_deletes_the_item_by_mark(
    session: Session, version: str, gone: dict[str, Any]
) -> None:
    applied = _apply(session, _event(version_id=version))
    assert applied.job_id is not None
    running = claimed(session, due(session, applied.job_id))

    removed = _apply(session, _removal(**gone))

    assert (removed.what, removed.media_item_id, removed.job_id) == ("removed", applied.media_item_id, None)
    (item,) = _items(session)
    assert (item.deleted_by, item.deleted_reason) == ("listener", "removed from the bucket")
    assert item.deleted_at is not None
    assert set(statuses(session, applied.job_id)) == {T.CANCELLED}
    assert len(summaries(session, applied.job_id)) == 1
    assert complete(session, running) == queue.Fenced()
    told = session.scalars(select(AuditEntry.action).where(AuditEntry.entity_id == item.id))
    assert list(told) == ["media_item_deleted"]


def test_removal_ends_every_active_job_of_the_item(session: Session) -> None:
    applied = _apply(session, _event())
    new_job(session, _items(session)[0], workflow="thumbnails")
    new_job(session, _items(session)[0], workflow="reindex")
    _apply(session, _removal())
    assert {job.status for job in _jobs(session)} == {JobStatus.CANCELLED}
    assert applied.media_item_id is not None
    assert queue.active_job_id(session, applied.media_item_id, "ingest") is None


def test_removal_of_another_version_leaves_the_item(session: Session) -> None:
    _apply(session, _event(version_id="v2"))
    assert _apply(session, _removal(version_id="v1")).what == "repeated"
    living = [item for item in _items(session) if item.deleted_at is None]
    assert [item.version_id for item in living] == ["v2"]
    assert {job.status for job in _jobs(session)} == {JobStatus.QUEUED}


def test_removal_heard_before_its_upload_is_remembered_beside_other_versions(session: Session) -> None:
    first = _apply(session, _event(version_id="v1", sequencer="01"))
    _apply(session, _removal(version_id="v2", sequencer="03"))
    assert _apply(session, _event(version_id="v2", sequencer="02", etag="other")).what == "outdated"
    living = [item for item in _items(session) if item.deleted_at is None]
    assert [item.id for item in living] == [first.media_item_id]


def test_end_of_an_old_version_says_nothing_of_a_new_one(session: Session) -> None:
    _apply(session, _event(version_id="v1", sequencer="01"))
    _apply(session, _removal(version_id="v1", sequencer="05"))
    assert _apply(session, _event(version_id="v2", sequencer="04", etag="other")).what == "created"


def test_removal_that_comes_again_changes_nothing(session: Session) -> None:
    _apply(session, _event())
    _apply(session, _removal())
    before = snapshot(session)
    assert _apply(session, _removal()).what == "repeated"
    assert snapshot(session) == before


def test_upload_that_comes_after_its_removal_makes_no_work(session: Session) -> None:
    _apply(session, _event())
    _apply(session, _removal())
    before = snapshot(session)
    assert _apply(session, _event()).what == "outdated"
    assert snapshot(session) == before


@pytest.mark.parametrize(
    ("version", "gone"),
    [("", {}), ("v1", {"version_id": "v1"}), ("v1", {"version_id": "marker-1", "marker": True})],
)
def test_upload_heard_of_only_after_its_removal_makes_no_work(
    session: Session, version: str, gone: dict[str, Any]
) -> None:
    assert _apply(session, _removal(**gone)).what == "repeated"
    assert _apply(session, _event(version_id=version)).what == "outdated"
    assert _jobs(session) == []
    assert all(item.deleted_at is not None for item in _items(session))


@pytest.mark.parametrize(
    ("version", "gone"),
    [("", {}), ("v1", {"version_id": "v1"}), ("v1", {"version_id": "marker-1", "marker": True})],
)
@pytest.mark.parametrize("heard_of", [True, False])
def test_upload_after_a_removal_is_new_work(
    session: Session, version: str, gone: dict[str, Any], *, heard_of: bool
) -> None:
    if heard_of:
        _finish(session, _apply(session, _event(version_id=version)))
    _apply(session, _removal(**gone))

    again = _apply(session, _event(version_id=version and "v2", sequencer="0030"))

    assert again.what == "created"
    living = [item for item in _items(session) if item.deleted_at is None]
    assert [item.id for item in living] == [again.media_item_id]


def test_item_lives_through_many_generations_in_a_bucket_without_versions(session: Session) -> None:
    for generation in range(4):
        created = _apply(session, _event(etag=f"e{generation}", sequencer=f"00{generation}1"))
        assert created.what == "created"
        if generation % 2:
            assert _apply(session, _removal(sequencer=f"00{generation}2")).what == "removed"
    items = _items(session)
    assert len(items) == len({item.version_id for item in items}) == 4
    assert [item.deleted_at is None for item in items] == [False] * 4
    assert broken_promises(session, [job.id for job in _jobs(session)]) == []


def test_old_version_deleted_for_good_leaves_the_newer_item(session: Session) -> None:
    _apply(session, _event(version_id="v1"))
    _apply(session, _event(version_id="v2", sequencer="0011", etag="e2"))
    _apply(session, _removal(version_id="v1"))
    assert [item.deleted_at is None for item in _items(session)] == [False, True]


@pytest.mark.parametrize("key", ["a b", "a+b", "a%20b", "é", "e\u0301", "🎬", "x" * 1024, "a/../b", "'; --"])
def test_keys_that_differ_in_a_byte_are_different_items(session: Session, key: str) -> None:
    _apply(session, _event(key=key))
    _apply(session, _event(key=key[:-1] + "!"))
    assert {item.key for item in _items(session)} == {key, key[:-1] + "!"}


def test_same_key_in_another_bucket_is_another_item(session: Session) -> None:
    _apply(session, _event())
    assert _apply(session, _event(bucket="archive")).what == "created"


def test_event_without_sequencer_and_etag_is_taken_as_it_comes(session: Session) -> None:
    assert _apply(session, _event(sequencer="", etag=None, size=None)).what == "created"
    assert _apply(session, _removal(sequencer="")).what == "removed"


@pytest.mark.parametrize("version", ["", "v1"])
def test_of_eight_that_hear_of_an_upload_at_once_one_makes_the_job(sessions: Sessions, version: str) -> None:
    for number in range(5):
        key = f"uploads/{number}.jpg"

        def hear(_: int, key: str = key) -> str:
            with sessions.begin() as session:
                return _apply(session, _event(key=key, version_id=version)).what

        assert sorted(in_threads(8, hear)) == ["created", *["repeated"] * 7]


def test_events_of_one_key_in_any_order_at_once_end_alike(sessions: Sessions) -> None:
    for number in range(5):
        key = f"uploads/{number}.jpg"
        told = [
            _event(key=key, version_id="v1", sequencer="0010"),
            _event(key=key, version_id="v2", sequencer="0020", etag="e2"),
            _removal(key=key, version_id="m1", sequencer="0030", marker=True),
            _event(key=key, version_id="v3", sequencer="0040", etag="e3"),
        ]

        def hear(place: int, told: list[ObjectEvent] = told) -> None:
            with sessions.begin() as session:
                _apply(session, told[place % len(told)])

        in_threads(8, hear)
        with sessions() as session:
            living = session.scalars(
                select(MediaItem).where(MediaItem.key == key, MediaItem.deleted_at.is_(None))
            ).all()
            assert [item.version_id for item in living] == ["v3"]
            active = session.scalars(
                select(ProcessingJob.media_item_id)
                .join(MediaItem)
                .where(MediaItem.key == key, ProcessingJob.status.in_(JOB_ACTIVE))
            ).all()
            assert list(active) == [living[0].id]


def test_job_asked_for_while_its_object_is_removed_does_not_outlive_it(sessions: Sessions) -> None:
    with sessions.begin() as session:
        _finish(session, applied := _apply(session, _event()))
        item_id = applied.media_item_id
    assert item_id is not None
    with sessions() as route:
        queue.enqueue(route, media_item_id=item_id, workflow="thumbnails", requested_by="ada")

        def remove_or_commit(number: int) -> str:
            if number:
                route.connection().exec_driver_sql("SELECT pg_sleep(0.5)")
                route.commit()
                return ""
            with sessions.begin() as session:
                return _apply(session, _removal()).what

        in_threads(2, remove_or_commit)
    with sessions() as session:
        assert session.get_one(MediaItem, item_id).deleted_at is not None
        assert {job.status for job in _jobs(session)} == {JobStatus.COMPLETED, JobStatus.CANCELLED}
        left = session.scalars(select(QueueRow.status).where(QueueRow.completed_at.is_(None)))
        assert list(left) == []
