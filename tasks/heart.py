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


class Heart:
    """Beats for one claim at a time. Made after the fork, once a process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._renew_every = runtime.settings.lease.total_seconds() / 3
        self._look_every = min(LOOK_EVERY, self._renew_every)
        self._lock = threading.Lock()
        self._claim: queue.Claimed | None = None
        self._renew_at = 0.0
        self._busy = threading.Event()
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    @contextmanager
    def beating(self, claim: queue.Claimed) -> Iterator[None]:
        """Keep the lease of ``claim`` for the length of the block, which must not settle it."""
        with self._lock:
            self._claim, self._renew_at = claim, time.monotonic() + self._renew_every
        self._busy.set()
        try:
            yield
        finally:
            with self._lock:
                self._claim = None
            self._busy.clear()

    def _run(self) -> None:
        while True:
            self._busy.wait()
            time.sleep(self._look_every)
            try:
                with guarded(), self._lock:
                    self._beat()
            except InfrastructureError as error:
                log.warning("heartbeat_failed", error=error.message)
            except Exception:
                log.exception("heartbeat_raised")

    def _beat(self) -> None:
        """Renew or look. The caller holds the lock: the block cannot end, nor another begin, meanwhile."""
        claim = self._claim
        if claim is None:
            return
        renew = time.monotonic() >= self._renew_at
        with self._runtime.sessions.begin() as session:
            lease = self._runtime.settings.lease if renew else None
            ours = queue.heartbeat(session, claim.row_id, claim.token, lease=lease)
        if renew:
            self._renew_at = time.monotonic() + self._renew_every
        if not ours:
            log.warning("row_no_longer_ours", row_id=str(claim.row_id), token=claim.token)
            os._exit(EXIT_NOT_OURS)


@lru_cache(maxsize=1)
def _heart_of(_pid: int) -> Heart:
    return Heart(get_runtime())


def get_heart() -> Heart:
    """The heart of this process; a forked child has its own."""
    return _heart_of(os.getpid())
