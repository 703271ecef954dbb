"""What an outage, a full disk and two at once may not do: lose a message, cost a budget, double a copy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from celery.exceptions import Retry
from sqlalchemy import event, text

from db import queue
from db.models import DeadLetter, MediaItem, ProcessingJob, QueueRow
from db.session import Sessions, make_engine, session_factory
from pipeline.errors import InfrastructureError, NotOursError, PermanentStageError
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.stages.dedupe import DedupeValue
from pipeline.workflows import StageName
from tasks import dispatch, stages
from tasks.app import get_app
from tasks.queues import Queues
from tasks.runtime import Runtime, build
from tests.factories import add_item, now
from tests.support import COST, POLICY, claimed, due, in_threads, new_job, wait_until, worker_process

NOWHERE = "postgresql://nobody:secret@127.0.0.1:1/nothing"


@pytest.fixture
def runtime(empty_queues: Settings, tmp_path: Path) -> Iterator[Runtime]:
    made = build(empty_queues.model_copy(update={"spool_dir": tmp_path}))
    yield made
    made.engine.dispose()
    made.store.close()


def _state(queues: Queues, name: Queue) -> dict[str, str]:
    attributes = queues.client.get_queue_attributes(QueueUrl=queues.url(name), AttributeNames=["All"])
    return cast("dict[str, str]", attributes["Attributes"])


def test_message_comes_back_later_each_time_while_the_database_is_away(
    sessions: Sessions, empty_queues: Settings, tmp_path: Path
) -> None:
    with sessions.begin() as session:
        job = new_job(session)
    assert dispatch.publish_job(sessions, job.id)
    log, queues = tmp_path / "log", Queues(empty_queues)
    with worker_process(log, DAILIES_DATABASE_URL=NOWHERE):
        wait_until(lambda: log.read_bytes().count(b"delivery_postponed") == 2)
        # It is in flight between two tries, and the second wait is longer than the first.
        wait_until(lambda: _state(queues, Queue.STANDARD)["ApproximateNumberOfMessagesNotVisible"] == "1")
    assert queues.waiting(Queue.STANDARD) == 1
    assert queues.waiting(Queue.DEAD_LETTER) == 0
    assert log.read_bytes().count(b"delivery_postponed") <= 3
    queues.client.close()


def test_settle_waits_for_a_database_that_is_busy_for_a_moment(sessions: Sessions, runtime: Runtime) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        claim = claimed(session, due(session, job.id))
    impatient = make_engine(runtime.settings.database_url.get_secret_value(), pool_size=1)
    event.listen(impatient, "connect", lambda connection, _: connection.execute("SET lock_timeout = '50ms'"))
    held, tried = Event(), Event()

    def hold_the_job() -> None:
        with sessions.begin() as session:
            session.execute(text("SELECT 1 FROM processing_jobs WHERE id = :id FOR UPDATE"), {"id": job.id})
            held.set()
            assert tried.wait(20)

    @event.listens_for(impatient, "handle_error")
    def _(_: Any) -> None:
        tried.set()

    holder = Thread(target=hold_the_job)
    holder.start()
    assert held.wait(20)
    outcome = stages._settle(
        replace(runtime, sessions=session_factory(impatient)),
        lambda session: queue.complete(
            session, claim, effect=lambda _: queue.Effect(), result={}, version="1", cost=COST
        ),
    )
    holder.join()
    impatient.dispose()
    assert isinstance(outcome, queue.Settled)
    assert outcome.successor is not None


def test_full_disk_fails_nothing(sessions: Sessions, runtime: Runtime) -> None:
    def run(_asset: Asset, _ctx: Context) -> StageOutput:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"there is no room for this")
        return StageOutput(DedupeValue(sha256=""))

    with sessions.begin() as session:
        claim = claimed(session, due(session, new_job(session).id))
    with pytest.raises(InfrastructureError) as raised:
        stages.perform(
            runtime, Stage(StageName.DEDUPE, run, DedupeValue, version="1", needs_file=False), claim
        )
    assert raised.value.code == "SPOOL_FULL"


def _give_up(sessions: Sessions, count: int) -> None:
    for _ in range(count):
        with sessions.begin() as session:
            claim = claimed(session, due(session, new_job(session).id))
            queue.fail(session, claim, PermanentStageError("It is empty."), POLICY, cost=COST)


def test_four_who_copy_dead_letters_at_once_send_each_once(
    sessions: Sessions, empty_queues: Settings
) -> None:
    _give_up(sessions, 10)
    sent = in_threads(4, lambda _: dispatch.copy_dead_letters(sessions, empty_queues))
    assert sum(sent) == 10
    queues = Queues(empty_queues)
    assert queues.waiting(Queue.DEAD_LETTER) == 10
    queues.client.close()


def test_letter_that_sqs_refuses_does_not_stop_the_others(sessions: Sessions, empty_queues: Settings) -> None:
    with sessions.begin() as session:
        session.add(DeadLetter(reason="not_ours", error_code="X", error_message="too long for SQS" * 200_000))
    _give_up(sessions, 1)
    assert dispatch.copy_dead_letters(sessions, empty_queues) == 1


def test_sentence_about_a_foreign_message_is_bounded(session: Any) -> None:
    letter = queue.keep_foreign(session, source=None, body="x", error=NotOursError("é" * 100_000))
    assert len(json.dumps(letter.error_message)) < 100_000


@contextmanager
def _newer_message(row_id: UUID) -> Iterator[Callable[[], object]]:
    """A delivery of a message of the next release; what its arguments are is not for us to know."""
    task = get_app().tasks["dailies.ingest"]
    args = [{"row": "x"}, dispatch.SCHEMA + 1]
    routing = {"routing_key": "standard"}
    task.push_request(id=str(row_id), task=task.name, args=args, kwargs={}, delivery_info=routing)
    try:
        yield lambda: task.run(*args)
    finally:
        task.pop_request()


def test_newer_message_is_left_whatever_its_first_argument_is(sessions: Sessions, sqs_queues: Queues) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        queue.win_ticket(session, row_id)
    with _newer_message(row_id) as deliver, pytest.raises(Retry):
        deliver()
    assert _state(sqs_queues, Queue.STANDARD)["ApproximateNumberOfMessagesDelayed"] == "1"
    with sessions() as session:
        assert session.query(DeadLetter).count() == 0


def test_newer_message_does_not_go_round_for_ever(sessions: Sessions, sqs_queues: Queues) -> None:
    """After a way back to this release nobody takes it: the steward has to publish the row anew."""
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        old = now() - dispatch.NEWER_PATIENCE - timedelta(seconds=5)
        session.get_one(QueueRow, row_id).published_at = old
    with _newer_message(row_id) as deliver:
        assert deliver() == "dropped"
    assert sqs_queues.waiting(Queue.STANDARD) == 0
    with sessions() as session:
        assert queue.unpublished(session, horizon=queue.SQS_MAX_DELAY) == [row_id]


def test_newer_message_of_a_row_that_has_no_use_for_it_is_dropped(
    sessions: Sessions, sqs_queues: Queues
) -> None:
    with sessions.begin() as session:
        job = new_job(session)
        rows = [row.id for row in job.rows[:1]]
        queue.cancel_job(session, job.id, actor="test", reason="not wanted")
    for row_id in (*rows, uuid4()):
        with _newer_message(row_id) as deliver:
            assert deliver() == "dropped"
    assert sqs_queues.waiting(Queue.STANDARD) == 0


def test_send_that_failed_leaves_a_newer_publication_alone(sessions: Sessions) -> None:
    with sessions.begin() as session:
        row_id = due(session, new_job(session).id)
        old = queue.win_ticket(session, row_id)
        assert old
    with sessions.begin() as session:
        queue.give_back(session, old)
        newer = queue.win_ticket(session, row_id)
        assert newer
        queue.give_back(session, old)
    with sessions() as session:
        row = session.get_one(ProcessingJob, new_job_of(session, row_id)).rows[0]
        assert row.published_at == newer.published_at


def new_job_of(session: Any, row_id: Any) -> Any:
    return session.scalar(text("SELECT job_id FROM processing_queue WHERE id = :id"), {"id": row_id})


def test_earlier_upload_becomes_the_original_though_its_worker_is_slower(sessions: Sessions) -> None:
    sha256 = "ab" * 32
    with sessions.begin() as session:
        first, second = (add_item(session, sha256=sha256, holds_hash=False) for _ in range(2))
        for item in (first, second):
            new_job(session, item)
        ids = first.id, second.id
    with sessions.begin() as session:
        assert queue.originals.claim_hash(session, ids[1], sha256) == ids[0]
    with sessions.begin() as session:
        assert queue.originals.claim_hash(session, ids[0], sha256) is None
        assert session.get_one(MediaItem, ids[0]).holds_hash
