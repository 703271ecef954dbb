"""What a fault case is, and what it is given."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from tests.faults.load import Load, Upload
    from tests.faults.stack import Stack

POLL_S = 0.1
LONG = timedelta(seconds=0.4)  #: what runs so long is a slow stage
HELD = "SELECT id, token, worker, started_at FROM processing_queue WHERE status = 'processing'"


class NotRun(Exception):  # noqa: N818 - it is no error: this machine does not permit the case
    """Why a case cannot be run here."""


@dataclass(frozen=True)
class Servers:
    """Where the servers of a stack will listen, before they do."""

    database_url: str
    aws_url: str
    env: Mapping[str, str]  #: what every part of Dailies is given


@dataclass(frozen=True)
class Arrangement:
    """What a case changes in the processes before they start."""

    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: by role; "*" is every part
    tools: Mapping[str, Any] = field(default_factory=dict)


Arrange = Callable[[Servers], AbstractContextManager[Arrangement]]


def as_it_is(_: Servers) -> AbstractContextManager[Arrangement]:
    """Nothing between the processes and the servers."""
    return nullcontext(Arrangement())


@dataclass(frozen=True)
class Case:
    """One fault, or one kind of fault again and again."""

    name: str
    part: str  #: of the issue's list
    title: str
    body: Callable[[Run], None]
    arrange: Arrange = as_it_is
    settings: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[random.Random], list[Upload]] | None = None
    repeats: bool = True  #: whether a stage may be executed more than once
    load: Mapping[str, Any] = field(default_factory=dict)  #: arguments of load.mixture that it changes
    prepare: Callable[[Stack], None] | None = None  #: runs before anything is started
    recovers: float | None = None  #: seconds within which it must recover
    foreign: bool = False  #: whether it sends messages that are nobody's
    asks: float = 0.06  #: jobs asked for by HTTP, as a share of the uploads
    seconds: float = 45.0  #: for which assets are uploaded: before, while and after something is broken
    apart: bool = False  #: runs only when it is named


CASES: dict[str, Case] = {}


def case(
    name: str, *, part: str, title: str, **options: Any
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register the decorated function as a case; ``options`` are the other fields of Case."""

    def register(body: Callable[[Run], None]) -> Callable[[Run], None]:
        assert name not in CASES, name
        CASES[name] = Case(name, part, title, body, **options)
        return body

    return register


@dataclass(frozen=True)
class Struck:
    """A row whose attempt ``token`` was hit at ``at``."""

    row_id: UUID
    token: int
    at: datetime


class Run:
    """One run of a case: the stack under load, and what is to be remembered of the fault."""

    def __init__(self, stack: Stack, load: Load, *, seed: int, seconds: float) -> None:
        self.stack = stack
        self.load = load
        self._over = time.monotonic() + seconds
        self.dice = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        self.began: datetime | None = None
        self.ended: datetime | None = None
        self.hit: list[Struck] = []
        self.notes: list[str] = []
        self.at_end: list[Callable[[], None]] = []  #: called when every job has ended

    @property
    def tools(self) -> Mapping[str, Any]:
        """What the case's arrangement left for it."""
        return self.stack.tools

    @contextmanager
    def fault(self) -> Iterator[None]:
        """The fault lasts as long as the block. Several in one case count as one."""
        self.began = self.began or datetime.now(UTC)
        yield
        self.ended = datetime.now(UTC)

    def left(self) -> float:
        """Seconds for which assets are still uploaded, if nothing holds them up."""
        return self._over - time.monotonic()

    def wait(self, seconds: float) -> None:
        """Let ``seconds`` pass; raise when the stack's supervisor has ended."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.stack.check()
            time.sleep(min(left, POLL_S))

    def away(self, role: str, seconds: float, number: signal.Signals = signal.SIGKILL) -> None:
        """End a role's process, and let it be back after ``seconds``."""
        self.stack.hold(role, number)
        self.wait(seconds)
        self.stack.release(role)

    def until(self, condition: Callable[[], object], *, seconds: float = 60) -> None:
        """Return as soon as ``condition`` holds; fail when it never does."""
        self.stack.until(condition, seconds=seconds)

    def struck(self, pids: Sequence[int]) -> bool:
        """Remember the rows that these processes hold now. Call it just before the blow.

        Returns whether one of them has run for a while already, and so will not end before the blow comes.
        """
        found = self.stack.sql(HELD)
        now = datetime.now(UTC)
        held = [(row, token, since) for row, token, worker, since in found if _names(worker, pids)]
        self.hit += [Struck(row, token, now) for row, token, _ in held]
        return any(since < now - LONG for _, _, since in held)

    def catch(self, pids: Sequence[int], *, seconds: float = 4) -> None:
        """Wait until one of these processes is in the middle of a slow stage; remember what they hold."""
        before, end = list(self.hit), time.monotonic() + seconds
        while not self.struck(pids) and time.monotonic() < end:
            self.hit = list(before)
            self.wait(POLL_S)

    def recovered(self) -> bool:
        """Whether each row that was hit was taken up again since, or has ended."""
        query = "SELECT token > %s OR completed_at IS NOT NULL FROM processing_queue WHERE id = %s"
        return all(self.stack.sql(query, [one.token, one.row_id])[0][0] for one in self.hit)

    def note(self, text: str) -> None:
        """Say something in the report."""
        self.notes.append(text)


def _names(worker: str, pids: Sequence[int]) -> bool:
    """Whether a row's ``worker`` (host:pid, or host:pid/child) is one of these processes."""
    named = worker.rpartition(":")[2].split("/")
    return named[-1] in {str(pid) for pid in pids}
