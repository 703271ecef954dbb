"""The state folder: one lock, the secrets, the ports, the record of what runs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from cli.stack.process import Identity
from pipeline.errors import ConfigurationError, ConflictError

SERVERS_WITH_PORTS = ("postgres", "aws", "api", "flower")
#: Below the range from which Linux takes ports for outgoing connections, so that none takes ours in between.
PORT_RANGE = range(20_000, 32_000)
SECRET_BYTES = 24
#: Modes of what is the owner's alone, and the umask of everybody who writes below the state folder.
PRIVATE_FOLDER, PRIVATE_FILE, PRIVATE_UMASK = 0o700, 0o600, 0o077
#: Where root starts the stack, PostgreSQL runs as another user and must pass through the state folder.
PASSABLE_FOLDER = 0o711


class RoleRecord(TypedDict):
    """One supervised process; ``ticks`` is its start in clock ticks, None while it is down."""

    role: str
    pid: int | None
    ticks: int | None
    started_at: str
    status: str


class State:
    """The files of one stack."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.logs = self.root / "log"
        self._ports: dict[str, int] = {}

    def create(self) -> None:
        """Make the folders, for their owner alone. PostgreSQL makes its own."""
        root_mode = PASSABLE_FOLDER if os.geteuid() == 0 else PRIVATE_FOLDER
        private = (self.logs, *(self.root / name for name in ("secrets", "aws", "spool")))
        try:
            self.root.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            for folder in private:
                folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
                folder.chmod(PRIVATE_FOLDER)  # it may have been there
            self.root.chmod(root_mode)
        except OSError as error:
            raise ConfigurationError(
                f"The state folder {self.root} cannot be made ({error.strerror}): choose"
                " another with --state.",
                code="STATE_UNUSABLE",
            ) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the state alone; the lock ends with the process, however that ends.

        Raises:
            ConflictError: with code ALREADY_RUNNING when another process holds it.
        """
        path = self.root / "lock"
        path.touch(mode=PRIVATE_FILE)
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(
                    f"A stack is already running on {self.root}:"
                    " `dailies ps` shows it, `dailies down` stops it.",
                    code="ALREADY_RUNNING",
                ) from None
            yield

    def secret(self, name: str) -> str:
        """A random secret, made at its first use and kept in a file that only its owner reads."""
        path = self.root / "secrets" / name
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            value = secrets.token_hex(SECRET_BYTES)
            path.touch(mode=PRIVATE_FILE)
            path.write_text(value, encoding="ascii")
            return value

    def ports(self) -> dict[str, int]:
        """The ports of this state, as they were last chosen."""
        if not self._ports:
            self._ports = _read_json(self.root / "ports.json") or {}
        return self._ports

    def choose_ports(self) -> None:
        """Keep the ports of the last time as far as they are still free, and choose the others anew."""
        last = self.ports()
        chosen: dict[str, int] = {}
        for server in SERVERS_WITH_PORTS:
            chosen[server] = free_port(last.get(server), taken=chosen.values())
        self._ports = chosen
        write_json(self.root / "ports.json", chosen)

    def write_record(self, roles: list[RoleRecord]) -> None:
        """Say what runs; the first role is the supervisor."""
        write_json(self.root / "stack.json", roles)

    def read_record(self) -> list[RoleRecord]:
        """What was last said to run; nothing where there is no record."""
        return _read_json(self.root / "stack.json") or []

    def remove_record(self) -> None:
        """Nothing runs any more."""
        (self.root / "stack.json").unlink(missing_ok=True)

    def running(self) -> list[RoleRecord]:
        """The record of a stack whose supervisor is alive, else nothing."""
        record = self.read_record()
        return record if record and identity(record[0]) else []


def identity(record: RoleRecord) -> Identity | None:
    """The living process of a record, None where it is gone (or its pid is another's by now)."""
    if record["pid"] is None or record["ticks"] is None:
        return None
    known = Identity(record["pid"], record["ticks"])
    return known if known.alive() else None


def free_port(wanted: int | None = None, *, taken: Collection[int] = ()) -> int:
    """A free TCP port on loopback, ``wanted`` where it is free."""
    candidates = [wanted] if wanted else []
    candidates += [secrets.choice(PORT_RANGE) for _ in range(100)]
    for port in candidates:
        if port not in taken and port_is_free(port):
            return port
    raise ConfigurationError(
        f"No free port found on 127.0.0.1 between {PORT_RANGE.start} and {PORT_RANGE.stop}.",
        code="NO_FREE_PORT",
    )


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_json(path: Path, value: object) -> None:
    """Write a file for its owner alone, as a whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.touch(mode=PRIVATE_FILE)
    new.write_text(json.dumps(value, indent=1), encoding="utf-8")
    new.replace(path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
