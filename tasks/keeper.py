"""The part of a worker's main process that speaks with the database, in a thread of its own.

It releases at once what a pool process held that died, reports the worker, closes lanes that are paused or
all of them where there is no room, gives rows back when a shutdown has lasted long enough, and ends a worker
that has gone silent: Celery workers on SQS are known to stop consuming without a word.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import structlog

from db import queue, workers
from db.models import WorkerState
from db.session import Sessions, guarded
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.room import why_no_room
from pipeline.settings import Settings
from pipeline.spool import sweep_workdirs
from tasks import dispatch
from tasks.poller import Poller

log = structlog.get_logger(__name__)

TICK = 0.5  #: seconds between two looks at what has to be done
REPORT_EVERY, PAUSES_EVERY, ROOM_EVERY, SWEEP_EVERY = 15.0, 2.0, 5.0, 60.0
#: Seconds after the grace of a shutdown in which the worker should have ended by itself.
LAST_GRACE = 5.0
EXIT_SILENT = 70  #: the exit status of a worker that polled no more

DIED = ("WORKER_DIED", "The process that worked on this stage was killed.")
TIMED_OUT = ("TIME_LIMIT_EXCEEDED", "The stage did not end within its hard time limit and was killed.")
STOPPED = ("WORKER_STOPPED", "The worker was told to stop before the stage had ended; it costs nothing.")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is; see the table ``workers``."""

    id: str
    name: str
    host: str
    pid: int
    lanes: tuple[Queue, ...]
    version: str


@dataclass
class Running:
    """The rows that pool processes are at work on, by row, with the process; shared by two threads."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: dict[str, int] = field(default_factory=dict)
    lost: list[tuple[str, int, bool, tuple[str, str]]] = field(default_factory=list)

    def began(self, row_id: str, pid: int) -> None:
        """A pool process took the message of this row."""
        with self.lock:
            self.rows[row_id] = pid

    def ended(self, row_id: str) -> None:
        """It came to an end by itself."""
        with self.lock:
            self.rows.pop(row_id, None)

    def died(self, row_id: str, *, crash: bool, error: tuple[str, str]) -> None:
        """Its process is gone; the row is to be released."""
        with self.lock:
            pid = self.rows.pop(row_id, None)
            if pid is not None:
                self.lost.append((row_id, pid, crash, error))

    def take_lost(self) -> list[tuple[str, int, bool, tuple[str, str]]]:
        """What is to be released; the caller gives back what it could not release."""
        with self.lock:
            found, self.lost = self.lost, []
        return found

    def now(self) -> dict[str, int]:
        """What runs now."""
        with self.lock:
            return dict(self.rows)


class Keeper:
    """See the module. ``alive`` gives the pool's process ids; ``kill`` ends one of them for good."""

    def __init__(
        self,
        settings: Settings,
        sessions: Sessions,
        identity: Identity,
        running: Running,
        poller: Poller,
        *,
        alive: Callable[[], set[int]],
        kill: Callable[[int], None],
    ) -> None:
        self._settings, self._sessions = settings, sessions
        self._identity, self._running, self._poller = identity, running, poller
        self._alive, self._kill = alive, kill
        self._paused: frozenset[str] = frozenset()
        self._no_room: str | None = None
        self._due: dict[str, float] = {}
        self._said: tuple[WorkerState, str | None] | None = None
        self._stopping_since: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def look_around(self) -> None:
        """Before the first poll: which lanes may be asked."""
        self._try(self._look_around)

    def stop_soon(self) -> None:
        """The worker was told to stop: running stages have ``shutdown_grace`` from now on."""
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()

    def stop(self) -> None:
        """The pool has ended: release what is left, and say goodbye."""
        self._ended.set()
        self._thread.join(LAST_GRACE)

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            self._find_dead()
            for step in (self._release, self._look_around, self._report, self._sweep, self._watch):
                self._try(step)
            self._end_grace()
        self._try(self._release)
        self._try(self._say_goodbye)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            with guarded():
                step()
        except InfrastructureError as error:
            log.warning("keeper_waits", step=step.__name__, error=error.message)
        except Exception:
            log.exception("keeper_raised", step=step.__name__)

    def _is_due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every
        return True

    def _find_dead(self) -> None:
        """Celery tells of a dead process only seconds later; this asks at once."""
        running = self._running.now()  # before the pool is looked at: a new process is in both
        alive = self._alive()
        for row_id, pid in running.items():
            if pid not in alive:
                self._running.died(row_id, crash=True, error=DIED)

    def _release(self) -> None:
        lost = self._running.take_lost()
        while lost:
            row_id, pid, crash, error = lost[-1]
            try:
                with self._sessions.begin() as session:
                    released = queue.release_held(
                        session, UUID(row_id), f"{self._identity.id}/{pid}", crash=crash, error=error
                    )
            except BaseException:
                self._running.lost.extend(lost)
                raise
            lost.pop()
            if released:
                log.warning("row_released", row_id=row_id, child=pid, why=error[0])
                dispatch.publish(self._sessions, UUID(row_id))

    def _look_around(self) -> None:
        """Which lanes may be asked: none without room, and none that is paused."""
        if self._is_due("room", ROOM_EVERY):
            self._no_room = why_no_room(self._settings)
        if self._is_due("pauses", PAUSES_EVERY):
            with self._sessions() as session:
                self._paused = workers.paused_lanes(session)
        lanes = self._poller.lanes
        closed = frozenset(lanes if self._no_room else (lane for lane in lanes if lane in self._paused))
        if closed != self._poller.closed:
            log.info("lanes_closed", lanes=sorted(closed), reason=self._no_room or "paused")
            self._poller.close_lanes(closed)

    def _state(self) -> tuple[WorkerState, str | None]:
        if self._stopping_since is not None:
            return WorkerState.STOPPING, None
        return (WorkerState.NO_ROOM, self._no_room) if self._no_room else (WorkerState.RUNNING, None)

    def _report(self) -> None:
        said = self._state()
        if self._is_due("report", REPORT_EVERY) or said != self._said:
            self._say(*said)
            self._said = said

    def _say(self, state: WorkerState, reason: str | None) -> None:
        me = self._identity
        with self._sessions.begin() as session:
            workers.report(
                session, me.id, name=me.name, host=me.host, pid=me.pid, lanes=me.lanes,
                concurrency=len(self._alive()), version=me.version, state=state, reason=reason,
            )  # fmt: skip

    def _sweep(self) -> None:
        """Delete what pool processes that were killed have left on this machine."""
        if self._is_due("sweep", SWEEP_EVERY):
            swept = sweep_workdirs(Path(self._settings.spool_dir), self._held)
            if swept:
                log.info("workdirs_swept", count=swept)

    def _held(self, tokens: frozenset[int]) -> set[int]:
        with self._sessions() as session:
            return queue.held_tokens(session, tokens)

    def _say_goodbye(self) -> None:
        self._say(WorkerState.STOPPED, None)

    def _watch(self) -> None:
        """End a worker that should poll and does not: whoever supervises it starts another."""
        silent = time.monotonic() - self._poller.last_completed
        if not self._poller.may_poll:
            self._poller.last_completed = max(self._poller.last_completed, time.monotonic() - TICK)
        elif silent > self._settings.poll_stalled.total_seconds():
            log.critical("worker_silent", seconds=round(silent))
            self._give_back_all()
            self._try(self._release)
            os._exit(EXIT_SILENT)

    def _end_grace(self) -> None:
        """After the grace of a shutdown: end what still runs, give its rows back, and leave."""
        if self._stopping_since is None:
            return
        late = time.monotonic() - self._stopping_since - self._settings.shutdown_grace.total_seconds()
        if late > 0 and self._running.now():
            self._give_back_all()
            self._try(self._release)
        if late > LAST_GRACE:
            log.warning("shutdown_forced")
            self._try(self._say_goodbye)
            os._exit(0)

    def _give_back_all(self) -> None:
        for row_id, pid in self._running.now().items():
            self._running.died(row_id, crash=False, error=STOPPED)
            self._kill(pid)
