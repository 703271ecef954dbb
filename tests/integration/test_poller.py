"""Receiving, with real queues: no more than there are slots for, and the most urgent first."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from db.session import Sessions, make_engine, session_factory
from pipeline.queues import Queue
from pipeline.settings import Settings, get_settings
from tasks.keeper import EXIT_SILENT, Identity, Keeper
from tasks.poller import Poller
from tasks.queues import Queues
from tasks.receipts import Receipts
from tasks.running import Running
from tests.support import wait_until

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

LANES = (Queue.EXPRESS, Queue.STANDARD, Queue.BULK)


class Receiver(NamedTuple):
    poller: Poller
    taken: list[tuple[Queue, str, str]]  #: lane, body, receipt handle

    def bodies(self) -> list[str]:
        return [body for _, body, _ in self.taken]

    def end(self, body: str) -> None:
        """The message has been worked on."""
        (handle,) = (handle for _, told, handle in self.taken if told == body)
        self.poller.done(handle)


@contextmanager
def receiving(queues: Queues, slots: int) -> Iterator[Receiver]:
    """A worker's receiving half; what it takes stays in its hands."""
    taken: list[tuple[Queue, str, str]] = []

    def deliver(lane: Queue, message: MessageTypeDef) -> None:
        taken.append((lane, message["Body"], message["ReceiptHandle"]))

    receipts = Receipts(queues.client, timedelta(seconds=30))
    poller = Poller(queues, LANES, receipts, slots=lambda: slots, deliver=deliver, wait=1)
    receipts.start()
    poller.start()
    try:
        yield Receiver(poller, taken)
    finally:
        poller.stop()
        assert poller.drained(patience=10)
        receipts.stop(patience=5)


@pytest.fixture
def send(sqs_queues: Queues) -> Callable[..., None]:
    def one(lane: Queue, *bodies: str) -> None:
        for body in bodies:
            sqs_queues.client.send_message(QueueUrl=sqs_queues.url(lane), MessageBody=body)

    return one


def test_idle_worker_gets_what_another_has_no_slot_for(sqs_queues: Queues, send: Callable[..., None]) -> None:
    with ExitStack() as held:
        busy = held.enter_context(receiving(sqs_queues, slots=1))
        send(Queue.BULK, "a", "b", "c")
        wait_until(lambda: busy.taken)
        idle = held.enter_context(receiving(sqs_queues, slots=3))
        wait_until(lambda: len(idle.taken) == 2)
        assert len(busy.taken) == 1
        assert sorted(busy.bodies() + idle.bodies()) == ["a", "b", "c"]


def test_free_slot_goes_to_the_most_urgent_lane(sqs_queues: Queues, send: Callable[..., None]) -> None:
    send(Queue.BULK, *(f"bulk-{number}" for number in range(5)))
    send(Queue.STANDARD, "standard")
    send(Queue.EXPRESS, "express")
    with receiving(sqs_queues, slots=1) as receiver:
        wait_until(lambda: receiver.taken)
        receiver.end("express")
        wait_until(lambda: len(receiver.taken) == 2)
        send(Queue.EXPRESS, "express-2")
        receiver.end("standard")
        wait_until(lambda: len(receiver.taken) == 3)
        receiver.end("express-2")
        wait_until(lambda: len(receiver.taken) == 4)
    assert receiver.bodies()[:3] == ["express", "standard", "express-2"]
    assert receiver.taken[3][0] == Queue.BULK


def never_hears_of_an_end(settings: Settings) -> None:
    """A worker whose pool has begun with a message, and whose event loop stands still since."""
    queues = Queues(settings)
    engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
    receipts = Receipts(queues.client, timedelta(seconds=30))
    poller = Poller(
        queues, LANES, receipts, slots=lambda: 1, wait=1,
        deliver=lambda _, message: poller.begun(message["ReceiptHandle"]),
    )  # fmt: skip
    me = Identity("here:1", "worker@here", "here", 1, LANES, "0")
    keeper = Keeper(
        settings, session_factory(engine), me, Running(), poller,
        alive=lambda: {1}, kill=lambda _: None, stop_receiving=lambda: None,
    )  # fmt: skip
    for part in (receipts, poller, keeper):
        part.start()
    multiprocessing.Event().wait(60)


def test_worker_whose_stage_never_ends_and_is_never_ended_exits(
    sessions: Sessions, sqs_queues: Queues, send: Callable[..., None], tmp_path: Path
) -> None:
    assert sessions  # what it says of itself is in the database
    limits = dict.fromkeys(("hard_time_limit", "poll_stalled"), timedelta(seconds=1))
    settings = get_settings().model_copy(update={**limits, "spool_dir": tmp_path})
    send(Queue.STANDARD, "x")
    process = multiprocessing.get_context("spawn").Process(target=never_hears_of_an_end, args=(settings,))
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == EXIT_SILENT
