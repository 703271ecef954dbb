"""An HTTP proxy in front of the AWS API that does what its rules say, and tells a hook of every request.

Bodies are streamed both ways, but for SQS and SNS, whose requests are small and have to be understood. Queue
URLs name the server; they are made to name the proxy on their way to a client, and back.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.faults.rules import Answer, Call, Fault, Rule
from tests.faults.wire import CHUNK, LOOK_S, Gone, Relay, readable

#: Seconds for which a connection to the server is used again; it closes idle ones much later.
REUSE_S = 2.0
SQS_TARGET = "AmazonSQS."
OBJECT_ACTIONS = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
NO_BODY = {204, 304}

Moment = Literal["before", "after"]
#: Told of every request, in the thread that serves it: before it is passed on, and when the server has
#: answered and the client does not know. It may raise Gone.
Hook = Callable[[Call, Moment], None]


@dataclass(frozen=True)
class Request:
    """The head of a request as it came, and its body if it was read already."""

    method: str
    path: str
    headers: http.client.HTTPMessage
    body: bytes | None  #: None: still to be read

    @property
    def length(self) -> int:
        """Bytes of the body that are announced."""
        return int(self.headers.get("Content-Length", 0))

    @property
    def is_chunked(self) -> bool:
        """Whether the body comes in chunks."""
        return "chunked" in self.headers.get("Transfer-Encoding", "").lower()


class AwsProxy(Relay):
    """Listens when it is made; answers within its block."""

    def __init__(self, server_url: str, *, hook: Hook | None = None) -> None:
        address = urlsplit(server_url)
        super().__init__((address.hostname or "127.0.0.1", address.port or 80))
        self.hook = hook
        self.rules: list[Rule] = []

    @property
    def url(self) -> str:
        """What clients are given as the endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def rule(self, fault: Fault, action: str, target: str = "*", **when: Any) -> Rule:
        """Let ``fault`` happen to calls that match; ``when`` are the other arguments of Rule."""
        rule = Rule(fault, action, target, **when)
        self.rules = [*self.rules, rule]
        return rule

    def clear(self) -> None:
        """Forget all rules. Who hangs already goes on hanging."""
        self.rules = []

    def serve(self, client: socket.socket) -> None:
        """Requests of one client, one after the other."""
        with client.makefile("rb") as reader:
            connection = _Connection(self, client, reader)
            try:
                while connection.exchange():
                    pass
            finally:
                connection.close()


class _Connection:
    """One client, and the connection to the server that its requests go through."""

    def __init__(self, proxy: AwsProxy, client: socket.socket, reader: BufferedReader) -> None:
        self._proxy, self._client, self._reader = proxy, client, reader
        self._address: tuple[str, int] = client.getpeername()
        self._upstream: socket.socket | None = None
        self._used = 0.0

    def close(self) -> None:
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None

    def exchange(self) -> bool:
        """One request and its answer; returns whether another may follow."""
        request = self._read()
        if request is None:
            return False
        call = self._call(request)
        faults = [rule.fault for rule in self._proxy.rules if rule.applies(call)]
        for fault in faults:
            if (own := fault.before(call)) is not None:
                self._drain(request)
                self._answer_own(own)
                return True
        self._tell(call, "before")
        for _ in range(max((fault.times() for fault in faults), default=1) - 1):
            self._forward(request).read()
        response = self._forward(request)
        if call.action.startswith("SQS."):
            call.answer = self._translate(response.read(), self._proxy.server[1], self._proxy.port)
        self._tell(call, "after")
        for fault in faults:
            fault.after(call)
        self._pass_on(request, response, call, faults)
        return not response.will_close

    def _tell(self, call: Call, moment: Moment) -> None:
        if self._proxy.hook is not None:
            self._proxy.hook(call, moment)

    # The request

    def _read(self) -> Request | None:
        line = self._reader.readline(CHUNK).decode("latin-1")
        if not line:
            return None
        method, path, _ = line.split(" ", 2)
        headers = http.client.parse_headers(self._reader)
        if headers.get("Expect", "").lower() == "100-continue":
            del headers["Expect"]
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = Request(method, path, headers, None)
        if _is_s3(headers):
            return request
        body = self._translate(b"".join(self._body(request)), self._proxy.port, self._proxy.server[1])
        del headers["Transfer-Encoding"], headers["Content-Length"]
        headers["Content-Length"] = str(len(body))
        return Request(method, path, headers, body)

    def _body(self, request: Request) -> Iterator[bytes]:
        """The body as it is to be sent: chunks with their sizes, if it comes in chunks."""
        if request.body is not None:
            yield request.body
        elif request.is_chunked:
            yield from self._chunks()
        else:
            left = request.length
            while left and (piece := self._reader.read1(min(left, CHUNK))):
                left -= len(piece)
                yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = self._reader.readline(CHUNK)
            length = int(size.split(b";")[0], 16)
            yield size + self._reader.read(length + 2)
            if length == 0:
                return

    def _drain(self, request: Request) -> None:
        for _ in self._body(request):
            pass

    def _translate(self, body: bytes, old: int, new: int) -> bytes:
        """Let the queue URLs in an SQS body name another port of loopback."""
        return body.replace(f"http://127.0.0.1:{old}/".encode(), f"http://127.0.0.1:{new}/".encode())

    def _call(self, request: Request) -> Call:
        action, target, payload = _understood(request)
        ask = partial(self._ask, request)
        return Call(action, target, payload, self._address, ("127.0.0.1", self._proxy.port), self._wait, ask)

    def _wait(self, seconds: float) -> None:
        """Let ``seconds`` pass. Raises Gone when the client or the proxy ends."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            # A client that waits for its answer has nothing to say: it has ended.
            if self._proxy.stopping.is_set() or readable(self._client, seconds=min(left, LOOK_S)):
                raise Gone

    # The server

    def _forward(self, request: Request) -> http.client.HTTPResponse:
        """Send the request, and wait for the head of the answer for as long as the client does."""
        server = self._server()
        lines = [f"{request.method} {request.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        server.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        for piece in self._body(request):
            server.sendall(piece)
        while not readable(server, seconds=LOOK_S):
            if self._proxy.stopping.is_set() or readable(self._client, seconds=0):
                raise Gone
        response = http.client.HTTPResponse(server, method=request.method)
        try:
            response.begin()
        except (http.client.HTTPException, OSError) as error:
            raise Gone from error
        return response

    def _server(self) -> socket.socket:
        if self._upstream is None or time.monotonic() - self._used > REUSE_S:
            self.close()
            self._upstream = self._proxy.connect()
        self._used = time.monotonic()
        return self._upstream

    def _ask(self, request: Request, action: str, payload: Mapping[str, Any]) -> Any:
        """An SQS request of the proxy's own, with the credentials of ``request``."""
        body = json.dumps(payload).encode()
        headers = http.client.HTTPMessage()
        for name, value in request.headers.items():
            headers[name] = {"content-length": str(len(body)), "x-amz-target": SQS_TARGET + action}.get(
                name.lower(), value
            )
        return json.loads(self._forward(Request("POST", "/", headers, body)).read() or b"{}")

    # The answer

    def _pass_on(
        self, request: Request, response: http.client.HTTPResponse, call: Call, faults: list[Fault]
    ) -> None:
        if (body := call.answer) is not None:
            if call.action == "SQS.ReceiveMessage" and response.status == http.client.OK:
                body = _with_messages(body, call, faults)
            self._send_head(response, {"content-length": str(len(body))})
            self._client.sendall(body)
            return
        self._send_head(response, {})
        if request.method == "HEAD" or response.status in NO_BODY:
            response.read()
            return
        pieces = _pieces(response)
        for fault in faults:
            pieces = fault.body(call, pieces, response.length or 0)
        for piece in pieces:
            self._client.sendall(
                f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if response.chunked else piece
            )
        if response.chunked:
            self._client.sendall(b"0\r\n\r\n")

    def _send_head(self, response: http.client.HTTPResponse, instead: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        for name, value in response.getheaders():
            lines.append(f"{name}: {instead.get(name.lower(), value)}")
        self._client.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _answer_own(self, answer: Answer) -> None:
        head = (
            f"HTTP/1.1 {answer.status} {http.client.responses[answer.status]}\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        )
        self._client.sendall(head.encode("ascii") + answer.body)


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while piece := response.read1(CHUNK):
        yield piece


def _with_messages(body: bytes, call: Call, faults: list[Fault]) -> bytes:
    answer = json.loads(body or b"{}")
    found = answer.pop("Messages", [])
    for fault in faults:
        found = fault.messages(call, found)
    return json.dumps({**answer, "Messages": found} if found else answer).encode()


def _is_s3(headers: http.client.HTTPMessage) -> bool:
    return "/s3/aws4_request" in headers.get("Authorization", "") or "Authorization" not in headers


def _understood(request: Request) -> tuple[str, str, Mapping[str, Any]]:
    """The action, its target, and what it says."""
    path = urlsplit(request.path)
    if request.body is None:
        bucket, _, key = unquote(path.path).lstrip("/").partition("/")
        action = (
            OBJECT_ACTIONS.get(request.method, request.method) if key else f"{request.method.title()}Bucket"
        )
        return f"S3.{action}", f"{bucket}/{key}" if key else bucket, {}
    if (target := request.headers.get("X-Amz-Target", "")).startswith(SQS_TARGET):
        payload: Mapping[str, Any] = json.loads(request.body or b"{}")
        queue = str(payload.get("QueueUrl") or payload.get("QueueName") or "").rsplit("/", 1)[-1]
        return f"SQS.{target.removeprefix(SQS_TARGET)}", queue, payload
    form = parse_qs(request.body.decode("utf-8", errors="replace"))
    scope = request.headers.get("Authorization", "").partition("Credential=")[2].split("/")
    service = scope[3].upper() if len(scope) > 3 else "AWS"  # key, date, region, service
    return f"{service}.{form.get('Action', [''])[0]}", "", {}
