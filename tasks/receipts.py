"""What a worker still owes SQS for what it has received: to delete it, to give it back, to keep it hidden.

One thread does all three in batches, so that a broker that is slow or away never holds up the worker's event
loop. Nothing here is needed for correctness: a message that is not deleted comes again, and its row says that
there is nothing to do.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from tasks.queues import SQS_ERRORS

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCH = 10  #: entries of one request; the most that SQS takes
#: Seconds that a delete may wait for others to go with it.
GATHER = 0.05
PAUSE_AFTER_ERROR = 2.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """One delivery of one message."""

    url: str  #: of the queue
    handle: str


class Receipts:
    """Keeps messages hidden while they are worked on, deletes them afterwards, or gives them back."""

    def __init__(self, client: SQSClient, visibility: timedelta) -> None:
        self._client = client
        self._visibility = round(visibility.total_seconds())
        self._renew_every = visibility.total_seconds() / 3
        self._lock = threading.Lock()
        self._work = threading.Event()
        self._held: dict[str, tuple[Receipt, float]] = {}  # by handle, and when it is renewed next
        self._deletions: list[Receipt] = []
        self._returns: list[tuple[Receipt, int]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="receipts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def hold(self, receipt: Receipt) -> None:
        """Keep a message hidden from now on; it was received a moment ago."""
        with self._lock:
            self._held[receipt.handle] = receipt, time.monotonic() + self._renew_every
        self._work.set()

    def delete(self, handle: str) -> None:
        """A message that was held is done with."""
        with self._lock:
            held = self._held.pop(handle, None)
            if held is not None:
                self._deletions.append(held[0])
        self._work.set()

    def give_back(self, receipt: Receipt | str, *, after: int = 0) -> None:
        """Show a message (or the held one with this handle) to everybody again in ``after`` seconds."""
        with self._lock:
            held = self._held.pop(receipt if isinstance(receipt, str) else receipt.handle, None)
            known = receipt if isinstance(receipt, Receipt) else held and held[0]
            if known:
                self._returns.append((known, after))
        self._work.set()

    def stop(self, *, patience: float) -> None:
        """Do what is owed, for at most ``patience`` seconds."""
        self._stopping = True
        self._work.set()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            self._work.wait(self._until_renewal())
            self._work.clear()
            if not self._stopping:
                time.sleep(GATHER)
            try:
                self._settle()
            except Exception:
                log.exception("receipts_raised")
                time.sleep(PAUSE_AFTER_ERROR)
            if self._stopping and not (self._deletions or self._returns):
                return

    def _until_renewal(self) -> float:
        with self._lock:
            first = min((at for _, at in self._held.values()), default=time.monotonic() + self._renew_every)
        return max(first - time.monotonic(), 0.0)

    def _settle(self) -> None:
        """Everything that is due now. What SQS does not take is dropped: the message comes again."""
        with self._lock:
            returns, self._returns = self._returns, []
            deletions, self._deletions = self._deletions, []
        self._change(returns)
        for url, some in _by_queue(deletions, lambda receipt: receipt):
            self._send("delete", url, [{"ReceiptHandle": receipt.handle} for receipt in some])
        now = time.monotonic()
        with self._lock:
            due = [receipt for receipt, at in self._held.values() if at <= now]
            self._held.update({one.handle: (one, now + self._renew_every) for one in due})
        self._change([(receipt, self._visibility) for receipt in due])

    def _change(self, visibility: Sequence[tuple[Receipt, int]]) -> None:
        for url, some in _by_queue(visibility, lambda one: one[0]):
            entries = [
                {"ReceiptHandle": receipt.handle, "VisibilityTimeout": seconds} for receipt, seconds in some
            ]
            self._send("change", url, entries)

    def _send(self, what: str, url: str, entries: list[dict[str, Any]]) -> None:
        numbered: Any = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        call: Callable[..., Any] = (
            self._client.delete_message_batch
            if what == "delete"
            else self._client.change_message_visibility_batch
        )
        try:
            refused = call(QueueUrl=url, Entries=numbered).get("Failed", [])
        except SQS_ERRORS as error:
            log.warning("receipts_failed", what=what, count=len(entries), error=str(error))
        else:
            # Usually a message that went back to the queue, or was deleted, before we said so.
            if refused:
                log.info("receipts_refused", what=what, count=len(refused), why=refused[0].get("Message"))


def _by_queue(items: Sequence[T], receipt_of: Callable[[T], Receipt]) -> Iterator[tuple[str, list[T]]]:
    """Batches of what belongs to one queue."""
    found: dict[str, list[T]] = defaultdict(list)
    for item in items:
        found[receipt_of(item).url].append(item)
    for url, some in found.items():
        for start in range(0, len(some), BATCH):
            yield url, some[start : start + BATCH]
