"""Events, remote control and the queues that they leave, over real SNS and SQS with a real worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest
from celery import Celery
from sqlalchemy import select

from db import marks, queue
from db.models import DeadLetter, MediaItem
from db.session import Sessions
from pipeline.queues import Queue
from pipeline.settings import Settings
from pipeline.states import TaskStatus
from tasks import broker, dispatch
from tasks.app import make_app
from tasks.broker import ALIVE_TAG, is_ephemeral
from tasks.queues import aws_client
from tasks.sweep import sweep
from tests.factories import now
from tests.images import detailed, encoded
from tests.support import due, new_job, purge, statuses, wait_until, worker_process

if TYPE_CHECKING:
    import subprocess

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient


@pytest.fixture(scope="module")
def worker(
    aws: Settings, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[subprocess.Popen[bytes]]:
    folder = tmp_path_factory.mktemp("worker")
    purge(aws)
    with worker_process(
        folder / "worker.log", "--hostname", "watched@here", DAILIES_SPOOL_DIR=str(folder / "spool")
    ) as process:
        yield process


@pytest.fixture
def app(aws: Settings) -> Iterator[Celery]:
    """An app of its own, as Flower and `celery inspect` have one."""
    app = make_app(aws)
    yield app
    app.close()


def _ephemeral(sqs: SQSClient, settings: Settings) -> dict[str, str]:
    """The ephemeral queues there are, and when each was last marked."""
    found = {}
    for url in sqs.list_queues(QueueNamePrefix=settings.queue_prefix).get("QueueUrls", []):
        name = url.rsplit("/", 1)[-1]
        if is_ephemeral(name):
            found[name] = sqs.list_queue_tags(QueueUrl=url).get("Tags", {}).get(ALIVE_TAG, "")
    return found


def _subscribed(settings: Settings) -> set[str]:
    sns = aws_client(settings, "sns")
    pages = sns.get_paginator("list_subscriptions").paginate()
    found = {one["Endpoint"].rsplit(":", 1)[-1] for page in pages for one in page["Subscriptions"]}
    sns.close()
    return found


class Capture:
    """Receives events in a thread, as Flower does."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = app
        self._thread = threading.Thread(target=self._run)
        self.receiver: Any = None

    def _run(self) -> None:
        with self._app.connection() as connection:
            self.receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            self.receiver.capture(limit=None, timeout=None, wakeup=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.should_stop = True
        self._thread.join(timeout=30)

    def types(self, task_id: str) -> list[str]:
        return [event["type"] for event in self.events if event.get("uuid") == task_id]


@pytest.mark.usefixtures("worker")
def test_inspect_gets_its_answers(app: Celery) -> None:
    inspect = app.control.inspect(timeout=5, destination=["watched@here"])
    assert inspect.ping() == {"watched@here": {"ok": "pong"}}
    active: dict[str, Any] = app.control.inspect(timeout=5, destination=["watched@here"]).active_queues()
    assert [queue["name"] for queue in active["watched@here"]] == ["express", "standard", "bulk"]


@pytest.mark.usefixtures("worker")
def test_inspect_answers_again_and_again(app: Celery) -> None:
    """As Flower asks: by one app, which has one reply queue."""
    inspect = app.control.inspect(timeout=5, destination=["watched@here"])
    for _ in range(5):
        assert inspect.ping() == {"watched@here": {"ok": "pong"}}


@pytest.mark.usefixtures("worker")
def test_inspect_answers_after_its_reply_queue_was_swept(app: Celery, aws: Settings, sqs: SQSClient) -> None:
    inspect = app.control.inspect(timeout=5, destination=["watched@here"])
    assert inspect.ping()
    for url in sqs.list_queues(QueueNamePrefix=aws.queue_prefix)["QueueUrls"]:
        if "reply-celery-pidbox" in url:  # nobody looked at Flower for a while
            sqs.delete_queue(QueueUrl=url)
    assert inspect.ping() == {"watched@here": {"ok": "pong"}}


@pytest.mark.usefixtures("worker", "empty_queues")
def test_events_tell_what_became_of_a_task(
    app: Celery, sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    good, bad = f"uploads/{uuid4()}.jpg", f"uploads/{uuid4()}.jpg"
    s3.put_object(Bucket=bucket, Key=good, Body=encoded(detailed()))
    s3.put_object(Bucket=bucket, Key=bad, Body=b"")
    with sessions.begin() as session:
        items = [MediaItem(bucket=bucket, key=key) for key in (good, bad)]
        session.add_all(items)
        session.flush()
        jobs = [new_job(session, item) for item in items]
    with Capture(app) as capture:
        wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in capture.events))
        for job in jobs:
            dispatch.publish_job(sessions, job.id)

        def succeeded() -> set[str]:
            told = {
                event["uuid"]: event["name"] for event in capture.events if event["type"] == "task-received"
            }
            done = [event["uuid"] for event in capture.events if event["type"] == "task-succeeded"]
            return {told[task_id] for task_id in done}

        wait_until(lambda: len(succeeded()) == 6)
        with sessions() as session:
            assert statuses(session, jobs[0].id) == [TaskStatus.COMPLETED] * 6
        wait_until(lambda: any(event["type"] == "task-failed" for event in capture.events))
        received = [event for event in capture.events if event["type"] == "task-received"]
        roots = {event["root_id"] for event in received}
        assert len(roots) == 2  # one chain for each job, so that Flower shows them
        (failed,) = [event for event in capture.events if event["type"] == "task-failed"]
        assert "EMPTY_FILE" in failed["exception"] or "empty" in failed["exception"]
        assert capture.types(failed["uuid"])[0] == "task-received"
    with sessions() as session:  # the worker's last move
        wait_until(lambda: session.scalar(select(DeadLetter.dead_lettered_at)))


@pytest.mark.usefixtures("worker", "empty_queues")
def test_revoke_cancels_the_job_and_its_row_can_be_retried(
    app: Celery, sessions: Sessions, s3: S3Client, bucket: str
) -> None:
    """Celery's own revoke would throw away every later message of the row, unread."""
    key = f"uploads/{uuid4()}.jpg"
    s3.put_object(Bucket=bucket, Key=key, Body=encoded(detailed()))
    with sessions.begin() as session:
        item = MediaItem(bucket=bucket, key=key)
        session.add(item)
        session.flush()
        job_id = new_job(session, item).id
        row_id = due(session, job_id)

    answers = app.control.revoke(str(row_id), reply=True, timeout=5, destination=["watched@here"])

    assert [list(answer) for answer in answers] == [["watched@here"]]
    assert "cancelled" in str(answers)
    with sessions.begin() as session:
        assert set(statuses(session, job_id)) == {TaskStatus.CANCELLED}
        queue.retry_job(session, job_id, actor="ada")
    assert dispatch.publish_job(sessions, job_id)

    def done() -> set[TaskStatus]:
        with sessions() as session:
            return set(statuses(session, job_id))

    wait_until(lambda: done() == {TaskStatus.COMPLETED})


@pytest.mark.usefixtures("worker")
def test_revoke_of_what_is_no_row_harms_nothing(app: Celery) -> None:
    for stranger in ("no id at all", str(uuid4())):
        answers = app.control.revoke(stranger, reply=True, timeout=5, destination=["watched@here"])
        assert "of 1" in str(answers)
    assert app.control.inspect(timeout=5, destination=["watched@here"]).ping()


@pytest.mark.usefixtures("worker")
def test_ephemeral_queues_are_marked_and_the_living_stay(
    app: Celery, aws: Settings, sqs: SQSClient, sessions: Sessions
) -> None:
    with Capture(app) as capture:
        wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in capture.events))
        marked = _ephemeral(sqs, aws)
        events = [name for name in marked if "celeryev" in name]
        control = [name for name in marked if "watched_here" in name or "watched@here" in name]
        assert events
        assert control
        assert all(0 <= time.time() - float(marked[name]) < 120 for name in (*events, *control))

        with sessions.begin() as session:  # looked at long ago, and marked since
            for name in marked:
                marks.put(session, marks.EPHEMERAL + name, "0", at=now() - timedelta(hours=1))
            marks.put(session, marks.SWEPT)
        assert sweep(aws, sessions) == []

        assert _ephemeral(sqs, aws).keys() >= set(marked)
        assert set(marked) & _subscribed(aws) >= set(control)
    assert app.control.inspect(timeout=5, destination=["watched@here"]).ping()


def test_app_is_made_as_the_design_says(aws: Settings) -> None:
    app = make_app(aws)
    assert sorted(name for name in app.tasks if name.startswith("dailies.")) == [
        f"dailies.{name}" for name in ("audit", "dedupe", "index", "ingest", "metadata", "thumbnails")
    ]
    conf = app.conf
    assert (conf.task_acks_late, conf.result_backend, conf.accept_content) == (True, None, ["json"])
    assert (conf.task_soft_time_limit, conf.task_time_limit) == (900, 930)
    assert conf.broker_transport_options["polling_interval"] == 0  # it adds to the long poll
    credentials = [
        name for name in ("aws_access_key_id", "secret") if name in repr(conf.broker_transport_options)
    ]
    assert credentials == []
    assert "@" not in conf.broker_url
    app.close()


@pytest.mark.parametrize(
    ("name", "ephemeral"),
    [
        ("dailies-dev-celeryev-0af1", True),
        ("dailies-dev-worker_here-celery-pidbox", True),
        ("dailies-dev-0af1-reply-celery-pidbox", True),
        *((f"dailies-dev-{queue}", False) for queue in Queue),
    ],
)
def test_ephemeral_queues_are_known_by_their_names(name: str, *, ephemeral: bool) -> None:
    assert broker.is_ephemeral(name) is ephemeral
