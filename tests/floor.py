"""Where a real worker works in a test: jobs by the name of their file, and what became of their rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import select

from db.models import Attempt, ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.states import JobStatus, TaskStatus
from tasks import dispatch
from tests.images import detailed, encoded
from tests.support import row_of, uploaded, wait_until, worker_process

if TYPE_CHECKING:
    import subprocess

    from mypy_boto3_s3 import S3Client

#: Short, and long enough for a machine that is busy with other tests.
LEASE = timedelta(seconds=8)
PHOTO = encoded(detailed((64, 48)))


class Floor:
    """Where a worker works: uploads jobs by name, and looks at their rows."""

    def __init__(self, sessions: Sessions, s3: S3Client, bucket: str, folder: Path) -> None:
        self.sessions, self.s3, self.bucket, self.folder = sessions, s3, bucket, folder

    def job(self, name: str = "photo.jpg", **values: int) -> UUID:
        """A job whose first message was sent."""
        body = PHOTO + os.urandom(16)  # nobody's duplicate
        job = uploaded(self.sessions, self.s3, self.bucket, body, name=name, **values)
        dispatch.publish_job(self.sessions, job.id)
        return job.id

    @contextmanager
    def worker(self, *args: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A worker with a short lease, and what it said where a test fails."""
        log = self.folder / "worker.log"
        env = {
            "FAULTS_COUNTER": str(self.folder / "executions"),
            "DAILIES_SPOOL_DIR": str(self.folder / "spool"),
            "DAILIES_LEASE": str(LEASE.total_seconds()),
            "DAILIES_VISIBILITY_TIMEOUT": str(LEASE.total_seconds()),
            "DAILIES_RETRY_BASE": "1",
            "DAILIES_SHUTDOWN_GRACE": "2",
            **environment,
        }
        try:
            with worker_process(log, *args, entry="tests.faults.worker", **env) as process:
                yield process
        finally:
            print(log.read_text()[-10_000:])  # noqa: T201

    def row(self, job_id: UUID, stage: str) -> QueueRow:
        """The row of a stage as it is now."""
        with self.sessions() as session:
            return row_of(session, job_id, stage)

    def is_running(self, job_id: UUID, stage: str) -> bool:
        """Whether a process is at work on the stage."""
        return self.row(job_id, stage).status == TaskStatus.PROCESSING

    def status(self, job_id: UUID) -> str:
        """The job's status as it is now."""
        with self.sessions() as session:
            return session.get_one(ProcessingJob, job_id).status

    def wait_for(self, job_id: UUID, status: JobStatus) -> None:
        """Wait until the job is in ``status``."""
        wait_until(lambda: self.status(job_id) == status, seconds=60)

    def attempts(self, row: QueueRow) -> list[tuple[str | None, str | None]]:
        """How each attempt of the row ended, with its error's code."""
        with self.sessions() as session:
            found = session.execute(
                select(Attempt.outcome, Attempt.error_code)
                .where(Attempt.row_id == row.id)
                .order_by(Attempt.token)
            )
            return [(outcome, code) for outcome, code in found]

    def executions(self, job_id: UUID, stage: str) -> int:
        """How often the stage was really run."""
        with self.sessions() as session:
            item_id = session.get_one(ProcessingJob, job_id).media_item_id
        lines = (self.folder / "executions").read_text().splitlines()
        return sum(line.split("\t")[2:4] == [stage, str(item_id)] for line in lines)


def child_of(worker: subprocess.Popen[bytes], row: QueueRow) -> int:
    """The pool process that holds the row, by the row's own word."""
    assert row.worker is not None
    main, child = re.fullmatch(r".+:(\d+)/(\d+)", row.worker).groups()  # type: ignore[union-attr]
    assert int(main) == worker.pid
    return int(child)
