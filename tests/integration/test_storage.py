"""Object store and spool against a real S3 endpoint, with real threads and processes."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import urllib3
from pydantic import ByteSize

from pipeline.errors import InfrastructureError, ObjectMissingError, PermanentStageError
from pipeline.room import why_no_room
from pipeline.settings import Settings, get_settings
from pipeline.spool import Spool
from pipeline.stages.base import Asset
from pipeline.storage import ObjectStore
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Call, Fault
from tests.support import fetch

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LIMIT = 1_000_000
LONG_AGO = time.time() - 3600


class CountingStore(ObjectStore):
    """Counts what it asks of S3."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.asked: list[str] = []
        self.client.meta.events.register("before-call.s3", self._count)

    def _count(self, model: Any, **_: Any) -> None:
        self.asked.append(model.name)


class Meanwhile(Fault):
    """Something happens while the body of an answer is on its way."""

    def __init__(self, happen: Callable[[], object]) -> None:
        self._happen = happen

    def body(self, call: Call, pieces: Iterator[bytes], length: int) -> Iterator[bytes]:  # noqa: ARG002 - not asked
        first = next(pieces)
        yield first[:1000]
        self._happen()
        yield first[1000:]
        yield from pieces


@pytest.fixture
def store(aws: Settings) -> Iterator[CountingStore]:
    with closing(CountingStore(aws)) as store:
        yield store


@pytest.fixture
def here(aws: Settings, tmp_path: Path) -> Settings:
    """The settings of a machine whose spool is ``tmp_path`` and holds 250 bytes."""
    return aws.model_copy(
        update={"spool_dir": tmp_path, "spool_limit": ByteSize(250), "room_margin": ByteSize(0)}
    )


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 10 * LIMIT)


def uploaded(s3: S3Client, bucket: str, data: bytes, key: str | None = None, **options: Any) -> Asset:
    """The asset of an object that is there, described as an S3 event does."""
    key = key or f"uploads/{uuid4()}/a +ö.jpg"
    found = s3.put_object(Bucket=bucket, Key=key, Body=data, **options)
    etag, version = found["ETag"].strip('"'), found.get("VersionId")
    return Asset(media_item_id=uuid4(), bucket=bucket, key=key, etag=etag, version_id=version, size=len(data))


def codes(error: type[Exception], ask: Any) -> str:
    with pytest.raises(error) as raised:
        ask()
    code: str = raised.value.code  # type: ignore[attr-defined]  # every one of ours has it
    return code


def test_file_put_is_read_back_by_anyone_with_its_url(
    store: ObjectStore, s3: S3Client, aws: Settings, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"picture")
    bucket, key = aws.thumbnail_bucket, f"media_items/{uuid4()}/primary.ab.1.jpg"
    assert not store.exists(bucket, key)
    store.put_file(bucket, key, tmp_path / "a", content_type="image/jpeg")
    assert store.exists(bucket, key)
    found = store.head(bucket, key)
    assert (found.size, found.content_type) == (7, "image/jpeg")
    assert "immutable" in s3.head_object(Bucket=bucket, Key=key)["CacheControl"]
    url = store.presigned_get(bucket, key, expires=timedelta(minutes=1))
    assert urllib3.request("GET", url).data == b"picture"
    store.delete(bucket, key)
    store.delete(bucket, key)
    assert not store.exists(bucket, key)


def test_ping_finds_the_buckets_or_says_which_is_missing(store: ObjectStore, aws: Settings) -> None:
    store.ping()
    with closing(ObjectStore(aws.model_copy(update={"thumbnail_bucket": "no-such-bucket"}))) as other:
        assert codes(InfrastructureError, other.ping) == "STORAGE_UNAVAILABLE"


def test_fetch_of_what_is_gone_costs_an_attempt_and_of_a_missing_bucket_does_not(
    store: ObjectStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, b"x")
    get = partial(fetch, spool, store, size_limit=LIMIT)
    s3.delete_object(Bucket=bucket, Key=asset.key, VersionId=asset.version_id or "null")
    assert codes(ObjectMissingError, lambda: get(asset)) == "OBJECT_MISSING"
    unseen = asset.model_copy(update={"version_id": None, "etag": None})
    assert codes(ObjectMissingError, lambda: get(unseen)) == "OBJECT_MISSING"
    elsewhere = unseen.model_copy(update={"bucket": "no-such-bucket"})
    assert codes(InfrastructureError, lambda: get(elsewhere)) == "STORAGE_UNAVAILABLE"


def test_fetch_reads_the_version_it_was_asked_for(
    store: ObjectStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    old = uploaded(s3, bucket, b"old")
    uploaded(s3, bucket, b"newer", key=old.key)
    assert fetch(spool, store, old, LIMIT).path.read_bytes() == b"old"
    unversioned = old.model_copy(update={"version_id": None})
    spool_of_another_machine = Spool(spool.directory / "other", LIMIT)
    assert codes(
        PermanentStageError, lambda: fetch(spool_of_another_machine, store, unversioned, LIMIT)
    ) == "OBJECT_REPLACED"  # fmt: skip


def test_object_that_is_replaced_while_it_is_read_is_read_to_its_end(
    aws: Settings, s3: S3Client, bucket: str, spool: Spool
) -> None:
    old, new = os.urandom(LIMIT), os.urandom(LIMIT)
    asset = uploaded(s3, bucket, old).model_copy(update={"version_id": None})

    assert aws.aws_endpoint_url
    with AwsProxy(aws.aws_endpoint_url) as proxy:
        replace = Meanwhile(lambda: uploaded(s3, bucket, new, key=asset.key))
        proxy.rule(replace, "S3.GetObject")
        through = aws.model_copy(update={"aws_endpoint_url": proxy.url})
        with closing(ObjectStore(through)) as store:
            assert fetch(spool, store, asset, LIMIT).path.read_bytes() == old


def test_fetch_of_other_bytes_than_ingest_saw_says_so(
    store: ObjectStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, b"x").model_copy(update={"sha256": sha256(b"y").hexdigest()})
    assert codes(PermanentStageError, lambda: fetch(spool, store, asset, LIMIT)) == "OBJECT_REPLACED"


def test_fetch_checks_the_checksum_that_s3_has_stored(
    store: ObjectStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, b"checked", ChecksumAlgorithm="SHA256")
    assert fetch(spool, store, asset, LIMIT).sha256 == sha256(b"checked").hexdigest()


def test_fetch_takes_an_object_of_many_parts(
    store: ObjectStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    key = f"uploads/{uuid4()}"
    where: dict[str, Any] = {"Bucket": bucket, "Key": key}
    upload = s3.create_multipart_upload(**where, ChecksumAlgorithm="SHA256")["UploadId"]
    parts, data = [], (b"a" * 5 * 1024**2, b"b" * 10)
    for number, body in enumerate(data, 1):
        part = s3.upload_part(
            **where, UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm="SHA256"
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]})
    s3.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})  # type: ignore[typeddict-item]  # built in a loop
    got = fetch(spool, store, Asset(media_item_id=uuid4(), bucket=bucket, key=key), 10 * LIMIT)
    assert got.sha256 == sha256(b"".join(data)).hexdigest()


def test_stages_of_one_asset_share_one_request(
    store: CountingStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, b"abc")
    first = fetch(spool, store, asset, LIMIT)
    assert (first.size, first.sha256) == (3, sha256(b"abc").hexdigest())
    assert first.path.relative_to(spool.directory) == Path(first.sha256[:2]) / first.sha256
    assert fetch(spool, store, asset, LIMIT) == first
    assert fetch(spool, store, asset.model_copy(update={"sha256": first.sha256}), LIMIT) == first
    assert store.asked == ["GetObject"]


def test_equal_bytes_of_two_objects_are_kept_once(
    store: CountingStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    paths = {fetch(spool, store, uploaded(s3, bucket, b"equal"), LIMIT).path for _ in range(2)}
    assert len(paths) == 1
    assert store.asked == ["GetObject"] * 2


def test_copy_of_another_size_is_fetched_again(
    store: CountingStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, b"whole")
    path = fetch(spool, store, asset, LIMIT).path
    path.write_bytes(b"wh")  # as after a power cut
    assert fetch(spool, store, asset, LIMIT).path.read_bytes() == b"whole"


def test_sixteen_threads_download_an_object_once(
    store: CountingStore, spool: Spool, s3: S3Client, bucket: str
) -> None:
    asset = uploaded(s3, bucket, os.urandom(300_000))
    with ThreadPoolExecutor(16) as pool:
        got = list(
            pool.map(lambda _: fetch(Spool(spool.directory, spool.limit), store, asset, LIMIT), range(16))
        )
    assert len(set(got)) == 1
    assert store.asked == ["GetObject"]


def fetch_in_a_process(directory: Path, asset: Asset) -> tuple[str, int]:
    with closing(CountingStore(get_settings())) as store:
        return fetch(Spool(directory, 10 * LIMIT), store, asset, LIMIT).sha256, len(store.asked)


def test_processes_download_an_object_once(spool: Spool, s3: S3Client, bucket: str) -> None:
    data = os.urandom(300_000)
    asset = uploaded(s3, bucket, data)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        got = list(pool.map(partial(fetch_in_a_process, spool.directory), [asset] * 6))
    assert {digest for digest, _ in got} == {sha256(data).hexdigest()}
    assert sum(requests for _, requests in got) == 1


def test_copies_unused_for_longest_make_room(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 250)
    assets = [uploaded(s3, bucket, os.urandom(100)) for _ in range(3)]
    oldest, older = (fetch(spool, store, asset, LIMIT).path for asset in assets[:2])
    os.utime(oldest, (LONG_AGO - 1, LONG_AGO - 1))
    os.utime(older, (LONG_AGO, LONG_AGO))
    newest = fetch(spool, store, assets[2], LIMIT).path
    assert [path.exists() for path in (oldest, older, newest)] == [False, True, True]
    assert len(list((tmp_path / "objects").iterdir())) == 2
    assert fetch(spool, store, assets[0], LIMIT).path.exists()  # fetched again


def test_use_keeps_a_copy_young(store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path) -> None:
    spool = Spool(tmp_path, 250)
    assets = [uploaded(s3, bucket, os.urandom(100)) for _ in range(3)]
    used, unused = (fetch(spool, store, asset, LIMIT).path for asset in assets[:2])
    for path, last_used in ((used, LONG_AGO - 1), (unused, LONG_AGO)):
        os.utime(path, (last_used, last_used))
    fetch(spool, store, assets[0], LIMIT)
    fetch(spool, store, assets[2], LIMIT)
    assert [path.exists() for path in (used, unused)] == [True, False]


def test_copies_that_nobody_works_on_make_room_however_young(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path, here: Settings
) -> None:
    spool = Spool(tmp_path, 250)
    for _ in range(10):
        path = fetch(spool, store, uploaded(s3, bucket, os.urandom(100)), LIMIT).path
        assert path.exists()
        assert why_no_room(here) is None


def test_spool_full_of_what_is_worked_on_fails_no_file_and_says_so(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path, here: Settings
) -> None:
    spool = Spool(tmp_path, 250)
    assets = [uploaded(s3, bucket, os.urandom(100)) for _ in range(3)]
    with spool.lend(store, assets[0], LIMIT) as first:
        os.utime(first.path, (LONG_AGO, LONG_AGO))
        with spool.lend(store, assets[1], LIMIT) as second, spool.lend(store, assets[0], LIMIT):
            assert codes(InfrastructureError, lambda: fetch(spool, store, assets[2], LIMIT)) == "SPOOL_FULL"
            assert list((tmp_path / "tmp").iterdir()) == []
            full = here.model_copy(update={"spool_limit": ByteSize(220)})
            assert "full of what is being worked on" in (why_no_room(full) or "")
            assert first.path.exists()
        assert why_no_room(full) is None
        third = fetch(spool, store, assets[2], LIMIT)
        assert [file.path.exists() for file in (first, second, third)] == [True, False, True]


def test_copy_stays_its_lenders_when_equal_bytes_come(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    spool, data = Spool(tmp_path, 250), os.urandom(100)
    with spool.lend(store, uploaded(s3, bucket, data), LIMIT) as mine:
        with spool.lend(store, uploaded(s3, bucket, data), LIMIT) as theirs:
            assert theirs.path == mine.path
        for _ in range(3):
            fetch(spool, store, uploaded(s3, bucket, os.urandom(100)), LIMIT)
        assert mine.path.read_bytes() == data


def test_file_larger_than_the_spool_takes_nobodys_copy(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 250)
    copy = fetch(spool, store, uploaded(s3, bucket, os.urandom(100)), LIMIT).path
    too_large = uploaded(s3, bucket, os.urandom(300))
    assert codes(InfrastructureError, lambda: fetch(spool, store, too_large, LIMIT)) == "SPOOL_FULL"
    assert copy.exists()


def test_what_a_killed_process_left_makes_room(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    left = tmp_path / "tmp" / "left"
    left.parent.mkdir()
    left.write_bytes(bytes(200))
    os.utime(left, (LONG_AGO, LONG_AGO))
    fetch(Spool(tmp_path, 250), store, uploaded(s3, bucket, os.urandom(100)), LIMIT)
    assert not left.exists()


def test_many_small_files_stay_under_the_limit(
    store: ObjectStore, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    spool = Spool(tmp_path, 1000)
    for _ in range(15):
        path = fetch(spool, store, uploaded(s3, bucket, os.urandom(100)), LIMIT).path
        os.utime(path, (LONG_AGO, LONG_AGO))
    total = sum(path.stat().st_size for path in tmp_path.glob("??/*"))
    assert 500 <= total <= 1000
