"""What goes through a stack while it is hurt: uploads at a steady rate, and jobs asked for by HTTP."""

from __future__ import annotations

import io
import random
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID, uuid4

import urllib3
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from pipeline.states import JobStatus
from tests.faults.stack import Stack

SIZE, NOISE = (320, 240), (16, 12)  #: small: the chain is what is tried, not the pictures
TRY_EVERY_S = 0.3
GIVE_UP_S = 600.0  #: longer than the longest outage
#: Of the uploads, how many are each; the rest are plain pictures.
SLOW_SHARE, BROKEN_SHARE, TWIN_SHARE = 0.10, 0.04, 0.03
SLOWEST_S = 4.0
LONG_S = 8.0  #: longer than the shortened lease
LONG_EVERY = 100
PRIORITIES = (9, 2)  #: an express job and a bulk job


@dataclass(frozen=True)
class Upload:
    """One file, and how its ingest job must end."""

    key: str
    body: bytes
    status: JobStatus = JobStatus.COMPLETED
    codes: frozenset[str] = frozenset()  #: one of these, where it must fail


@dataclass(frozen=True)
class Asked:
    """A job that was asked for by HTTP, and how often: an answer may have been lost."""

    media_item_id: UUID
    tries: int


def picture(dice: random.Random) -> bytes:
    """A small JPEG that is like no other."""
    noise = Image.frombytes("RGB", NOISE, dice.randbytes(NOISE[0] * NOISE[1] * 3))
    file = io.BytesIO()
    noise.resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=80)
    return file.getvalue()


def mixture(
    count: int,
    dice: random.Random,
    *,
    slow: float = SLOW_SHARE,
    broken: float = BROKEN_SHARE,
    twins: float = TWIN_SHARE,
    long: bool = True,
) -> list[Upload]:
    """``count`` uploads in random order: plain, slow, longer than a lease, broken, and byte-equal pairs."""
    run = uuid4().hex[:8]
    made: list[Upload] = []

    def add(name: str, body: bytes | None = None, *codes: str) -> None:
        key = f"uploads/{run}/{name}-{len(made):04}.jpg"
        status = JobStatus.FAILED if codes else JobStatus.COMPLETED
        made.append(Upload(key, picture(dice) if body is None else body, status, frozenset(codes)))

    for _ in range(round(count * slow)):
        add(f"slow-{dice.uniform(1, SLOWEST_S):.1f}")
    for _ in range((count + LONG_EVERY - 1) // LONG_EVERY if long else 0):
        add(f"slow-{LONG_S:.1f}")
    for number in range(round(count * broken)):
        body, code = _broken(number, dice)
        add("broken", body, code)
    for _ in range(round(count * twins / 2)):
        body = picture(dice)
        add("twin", body)
        add("twin", body)
    while len(made) < count:
        add("plain")
    dice.shuffle(made)
    return made


def _broken(number: int, dice: random.Random) -> tuple[bytes, str]:
    whole = picture(dice)
    cut = whole[: len(whole) // 2] + dice.randbytes(2)
    kinds = [
        (cut, "TRUNCATED_IMAGE"),
        (b"", "EMPTY_FILE"),
        (b"\0no type " + dice.randbytes(8), "UNSUPPORTED_TYPE"),
    ]
    return kinds[number % len(kinds)]


@dataclass
class Load:
    """Uploads ``uploads``, ``rate`` a second, and asks for a few jobs by HTTP meanwhile, in two threads.

    What fails is tried again until it is done: a client of S3 does so too.
    """

    stack: Stack
    uploads: list[Upload]
    rate: float
    asks: int = 0
    asked: list[Asked] = field(default_factory=list)
    done: int = 0
    tries: int = 0

    def __post_init__(self) -> None:
        self.asking = threading.Event()  #: set while a request is under way
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._upload_all, name="uploads"),
            threading.Thread(target=self._ask_all, name="asks"),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def over(self) -> bool:
        """Whether everything was uploaded and asked for."""
        return not any(thread.is_alive() for thread in self._threads)

    def _upload_all(self) -> None:
        began = time.monotonic()
        for number, upload in enumerate(self.uploads):
            if self._stop.wait(max(0.0, began + number / self.rate - time.monotonic())):
                return
            self._put(upload)
            self.done += 1

    def _put(self, upload: Upload) -> None:
        end = time.monotonic() + GIVE_UP_S
        while not self._stop.is_set() and time.monotonic() < end:
            self.tries += 1
            try:
                self.stack.s3.put_object(
                    Bucket=self.stack.env["DAILIES_STORAGE_BUCKET"], Key=upload.key, Body=upload.body
                )
            except (BotoCoreError, ClientError):
                self._stop.wait(TRY_EVERY_S)
            else:
                return

    def _ask_all(self) -> None:
        """Ask for jobs on items that are done, evenly over the time of the uploads."""
        taken: set[UUID] = set()
        for number in range(self.asks):
            share = len(self.uploads) * (number + 1) / (self.asks + 1)
            while self.done < share and not self._stop.wait(TRY_EVERY_S):
                pass
            while (item := self.idle_item(taken)) is None:
                if self._stop.wait(TRY_EVERY_S):
                    return
            taken.add(item)
            tries = self.ask(item, PRIORITIES[number % len(PRIORITIES)])
            self.asked.append(Asked(item, tries))

    def idle_item(self, taken: Iterable[UUID]) -> UUID | None:
        found = self.stack.sql(
            "SELECT i.id FROM media_items i JOIN processing_jobs j ON j.media_item_id = i.id"
            " WHERE j.status = 'completed' AND i.duplicate_of_id IS NULL AND i.id <> ALL(%s)"
            " ORDER BY i.id LIMIT 1",
            [list(taken)],
        )
        return found[0][0] if found else None

    def ask(self, item: UUID, priority: int) -> int:
        """Ask until there is an answer; returns how often the request was sent."""
        url = self.stack.env["DAILIES_API_URL"] + "/api/v1/jobs"
        wanted = {"media_item_id": str(item), "workflow_type": "reindex", "priority": priority}
        tries, end = 0, time.monotonic() + GIVE_UP_S
        while not self._stop.is_set() and time.monotonic() < end:
            tries += 1
            self.asking.set()
            try:
                answer = urllib3.request("POST", url, json=wanted, timeout=15, retries=False)
            except urllib3.exceptions.HTTPError:
                self._stop.wait(TRY_EVERY_S)
                continue
            finally:
                self.asking.clear()
            if answer.status in {201, 409}:  # 409: the try before was heard
                break
            self._stop.wait(TRY_EVERY_S)
        return tries
