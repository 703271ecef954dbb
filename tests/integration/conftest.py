"""What the tests of the steward and of real workers share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from db import marks
from db.session import Sessions
from pipeline.settings import Settings
from tasks.queues import Queues
from tasks.runtime import Runtime, build
from tasks.steward import POOL_SIZE
from tests.factories import now
from tests.floor import Floor
from tests.support import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

#: So short that the server was started longer ago.
LEASE = timedelta(seconds=5)


@pytest.fixture
def empty_buckets(aws: Settings, s3: S3Client) -> None:
    """Nothing that an earlier test has left: a steward takes what no row stands for as a lost event."""
    for bucket in (aws.storage_bucket, aws.thumbnail_bucket):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for one in (*page.get("Versions", []), *page.get("DeleteMarkers", [])):
                s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])


@pytest.fixture
def stewards(sessions: Sessions, empty_buckets: None, empty_queues: Settings) -> Iterator[Runtime]:
    """A steward's runtime, whose steward has had the database in view for a long time."""
    up = text("SELECT clock_timestamp() - pg_postmaster_start_time() > interval '7 seconds'")
    with sessions() as session:
        wait_until(lambda: session.scalar(up))
    in_view(sessions)
    runtime = build(empty_queues.model_copy(update={"lease": LEASE}), pool_size=POOL_SIZE)
    with closing(runtime.store):
        yield runtime
    runtime.engine.dispose()


@pytest.fixture
def floor(sessions: Sessions, s3: S3Client, bucket: str, empty_queues: Settings, tmp_path: Path) -> Floor:
    """Where a real worker works."""
    assert empty_queues
    return Floor(sessions, s3, bucket, tmp_path)


@pytest.fixture
def sqs_queues(empty_queues: Settings) -> Iterator[Queues]:
    """The queues, to look into them."""
    queues = Queues(empty_queues)
    yield queues
    queues.client.close()


def in_view(sessions: Sessions) -> None:
    """As if a steward had watched the database for an hour, and found it there."""
    with sessions.begin() as session:
        marks.put(session, marks.WATCHED)
        marks.put(session, marks.RECOVERED, at=now() - timedelta(hours=1))
