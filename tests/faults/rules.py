"""What the proxy in front of the AWS API can do to a request and to its answer."""
# ruff: noqa: ARG002 - every fault has the methods of the first one

from __future__ import annotations

import json
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from tests.faults.wire import Address, Gone, owner

Message = dict[str, Any]


@dataclass
class Call:
    """One request to the AWS API, as far as rules and hooks are concerned."""

    action: str  #: "S3.GetObject", "SQS.SendMessage", "SNS.Publish" ...
    target: str  #: the queue's name, or "bucket/key"; empty for other services
    payload: Mapping[str, Any]  #: of an SQS request
    client: Address
    proxy: Address
    wait: Callable[[float], None]  #: seconds; raises Gone as soon as the client leaves
    ask: Callable[[str, Mapping[str, Any]], Any]  #: an SQS request of the proxy's own: action, payload
    answer: bytes | None = None  #: to an SQS request, once it is there

    @cached_property
    def pid(self) -> int | None:
        """The process that sent it."""
        return owner(self.client, self.proxy)


@dataclass(frozen=True)
class Answer:
    """An answer of the proxy's own."""

    status: int
    body: bytes = b""
    content_type: str = "application/x-amz-json-1.0"


class Fault:
    """Does nothing. Subclasses say what they do, in the order in which the proxy asks them."""

    def before(self, call: Call) -> Answer | None:
        """Before the request is passed on: answer in the server's place, wait, or raise Gone."""
        return None

    def times(self) -> int:
        """How often the request is passed on."""
        return 1

    def after(self, call: Call) -> None:
        """When the server has answered, before the client knows: wait, or raise Gone."""

    def messages(self, call: Call, found: list[Message]) -> list[Message]:
        """The messages of an answer to ReceiveMessage, as the client is to see them."""
        return found

    def body(self, call: Call, pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
        """The body of an answer of ``length`` bytes, as the client sees it; or raise Gone in the middle."""
        return pieces


@dataclass(frozen=True)
class Refuse(Fault):
    """The server has an error of its own."""

    status: int = 503
    code: str = "ServiceUnavailable"

    def before(self, call: Call) -> Answer | None:
        """Answer as each service words its errors."""
        if call.action.startswith("SQS."):
            told = {"__type": f"com.amazonaws.sqs#{self.code}", "message": "a fault of the proxy"}
            return Answer(self.status, json.dumps(told).encode())
        error = f"<Error><Code>{self.code}</Code><Message>a fault of the proxy</Message></Error>"
        if call.action.startswith("SNS."):
            error = f"<ErrorResponse>{error}</ErrorResponse>"
        return Answer(self.status, error.encode(), "application/xml")


@dataclass(frozen=True)
class Hang(Fault):
    """Nothing comes back for ``seconds``, then the connection breaks. The server never sees the request."""

    seconds: float = 60.0

    def before(self, call: Call) -> Answer | None:
        """Wait, and end it."""
        call.wait(self.seconds)
        raise Gone


class BreakBefore(Fault):
    """The connection breaks before the server sees the request."""

    def before(self, call: Call) -> Answer | None:
        """End it."""
        raise Gone


class BreakAfter(Fault):
    """The server has done it; its answer is lost."""

    def after(self, call: Call) -> None:
        """End it."""
        raise Gone


@dataclass(frozen=True)
class Late(Fault):
    """The server has done it; its answer comes ``seconds`` later."""

    seconds: float

    def after(self, call: Call) -> None:
        """Wait."""
        call.wait(self.seconds)


@dataclass(frozen=True)
class Cut(Fault):
    """The body of the answer ends early: with a reset, or as if it had ended where it did."""

    share: float = 0.5  #: of the body that arrives
    reset: bool = True

    def body(self, call: Call, pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
        """Pass on the first part."""
        left = int(length * self.share)
        for piece in pieces:
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                raise Gone(reset=self.reset)


@dataclass(frozen=True)
class Slow(Fault):
    """The body of the answer trickles."""

    rate: float  #: bytes a second

    def body(self, call: Call, pieces: Iterator[bytes], length: int) -> Iterator[bytes]:
        """Small pieces, ten a second or more."""
        step = max(int(self.rate / 10), 1)
        for piece in pieces:
            for start in range(0, len(piece), step):
                part = piece[start : start + step]
                call.wait(len(part) / self.rate)
                yield part


class Twice(Fault):
    """The request reaches the server twice: a message that is sent is there twice."""

    def times(self) -> int:
        """Two."""
        return 2


class Again(Fault):
    """SQS delivers what it has just delivered once more, with the same receipt, to whoever asks next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, list[Message]] = defaultdict(list)

    def before(self, call: Call) -> Answer | None:
        """Answer with what is kept for the queue, as many as are wanted."""
        wanted = int(call.payload.get("MaxNumberOfMessages", 1))
        with self._lock:
            kept = self._kept[call.target]
            found, kept[:] = kept[:wanted], kept[wanted:]
        return Answer(200, json.dumps({"Messages": found}).encode()) if found else None

    def messages(self, call: Call, found: list[Message]) -> list[Message]:
        """Keep a copy of each."""
        with self._lock:
            self._kept[call.target] += found
        return found


@dataclass(frozen=True)
class HoldBack(Fault):
    """Messages overtake each other: of those delivered, some come up to ``seconds`` later."""

    seconds: int = 8
    share: float = 0.5
    at_most: int = 4  #: deliveries after which a message is held back no more
    dice: random.Random = field(default_factory=random.Random)

    def messages(self, call: Call, found: list[Message]) -> list[Message]:
        """Hide some again."""
        kept = []
        for message in found:
            received = int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1))
            if received > self.at_most or self.dice.random() >= self.share:
                kept.append(message)
                continue
            told = {"QueueUrl": call.payload["QueueUrl"], "ReceiptHandle": message["ReceiptHandle"]}
            call.ask(
                "ChangeMessageVisibility", {**told, "VisibilityTimeout": self.dice.randint(1, self.seconds)}
            )
        self.dice.shuffle(kept)
        return kept


class Lose(Fault):
    """Messages are gone: deleted as they are delivered, and nobody has seen them."""

    def messages(self, call: Call, found: list[Message]) -> list[Message]:
        """Delete all."""
        for message in found:
            told = {"QueueUrl": call.payload["QueueUrl"], "ReceiptHandle": message["ReceiptHandle"]}
            call.ask("DeleteMessage", told)
        return []


class Rule:
    """When a fault applies: to calls whose action and target match, by chance, and so many times.

    ``count`` is how often at most, ``each`` how often at most for any one target.
    """

    def __init__(
        self,
        fault: Fault,
        action: str,
        target: str = "*",
        *,
        probability: float = 1.0,
        count: int | None = None,
        each: int | None = None,
        seed: int = 0,
    ) -> None:
        self.fault, self.action, self.target = fault, action, target
        self.probability = probability
        self._count, self._each = count, each
        self._hit: Counter[str] = Counter()
        self._dice = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
        self._lock = threading.Lock()

    def applies(self, call: Call) -> bool:
        """Whether the call is hit; it counts as hit then."""
        if not (fnmatchcase(call.action, self.action) and fnmatchcase(call.target, self.target)):
            return False
        with self._lock:
            over = self.hits == self._count or self._hit[call.target] == self._each
            if over or self._dice.random() >= self.probability:
                return False
            self._hit[call.target] += 1
        return True

    @property
    def hits(self) -> int:
        """Calls that it was applied to."""
        return self._hit.total()
