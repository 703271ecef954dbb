"""The lease of what a pool process works on, kept by a thread of that very process.

It dies with the process, so a lease ends when its holder does. And it knows what the process works on, so
it can end it, and only it, when the row belongs to somebody else: cancelled by an operator, or taken over
after a pause that outlasted the lease.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import structlog

from db import queue
from db.session import guarded
from pipeline.errors import InfrastructureError
from tasks.runtime import Runtime, get_runtime

log = structlog.get_logger(__name__)

#: Seconds between two looks at whether the row is still ours: a cancelled stage ends within twice that.
LOOK_EVERY = 2.0
#: The exit status of a process that ended itself because its row was no longer its own.
EXIT_NOT_OURS = 88


@dataclass(slots=True)
class Beat:
    """One claim that is being worked on."""

    claim: queue.Claimed
    renew_at: float  #: on the monotonic clock
    settling: bool = False  #: its end is being written: from now on it may be no longer ours, and rightly so


class Heart:
    """Beats for one claim at a time. Made after the fork, once a process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._renew_every = runtime.settings.lease.total_seconds() / 3
        self._look_every = min(LOOK_EVERY, self._renew_every)
        self._beat: Beat | None = None
        self._busy = threading.Event()
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    @contextmanager
    def beating(self, claim: queue.Claimed) -> Iterator[Beat]:
        """Keep the lease of ``claim`` for the length of the block."""
        beat = self._beat = Beat(claim, time.monotonic() + self._renew_every)
        self._busy.set()
        try:
            yield beat
        finally:
            self._beat = None
            self._busy.clear()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            time.sleep(self._look_every)
            beat = self._beat
            if beat is None:
                continue
            try:
                with guarded():
                    self._tick(beat)
            except InfrastructureError as error:
                log.warning("heartbeat_failed", error=error.message)
            except Exception:
                log.exception("heartbeat_raised")

    def _tick(self, beat: Beat) -> None:
        """Renew or look; end the process where the row is not ours and the work on it goes on."""
        renew = time.monotonic() >= beat.renew_at
        lease = self._runtime.settings.lease if renew else None
        with self._runtime.sessions.begin() as session:
            ours = queue.heartbeat(session, beat.claim.row_id, beat.claim.token, lease=lease)
        if renew:
            beat.renew_at = time.monotonic() + self._renew_every
        # No lock: whoever settles has said so before, and a row that was lost before stays lost.
        if not ours and self._beat is beat and not beat.settling:
            os._exit(EXIT_NOT_OURS)  # at once: to write a line would take time, and the parent writes one


@lru_cache(maxsize=1)
def _heart_of(_pid: int) -> Heart:
    return Heart(get_runtime())


def get_heart() -> Heart:
    """The heart of this process; a forked child has its own."""
    return _heart_of(os.getpid())
