"""The spool: local copies of the objects being worked on, one download an object on one machine."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from pipeline.errors import InfrastructureError
from pipeline.keys import check_size
from pipeline.stages.base import Asset, LocalFile
from pipeline.storage import ObjectStore, object_replaced


class Spool:
    """Local copies of objects, by their SHA-256, shared by all processes of this machine.

    ``<directory>/<first two digits>/<sha256>`` are the copies; when there are more than ``limit`` bytes, the
    longest unused go first. ``objects/`` links (bucket, key, version, ETag) to them, and ``tmp/`` holds
    downloads under way, by which the limit may be passed.
    """

    KEEP = timedelta(minutes=20)  #: no copy used within this time is deleted; stages run for less
    SHARE = (
        8  #: processes assumed to fill the spool at once: each looks again after its share of what is free
    )

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        self._allowance = 0  # bytes that may be added before the next look at the whole spool

    def fetch(self, store: ObjectStore, asset: Asset, size_limit: int) -> LocalFile:
        """The bytes of ``asset``: the copy that is there, or else one download, whoever else asks for it now.

        Raises:
            PermanentStageError: EMPTY_FILE, FILE_TOO_LARGE, OBJECT_REPLACED.
            TransientStageError: OBJECT_MISSING, CHECKSUM_MISMATCH.
            InfrastructureError: SPOOL_FULL; fails nothing, the row comes back.
        """
        found = self._use(asset.sha256, asset.size) if asset.sha256 else None
        if found is not None:
            return found
        if not (asset.etag or asset.version_id):
            asset = asset.model_copy(update={"etag": store.head(asset.bucket, asset.key).etag})
        address = json.dumps([asset.bucket, asset.key, asset.version_id, asset.etag])
        link = self._folder("objects") / hashlib.sha256(address.encode()).hexdigest()
        with self._lock(link.name[:2]):  # 256 locks: enough not to wait for another's, few enough to keep
            sha256 = link.readlink().name if link.is_symlink() else None
            return (self._use(sha256, asset.size) if sha256 else None) or self._add(
                store, asset, size_limit, link
            )

    def _use(self, sha256: str, size: int | None) -> LocalFile | None:
        path = self.directory / sha256[:2] / sha256
        with self._lock("evict", fcntl.LOCK_SH), suppress(FileNotFoundError):
            os.utime(path)
            actual = path.stat().st_size  # another size: the machine went down while it was written
            return LocalFile(path, actual, sha256) if size in {None, actual} else None
        return None

    def _add(self, store: ObjectStore, asset: Asset, size_limit: int, link: Path) -> LocalFile:
        handle, name = tempfile.mkstemp(dir=self._folder("tmp"))
        os.close(handle)

        def admit(size: int) -> None:
            check_size(asset.key, size, size_limit)
            self._make_room(size)

        try:
            got = store.download(asset, Path(name), admit)
            if asset.sha256 not in {None, got.sha256}:
                raise object_replaced()
            path = self._folder(got.sha256[:2]) / got.sha256
            Path(name).replace(path)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _full("the disk is full; free some") from error
            raise
        finally:
            Path(name).unlink(missing_ok=True)
        fresh = link.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)  # of a process that was killed here and had this number
        fresh.symlink_to(Path("..") / path.parent.name / path.name)
        fresh.replace(link)
        return replace(got, path=path)

    def _make_room(self, size: int) -> None:
        if size <= self._allowance:
            self._allowance -= size
            return
        with self._lock("evict"):
            files = sorted(self._copies())
            total = sum(bytes_ for _, bytes_, _ in files) + size
            oldest_kept = time.time() - self.KEEP.total_seconds()
            for used_at, bytes_, path in files:
                if total <= self.limit or used_at > oldest_kept:
                    break
                Path(path).unlink(missing_ok=True)
                total -= bytes_
            for link in self._folder("objects").iterdir():
                if not link.exists():
                    link.unlink(missing_ok=True)
        if total > self.limit:
            raise _full(f"it may hold {self.limit / 1e6:,.0f} MB; raise DAILIES_SPOOL_LIMIT")
        self._allowance = (self.limit - total) // self.SHARE

    def _copies(self) -> Iterator[tuple[float, int, str]]:
        """Time of last use, bytes and path of each copy, and of what a killed process left of a download."""
        for folder in (*self.directory.glob("[0-9a-f][0-9a-f]"), self._folder("tmp")):
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):
                    found = entry.stat()
                    yield found.st_mtime, found.st_size, entry.path

    def _folder(self, name: str) -> Path:
        folder = self.directory / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def _lock(self, name: str, how: int = fcntl.LOCK_EX) -> Iterator[None]:
        with (self._folder("locks") / name).open("w") as file:
            fcntl.flock(file, how)  # given back when the file is closed, or its process dies
            yield


def _full(why: str) -> InfrastructureError:
    return InfrastructureError(f"The spool has no room: {why}.", code="SPOOL_FULL")


def sweep_workdirs(directory: Path, living: Callable[[frozenset[int]], Collection[int]]) -> int:
    """Delete what killed processes left in ``directory``/work; returns how many folders.

    ``living`` is given the tokens of the folders that are there, and returns those whose attempts still run
    on this machine. It is asked after the look, so that a folder made meanwhile is in no danger.
    """
    try:
        found = {entry.path: _token_of(entry.name) for entry in os.scandir(directory / "work")}
    except FileNotFoundError:
        return 0
    tokens = frozenset(token for token in found.values() if token is not None)
    running = set(living(tokens)) if tokens else set()
    left = [path for path, token in found.items() if token is not None and token not in running]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return len(left)


def _token_of(name: str) -> int | None:
    """The token that a folder is named after; None for what no attempt has made."""
    token, hyphen, _ = name.partition("-")
    return int(token) if hyphen and token.isascii() and token.isdecimal() else None
