"""What both proxies are made of: a relay on loopback, and which process is at a connection's other end."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Self

CHUNK = 64 * 1024  # bytes
LOOK_S = 0.05
CONNECT_S = 5.0
DEATH_S = 10.0

Address = tuple[str, int]


class Gone(Exception):  # noqa: N818 - the end of a connection, wanted or not
    """The connection ends here: with a reset, or as if the other side had closed it."""

    def __init__(self, *, reset: bool = True) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Relay(ABC):
    """Listens on a free port of loopback and serves each connection in a thread of its own.

    A subclass's ``serve`` returns or raises Gone when the connection has ended.
    """

    def __init__(self, server: Address) -> None:
        self.server = server
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._acceptor.join()
        self._listener.close()
        self.cut()
        with self._lock:
            threads = list(self._clients.values())
        for thread in threads:
            thread.join(timeout=CONNECT_S)

    @abstractmethod
    def serve(self, client: socket.socket) -> None:
        """Serve one connection to its end."""

    def connect(self) -> socket.socket:
        """A connection to the server behind. Raises Gone when there is none to be had."""
        try:
            upstream = socket.create_connection(self.server, timeout=CONNECT_S)
        except OSError as error:
            raise Gone from error
        upstream.settimeout(None)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return upstream

    def refuse(self) -> None:
        """Listen no more, so that connections are refused, and reset the ones there are."""
        with self._lock, suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # at once, though the acceptor's ``select`` has it
            self._listener.close()
        self.cut()

    def listen_again(self) -> None:
        """Listen on the same port as before."""
        with self._lock:
            if self._listener.fileno() < 0:
                self._listener = self._listen(self.port)

    def cut(self) -> None:
        """Reset every connection. Their threads wake, since nothing can be read any more, and do it."""
        with self._lock:
            for client in self._clients:
                linger_not(client)
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)

    def _listen(self, port: int) -> socket.socket:
        return socket.create_server(("127.0.0.1", port), backlog=128)

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                if not readable(self._listener, seconds=LOOK_S):
                    continue
                client, _ = self._listener.accept()
            except (OSError, ValueError):  # it does not listen now
                self.stopping.wait(LOOK_S)
                continue
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = threading.Thread(target=self._run, args=(client,), name="connection", daemon=True)
            with self._lock:
                self._clients[client] = thread
            thread.start()

    def _run(self, client: socket.socket) -> None:
        try:
            self.serve(client)
        except Gone as gone:
            if gone.reset:
                linger_not(client)
        except OSError:
            linger_not(client)
        finally:
            with self._lock:
                del self._clients[client]
            client.close()


def linger_not(connection: socket.socket) -> None:
    """Let a later ``close`` send a reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def readable(*connections: socket.socket, seconds: float) -> list[socket.socket]:
    """Those of the connections that have bytes to read or have ended, waited for."""
    return select.select(connections, [], [], seconds)[0]


# Who is at the other end


def owner(client: Address, server: Address) -> int | None:
    """The local process at the client's side of a connection, or None if it is gone.

    A fork's child has the sockets that its parent had open: the process that is nobody's child among those
    that hold the socket is the one that made it.
    """
    inode = _inode(client[1], server[1])
    if inode is None:
        return None
    holders = _holders(f"socket:[{inode}]")
    makers = [pid for pid in holders if parent_of(pid) not in holders]
    return min(makers, default=None)


def _inode(local_port: int, remote_port: int) -> str | None:
    wanted = f":{local_port:04X}", f":{remote_port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(wanted[0]) and fields[2].endswith(wanted[1]):
            return fields[9]
    return None


def _holders(link: str) -> set[int]:
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_leads_to(file, link) for file in (process / "fd").iterdir()):
                found.add(int(process.name))
    return found


def _leads_to(file: Path, link: str) -> bool:
    try:
        return str(file.readlink()) == link
    except OSError:
        return False


def parent_of(pid: int) -> int:
    """The parent of a process, 0 if it is gone."""
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def is_alive(pid: int) -> bool:
    """Whether a process can still do anything."""
    try:
        return _stat(pid)[0] not in "ZX"
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def kill(pid: int) -> None:
    """SIGKILL a process, and return when it can do nothing any more."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + DEATH_S
    while is_alive(pid):
        assert time.monotonic() < end, f"process {pid} does not die"
        time.sleep(0.001)
