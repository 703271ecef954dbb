from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from sqlalchemy import select

from db.models import ProcessingJob, QueueRow
from db.session import Sessions
from pipeline.states import TaskStatus
from tasks.dispatch import publish
from tests.images import detailed, encoded
from tests.support import due, uploaded, wait_until, worker_process

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

pytestmark = pytest.mark.usefixtures("empty_queues")


def test_worker_that_is_told_to_stop_finishes_and_leaves_nothing_running(
    sessions: Sessions, s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    with worker_process(
        log, "--hostname", "leaving@%h", DAILIES_SPOOL_DIR=str(tmp_path / "spool")
    ) as process:
        for number in range(6):
            job = uploaded(sessions, s3, bucket, encoded(detailed((60, 60 + number))))
            publish(sessions, job_due(sessions, job))
        wait_until(lambda: b"stage_completed" in log.read_bytes())
        children = _children(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    with sessions() as session:
        running = session.scalars(select(QueueRow.id).where(QueueRow.status == TaskStatus.PROCESSING))
        assert list(running) == []
    assert children
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in re.findall(r"\d+", found)]


def job_due(sessions: Sessions, job: ProcessingJob) -> UUID:
    with sessions() as session:
        return due(session, job.id)
