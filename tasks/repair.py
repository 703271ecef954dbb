"""Making again what is missing on AWS, and what follows from it: messages and events that are gone."""

from __future__ import annotations

import json
import time
from datetime import timedelta

import structlog

from db import collected, marks, queue
from pipeline.queues import LANES, Queue
from tasks.bootstrap import bootstrap
from tasks.runtime import Runtime
from tasks.scan import BucketScan
from tasks.topology import Survey, Topology

log = structlog.get_logger(__name__)

SURVEY_EVERY = 30.0  #: seconds between looks at everything; that a queue is there is looked at in every round
BATCH = 1000


class Repair:
    """Re-asserts queues, redrive policies, versioning and the bucket's notification."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._topology = Topology(runtime.settings)
        self._scan = BucketScan(runtime).progress
        self._surveyed = float("-inf")

    def run(self) -> int:
        """Look, and repair what differs; returns how many differences there were."""
        if not self._topology.missing() and time.monotonic() - self._surveyed < SURVEY_EVERY:
            return 0
        try:
            return self._repair(self._topology.survey())
        finally:
            self._surveyed = time.monotonic()

    def _repair(self, survey: Survey) -> int:
        for difference in survey.differences:
            log.warning("topology_differs", what=difference.what)
        self._mourn(survey)
        if survey.differences:
            bootstrap(self._runtime.settings)
            if any(one.events for one in survey.differences):
                self._scan.ask()  # again: what was uploaded a moment ago told nobody
            self._remember(self._topology.survey().made)
        return len(survey.differences)

    def _mourn(self, survey: Survey) -> None:
        """Note what was lost with the queues that are gone, or were made again by somebody else."""
        lost = {one.queue for one in survey.differences if one.queue is not None}
        known = self._known()
        lost |= {Queue(name) for name, made in survey.made.items() if known.get(name, made) != made}
        for one in sorted(lost):
            if one in LANES:
                self.forget_messages(one, wait=None)
            elif one is not Queue.EVENTS:
                self._forget_copies(one)
        if Queue.EVENTS in lost or any(one.events for one in survey.differences):
            self._scan.ask()
        # Before the repair, which may fail round after round: each loss is mourned once.
        self._remember(known | survey.made)

    def _known(self) -> dict[str, str]:
        with self._runtime.sessions() as session:
            mark = marks.get(session, marks.QUEUES_MADE)
        found: dict[str, str] = json.loads(mark.value) if mark is not None else {}
        return found

    def _remember(self, made: dict[str, str]) -> None:
        with self._runtime.sessions.begin() as session:
            marks.put(session, marks.QUEUES_MADE, json.dumps(made))

    def forget_messages(self, lane: str, *, wait: timedelta | None) -> int:
        """Note that the messages of a lane are gone (of rows that have waited for ``wait``, or all)."""
        total = 0
        while True:
            with self._runtime.sessions.begin() as session:
                done = queue.forget_publication(session, lane, wait=wait, limit=BATCH)
            total += done
            if done < BATCH:
                break
        log.warning("messages_lost", queue=lane, rows=total)
        return total

    def _forget_copies(self, one: Queue) -> None:
        while True:
            with self._runtime.sessions.begin() as session:
                done = collected.forget_copies(session, one, limit=BATCH)
            if done < BATCH:
                return
