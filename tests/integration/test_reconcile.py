"""What `dailies reconcile` finds, and what it mends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update

from db import queue
from db.models import AuditEntry, MediaItem, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.errors import NotOursError
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import JobStatus, TaskStatus
from tasks import scan
from tasks.bootstrap import bootstrap
from tasks.queues import sqs_name
from tasks.reconcile import KINDS, Drift, drift, mend
from tasks.runtime import Runtime, build
from tests.factories import add_dead_letter, add_item, add_job, now
from tests.integration.conftest import LEASE, in_view
from tests.support import claimed, due, new_job, snapshot, wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

AT_ONCE = timedelta(seconds=-2)
LONG_AGO = timedelta(minutes=9)


@pytest.fixture
def place(empty_queues: Settings) -> Settings:
    """Buckets and queues of each test's own."""
    name = uuid4().hex[:12]
    return empty_queues.model_copy(
        update={
            "storage_bucket": f"compared-{name}",
            "thumbnail_bucket": f"pictures-{name}",
            "queue_prefix": f"{empty_queues.queue_prefix}{name}-",
            "orphan_age": AT_ONCE,
            "lease": LEASE,
        }
    )


@pytest.fixture
def runtime(place: Settings, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    monkeypatch.setattr(scan, "YOUNG", AT_ONCE)
    bootstrap(place)
    runtime = build(place, pool_size=2)
    with closing(runtime.store):
        yield runtime
    runtime.engine.dispose()


def _kinds(found: Drift) -> dict[str, int]:
    return {finding.kind: finding.count for finding in found.findings}


def _break_everything(sessions: Sessions, s3: S3Client, sqs: SQSClient, place: Settings) -> None:
    old: dict[str, Any] = {"available_at": now() - LONG_AGO}
    with sessions.begin() as session:
        rows = [due(session, new_job(session).id) for _ in range(5)]
        for row_id, values in zip(
            rows,
            [
                old,
                old | {"published_at": now() - LONG_AGO},
                old | {"published_at": now() - LONG_AGO},
                old | {"queue": Queue.BULK},
                {},
            ],
            strict=True,
        ):
            if values:
                session.execute(update(QueueRow).where(QueueRow.id == row_id).values(**values))
        queue.pause_lane(session, Queue.BULK, actor="ada")
        claimed(session, rows[4])
        session.execute(
            update(QueueRow).where(QueueRow.id == rows[4]).values(lease_expires_at=now() - LONG_AGO)
        )
        add_dead_letter(session, created_at=now() - LONG_AGO)
        add_item(session, bucket=place.storage_bucket, etag="e")
    s3.put_object(Bucket=place.storage_bucket, Key="uploads/a.jpg", Body=b"1")
    s3.put_object(Bucket=place.thumbnail_bucket, Key=f"media_items/{uuid4()}/small.ab.1.jpg", Body=b"1")
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=sqs_name(place, Queue.HEAVY))["QueueUrl"])


def test_nothing_is_found_where_nothing_is_wrong(runtime: Runtime, sessions: Sessions) -> None:
    with sessions.begin() as session:
        new_job(session)  # a moment ago: somebody is about to publish it
        claimed(session, due(session, new_job(session).id))
    found = drift(runtime)
    assert (found.findings, found.cut, found.clean) == ((), (), True)


def test_every_drift_is_found_and_looking_changes_nothing(
    runtime: Runtime, sessions: Sessions, s3: S3Client, sqs: SQSClient, place: Settings
) -> None:
    _break_everything(sessions, s3, sqs, place)
    with sessions() as session:
        before = snapshot(session)

    found = drift(runtime)

    with sessions() as session:
        assert snapshot(session) == before
    # Of the heavy lane's queue nothing can be asked; its rows are none.
    assert _kinds(found) == {
        "lease_expired": 1,
        "unpublished": 1,
        "paused": 1,
        "letter_without_copy": 1,
        "message_lost": 2,
        "topology": 1,
        "object_without_item": 1,
        "item_without_object": 1,
        "orphaned_picture": 1,
    }
    assert not found.clean
    assert all(finding.samples and finding.what and finding.mended_by for finding in found.findings)
    assert _kinds(found).keys() <= KINDS.keys()


def test_mending_leaves_no_drift_but_what_is_meant(
    runtime: Runtime, sessions: Sessions, s3: S3Client, sqs: SQSClient, place: Settings
) -> None:
    _break_everything(sessions, s3, sqs, place)
    up = text("SELECT clock_timestamp() - pg_postmaster_start_time() > interval '7 seconds'")
    with sessions() as session:
        wait_until(lambda: session.scalar(up))
    in_view(sessions)

    mended = mend(runtime, actor="ada", reason="after the fire")

    assert mended.failed == {}
    assert mended.steps["release_expired"] == mended.steps["repair_topology"] == 1
    assert (mended.steps["scan_bucket"], mended.steps["sweep_orphans"]) == (2, 1)
    assert mended.steps["publish_due"] == 4  # of the object that was found its scan has sent the message
    after = drift(runtime)
    assert (_kinds(after), after.clean) == ({"paused": 1}, True)
    with sessions() as session:
        entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "reconciled")).one()
        assert (entry.actor, entry.details["reason"]) == ("ada", "after the fire")
        assert entry.details["steps"]["repair_topology"] == 1


def test_jobs_whose_status_is_not_what_their_rows_say_are_named(runtime: Runtime, sessions: Sessions) -> None:
    with sessions.begin() as session:
        stuck = add_job(session, add_item(session), [TaskStatus.COMPLETED])  # the others pend for ever
        undead = add_job(session, add_item(session))
        undead.status, undead.completed_at = JobStatus.CANCELLED, now()
        add_job(session, add_item(session), [TaskStatus.COMPLETED] * 6)
        names = {str(stuck.id), str(undead.id)}
    (finding,) = drift(runtime).findings
    assert (finding.kind, finding.count, set(finding.samples)) == ("job_disagrees", 2, names)


def test_listing_that_takes_too_long_is_cut_and_says_so(
    runtime: Runtime, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        s3.put_object(Bucket=place.storage_bucket, Key=f"uploads/{number}.jpg", Body=b"1")
    real = runtime.store.list_page
    monkeypatch.setattr(
        type(runtime.store), "list_page", lambda _, bucket, *, after="": real(bucket, after=after, limit=1)
    )
    found = drift(runtime, patience=0)
    assert found.cut == ("objects: the listing was cut after 0 s, behind 'uploads/0.jpg'",)
    assert _kinds(found) == {"object_without_item": 1}


def test_broker_that_is_away_is_said_and_the_rows_are_looked_at(place: Settings, sessions: Sessions) -> None:
    with sessions.begin() as session:
        queue.keep_foreign(session, source=None, body="?", error=NotOursError("No row has this id."))
        session.execute(text("UPDATE dead_letters SET created_at = created_at - interval '1 hour'"))
    away = build(place.model_copy(update={"aws_endpoint_url": "http://127.0.0.1:9"}), pool_size=2)
    found = drift(away)
    assert _kinds(found) == {"letter_without_copy": 1}
    assert len(found.cut) == 4
    mended = mend(away, actor="ada")
    assert {"repair_topology", "collect_messages", "scan_bucket", "sweep_orphans"} <= mended.failed.keys()
    assert mended.steps.keys() >= {"release_expired", "prune"}
    away.store.close()
    away.engine.dispose()
    with sessions() as session:
        assert session.scalars(select(ProcessingJob.id)).all() == []
        assert session.scalars(select(MediaItem.id)).all() == []
