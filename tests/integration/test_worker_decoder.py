"""A real worker whose decoder stands still: what becomes of the row, the process and the next file."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from db import queue
from pipeline.states import JobStatus, TaskStatus
from tests.faults.stack import children_of
from tests.floor import Floor, child_of
from tests.support import wait_until

if TYPE_CHECKING:
    import subprocess
    from uuid import UUID


@contextmanager
def stopped_decoder(floor: Floor, worker: subprocess.Popen[bytes]) -> Iterator[int]:
    """The decoder of the only pool process, as a library in an endless loop leaves it: it has to end."""
    first = floor.job("slow-2-first.jpg")
    wait_until(lambda: floor.is_running(first, "thumbnails"))
    (decoder,) = children_of(child_of(worker, floor.row(first, "thumbnails")))
    floor.wait_for(first, JobStatus.COMPLETED)
    os.kill(decoder, signal.SIGSTOP)
    yield decoder
    wait_until(lambda: not Path(f"/proc/{decoder}").exists(), seconds=20)


def is_at_work(floor: Floor, job_id: UUID) -> bool:
    """Whether the job's first stage, which is the first to decode, has begun."""
    return floor.is_running(job_id, "ingest")


def test_file_that_hangs_its_decoder_costs_an_attempt_and_the_decoder(floor: Floor) -> None:
    limits = {"DAILIES_SOFT_TIME_LIMIT": "5", "DAILIES_HARD_TIME_LIMIT": "15"}
    with floor.worker("--concurrency", "1", **limits) as worker, stopped_decoder(floor, worker):
        job_id = floor.job()
        floor.wait_for(job_id, JobStatus.COMPLETED)
    attempts = floor.attempts(floor.row(job_id, "ingest"))
    assert attempts == [("retrying", "TIME_LIMIT_EXCEEDED"), ("completed", None)]


def test_cancelled_decode_ends_with_its_process_and_the_next_file_is_read(floor: Floor) -> None:
    with floor.worker("--concurrency", "1") as worker:
        with stopped_decoder(floor, worker):
            job_id = floor.job()
            wait_until(lambda: is_at_work(floor, job_id))
            with floor.sessions.begin() as session:
                assert queue.cancel_job(session, job_id, actor="test", reason="not wanted")
        floor.wait_for(floor.job(), JobStatus.COMPLETED)
        assert worker.poll() is None
    row = floor.row(job_id, "ingest")
    assert (row.status, row.crashes) == (TaskStatus.CANCELLED, 0)


def test_decoder_ends_with_a_worker_that_is_killed(floor: Floor) -> None:
    with floor.worker("--concurrency", "1") as worker, stopped_decoder(floor, worker):
        job_id = floor.job()
        wait_until(lambda: is_at_work(floor, job_id))
        worker.kill()
