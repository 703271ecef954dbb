"""A real prefork worker whose stages are slow, deadly or endless: what becomes of their rows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest
from sqlalchemy import func, select

from db import queue
from db.models import DeadLetter, ProcessingJob, QueueRow, Worker
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import JobStatus, TaskStatus
from tasks.keeper import EXIT_SILENT
from tasks.queues import Queues
from tasks.runtime import build
from tasks.steward import Steward
from tests.faults.proxy import AwsProxy
from tests.faults.rules import Hang
from tests.floor import LEASE, Floor, child_of
from tests.support import wait_until


@pytest.fixture
def steward(floor: Floor, settings: Settings, empty_buckets: None) -> Iterator[Steward]:
    """A steward with the worker's lease, stepping in a thread."""
    short = {"lease": LEASE, "lost_after": LEASE}
    runtime = build(settings.model_copy(update=short), pool_size=2)
    steward, stop = Steward(runtime), Event()

    def run() -> None:
        while not stop.wait(0.5):
            steward.step()

    thread = Thread(target=run)
    thread.start()
    yield steward
    stop.set()
    thread.join()
    runtime.engine.dispose()
    assert floor


@pytest.mark.usefixtures("steward")
def test_stage_that_outlasts_lease_and_visibility_runs_once(floor: Floor) -> None:
    with floor.worker():
        job_id = floor.job("slow-20-long.jpg")
        floor.wait_for(job_id, JobStatus.COMPLETED)
    assert floor.executions(job_id, "thumbnails") == 1
    assert floor.attempts(floor.row(job_id, "thumbnails")) == [("completed", None)]


def test_row_of_a_killed_child_is_running_again_at_once_and_costs_a_crash(floor: Floor) -> None:
    with floor.worker(DAILIES_LEASE="600") as worker:
        job_id = floor.job("slow-60-long.jpg")
        wait_until(lambda: floor.is_running(job_id, "thumbnails"))
        first = floor.row(job_id, "thumbnails")
        os.kill(child_of(worker, first), signal.SIGKILL)
        wait_until(lambda: floor.row(job_id, "thumbnails").token != first.token, seconds=20)
        again = floor.row(job_id, "thumbnails")
        wait_until(lambda: floor.executions(job_id, "thumbnails") == 2)
        assert (again.crashes, again.attempts) == (1, 0)
        assert floor.attempts(again) == [("lost", "WORKER_DIED"), (None, None)]


def test_cancelled_stage_is_ended_and_the_next_job_is_not(floor: Floor) -> None:
    with floor.worker() as worker:
        job_id = floor.job("slow-60-long.jpg")
        wait_until(lambda: floor.is_running(job_id, "thumbnails"))
        child = child_of(worker, floor.row(job_id, "thumbnails"))
        with floor.sessions.begin() as session:
            assert queue.cancel_job(session, job_id, actor="test", reason="not wanted")
        wait_until(lambda: not Path(f"/proc/{child}").exists(), seconds=20)
        after = floor.job()
        floor.wait_for(after, JobStatus.COMPLETED)
        assert worker.poll() is None
    row = floor.row(job_id, "thumbnails")
    assert (row.status, row.crashes) == (TaskStatus.CANCELLED, 0)
    assert floor.attempts(row) == [("cancelled", None)]


def test_file_that_kills_every_process_stops_and_holds_up_nobody(floor: Floor) -> None:
    with floor.worker():
        poison, good = floor.job("poison-a.jpg"), floor.job()
        floor.wait_for(good, JobStatus.COMPLETED)
        floor.wait_for(poison, JobStatus.FAILED)
    row = floor.row(poison, "metadata")
    assert (row.status, row.error_code, row.crashes, row.attempts) == ("failed", "WORKER_LOST", 3, 0)
    with floor.sessions() as session:
        letter = session.scalars(select(DeadLetter)).one()
        assert (letter.row_id, letter.reason) == (row.id, "worker_lost")
    assert floor.executions(poison, "metadata") == 3


def test_stage_that_hangs_is_ended_by_its_hard_limit(floor: Floor) -> None:
    # A process's first publication takes seconds on a busy machine, and no steward is here to send it again.
    limits = {"DAILIES_SOFT_TIME_LIMIT": "8", "DAILIES_HARD_TIME_LIMIT": "9"}
    with floor.worker(**limits):
        job_id = floor.job("hang-a.jpg")
        floor.wait_for(job_id, JobStatus.FAILED)
    row = floor.row(job_id, "metadata")
    assert (row.error_code, floor.attempts(row)) == ("WORKER_LOST", [("lost", "TIME_LIMIT_EXCEEDED")] * 3)


def test_what_a_shutdown_interrupts_is_given_back_and_costs_nothing(floor: Floor) -> None:
    with floor.worker() as worker:
        job_id = floor.job("slow-60-long.jpg")
        wait_until(lambda: floor.is_running(job_id, "thumbnails"))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=20) == 0
    row = floor.row(job_id, "thumbnails")
    assert (row.status, row.crashes, row.attempts) == (TaskStatus.QUEUED, 0, 0)
    assert floor.attempts(row) == [("released", "WORKER_STOPPED")]
    with floor.sessions() as session:
        assert session.scalars(select(Worker.state)).one() == "stopped"
    with floor.worker():
        wait_until(lambda: floor.is_running(job_id, "thumbnails"))


def test_urgent_job_starts_before_the_next_patient_one(floor: Floor) -> None:
    with floor.worker():
        patient = [floor.job(f"slow-0.3-{number}.jpg", priority=1) for number in range(12)]
        wait_until(lambda: floor.status(patient[0]) != JobStatus.QUEUED)
        urgent = floor.job(priority=10)
        floor.wait_for(urgent, JobStatus.COMPLETED)
        for job_id in patient:
            floor.wait_for(job_id, JobStatus.COMPLETED)
    with floor.sessions() as session:
        began = session.get_one(ProcessingJob, urgent)
        between = select(func.count()).where(
            QueueRow.queue == Queue.BULK,
            QueueRow.started_at > began.created_at,
            QueueRow.started_at < select(func.min(QueueRow.started_at)).where(
                QueueRow.job_id == urgent
            ).scalar_subquery(),
        )  # fmt: skip
        # One patient stage may have been received at the moment of the upload.
        assert (session.scalar(between) or 0) <= 1


def test_paused_lane_is_left_alone_and_goes_on_when_resumed(floor: Floor, settings: Settings) -> None:
    with floor.worker():
        with floor.sessions.begin() as session:
            queue.pause_lane(session, Queue.STANDARD, actor="test", reason="a test")
        wait_until(lambda: b"lanes_closed" in (floor.folder / "worker.log").read_bytes())
        paused, urgent = floor.job(), floor.job(priority=9)
        floor.wait_for(urgent, JobStatus.COMPLETED)
        assert floor.status(paused) == JobStatus.QUEUED
        queues = Queues(settings)
        assert queues.waiting(Queue.STANDARD) == 1  # and nobody holds it
        with floor.sessions.begin() as session:
            queue.resume_lane(session, Queue.STANDARD)
        floor.wait_for(paused, JobStatus.COMPLETED)


def test_worker_without_room_says_so_starts_nothing_and_fails_nothing(floor: Floor) -> None:
    with floor.worker(DAILIES_ROOM_MARGIN="1000000GB"):
        job_id = floor.job()

        def reported() -> bool:
            with floor.sessions() as session:
                return session.scalars(select(Worker.state)).all() == ["no_room"]

        wait_until(reported)
        with floor.sessions() as session:
            worker = session.scalars(select(Worker)).one()
            assert worker.reason is not None
            assert "DAILIES_ROOM_MARGIN" in worker.reason
    row = floor.row(job_id, "ingest")
    assert (row.status, row.token) == (TaskStatus.QUEUED, None)
    with floor.worker():
        floor.wait_for(job_id, JobStatus.COMPLETED)


def test_worker_that_polls_no_more_gives_back_what_it_holds_and_exits(
    floor: Floor, settings: Settings
) -> None:
    assert settings.aws_endpoint_url is not None
    with AwsProxy(settings.aws_endpoint_url) as proxy:
        through = {"DAILIES_AWS_ENDPOINT_URL": proxy.url, "DAILIES_POLL_STALLED": "3"}
        with floor.worker("--concurrency", "2", **through) as worker:
            job_id = floor.job("slow-60-long.jpg")
            wait_until(lambda: floor.is_running(job_id, "thumbnails"))
            proxy.rule(Hang(), "SQS.ReceiveMessage")
            assert worker.wait(timeout=60) == EXIT_SILENT
    row = floor.row(job_id, "thumbnails")
    assert (row.status, row.crashes) == (TaskStatus.QUEUED, 0)
    assert floor.attempts(row) == [("released", "WORKER_STOPPED")]
