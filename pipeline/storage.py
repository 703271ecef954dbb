"""The object store: S3, by boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ParamValidationError,
    ResponseStreamingError,
)

from pipeline.errors import (
    InfrastructureError,
    ObjectMissingError,
    PermanentStageError,
    StageError,
    TransientStageError,
)
from pipeline.settings import Settings
from pipeline.stages.base import Asset, LocalFile

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CHUNK = 1024 * 1024  # bytes
IMMUTABLE = "max-age=31536000, immutable"  # a key carries the fingerprint of its bytes: they never change
_GONE = frozenset({"NoSuchKey", "NoSuchVersion", "404", "MethodNotAllowed", "405"})  # 405: a delete marker
_BUSY = frozenset({"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "ExpiredToken", "NoSuchBucket"})
_SERVER_ERROR, _FORBIDDEN = 500, 403


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What HEAD says of an object."""

    size: int  #: bytes
    etag: str  #: without its quotation marks
    version_id: str | None
    content_type: str | None


@dataclass(frozen=True, slots=True)
class ListedObject:
    """What a listing says of an object."""

    key: str
    size: int  #: bytes
    etag: str  #: without its quotation marks
    modified: datetime  #: by S3's clock


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """One page of a listing, in the order of the keys' bytes."""

    objects: tuple[ListedObject, ...]
    last: bool  #: no page follows
    now: datetime  #: S3's clock when it answered


class ObjectStore:
    """S3 as the stages and the API need it. Safe for threads; a forked child makes its own.

    Every method raises InfrastructureError STORAGE_UNAVAILABLE when S3 does not answer, and
    TransientStageError ACCESS_DENIED or STORAGE_REFUSED when it refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self._buckets = (settings.storage_bucket, settings.thumbnail_bucket)
        endpoint = settings.aws_endpoint_url or None
        self.client: S3Client = boto3.client(
            "s3",
            region_name=settings.aws_region,
            endpoint_url=endpoint,
            config=Config(
                signature_version="s3v4",
                connect_timeout=5,
                read_timeout=10,  # botocore swallows the soft time limit; this bounds how long
                retries={"total_max_attempts": 3, "mode": "standard"},
                # Bucket names are no host names where the endpoint is an address.
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def ping(self) -> None:
        """Ask whether both buckets are there."""
        for bucket in self._buckets:
            with self._answering(bucket):
                self.client.head_bucket(Bucket=bucket)

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Describe an object. Raises ObjectMissingError."""
        with self._answering(bucket, key):
            found = self.client.head_object(Bucket=bucket, Key=key, **_given(VersionId=version_id))
        return ObjectInfo(
            found["ContentLength"], found["ETag"].strip('"'), found.get("VersionId"), found.get("ContentType")
        )

    def exists(self, bucket: str, key: str) -> bool:
        """Whether there is an object at ``key``."""
        try:
            self.head(bucket, key)
        except ObjectMissingError:
            return False
        return True

    def download(self, asset: Asset, path: Path, admit: Callable[[int], None]) -> LocalFile:
        """Write the object of ``asset`` to ``path``, hashing it in the same pass.

        ``admit`` is given the size in bytes before any of the body is read, and raises to refuse it.
        Botocore holds the body against the promised length and the stored checksum, unless it is of parts.

        Raises:
            PermanentStageError: OBJECT_REPLACED if the ETag is no longer the asset's.
            TransientStageError: OBJECT_MISSING, or CHECKSUM_MISMATCH with what S3 has stored.
            InfrastructureError: DOWNLOAD_CUT_SHORT, besides what every method raises.
        """
        etag = f'"{asset.etag.strip(chr(34))}"' if asset.etag else None
        wanted = _given(VersionId=asset.version_id, IfMatch=etag)
        with self._answering(asset.bucket, asset.key):
            found = self.client.get_object(
                Bucket=asset.bucket, Key=asset.key, ChecksumMode="ENABLED", **wanted
            )
            with closing(found["Body"]) as body, path.open("wb") as file:
                admit(found["ContentLength"])
                size, digest = _copy(body, file)
        return LocalFile(path, size, digest.hex(), found.get("ContentType"))

    def put_file(self, bucket: str, key: str, path: Path, *, content_type: str) -> None:
        """Store the file at ``path``, for clients to cache for ever."""
        with self._answering(bucket, key), path.open("rb") as file:
            self.client.put_object(
                Bucket=bucket, Key=key, Body=file, ContentType=content_type, CacheControl=IMMUTABLE
            )

    def delete(self, bucket: str, key: str) -> None:
        """Delete the object at ``key``, if there is one."""
        with self._answering(bucket, key):
            self.client.delete_object(Bucket=bucket, Key=key)

    def delete_many(self, bucket: str, keys: Sequence[str]) -> int:
        """Delete at most a thousand objects at once; returns how many S3 did not refuse to."""
        with self._answering(bucket):
            found = self.client.delete_objects(
                Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
            )
        return len(keys) - len(found.get("Errors", []))

    def list_page(self, bucket: str, *, after: str = "", limit: int = 1000) -> ObjectPage:
        """The first ``limit`` (at most 1000) objects whose keys come after ``after``."""
        with self._answering(bucket):
            found = self.client.list_objects_v2(Bucket=bucket, MaxKeys=limit, **_given(StartAfter=after))
        objects = tuple(
            ListedObject(one["Key"], one["Size"], one["ETag"].strip('"'), one["LastModified"])
            for one in found.get("Contents", [])
        )
        return ObjectPage(objects, not found.get("IsTruncated", False), _answered_at(found))

    def older_versions(self, bucket: str, key: str, *, limit: int = 20) -> list[str]:
        """Ids of the newest ``limit`` versions that the current object at ``key`` hides."""
        with self._answering(bucket):
            found = self.client.list_object_versions(Bucket=bucket, Prefix=key, MaxKeys=limit + 1)
        return [
            one["VersionId"]
            for one in found.get("Versions", [])
            if one["Key"] == key and not one["IsLatest"] and one["VersionId"] != "null"
        ]

    def presigned_get(self, bucket: str, key: str, *, expires: timedelta) -> str:
        """A URL under which anyone can read the object for as long as ``expires``."""
        return self.client.generate_presigned_url(
            "get_object",
            Params={"Bucket": bucket, "Key": key},
            ExpiresIn=int(expires.total_seconds()),
        )

    @contextmanager
    def _answering(self, bucket: str, key: str | None = None) -> Iterator[None]:
        """Turn botocore's errors into the tree's; ``key`` is None for a request about the bucket."""
        try:
            yield
        except ClientError as error:
            raise self._refused(error, bucket, key) from error
        except FlexibleChecksumError as error:
            raise TransientStageError(
                "The bytes received do not match the checksum that S3 has stored.", code="CHECKSUM_MISMATCH"
            ) from error
        except (IncompleteReadError, ResponseStreamingError) as error:
            # Objects are stored whole: it is the way here that is not well.
            raise InfrastructureError(
                f"The download broke off and is tried again: {error}", code="DOWNLOAD_CUT_SHORT"
            ) from error
        except ParamValidationError:
            raise  # a mistake of ours
        except BotoCoreError as error:
            raise _unavailable(str(error)) from error

    def _refused(self, error: ClientError, bucket: str, key: str | None) -> StageError:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= _SERVER_ERROR or code in _BUSY or (code in _GONE and key is None):
            return _unavailable(f"{bucket}: {error}")
        if code in _GONE:
            # HEAD says 404 for a missing bucket too, and that fails no file.
            with self._answering(bucket):
                self.client.head_bucket(Bucket=bucket)
            # S3 has been seen to deny what it had just announced; what was deleted says so by an event too.
            return ObjectMissingError(
                f"There is no object {key!r} in {bucket}; it was deleted, or never uploaded."
            )
        if code in {"PreconditionFailed", "412"}:
            return object_replaced()
        if status == _FORBIDDEN:
            return TransientStageError(
                f"S3 denies access to {key or ''} in {bucket} ({code}); check the role's policy and keys.",
                code="ACCESS_DENIED",
            )
        return TransientStageError(f"S3 refuses the request: {error}", code="STORAGE_REFUSED")


def _answered_at(found: Any) -> datetime:
    """S3's clock, from the answer's Date; ours where there is none."""
    date = found["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
    return parsedate_to_datetime(date) if date else datetime.now(UTC)


def _given(**values: str | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _copy(body: Any, file: IO[bytes]) -> tuple[int, bytes]:
    """Copy ``body`` to ``file``; the bytes copied and their SHA-256."""
    hashed, size = hashlib.sha256(), 0
    while chunk := body.read(CHUNK):
        hashed.update(chunk)
        size += file.write(chunk)
    return size, hashed.digest()


def _unavailable(why: str) -> InfrastructureError:
    return InfrastructureError(
        f"S3 does not answer; the work is tried again ({why})", code="STORAGE_UNAVAILABLE"
    )


def object_replaced() -> PermanentStageError:
    """The error of a job whose object has been overwritten."""
    return PermanentStageError(
        "The object was replaced after this job began; its new version has a job of its own.",
        code="OBJECT_REPLACED",
    )
