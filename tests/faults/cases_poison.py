"""Part 7: files that kill or hang whoever touches them, and messages that are nobody's."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from uuid import uuid4

from pipeline.queues import Queue
from pipeline.states import JobStatus
from tests.faults.case import Run, case
from tests.faults.load import Upload, picture
from tests.support import kombu_message

JUNK = 1_000  #: messages in each queue
BATCH = 10  #: the most that SQS takes
POISONED, HANGING = 3, 2


def poison(dice: random.Random) -> list[Upload]:
    """Files that kill their process with SIGKILL."""
    return [_upload("poison", dice, "WORKER_LOST") for _ in range(POISONED)]


def hanging(dice: random.Random) -> list[Upload]:
    """Files that hang their process for ever, deaf to its soft time limit."""
    return [_upload("hang", dice, "WORKER_LOST", "TIME_LIMIT_EXCEEDED") for _ in range(HANGING)]


def _upload(name: str, dice: random.Random, *codes: str) -> Upload:
    key = f"uploads/{uuid4().hex[:8]}/{name}-{uuid4().hex[:8]}.jpg"
    return Upload(key, picture(dice), JobStatus.FAILED, frozenset(codes))


@case("poison", part="7", title="Three files that always kill their process", more=poison)
def poisoned(run: Run) -> None:
    with run.fault():
        run.wait(10)


SHORT = {"DAILIES_SOFT_TIME_LIMIT": "10", "DAILIES_HARD_TIME_LIMIT": "12"}


@case("hang", part="7", title="Two files that always hang their process", more=hanging, settings=SHORT)
def hangs(run: Run) -> None:
    with run.fault():
        run.wait(10)


@case("junk", part="7", title="1,000 foreign messages in each queue", foreign=True)
def junk(run: Run) -> None:
    with run.fault():
        foreign(run, JUNK)
    run.at_end.append(
        lambda: run.note(f"{len(Queue) * JUNK} sent, {_kept(run)} dead letters when all was done")
    )


def _kept(run: Run) -> int:
    count: int = run.stack.sql("SELECT count(*) FROM dead_letters WHERE reason = 'not_ours'")[0][0]
    return count


def foreign(run: Run, count: int) -> None:
    """Send ``count`` foreign messages to each queue."""
    for queue in Queue:
        url, bodies = run.stack.queue_url(queue), junk_bodies(run.dice)
        for _ in range(0, count, BATCH):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(islice(bodies, BATCH))]
            run.stack.sqs.send_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]


def junk_bodies(dice: random.Random) -> Iterator[str]:
    """What people and other systems send to the wrong queue, for ever."""
    while True:
        yield "hello"
        yield json.dumps({"not": "ours", "number": dice.random()})
        yield "[" * dice.randint(1, 300)
        yield kombu_message(str(uuid4()), 1)  # a row that there never was
        yield kombu_message("no row", 1)
        yield kombu_message(str(uuid4()), 1, task="another.system")
        yield kombu_message({"deep": [1, 2, {"er": None}]})
        yield json.dumps({"Records": [{"eventSource": "aws:sns"}]})
        yield "\u00e9t\u00e9 \u4e2d" + "x" * dice.randint(0, 2000)
        yield "0"
