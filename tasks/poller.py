"""How a worker receives: as many messages as it has free slots, the most urgent lane first, none hoarded.

kombu asks all queues of a worker at once and takes at least one message from each, whether it can start them
or not; so a bulk job would start before an express one, and messages would wait in a worker's memory while
another worker is idle. Here one thread asks the lanes in order, each for no more than there is room for.
Where all are empty it waits on all of them at once; what arrives on two lanes for one slot goes back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from pipeline.errors import InfrastructureError
from pipeline.queues import LANES, Queue
from tasks.queues import SQS_ERRORS, Queues
from tasks.receipts import Receipt, Receipts

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

BATCH = 10  #: messages a receive; the most that SQS gives
IDLE = 0.5  #: seconds between two looks at slots and lanes when nothing has changed
PAUSE_AFTER_ERROR = 1.0
#: Seconds until a message that could not be handed on is shown again.
BACK_AFTER_ERROR = 30

Deliver = Callable[[Queue, "MessageTypeDef"], None]


class Poller:
    """Polls ``lanes``, most urgent first, and hands each message to ``deliver`` from threads of its own.

    ``slots`` says how many messages the worker may hold, those in its hands included. A message counts from
    its arrival until ``done`` is called for it.
    """

    def __init__(
        self,
        queues: Queues,
        lanes: Sequence[Queue],
        receipts: Receipts,
        *,
        slots: Callable[[], int],
        deliver: Deliver,
        wait: int,
    ) -> None:
        self._queues, self._receipts = queues, receipts
        self.lanes: tuple[Queue, ...] = tuple(lanes)
        self._slots, self._deliver, self._wait = slots, deliver, wait
        self._lock = threading.Lock()
        # By receipt handle, since when: what no pool process has begun, and what one has.
        self._unstarted: dict[str, float] = {}
        self._begun: dict[str, float] = {}
        self._left: set[Queue] = set()
        self._changed = threading.Event()
        self._stopping = threading.Event()
        self._waiting: dict[Queue, Future[None]] = {}
        self._pool = ThreadPoolExecutor(len(Queue), thread_name_prefix="poll")
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
        self.closed: frozenset[Queue] = frozenset()  #: lanes that are not asked now
        self.last_completed = time.monotonic()  #: when SQS last answered

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def stop(self) -> None:
        """Receive nothing more; what is still on its way here goes back as it comes. Returns at once."""
        self._stopping.set()
        self._changed.set()

    def drained(self, *, patience: float) -> bool:
        """Wait until no poll is under way; returns whether none is."""
        limit = time.monotonic() + patience
        self._thread.join(patience)
        for future in list(self._waiting.values()):
            try:
                future.exception(max(limit - time.monotonic(), 0.01))
            except TimeoutError:
                return False
        self._pool.shutdown(wait=False)
        return True

    def done(self, handle: str) -> None:
        """The message with this receipt handle has left the worker's hands: its slot is free."""
        with self._lock:
            self._unstarted.pop(handle, None)
            self._begun.pop(handle, None)
        self._changed.set()

    def begun(self, handle: str) -> None:
        """A pool process has begun with the message."""
        with self._lock:
            if self._unstarted.pop(handle, None) is not None:
                self._begun[handle] = time.monotonic()

    def holds(self, handle: str) -> bool:
        """Whether the message is in the worker's hands."""
        with self._lock:
            return handle in self._unstarted or handle in self._begun

    def unstarted(self) -> dict[str, float]:
        """The receipt handles of what no pool process has begun, and since when (on the monotonic clock)."""
        with self._lock:
            return dict(self._unstarted)

    def begun_since(self) -> float | None:
        """Since when the longest of what has begun is at work (on the monotonic clock); None: nothing is."""
        with self._lock:
            return min(self._begun.values(), default=None)

    def leave(self, lane: Queue) -> None:
        """Ask this lane no more, until it is joined again: an operator's word to this worker."""
        self._left.add(lane)

    def join(self, lane: Queue) -> None:
        """Ask this lane from now on."""
        self._left.discard(lane)
        served = {*self.lanes, lane}
        self.lanes = tuple(one for one in LANES if one in served)
        self._changed.set()

    def close_lanes(self, lanes: frozenset[Queue]) -> None:
        """Ask these lanes no more, until they are left out of a later call."""
        self.closed = lanes
        self._changed.set()

    def free(self) -> int:
        """How many more messages can start now."""
        with self._lock:
            return self._slots() - self._held()

    def _held(self) -> int:
        return len(self._unstarted) + len(self._begun)

    @property
    def may_poll(self) -> bool:
        """Whether a poll should be under way or about to be."""
        return not self._stopping.is_set() and self.free() > 0 and bool(self._open())

    def open_lanes(self) -> list[Queue]:
        """The lanes that this worker serves, paused or not."""
        return [lane for lane in self.lanes if lane not in self._left]

    def _open(self) -> list[Queue]:
        return [lane for lane in self.open_lanes() if lane not in self.closed]

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if not self._round():
                    self._changed.wait(IDLE)
                    self._changed.clear()
            except Exception:
                log.exception("poll_raised")
                self._stopping.wait(PAUSE_AFTER_ERROR)

    def _round(self) -> bool:
        """Ask each lane once, in order; where nothing came, wait on all. Returns whether anything came."""
        if not self.may_poll:
            return False
        # A lane on which a long poll is still out is empty: it would have told.
        asked = [lane for lane in self._open() if not self._is_waiting(lane)]
        for lane in asked:
            if self._ask(lane, self.free(), wait=0):
                return True
            if not self.may_poll:
                return False
        for lane in asked:
            self._waiting[lane] = self._pool.submit(self._wait_on, lane)
        return False

    def _ask(self, lane: Queue, count: int, *, wait: int) -> int:
        """Receive from one lane; one that does not answer keeps no other from being asked."""
        try:
            return self._take(lane, self._receive(lane, count, wait=wait))
        except (*SQS_ERRORS, InfrastructureError) as error:
            log.warning("poll_failed", lane=lane, error=str(error))
            self._stopping.wait(PAUSE_AFTER_ERROR)
            return 0

    def _is_waiting(self, lane: Queue) -> bool:
        future = self._waiting.get(lane)
        return future is not None and not future.done()

    def _wait_on(self, lane: Queue) -> None:
        """One long poll for one message."""
        try:
            self._ask(lane, 1, wait=self._wait)
        except Exception:
            log.exception("poll_raised", lane=lane)
            self._stopping.wait(PAUSE_AFTER_ERROR)
        finally:
            self._changed.set()

    def _receive(self, lane: Queue, count: int, *, wait: int) -> list[MessageTypeDef]:
        found = self._queues.client.receive_message(
            QueueUrl=self._queues.url(lane),
            MaxNumberOfMessages=min(max(count, 1), BATCH),
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount"],
        )
        self.last_completed = time.monotonic()
        return found.get("Messages", [])

    def _take(self, lane: Queue, messages: Sequence[MessageTypeDef]) -> int:
        """Hand on what can start now, and give back the rest; returns how many were handed on."""
        taken = 0
        for message in messages:
            receipt = Receipt(self._queues.url(lane), message["ReceiptHandle"])
            with self._lock:
                fits = self._held() < self._slots() and lane in self._open()
                fits = fits and not self._stopping.is_set()
                if fits:
                    self._receipts.hold(receipt)  # first: whoever sees it in hand may give it back
                    self._unstarted[receipt.handle] = time.monotonic()
            if not fits:
                self._receipts.give_back(receipt)
                continue
            try:
                self._deliver(lane, message)
            except Exception:
                log.exception("delivery_raised", lane=lane)
                self._receipts.give_back(receipt, after=BACK_AFTER_ERROR)
                self.done(receipt.handle)
            else:
                taken += 1
        return taken
