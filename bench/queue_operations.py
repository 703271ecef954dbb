"""What is measured: everything that the product asks of the table, each as one transaction of its own."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine
from uuid_utils.compat import uuid7

from bench.queue_plans import Recorder
from db import jobs, queue, stats
from db.models import MediaItem
from db.queue import Claimed, Cost, Effect
from db.session import Session, session_factory
from pipeline.errors import PermanentStageError, TransientStageError
from pipeline.queues import LANES, Queue
from pipeline.retry import RetryPolicy
from pipeline.states import JobStatus, TaskStatus
from pipeline.workflows import StageName, WorkflowType

LEASE = timedelta(seconds=60)
COST = Cost(duration_ms=42, cpu_ms=40)
AT_ONCE = RetryPolicy(floor=timedelta(), base=timedelta(), cap=timedelta())
SLOW = TransientStageError("The disk was slow.", code="DISK_SLOW")
BAD = PermanentStageError("No decoder accepts the bytes.", code="UNREADABLE_IMAGE")
PAGE = 51  #: rows that a page of 50 asks for
#: What waits while everything is measured: jobs of six rows, in two lanes.
WAITING = 400


@dataclass
class Subject:
    """One database, and the seconds that each operation took on it."""

    engine: Engine
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    recorder: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        self._sessions = session_factory(self.engine)

    @contextmanager
    def timed(self, operation: str) -> Iterator[Session]:
        """A transaction, from its begin to the answer to its commit."""
        self.recorder.operation = operation
        started = time.perf_counter()
        with self._sessions.begin() as session:
            yield session
        self.seconds[operation].append(time.perf_counter() - started)

    def wait_in_line(self) -> None:
        """Add what waits: published rows in two lanes, with the rows that wait for them."""
        for number in range(WAITING):
            with self._sessions.begin() as session:
                row_id = self._enqueue(session, WorkflowType.INGEST, 2 if number % 2 else 5)
                queue.win_ticket(session, row_id)

    def _enqueue(self, session: Session, workflow: WorkflowType, priority: int) -> UUID:
        name = uuid7()
        item = MediaItem(
            bucket="storage", key=f"uploads/bench/{name}.jpg", version_id=str(name), size_bytes=3_000_000
        )
        session.add(item)
        session.flush()
        job = queue.enqueue(session, media_item_id=item.id, workflow=workflow, priority=priority)
        due = queue.due_row(session, job.id)
        assert due is not None  # noqa: S101 - for the type
        return due

    def round(self) -> None:
        """Every operation at least once, on a job of two rows that ends here."""
        with self.timed("enqueue") as session:
            first = self._enqueue(session, WorkflowType.THUMBNAILS, 5)
        self._publish(first)
        self._rescue(first)
        second = self._complete(self._claim(first))
        self._publish(second)
        claim = self._claim(second)
        with self.timed("fail: due again") as session:
            queue.fail(session, claim, SLOW, AT_ONCE, cost=COST)
        claim = self._claim(second)
        with self.timed("fail: given up") as session:
            queue.fail(session, claim, BAD, AT_ONCE, cost=COST)
        self._read(claim.job_id)

    def _publish(self, row_id: UUID) -> None:
        with self.timed("publish") as session:
            queue.win_ticket(session, row_id)

    def _claim(self, row_id: UUID, lease: timedelta = LEASE) -> Claimed:
        with self.timed("claim") as session:
            answer = queue.claim(session, row_id, worker="host:4711/4712", lease=lease)
        assert isinstance(answer, Claimed), answer  # noqa: S101 - or it is no measurement
        return answer

    def _complete(self, claim: Claimed) -> UUID:
        with self.timed("heartbeat") as session:
            queue.heartbeat(session, claim.row_id, claim.token, lease=LEASE)
        with self.timed("complete") as session:
            settled = queue.complete(
                session, claim, effect=lambda _: Effect(), result={"variants": []}, version="1", cost=COST
            )
        assert isinstance(settled, queue.Settled)  # noqa: S101 - or it is no measurement
        assert settled.successor is not None  # noqa: S101 - the chain has two rows
        return settled.successor

    def _rescue(self, row_id: UUID) -> None:
        """A worker that ends without a word, and the steward's round after it."""
        token = self._claim(row_id, lease=timedelta()).token
        with self.timed("rescue: find ended leases") as session:
            queue.expired(session)
        with self.timed("rescue: release one") as session:
            queue.release_expired(session, row_id, token)
        with self.timed("rescue: find unpublished") as session:
            queue.unpublished(session, horizon=queue.SQS_MAX_DELAY)
        self._publish(row_id)
        with self.timed("rescue: find lost messages") as session:
            for lane in LANES:
                queue.waiting_since(session, lane, wait=timedelta(seconds=30))
        with self.timed("rescue: find overtaken") as session:
            for lane in LANES:
                queue.overtaken(session, lane, margin=timedelta(minutes=2))

    def _read(self, job_id: UUID) -> None:
        with self.timed("stats") as session:
            stats.count_finished(session)
            stats.count_living(session)
            stats.oldest_waiting(session)
        with self.timed("get a job") as session:
            jobs.get_job(session, job_id)
        with self.timed("list jobs") as session:
            jobs.list_jobs(session, limit=PAGE)
        with self.timed("list jobs: failed") as session:
            jobs.list_jobs(session, limit=PAGE, status=JobStatus.FAILED)
        with self.timed("list jobs: one workflow") as session:
            jobs.list_jobs(session, limit=PAGE, workflow_type=WorkflowType.REINDEX)
        with self.timed("list rows") as session:
            jobs.list_rows(session, limit=PAGE)
        with self.timed("list rows: second page") as session:
            jobs.list_rows(session, limit=PAGE, before=job_id)
        with self.timed("list rows: queued") as session:
            jobs.list_rows(session, limit=PAGE, status=TaskStatus.QUEUED)
        with self.timed("list rows: one lane") as session:
            jobs.list_rows(session, limit=PAGE, queue=Queue.EXPRESS)
        with self.timed("list rows: an empty lane") as session:
            jobs.list_rows(session, limit=PAGE, queue=Queue.HEAVY)
        with self.timed("list rows: cancelled, one stage") as session:
            jobs.list_rows(session, limit=PAGE, status=TaskStatus.CANCELLED, job_type=StageName.METADATA)
        with self.timed("list rows: of a job") as session:
            jobs.list_rows(session, limit=PAGE, job_id=job_id)
