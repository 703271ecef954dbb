"""What happens around every request: its host, id, log line, metrics, its answer when the code breaks."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from http import HTTPStatus
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import host_not_allowed, internal_error
from api.metrics import Metrics

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
#: Bodies are small here; files go to the bucket directly.
MAX_BODY_BYTES = 1_000_000
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", re.IGNORECASE)
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Binds the request's id to the log, echoes it, counts and times it, turns a crash into a 500.

    ``hosts`` are the names, in small letters, under which the API may be asked, None for any. A web page that
    lets its own name mean 127.0.0.1 would otherwise read every answer in the browser of an operator.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Collection[str] | None) -> None:
        self.app = app
        self.metrics = metrics
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection; only HTTP requests are ours."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        structlog.contextvars.clear_contextvars()
        with structlog.contextvars.bound_contextvars(request_id=_request_id(scope)):
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 0
        request_id = structlog.contextvars.get_contextvars()["request_id"]

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            app = self.app if self._is_ours(scope) else host_not_allowed()
            await app(scope, _limited(receive), send_with_id)
        except Exception as error:
            log.exception("request_failed", exc_info=error)
            if status:  # the head is sent: all that is left is to break the connection
                raise
            await internal_error()(scope, receive, send_with_id)
        finally:
            self._tell(scope, status or HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - started)

    def _is_ours(self, scope: Scope) -> bool:
        if self.hosts is None:
            return True
        host = _HOST.fullmatch(Headers(scope=scope).get("Host", ""))
        return host is not None and host["name"].strip("[]").lower() in self.hosts

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        self.metrics.observe_request(
            method=scope["method"],
            route=getattr(scope.get("route"), "path", "unmatched"),
            status=status,
            seconds=seconds,
        )
        log.info(
            "request_handled",
            method=scope["method"],
            path=scope["path"],
            status=int(status),
            duration_ms=round(seconds * 1000, 1),
        )


def _limited(receive: Receive) -> Receive:
    """``receive`` for a body of at most ``MAX_BODY_BYTES``. The error is raised where the body is read."""
    size = 0

    async def receive_limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > MAX_BODY_BYTES:
            raise HTTPException(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The body has more than {MAX_BODY_BYTES} bytes; files are uploaded to the bucket.",
            )
        return message

    return receive_limited


def _request_id(scope: Scope) -> str:
    """The client's id when it is one that can stand in a log and a header, or a new one."""
    given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return given if _ACCEPTABLE_ID.fullmatch(given) else str(uuid4())
