"""The spool: local copies of the objects being worked on, one download an object on one machine."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from pipeline.errors import InfrastructureError
from pipeline.keys import check_size
from pipeline.stages.base import Asset, LocalFile
from pipeline.storage import ObjectStore, object_replaced


class Spool:
    """Local copies of objects, by their SHA-256, shared by all processes of this machine.

    ``<directory>/<first two digits>/<sha256>`` are the copies; when there are more than ``limit`` bytes, the
    longest unused go first, and none that is lent: whoever works on one holds a lock on it, which ends with
    its process. ``objects/`` links (bucket, key, version, ETag) to them, and ``tmp/`` holds downloads under
    way, by which the limit may be passed.
    """

    #: Of the limit, what is left when room is made: not every file makes its own.
    FILLED = 0.9
    #: Processes assumed to fill the spool at once: each looks again after its share of what is free.
    SHARE = 8

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory = directory
        self.limit = limit
        self._allowance = 0  # bytes that may be added before the next look at the whole spool

    @contextmanager
    def lend(self, store: ObjectStore, asset: Asset, size_limit: int) -> Iterator[LocalFile]:
        """The bytes of ``asset``, for the length of the block.

        It is the copy that is there, or else one download, whoever else asks for it now.

        Raises:
            PermanentStageError: EMPTY_FILE, FILE_TOO_LARGE, OBJECT_REPLACED.
            TransientStageError: OBJECT_MISSING, CHECKSUM_MISMATCH.
            InfrastructureError: SPOOL_FULL; fails nothing, the row comes back.
        """
        with ExitStack() as lent:
            yield self._fetch(store, asset, size_limit, lent)

    def _fetch(self, store: ObjectStore, asset: Asset, size_limit: int, lent: ExitStack) -> LocalFile:
        found = self._use(asset.sha256, asset.size, lent) if asset.sha256 else None
        if found is not None:
            return found
        if not (asset.etag or asset.version_id):
            asset = asset.model_copy(update={"etag": store.head(asset.bucket, asset.key).etag})
        address = json.dumps([asset.bucket, asset.key, asset.version_id, asset.etag])
        link = self._folder("objects") / hashlib.sha256(address.encode()).hexdigest()
        with self._lock(link.name[:2]):  # 256 locks: enough not to wait for another's, few enough to keep
            sha256 = link.readlink().name if link.is_symlink() else None
            found = self._use(sha256, asset.size, lent) if sha256 else None
            return found or self._add(store, asset, size_limit, link, lent)

    def _use(self, sha256: str, size: int | None, lent: ExitStack) -> LocalFile | None:
        path = self.directory / sha256[:2] / sha256
        # Nothing is deleted while this lock is held: what is found is still there when it is locked itself.
        with self._lock("evict", fcntl.LOCK_SH), suppress(FileNotFoundError):
            actual = path.stat().st_size
            if size not in {None, actual}:
                return None  # the machine went down while it was written
            os.utime(path)
            _lock_in_use(path, lent)
            return LocalFile(path, actual, sha256)
        return None

    def _add(
        self, store: ObjectStore, asset: Asset, size_limit: int, link: Path, lent: ExitStack
    ) -> LocalFile:
        with self._lock("evict", fcntl.LOCK_SH):
            handle, name = tempfile.mkstemp(dir=self._folder("tmp"))
            os.close(handle)
            _lock_in_use(Path(name), lent)

        def admit(size: int) -> None:
            check_size(asset.key, size, size_limit)
            if size > self.limit:
                raise _full(f"it may hold {self.limit / 1e6:,.0f} MB, and the file has {size / 1e6:,.0f} MB")
            self._make_room(size)

        try:
            got = store.download(asset, Path(name), admit)
            if asset.sha256 not in {None, got.sha256}:
                raise object_replaced()
            path = self._folder(got.sha256[:2]) / got.sha256
            self._put(Path(name), path, got.size, lent)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _full("the disk is full") from error
            raise
        finally:
            Path(name).unlink(missing_ok=True)
        fresh = link.with_suffix(f".{os.getpid()}")
        fresh.unlink(missing_ok=True)  # of a process that was killed here and had this number
        fresh.symlink_to(Path("..") / path.parent.name / path.name)
        fresh.replace(link)
        return replace(got, path=path)

    def _put(self, fresh: Path, path: Path, size: int, lent: ExitStack) -> None:
        """Name the download as a copy; equal bytes that are there stay, for somebody may work on them."""
        with self._lock("evict"):
            if path.exists() and path.stat().st_size == size:
                _lock_in_use(path, lent)
            else:
                fresh.replace(path)

    def _make_room(self, size: int) -> None:
        if size <= self._allowance:
            self._allowance -= size
            return
        with self._lock("evict"):
            files = sorted(self.copies())
            total = sum(bytes_ for _, bytes_, _ in files) + size
            enough = self.limit * self.FILLED if total > self.limit else total
            for _, bytes_, path in files:
                if total <= enough:
                    break
                if not is_in_use(path):
                    Path(path).unlink(missing_ok=True)
                    total -= bytes_
            for link in self._folder("objects").iterdir():
                if not link.exists():
                    link.unlink(missing_ok=True)
        if total > self.limit:
            raise _full(f"it may hold {self.limit / 1e6:,.0f} MB, and what is worked on needs more")
        self._allowance = (self.limit - total) // self.SHARE

    def copies(self) -> Iterator[tuple[float, int, str]]:
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


def _lock_in_use(path: Path, lent: ExitStack) -> None:
    file = lent.enter_context(path.open("rb"))
    fcntl.flock(file, fcntl.LOCK_SH)  # of the file, whatever its name will be


def is_in_use(path: str) -> bool:
    """Whether somebody works on the copy or download at ``path``."""
    with suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123 - many, and often
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(file, fcntl.LOCK_UN)  # said, for a process that was forked meanwhile holds it too
    return False


def _full(why: str) -> InfrastructureError:
    return InfrastructureError(
        f"The spool has no room: {why}. Free some, or raise DAILIES_SPOOL_LIMIT.", code="SPOOL_FULL"
    )


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
