"""A TCP proxy in front of PostgreSQL: it can be cut, closed or made a black hole, and tells of every commit.

It passes on the bytes as they come, and understands just enough of them to see statements. The embedded
server speaks no TLS, so all of it is plain.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.faults.wire import CHUNK, LOOK_S, Address, Gone, Relay, owner, readable

HEADER = struct.Struct("!cI")  # type, length with itself
START = struct.Struct("!II")  # length, code
PROTOCOL_3 = 3  # in the upper half of the code; others ask for encryption, or for another session's end
WRITE = re.compile(r"\s*(INSERT|UPDATE|DELETE)\s+(?:INTO\s+|FROM\s+)?\"?(\w+)", re.IGNORECASE)

Moment = Literal["before", "after"]


@dataclass
class Commit:
    """A transaction that is about to be committed, or was."""

    statements: tuple[str, ...]  #: the SQL since its BEGIN
    client: Address
    proxy: Address

    @cached_property
    def pid(self) -> int | None:
        """The process whose transaction it is."""
        return owner(self.client, self.proxy)

    @cached_property
    def writes(self) -> tuple[str, ...]:
        """What it writes, in order: "INSERT table", "UPDATE table", "DELETE table"."""
        found = filter(None, map(WRITE.match, self.statements))
        return tuple(f"{match[1].upper()} {match[2]}" for match in found)


#: Told of every commit, in the thread that serves its connection: before the server sees it, and when the
#: server has answered and the client does not know. It may raise Gone.
Hook = Callable[[Commit, Moment], None]


class PgProxy(Relay):
    """Listens when it is made; passes on within its block."""

    def __init__(self, database_url: str, *, hook: Hook | None = None) -> None:
        self._url = urlsplit(database_url)
        super().__init__((self._url.hostname or "127.0.0.1", self._url.port or 5432))
        self.hook = hook
        self._open = threading.Event()
        self._open.set()

    @property
    def url(self) -> str:
        """What clients are given as the database's URL."""
        login = self._url.netloc.rpartition("@")[0]
        return urlunsplit(self._url._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def swallow(self) -> None:
        """From now on nothing passes and nothing ends: a black hole, for new connections too."""
        self._open.clear()

    def pass_on(self) -> None:
        """End the black hole: what it has swallowed arrives."""
        self._open.set()

    def serve(self, client: socket.socket) -> None:
        """One session, until either side ends."""
        self._hold(client)
        with self.connect() as server:
            self._relay(client, server, _Session(self, client))

    def _relay(self, client: socket.socket, server: socket.socket, session: _Session) -> None:
        while not self.stopping.is_set():
            for source in readable(client, server, seconds=LOOK_S):
                data = source.recv(CHUNK)
                if not data:
                    raise Gone(reset=source is client)
                self._hold(client)
                if source is client:
                    for part in session.from_client(data):
                        server.sendall(part)
                else:
                    for part in session.from_server(data):
                        client.sendall(part)

    def _hold(self, client: socket.socket) -> None:
        """Wait until something passes again, or the client gives up."""
        while not self._open.wait(LOOK_S):
            if self.stopping.is_set() or (readable(client, seconds=0) and _has_ended(client)):
                raise Gone


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except OSError:
        return True


class _Session:
    """What has been said in one session."""

    def __init__(self, proxy: PgProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._address: Address = client.getpeername()
        self._sent, self._answered = b"", b""
        self._started = False
        self._prepared: dict[bytes, str] = {}
        self._statements: list[str] = []
        self._committing: Commit | None = None

    def from_client(self, data: bytes) -> Iterator[bytes]:
        """What is to be passed on to the server; in the order in which it came."""
        if not self._started:
            self._start(data)
            yield data
            return
        self._sent += data
        while len(self._sent) >= HEADER.size:
            kind, length = HEADER.unpack_from(self._sent)
            if len(self._sent) < length + 1:
                return
            message, self._sent = self._sent[: length + 1], self._sent[length + 1 :]
            self._note(kind, message[HEADER.size :])
            yield message

    def _start(self, data: bytes) -> None:
        """What comes before the first typed message; libpq waits for an answer to each of these."""
        _, code = START.unpack_from(data)
        self._started = code >> 16 == PROTOCOL_3

    def _note(self, kind: bytes, body: bytes) -> None:
        if kind == b"Q":
            self._statement(body.rstrip(b"\0").decode("utf-8", errors="replace"))
        elif kind == b"P":
            name, _, rest = body.partition(b"\0")
            self._prepared[name] = rest.partition(b"\0")[0].decode("utf-8", errors="replace")
        elif kind == b"B":
            name = body.split(b"\0", 2)[1]
            self._statement(self._prepared.get(name, ""))

    def _statement(self, sql: str) -> None:
        word = sql.lstrip().upper()
        if word.startswith("BEGIN"):
            self._statements = []
        elif word.startswith("COMMIT"):
            self._committing = Commit(tuple(self._statements), self._address, ("127.0.0.1", self._proxy.port))
            self._tell("before")
        else:
            self._statements.append(sql)

    def from_server(self, data: bytes) -> Iterator[bytes]:
        """What is to be passed on to the client; the answer to a COMMIT when the hook has been told."""
        if self._committing is None:
            yield data
            return
        self._answered += data
        # The answer is a CommandComplete and a ReadyForQuery, which are small; nothing else is under way.
        if not self._answered.endswith((b"Z\0\0\0\5I", b"Z\0\0\0\5T", b"Z\0\0\0\5E")):
            return
        self._tell("after")
        answer, self._answered, self._committing = self._answered, b"", None
        yield answer

    def _tell(self, moment: Moment) -> None:
        if self._proxy.hook is not None and self._committing is not None:
            self._proxy.hook(self._committing, moment)
