"""What the object store makes of a server that misbehaves: each answer comes over a real connection."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.errors import InfrastructureError, PermanentStageError, StageError, TransientStageError
from pipeline.settings import Settings
from pipeline.spool import Spool
from pipeline.stages.base import Asset, LocalFile
from pipeline.storage import ObjectStore
from tests.support import fetch

BODY = b"twelve bytes"
ASSET = Asset(media_item_id=uuid4(), bucket="b", key="uploads/a.jpg", etag="e")


class Server(ThreadingHTTPServer):
    """Answers every request alike, with ``body`` and as many bytes promised as ``length`` says."""

    daemon_threads = True
    status, body = 200, BODY
    length: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.headers = {"ETag": '"e"'}

    def refuse(self, status: int, code: str) -> None:
        self.status, self.body = status, f"<Error><Code>{code}</Code></Error>".encode()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        length = len(self.server.body) if self.server.length is None else self.server.length
        for name, value in {"Content-Length": str(length), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.server.body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@dataclass
class Faulty:
    """A store that talks to a server that misbehaves as it is told."""

    server: Server
    store: ObjectStore
    folder: Path

    def download(self, admit: Callable[[int], None] = lambda _: None) -> LocalFile:
        return self.store.download(ASSET, self.folder / "copy", admit)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def here(server: Server, settings: Settings) -> Settings:
    return settings.model_copy(update={"aws_endpoint_url": f"http://127.0.0.1:{server.server_port}"})


@pytest.fixture
def faulty(server: Server, here: Settings, tmp_path: Path) -> Iterator[Faulty]:
    with closing(ObjectStore(here)) as store:
        yield Faulty(server, store, tmp_path)


def test_download_hashes_what_it_writes(faulty: Faulty) -> None:
    asked: list[int] = []
    got = faulty.download(asked.append)
    assert (got.size, got.sha256) == (12, sha256(BODY).hexdigest())
    assert got.path.read_bytes() == BODY
    assert asked == [12]


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        ((503, "SlowDown"), InfrastructureError, "STORAGE_UNAVAILABLE"),
        ((500, "InternalError"), InfrastructureError, "STORAGE_UNAVAILABLE"),
        ((400, "ExpiredToken"), InfrastructureError, "STORAGE_UNAVAILABLE"),
        ((404, "NoSuchBucket"), InfrastructureError, "STORAGE_UNAVAILABLE"),
        ((403, "AccessDenied"), TransientStageError, "ACCESS_DENIED"),
        ((400, "InvalidRequest"), TransientStageError, "STORAGE_REFUSED"),
        ((412, "PreconditionFailed"), PermanentStageError, "OBJECT_REPLACED"),
    ],
)
def test_refusal_becomes_the_error_of_its_kind(
    faulty: Faulty, answer: tuple[int, str], error: type[StageError], code: str
) -> None:
    faulty.server.refuse(*answer)
    with pytest.raises(error) as raised:
        faulty.download()
    assert raised.value.code == code


def test_server_that_is_away_fails_no_file(settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and never listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with closing(ObjectStore(settings.model_copy(update={"aws_endpoint_url": url}))) as store:
            for ask in (store.ping, lambda: store.download(ASSET, tmp_path / "copy", lambda _: None)):
                with pytest.raises(InfrastructureError) as raised:
                    ask()
                assert raised.value.code == "STORAGE_UNAVAILABLE"


def test_body_shorter_than_promised_is_tried_again(faulty: Faulty) -> None:
    faulty.server.length = 1000
    with pytest.raises(InfrastructureError) as raised:
        faulty.download()
    assert raised.value.code == "DOWNLOAD_CUT_SHORT"


@pytest.mark.parametrize(
    ("name", "checksum"),
    [("x-amz-checksum-sha256", sha256(b"other").digest()), ("x-amz-checksum-crc32", b"\1\2\3\4")],
)
def test_bytes_that_are_not_the_stored_ones_are_tried_again(
    faulty: Faulty, name: str, checksum: bytes
) -> None:
    faulty.server.headers[name] = b64encode(checksum).decode()
    with pytest.raises(TransientStageError) as raised:
        faulty.download()
    assert raised.value.code == "CHECKSUM_MISMATCH"


def test_checksum_of_the_parts_is_not_taken_for_one_of_the_whole(faulty: Faulty) -> None:
    of_parts = b64encode(sha256(b"parts").digest()).decode()
    faulty.server.headers["x-amz-checksum-sha256"] = f"{of_parts}-3"
    assert faulty.download().size == len(BODY)


@pytest.mark.parametrize(("promised", "code"), [(0, "EMPTY_FILE"), (10**9, "FILE_TOO_LARGE")])
def test_spool_refuses_a_size_before_any_byte_of_it(faulty: Faulty, promised: int, code: str) -> None:
    faulty.server.length, faulty.server.body = promised, b""
    with pytest.raises(PermanentStageError) as raised:
        fetch(Spool(faulty.folder, 10**10), faulty.store, ASSET, 10**6)
    assert raised.value.code == code
    assert list((faulty.folder / "tmp").iterdir()) == []


class FullDisk(ObjectStore):
    """Writes to the kernel's own full device."""

    def download(self, asset: Asset, path: Path, admit: Callable[[int], None]) -> LocalFile:
        assert path.exists()
        return super().download(asset, Path("/dev/full"), admit)


def test_full_disk_fails_no_file(here: Settings, tmp_path: Path) -> None:
    with (
        closing(FullDisk(here)) as store,
        pytest.raises(InfrastructureError, match="disk is full") as raised,
    ):
        fetch(Spool(tmp_path, 10**10), store, ASSET, 10**6)
    assert raised.value.code == "SPOOL_FULL"
    assert list((tmp_path / "tmp").iterdir()) == []
