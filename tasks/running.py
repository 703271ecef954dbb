"""What the pool processes of this worker are at work on, and what of it has lost its process."""

from __future__ import annotations

import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

from celery.worker import state

DIED = ("WORKER_DIED", "The process that worked on this stage was killed.")
TIMED_OUT = ("TIME_LIMIT_EXCEEDED", "The stage did not end within its hard time limit and was killed.")
STOPPED = ("WORKER_STOPPED", "The worker was told to stop before the stage had ended; it costs nothing.")


def was_told_to_stop() -> bool:
    """Whether this worker has had its signal; Celery's handler notes that at once."""
    # 0 is an exit status, and the one that is asked for.
    return any(said is not None and said is not False for said in (state.should_stop, state.should_terminate))


@dataclass(frozen=True, slots=True)
class Lost:
    """A row whose pool process is gone."""

    row_id: UUID
    pid: int
    crash: bool
    error: tuple[str, str]


@dataclass
class Running:
    """The rows that pool processes are at work on, each with its process; shared by two threads.

    By both, because two messages of one row may be in two processes: one works, the other finds it leased.
    """

    stopping: bool = False  #: who dies from now on was told to, and it costs nothing
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _rows: set[tuple[str, int]] = field(default_factory=set)
    _lost: deque[Lost] = field(default_factory=deque)

    def began(self, row_id: str, pid: int) -> None:
        """A pool process took the message of this row."""
        with self._lock:
            self._rows.add((row_id, pid))

    def ended(self, row_id: str, pid: int | None) -> None:
        """It came to an end by itself."""
        with self._lock:
            self._rows.discard((row_id, pid or 0))

    def died(self, row_id: str, pid: int | None, error: tuple[str, str]) -> None:
        """Its process is gone; the row is to be released."""
        with self._lock:
            if pid is None or (row_id, pid) not in self._rows:
                return
            self._rows.remove((row_id, pid))
            with suppress(ValueError):  # a message that names no row
                # Whoever ends a whole process group ends its pool too.
                crash = not (self.stopping or was_told_to_stop())
                self._lost.append(Lost(UUID(row_id), pid, crash, error if crash else STOPPED))

    def next_lost(self) -> Lost | None:
        """What is to be released; it stays the next one until ``released``."""
        with self._lock:
            return self._lost[0] if self._lost else None

    def released(self, lost: Lost) -> None:
        """It was, or cannot be."""
        with self._lock, suppress(ValueError):
            self._lost.remove(lost)

    def now(self) -> set[tuple[str, int]]:
        """What runs now."""
        with self._lock:
            return set(self._rows)


def has_ended(pid: int) -> bool:
    """Whether a child of this process has ended. It is left for Celery's pool to bury."""
    if pid == os.getpid():  # a pool that works in this very process
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True  # buried already
