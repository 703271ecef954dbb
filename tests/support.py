"""What several tests do: take rows through the queue, race threads, compare whole databases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, create_engine, func, make_url, select, text, update
from sqlalchemy.orm import Session

from db import queue
from db.models import AuditEntry, Base, MediaItem, ProcessingJob, QueueRow
from db.queue import Claimed, Cost, Effect
from db.session import Sessions
from pipeline.errors import TransientStageError
from pipeline.queues import Queue
from pipeline.retry import RetryPolicy
from pipeline.settings import Settings, get_settings
from pipeline.spool import Spool
from pipeline.stages.base import Asset, LocalFile
from pipeline.states import JOB_ACTIVE, TaskStatus, derive_job_status
from pipeline.storage import ObjectStore
from pipeline.workflows import StageName
from tasks.app import get_app
from tasks.queues import aws_client
from tests.factories import add_item

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LEASE = timedelta(minutes=5)
COST = Cost(duration_ms=12, cpu_ms=10)
POLICY = RetryPolicy()
SLOW = TransientStageError("The disk was slow.", code="DISK_SLOW")

T = TypeVar("T")


def in_threads(count: int, work: Callable[[int], T]) -> list[T]:
    """What ``work(0) ... work(count - 1)`` return, all begun at the same moment; raises what one raises."""
    barrier = Barrier(count)

    def begin(number: int) -> T:
        barrier.wait(timeout=30)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


def new_job(session: Session, item: MediaItem | None = None, **values: Any) -> ProcessingJob:
    """A job that was just enqueued, for a new item unless told."""
    item = item or add_item(session)
    return queue.enqueue(session, media_item_id=item.id, **({"workflow": "ingest"} | values))


def uploaded(
    sessions: Sessions,
    s3: S3Client,
    bucket: str,
    body: bytes,
    *,
    name: str = "a photograph.jpg",
    **values: Any,
) -> ProcessingJob:
    """An object in the bucket, and the job that its event would have made."""
    key = f"uploads/{uuid4()}/{name}"
    put = s3.put_object(Bucket=bucket, Key=key, Body=body)
    with sessions.begin() as session:
        item = MediaItem(bucket=bucket, key=key, version_id=put["VersionId"], size_bytes=len(body))
        session.add(item)
        session.flush()
        return new_job(session, item, **values)


def fetch(spool: Spool, store: ObjectStore, asset: Asset, size_limit: int) -> LocalFile:
    """A copy in the spool that is lent to nobody any more."""
    with spool.lend(store, asset, size_limit) as file:
        return file


def row_of(session: Session, job_id: UUID, stage: str) -> QueueRow:
    """The row of one stage as it is in the database now."""
    return session.execute(
        select(QueueRow)
        .where(QueueRow.job_id == job_id, QueueRow.job_type == stage)
        .execution_options(populate_existing=True)
    ).scalar_one()


def statuses(session: Session, job_id: UUID) -> list[TaskStatus]:
    """The statuses of a job's rows, in order."""
    found = session.scalars(
        select(QueueRow.status).where(QueueRow.job_id == job_id).order_by(QueueRow.position)
    )
    return [TaskStatus(status) for status in found]


def due(session: Session, job_id: UUID) -> UUID:
    """The row of a job that is due."""
    row_id = queue.due_row(session, job_id)
    assert row_id is not None
    return row_id


def claimed(session: Session, row_id: UUID, worker: str = "worker@test") -> Claimed:
    """Claim a row that can be claimed."""
    answer = queue.claim(session, row_id, worker=worker, lease=LEASE)
    assert isinstance(answer, Claimed), answer
    return answer


def nothing(_: Session) -> Effect:
    """The effect of a stage that changes nothing."""
    return Effect()


def complete(
    session: Session, claim: Claimed, effect: Callable[[Session], Effect] = nothing, **values: Any
) -> queue.Settled | queue.Fenced:
    """Settle a success."""
    given: dict[str, Any] = {"result": {}, "version": "1", "cost": COST} | values
    return queue.complete(session, claim, effect=effect, **given)


def advance(session: Session, job_id: UUID, to: StageName | None = None) -> None:
    """Complete the rows of a job in order, up to the stage ``to`` (not including it), or to the end."""
    while (row_id := queue.due_row(session, job_id)) is not None:
        if session.get_one(QueueRow, row_id).job_type == to:
            return
        assert isinstance(complete(session, claimed(session, row_id)), queue.Settled)


def expire(session: Session, row_id: UUID) -> None:
    """Let the lease of a row end."""
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id)
        .values(lease_expires_at=func.clock_timestamp() - timedelta(seconds=1))
    )


def make_due(session: Session, row_id: UUID) -> None:
    """Let the wait of a row that is to be retried be over."""
    session.execute(
        update(QueueRow)
        .where(QueueRow.id == row_id)
        .values(available_at=func.clock_timestamp() - timedelta(seconds=1))
    )


def summaries(session: Session, job_id: UUID) -> list[AuditEntry]:
    """The audit entries that say how a job ended."""
    ends = ("job_completed", "job_failed", "job_cancelled")
    found = session.scalars(
        select(AuditEntry)
        .where(AuditEntry.entity_id == job_id, AuditEntry.action.in_(ends))
        .order_by(AuditEntry.created_at)
    )
    return list(found)


def snapshot(session: Session | Connection) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    return {
        table.name: sorted(session.scalars(text(f'SELECT t::text FROM "{table.name}" t')))  # noqa: S608
        for table in Base.metadata.sorted_tables
    }


def broken_promises(session: Session, job_ids: Iterable[UUID]) -> list[str]:
    """What is wrong with jobs whose rows no transaction is changing."""
    wrong: list[str] = []
    for job_id in job_ids:
        job = session.get_one(ProcessingJob, job_id, populate_existing=True)
        rows = statuses(session, job_id)
        derived = derive_job_status(rows, started=job.started_at is not None)
        if job.status != derived and {job.status, derived} - JOB_ACTIVE:
            wrong.append(f"job {job_id} is {job.status}, its rows say {derived}: {rows}")
        if (
            sum(status in {TaskStatus.QUEUED, TaskStatus.RETRYING, TaskStatus.PROCESSING} for status in rows)
            > 1
        ):
            wrong.append(f"job {job_id} has two rows at work: {rows}")
    return wrong


@contextmanager
def scratch_database(settings: Settings, name: str) -> Iterator[str]:
    """The URL of an empty database of its own, for the length of the block."""
    url = make_url(settings.database_url.get_secret_value())
    name = f"{url.database}_{name}"
    # By way of "postgres", which is always there: this worker's own database may not be made yet.
    admin = create_engine(
        url.set(drivername="postgresql+psycopg", database="postgres"), isolation_level="AUTOCOMMIT"
    )
    try:
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
            connection.execute(text(f'CREATE DATABASE "{name}"'))
        yield url.set(database=name).render_as_string(hide_password=False)
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    finally:
        admin.dispose()


@contextmanager
def worker_process(
    log: Path, *args: str, entry: str = "cli.main", **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker as ``dailies worker`` starts it, ready, with one pool process. Its lines go to ``log``.

    With the ``entry`` ``tests.faults.worker`` its stages obey the names of the files.
    """
    command = [sys.executable, "-m", entry, "worker", "--concurrency", "1", *args]
    # Short polls let it end soon.
    env = {**os.environ, "DAILIES_POLL_WAIT": "1", "DAILIES_LOG_FORMAT": "json", **environment}
    with log.open("wb") as lines:
        process = subprocess.Popen(command, env=env, stderr=lines, start_new_session=True)  # noqa: S603
    try:
        wait_until(lambda: b" ready." in log.read_bytes() or process.poll() is not None, seconds=60)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


def purge(settings: Settings) -> None:
    """Empty every queue, before a worker that outlives its test takes what earlier tests have left."""
    sqs = aws_client(settings, "sqs")
    for url in sqs.list_queues(QueueNamePrefix=settings.queue_prefix).get("QueueUrls", []):
        sqs.purge_queue(QueueUrl=url)
    sqs.close()


def wait_until(is_so: Callable[[], object], *, seconds: float = 100) -> None:
    """Return as soon as ``is_so`` says yes; fail when it never does."""
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


@contextmanager
def asking_at(endpoint: str) -> Iterator[Settings]:
    """This process asks for AWS at ``endpoint`` meanwhile; yields its settings."""

    def forget() -> None:
        get_settings.cache_clear()
        get_app.cache_clear()

    with ExitStack() as held:
        held.callback(forget)
        held.enter_context(pytest.MonkeyPatch.context()).setenv("DAILIES_AWS_ENDPOINT_URL", endpoint)
        forget()
        yield get_settings()


def kombu_message(
    *args: object,
    task: str = "dailies.ingest",
    kwargs: dict[str, object] | None = None,
    embed: dict[str, object] | None = None,
) -> str:
    """A message as our own dispatch sends it, with any arguments; the first is the row's id."""
    body = b64encode(json.dumps([args, kwargs or {}, embed or {}]).encode()).decode()
    envelope = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": str(uuid4()), "root_id": None, "parent_id": None},
        "properties": {
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": Queue.STANDARD},
            "delivery_tag": str(uuid4()),
            "correlation_id": str(uuid4()),
            "delivery_mode": 2,
            "priority": 0,
        },
    }
    return b64encode(json.dumps(envelope).encode()).decode()
