"""How a comparison of the bucket gets to its end, whatever is asked or refused meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from db.session import Sessions
from pipeline.errors import TransientStageError
from pipeline.settings import Settings
from tasks.bootstrap import bootstrap
from tasks.runtime import Runtime, build
from tasks.scan import BucketScan
from tests.factories import add_item

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture
def place(aws: Settings) -> Settings:
    """A bucket of each test's own."""
    return aws.model_copy(
        update={
            "storage_bucket": f"passed-{uuid4().hex[:12]}",
            "queue_prefix": f"{aws.queue_prefix}passed-",
        }
    )


@pytest.fixture
def runtime(place: Settings, sessions: Sessions) -> Iterator[Runtime]:
    bootstrap(place)
    runtime = build(place, pool_size=3)
    with closing(runtime.store):
        yield runtime
    runtime.engine.dispose()


def test_pass_that_is_asked_for_again_and_again_ends(
    runtime: Runtime, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        s3.put_object(Bucket=place.storage_bucket, Key=f"uploads/{number}.jpg", Body=b"1")
    real = runtime.store.list_page
    monkeypatch.setattr(
        type(runtime.store), "list_page", lambda _, bucket, *, after="": real(bucket, after=after, limit=2)
    )
    found = 0
    for _ in range(3):
        BucketScan(runtime).progress.ask()
        done, _ended = BucketScan(runtime).run(patience=0)
        found += done
    assert found == 5


def test_object_that_s3_refuses_keeps_no_other_from_being_found(
    runtime: Runtime, sessions: Sessions, s3: S3Client, place: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        s3.put_object(Bucket=place.storage_bucket, Key=f"uploads/{name}.jpg", Body=name.encode())
    with sessions.begin() as session:
        add_item(session, bucket=place.storage_bucket, key="uploads/gone.jpg", etag="e")
    scan, real = BucketScan(runtime), runtime.store.head

    def refused(_: Any, bucket: str, key: str) -> Any:
        if key == "uploads/a.jpg":
            raise TransientStageError("S3 denies access.", code="ACCESS_DENIED")
        return real(bucket, key)

    monkeypatch.setattr(type(runtime.store), "head", refused)
    for found in (3, 0):
        scan.progress.ask()
        assert scan.run(patience=60) == (found, True)
    monkeypatch.undo()
    scan.progress.ask()
    assert scan.run(patience=60) == (1, True)
