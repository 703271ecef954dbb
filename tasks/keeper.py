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
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from db import jobs, queue, workers
from db.models import WorkerState
from db.session import Sessions, guarded
from pipeline.errors import InfrastructureError
from pipeline.queues import Queue
from pipeline.room import why_no_room
from pipeline.settings import Settings
from pipeline.spool import sweep_workdirs
from tasks import dispatch
from tasks.poller import Poller
from tasks.running import DIED, STOPPED, Running, has_ended, was_told_to_stop

log = structlog.get_logger(__name__)

TICK = 0.5  #: seconds between two looks at what has to be done
REPORT_EVERY, PAUSES_EVERY, ROOM_EVERY, SWEEP_EVERY = 15.0, 2.0, 5.0, 60.0
#: Seconds after the grace of a shutdown in which the worker should have ended by itself.
LAST_GRACE = 5.0
EXIT_SILENT = 70  #: the exit status of a worker that polled no more


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is; see the table ``workers``."""

    id: str
    name: str
    host: str
    pid: int
    lanes: tuple[Queue, ...]
    version: str


class Keeper:
    """See the module.

    ``alive`` gives the pool's process ids, ``kill`` ends one of them for good, and ``stop_receiving`` is what
    comes first when the worker was told to stop.
    """

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
        stop_receiving: Callable[[], None],
    ) -> None:
        self._settings, self._sessions = settings, sessions
        self._identity, self._running, self._poller = identity, running, poller
        self._alive, self._kill, self._stop_receiving = alive, kill, stop_receiving
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
        self._running.stopping = True
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()

    def stop(self) -> None:
        """The pool has ended: release what is left, and say goodbye."""
        self._ended.set()
        self._thread.join(LAST_GRACE)

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            for step in (
                self._notice_stop, self._find_dead, self._release, self._look_around,
                self._report, self._sweep, self._watch, self._end_grace,
            ):  # fmt: skip
                self._try(step)
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
        for row_id, pid in self._running.now():
            if has_ended(pid):
                self._running.died(row_id, pid, DIED)

    def _release(self) -> None:
        while (lost := self._running.next_lost()) is not None:
            worker = f"{self._identity.id}/{lost.pid}"
            try:
                with guarded(), self._sessions.begin() as session:
                    done = queue.release_held(
                        session, lost.row_id, worker, crash=lost.crash, error=lost.error
                    )
            except InfrastructureError:
                raise  # it stays, and is tried again
            except Exception:
                log.exception("release_raised", row_id=str(lost.row_id))  # the steward will find it
                done = False
            self._running.released(lost)
            if done:
                log.warning("row_released", row_id=str(lost.row_id), child=lost.pid, why=lost.error[0])
            # A worker that ends might end between mark and send: then the steward publishes.
            if done and not self._running.stopping:
                # A broker that hangs must keep nothing else here from its turn.
                threading.Thread(target=self._publish, args=(lost.row_id,), daemon=True).start()

    def _publish(self, row_id: UUID) -> None:
        try:
            with guarded():
                dispatch.publish(self._sessions, row_id)
        except InfrastructureError as error:
            log.warning("row_not_published", row_id=str(row_id), error=error.message)
        except Exception:
            log.exception("publish_raised", row_id=str(row_id))

    def _look_around(self) -> None:
        """Which lanes may be asked: none without room, and none that is paused."""
        if self._is_due("room", ROOM_EVERY):
            self._no_room = why_no_room(self._settings)
        if self._is_due("pauses", PAUSES_EVERY):
            with self._sessions() as session:
                self._paused = frozenset(jobs.paused_lanes(session))
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
                session, me.id, name=me.name, host=me.host, pid=me.pid, lanes=self._poller.open_lanes(),
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
        """End a worker that should poll and does not, or holds what it does not start or end.

        Its supervisor starts another one.
        """
        if self._stopping_since is not None:
            return
        now = time.monotonic()
        if not self._poller.may_poll:
            self._poller.last_completed = max(self._poller.last_completed, now - TICK)
        since = min([self._poller.last_completed, *self._poller.unstarted().values()])
        if (begun := self._poller.begun_since()) is not None:
            # Celery ends a stage at its hard limit, and hears of its end: unless its own loop stands still.
            since = min(since, begun + self._settings.hard_time_limit.total_seconds())
        if now - since > self._settings.poll_stalled.total_seconds():
            log.critical("worker_silent", seconds=round(now - since))
            self._give_back_all()
            self._try(self._release)
            os._exit(EXIT_SILENT)

    def _notice_stop(self) -> None:
        """See that the worker was told to stop as soon as it was: its event loop may be waiting for SNS."""
        if self._stopping_since is None and was_told_to_stop():
            self._stop_receiving()

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
        self._running.stopping = True
        for row_id, pid in self._running.now():
            self._kill(pid)
            self._running.died(row_id, pid, STOPPED)
