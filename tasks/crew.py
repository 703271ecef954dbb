"""The threads of a worker's main process: one that receives, one that owes, one that keeps."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import structlog

from db.session import guarded, make_engine, session_factory
from pipeline.errors import InfrastructureError, NotOursError
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks import foreign
from tasks.dispatch import NEWER_SCHEMA_DELAY
from tasks.keeper import Identity, Keeper
from tasks.poller import Poller
from tasks.queues import Queues
from tasks.receipts import Receipts
from tasks.running import Running
from tasks.runtime import worker_id

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from tasks.broker import Channel

log = structlog.get_logger(__name__)

#: Seconds that an answer of SQS may take beyond the wait of a long poll.
ANSWER_TIMEOUT = 10
#: Seconds until a message that could not be kept, or is for a newer release, is shown again.
LATER = NEWER_SCHEMA_DELAY
#: Seconds in which what is owed to SQS at the end has to be said.
LAST_WORDS = 3.0


class Crew:
    """Made once for a worker, when its pool runs; it outlives connections."""

    def __init__(self, consumer: Any, settings: Settings, running: Running) -> None:
        self._consumer, self._settings = consumer, settings
        wait = round(settings.poll_wait.total_seconds())
        self._queues = Queues(settings, read_timeout=wait + ANSWER_TIMEOUT, attempts=1)
        self._engine = make_engine(settings.database_url.get_secret_value(), pool_size=2)
        self._sessions = session_factory(self._engine)
        served = set(consumer.app.amqp.queues.consume_from)
        lanes = tuple(lane for lane in LANES if lane in served)
        self.receipts = Receipts(self._queues.client, settings.visibility_timeout)
        self.poller = Poller(
            self._queues, lanes, self.receipts,
            slots=lambda: consumer.pool.num_processes, deliver=self._deliver, wait=wait,
        )  # fmt: skip
        host = socket.gethostname()
        me = Identity(worker_id(), consumer.hostname, host, os.getpid(), lanes, version("dailies"))
        self._keeper = Keeper(
            settings, self._sessions, me, running, self.poller,
            alive=self._processes, kill=self._kill, stop_receiving=self.stop_receiving,
        )  # fmt: skip

    def start(self) -> None:
        """Begin, once there is a channel that takes messages."""
        self._keeper.look_around()
        for part in (self.receipts, self.poller, self._keeper):
            part.start()

    def stop_receiving(self) -> None:
        """Take no more, give back what has not started, and let what runs come to its end."""
        self.poller.stop()
        self._keeper.stop_soon()
        self.return_unstarted()

    def return_unstarted(self) -> None:
        """Celery forgets what no pool process has begun: it stops, or has lost its connection."""
        for handle in self.poller.unstarted():
            self._return(handle, after=0)

    def finish(self) -> None:
        """The pool has ended: wait for the last polls, say what is owed, say goodbye."""
        wait = self._settings.poll_wait.total_seconds() + 1
        if not self.poller.drained(patience=wait):
            log.warning("poll_abandoned")
        self._keeper.stop()
        self.receipts.stop(patience=LAST_WORDS)
        self._engine.dispose()

    def _processes(self) -> set[int]:
        try:
            return set(self._consumer.pool.info.get("processes", ()))
        except AttributeError:  # the pool has ended
            return set()

    def _kill(self, pid: int) -> None:
        if pid != os.getpid() and pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _deliver(self, lane: Queue, message: MessageTypeDef) -> None:
        """Hand a message to Celery, in its own thread; what Celery could not read is kept instead."""
        body, app = message["Body"], self._consumer.app
        try:
            foreign.ensure_ours(app, body)
        except NotOursError as error:
            self._put_aside(lane, message, error)
            return
        channel: Channel | None = getattr(self._consumer.task_consumer, "channel", None)
        if channel is None:  # between two connections
            self._return(message["ReceiptHandle"], after=0)
            return
        self._consumer.hub.call_soon(channel.receive, lane, self._queues.url(lane), message)

    def _put_aside(self, lane: Queue, message: MessageTypeDef, error: NotOursError) -> None:
        handle, body = message["ReceiptHandle"], message["Body"]
        if foreign.is_of_newer_release(self._consumer.app, body):
            log.info("message_of_newer_release", lane=lane, error=error.message)
            self._return(handle, after=LATER)
            return
        log.warning("message_not_ours", lane=lane, error=error.message)
        try:
            with guarded():
                foreign.keep(self._sessions, lane, body, error)
        except InfrastructureError as why:
            log.warning("message_not_kept", lane=lane, error=why.message)
            self._return(handle, after=LATER)
            return
        self.receipts.delete(handle)
        self.poller.done(handle)

    def _return(self, handle: str, *, after: int) -> None:
        self.receipts.give_back(handle, after=after)
        self.poller.done(handle)
