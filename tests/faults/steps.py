"""The steps of the protocol as they are seen on the wire, and a trap that kills whoever takes one of them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from tests.faults.pgproxy import Commit
from tests.faults.rules import Call
from tests.faults.wire import Gone, kill, parent_of

Moment = Literal["before", "after"]

#: What a transaction writes says which step it is; the first that fits.
COMMITS = (
    ("INSERT processing_attempts", "commit-claim"),
    ("INSERT dead_letters", "commit-dead-letter"),
    ("INSERT media_items", "commit-event"),
    ("INSERT processing_jobs", "commit-job"),
    ("INSERT audit_log", "commit-job-end"),
    ("UPDATE processing_attempts", "commit-attempt-end"),
    ("INSERT workers", None),  # a worker's word, and a steward's notes: not of the protocol
    ("INSERT steward_marks", None),
    ("UPDATE steward_marks", None),
    ("UPDATE processing_queue", "commit-mark"),
)
CALLS = {
    "SQS.SendMessage": "send",
    "SQS.SendMessageBatch": "send",
    "SQS.DeleteMessage": "delete",
    "SQS.DeleteMessageBatch": "delete",
    "S3.HeadObject": "head",
    "S3.GetObject": "get",
    "S3.PutObject": "put",
}


class Window(NamedTuple):
    """Just before or just after a step of a role: before the server, or before the client knows of it."""

    role: str
    moment: Moment
    step: str

    def __str__(self) -> str:
        return "-".join(self)


def step_of_commit(commit: Commit) -> str | None:
    """The step's name, or None for what is no step of the protocol."""
    if not commit.writes or _renews(commit):
        return None
    return next((step for write, step in COMMITS if write in commit.writes), "commit-unknown")


def _renews(commit: Commit) -> bool:
    """A heartbeat moves the end of a lease and nothing else: there may be any number of them."""
    return commit.writes == ("UPDATE processing_queue",) and "published_at" not in " ".join(commit.statements)


def step_of_call(call: Call, moment: Moment, prefix: str) -> str | None:
    """The step's name, or None. ``prefix`` is that of the queue names."""
    if call.action.startswith("SQS.") and not call.target.startswith(prefix):
        return None
    queue = call.target.removeprefix(prefix)
    if "celery" in queue:
        return None  # a process's own
    if call.action == "SQS.ReceiveMessage":
        delivers = moment == "after" and json.loads(call.answer or b"{}").get("Messages")
        return "receive" if delivers else None  # before, nobody has anything
    if call.action == "SQS.SendMessage" and queue == "dead-letter":
        return "send-copy"
    return CALLS.get(call.action)


@dataclass
class Trap:
    """Hears both proxies. While it is armed, who comes by is killed, and what he said goes nowhere.

    ``role_of`` names the role of a process.
    """

    prefix: str
    role_of: Callable[[int], str | None]

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: Window | None = None
        self.killed: int | None = None  #: the process that was in the trap
        self.hears = False
        self.heard: list[tuple[str, str]] = []  #: (role, step), while it hears

    def arm(self, window: Window | None) -> None:
        """Set the trap once."""
        with self._lock:
            self._armed, self.killed = window, None

    def on_call(self, call: Call, moment: Moment) -> None:
        """For AwsProxy."""
        self._step(step_of_call(call, moment, self.prefix), moment, call)

    def on_commit(self, commit: Commit, moment: Moment) -> None:
        """For PgProxy."""
        self._step(step_of_commit(commit), moment, commit)

    def _step(self, step: str | None, moment: Moment, what: Call | Commit) -> None:
        if step is None:
            return
        if self.hears and moment == "after" and what.pid is not None:
            self.heard.append((self.role_of(what.pid) or "nobody", step))
        with self._lock:
            armed = self._armed
            if armed is None or (armed.step, armed.moment) != (step, moment) or what.pid is None:
                return
            if self.role_of(what.pid) != armed.role:
                return
            self._armed, self.killed = None, what.pid
            kill(what.pid)
        raise Gone


def role_by(pids: Callable[[], dict[int, str]]) -> Callable[[int], str | None]:
    """The role of a process or of its parent, given the roles' processes as they are now."""

    def role_of(pid: int) -> str | None:
        roles = pids()
        return roles.get(pid) or roles.get(parent_of(pid))

    return role_of
