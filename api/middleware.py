"""What happens around every request: its host, id, log line, metrics, its answer when the code breaks."""

from __future__ import annotations

import re
import time
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import cross_site_request, host_not_allowed, internal_error
from api.metrics import Metrics

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER = "X-Request-ID"
#: Bodies are small here; files go to the bucket directly.
MAX_BODY_BYTES = 1_000_000
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", re.IGNORECASE)
_READING = {"GET", "HEAD", "OPTIONS"}  #: the methods that change nothing
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Binds the request's id to the log, echoes it, counts and times it, turns a crash into a 500.

    ``hosts`` are the names, in small letters, under which the API may be asked, None for any. A web page that
    lets its own name mean 127.0.0.1 would otherwise read every answer in the browser of an operator. A page
    that reads nothing could still change something: what changes is refused to pages of other sites.
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
            app = self._refusal(scope) or self.app
            await app(scope, _limited(receive), send_with_id)
        except Exception as error:
            log.exception("request_failed", exc_info=error)
            if status:  # the head is sent: all that is left is to break the connection
                raise
            await internal_error()(scope, receive, send_with_id)
        finally:
            self._tell(scope, status or HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        host = _HOST.fullmatch(headers.get("Host", ""))
        name = host["name"].strip("[]").lower() if host is not None else None
        if self.hosts is not None and name not in self.hosts:
            return host_not_allowed()
        if scope["method"] not in _READING and _is_cross_site(headers, self.hosts or {name}):
            return cross_site_request()
        return None

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


def _is_cross_site(headers: Headers, hosts: Collection[str | None]) -> bool:
    """A browser says of each request which page it is from; no page can change that. Others say nothing."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site in {"cross-site", "same-site"}:
        return True
    if origin is None or site == "same-origin":
        return False
    try:
        return urlsplit(origin).hostname not in hosts
    except ValueError:
        return True


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
