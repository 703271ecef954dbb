"""Nothing is broken, but there is much to do, or it takes long: urgent jobs and a backlog, a long stage."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from uuid import UUID, uuid4

from db import queue
from db.models import MediaItem
from db.session import Sessions, make_engine, session_factory
from pipeline.queues import Queue
from tests.faults.case import Run, case
from tests.faults.load import Upload, picture
from tests.faults.oracle import unfinished
from tests.faults.stack import CONCURRENCY

BACKLOG = 5_000  #: bulk jobs
URGENT = 20  #: express jobs, one after the other
BULK, EXPRESS = 1, 10  #: priorities
FINDERS = ("listener", "steward")  #: who would make jobs of their own for new objects
SENDERS, CHUNK = 8, 500
MINUTES = 5
#: How long an express job waited for its first stage, and which stages of bulk jobs were started meanwhile.
WAITED = """
    SELECT extract(epoch FROM mine.started_at - j.created_at)::float, (
        SELECT count(*) FROM processing_queue other
        WHERE other.queue = 'bulk' AND other.started_at > j.created_at AND other.started_at < mine.started_at)
    FROM processing_jobs j JOIN processing_queue mine ON mine.job_id = j.id AND mine.position = 0
    WHERE j.media_item_id = %s AND j.priority = %s AND mine.started_at IS NOT NULL"""
BEGUN = "SELECT count(*) FROM processing_queue WHERE queue = 'bulk' AND started_at IS NOT NULL"
UNSENT = "SELECT count(*) FROM processing_queue WHERE position = 0 AND published_at IS NULL"
AT_IT = """
    SELECT count(*) FROM processing_queue
    WHERE status = 'processing' AND started_at < now() - interval '1 minute'"""


@case(
    "backlog",
    part="1",
    title=f"{BACKLOG:,} bulk jobs wait, and {URGENT} express jobs come",
    load={"slow": 0.0, "long": False},
    asks=0.0,
)
def backlog(run: Run) -> None:
    """An express job starts before the next bulk job does, but for what a free slot has received already."""
    run.until(lambda: run.load.over and not unfinished(run.stack, run.load.uploads), seconds=300)
    engine = make_engine(run.stack.env["DAILIES_DATABASE_URL"], pool_size=2)
    sessions = session_factory(engine)
    with run.fault():
        jobs = _add_jobs(run, sessions)
        began = time.monotonic()
        run.until(lambda: _number(run, UNSENT) == 0 and _number(run, BEGUN), seconds=600)
        run.note(f"{BACKLOG:,} messages were sent within {time.monotonic() - began:.0f} s, beside the work")
        before = _number(run, BEGUN)
        taken: set[UUID] = set()
        _urgent(run, taken)  # the first that an API sends waits for its connection to SQS
        found = [_urgent(run, taken) for _ in range(URGENT)]
        moved = _number(run, BEGUN) - before
        with sessions.begin() as session:
            left = sum(queue.cancel_job(session, job, actor="faults", reason="measured") for job in jobs)
    engine.dispose()
    waits, between = [wait for wait, _ in found], [count for _, count in found]
    run.note(
        f"express jobs waited {median(waits):.2f} s (median), {max(waits):.2f} s (longest); of bulk stages,"
        f" {max(between)} at most were started meanwhile ({sum(between)} in all), {moved} between them;"
        f" {left} bulk jobs were left"
    )
    assert max(between) <= sum(CONCURRENCY.values()), f"bulk was started before express: {between}"
    assert moved > 0, "bulk does not move while express is empty"
    assert left > BACKLOG / 2, "the backlog was none any more"


def _urgent(run: Run, taken: set[UUID]) -> tuple[float, int]:
    """Ask for one express job and wait until its first stage is started."""
    item = run.load.idle_item(taken)
    assert item is not None, "no item is done"
    taken.add(item)
    run.load.ask(item, EXPRESS)
    run.until(lambda: run.stack.sql(WAITED, [item, EXPRESS]), seconds=60)
    wait, count = run.stack.sql(WAITED, [item, EXPRESS])[0]
    run.wait(run.dice.uniform(0, 1))
    return wait, count


def _add_jobs(run: Run, sessions: Sessions) -> list[UUID]:
    """Bulk jobs on new objects, before anybody hears of these; the steward then sends their messages."""
    bucket, body = run.stack.env["DAILIES_STORAGE_BUCKET"], picture(run.dice)
    for role in FINDERS:
        run.stack.hold(role)

    def put(number: int) -> MediaItem:
        key, mine = f"uploads/backlog-{uuid4()}.jpg", body + number.to_bytes(4)
        answer = run.stack.s3.put_object(Bucket=bucket, Key=key, Body=mine)
        return MediaItem(bucket=bucket, key=key, version_id=answer["VersionId"], size_bytes=len(mine))

    jobs: list[UUID] = []
    with ThreadPoolExecutor(SENDERS) as pool:
        items = list(pool.map(put, range(BACKLOG)))
    for start in range(0, BACKLOG, CHUNK):
        with sessions.begin() as session:
            session.add_all(some := items[start : start + CHUNK])
            session.flush()
            jobs += [
                queue.enqueue(session, media_item_id=item.id, workflow="ingest", priority=BULK).id
                for item in some
            ]
    run.stack.sqs.purge_queue(QueueUrl=run.stack.queue_url(Queue.EVENTS))
    for role in FINDERS:
        run.stack.release(role)
    return jobs


def _number(run: Run, query: str) -> int:
    number: int = run.stack.sql(query)[0][0]
    return number


def one_long(dice: random.Random) -> list[Upload]:
    """A picture whose thumbnails take minutes."""
    return [Upload(f"uploads/{uuid4().hex[:8]}/slow-{MINUTES * 60}-long.jpg", picture(dice))]


@case(
    "long-stage",
    part="1",
    title=f"A stage of {MINUTES} minutes, lease and visibility 20 s",
    more=one_long,
    settings={
        "DAILIES_LEASE": "20",
        "DAILIES_VISIBILITY_TIMEOUT": "20",
        "DAILIES_SOFT_TIME_LIMIT": str(MINUTES * 90),
        "DAILIES_HARD_TIME_LIMIT": str(MINUTES * 100),
    },
    repeats=False,
)
def long_stage(run: Run) -> None:
    """Nothing else happens: what counts is that the stage is executed once."""
    slow = (
        "SELECT count(*) FROM processing_queue WHERE started_at < now() - interval '1 minute' AND status = %s"
    )
    with run.fault():
        run.until(lambda: run.stack.sql(slow, ["processing"])[0][0], seconds=180)
        run.until(lambda: not run.stack.sql(slow, ["processing"])[0][0], seconds=MINUTES * 60 + 60)
