"""Files of this machine into the storage bucket, as any client of S3 would put them there."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from pipeline.errors import InvalidRequestError
from pipeline.keys import MAX_KEY_BYTES
from pipeline.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "uploads/"
SAMPLES = Path(__file__).resolve().parent.parent / "samples"
_OF_DESKTOPS = {".DS_Store", "Thumbs.db", "desktop.ini"}
MIB = 1024**2
#: One PUT up to here, parts above; no threads of its own, so that a signal ends an upload at once.
TRANSFER = TransferConfig(multipart_threshold=64 * MIB, multipart_chunksize=16 * MIB, use_threads=False)


@dataclass
class Upload:
    """One file and where it went. ``error`` says why it did not."""

    path: Path
    key: str
    size: int | None = None
    version_id: str = ""
    replaced: bool = False  #: there were other bytes under its key
    error_code: str | None = None
    error: str | None = None


def find(path: Path, *, below: str = "") -> list[Upload]:
    """The file ``path``, or every file below it, in order of their keys. Nothing is read yet.

    Keys are ``uploads/``, ``below`` (a name, or nothing), and the path below ``path`` or the file's name.
    What is no regular file (a socket, a link that leads nowhere) is in the list with an error.
    """
    if not path.is_dir():
        return [_named(path, path.name)]
    skipped = os.path.realpath(SAMPLES / "README.md")  # describes the samples and is none
    files = (file for file in _files(path) if os.path.realpath(file) != skipped)
    return sorted(
        (_named(file, Path(below, file.relative_to(path)).as_posix()) for file in files),
        key=lambda one: one.key,
    )


def find_all(paths: list[Path]) -> list[Upload]:
    """What ``find`` finds for each of ``paths``, each folder's files below its name, each file once.

    So folders whose files have equal names do not replace each other's. Raises InvalidRequestError
    DUPLICATE_KEY where two files would get one key.
    """
    found: dict[tuple[str, str], Upload] = {}
    for path in paths:
        for upload in find(path, below=_folder_name(path)):
            found.setdefault((upload.key, os.path.realpath(upload.path)), upload)
    uploads = list(found.values())
    _ensure_distinct(uploads)
    return uploads


def put(uploads: list[Upload], settings: Settings, uploaded: Callable[[Upload], None]) -> None:
    """Upload what can be read, one after the other; ``uploaded`` is called after each try."""
    s3: S3Client = boto3.client(
        "s3",
        endpoint_url=settings.aws_endpoint_url or None,
        region_name=settings.aws_region,
        config=Config(retries={"mode": "standard", "total_max_attempts": 5}),
    )
    for upload in uploads:
        if upload.error is None:
            _put(s3, settings.storage_bucket, upload)
        uploaded(upload)


def _put(s3: S3Client, bucket: str, upload: Upload) -> None:
    kind = mimetypes.guess_type(upload.path.name)[0] or "application/octet-stream"
    try:
        before = _etag_of(s3, bucket, upload.key)
        s3.upload_file(str(upload.path), bucket, upload.key, ExtraArgs={"ContentType": kind}, Config=TRANSFER)
        head = s3.head_object(Bucket=bucket, Key=upload.key)
        upload.version_id = head.get("VersionId", "")
        upload.replaced = before not in {None, head["ETag"]}
    except OSError as error:
        _refuse(upload, "UNREADABLE_FILE", f"The file cannot be read: {error.strerror or error}.")
    except (Boto3Error, BotoCoreError, ClientError, ParamValidationError, UnicodeError) as error:
        _refuse(upload, "UPLOAD_FAILED", f"The file could not be uploaded: {error}")


def _etag_of(s3: S3Client, bucket: str, key: str) -> str | None:
    """What names the bytes that are there now; None where there are none, or nobody may know."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)["ETag"]
    except ClientError:
        return None


def _folder_name(path: Path) -> str:
    """The name it was given by, which may be a link's; that of the folder itself for ``.`` and ``..``."""
    return path.name if path.name not in ("", "..") else path.resolve().name


def _ensure_distinct(uploads: list[Upload]) -> None:
    first: dict[str, Upload] = {}
    for upload in uploads:
        if upload.error is not None:  # is not uploaded, and its key may be a makeshift
            continue
        other = first.setdefault(upload.key, upload)
        if other is not upload:
            raise InvalidRequestError(
                f"{other.path} and {upload.path} would both be uploaded as {upload.key}, and one would "
                "replace the other: rename one, or upload them by folders of different names.",
                code="DUPLICATE_KEY",
            )


def _named(path: Path, name: str) -> Upload:
    upload = Upload(path, PREFIX + name)
    try:
        name.encode()
        upload.size = path.stat().st_size
    except OSError as error:
        _refuse(upload, "UNREADABLE_FILE", f"The file cannot be read: {error.strerror}.")
    except UnicodeEncodeError:
        upload.key = PREFIX + name.encode("utf-8", "replace").decode()
        _refuse(upload, "UNREADABLE_NAME", "The path is no UTF-8 and cannot be a key: rename it.")
    else:
        if not path.is_file():
            _refuse(upload, "UNREADABLE_FILE", "This is no regular file.")
        elif len(upload.key.encode()) > MAX_KEY_BYTES:  # a server that takes it tells of it to no purpose
            _refuse(upload, "KEY_TOO_LONG", f"A key has at most {MAX_KEY_BYTES} bytes: shorten the path.")
    return upload


def _refuse(upload: Upload, code: str, sentence: str) -> None:
    upload.error_code, upload.error = code, sentence


def _files(folder: Path) -> Iterator[Path]:
    """Every file below ``folder``, but what desktops leave there for themselves."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names if name not in _OF_DESKTOPS)
