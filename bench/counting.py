"""The AWS API of the stack, counting the requests that reach it: run in place of ``python -m ministack``.

``GET /_bench/counts`` answers ``{"<service> <operation>": requests}``. Counting costs microseconds a
request, in the server itself, so that what is counted runs as fast as what is not.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

COUNTS_PATH = "/_bench/counts"
_SERVICE = re.compile(rb"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/")


class Counting:
    """An ASGI application around another."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._counts: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Count the request by service and operation, and pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == COUNTS_PATH:
            body = json.dumps(self._counts).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._app(scope, self._counted(scope, receive), send)

    def _counted(self, scope: Message, receive: Receive) -> Receive:
        """``receive``, with the request counted: when its body comes, where only that names the operation."""
        headers = dict(scope["headers"])
        found = _SERVICE.search(headers.get(b"authorization", b""))
        service = found[1].decode() if found else "unsigned"
        target = headers.get(b"x-amz-target", b"").decode().rpartition(".")[2]
        if target or service in ("s3", "unsigned"):
            bucket = scope["path"].split("/")[1]
            self._counts[f"{service} {target or scope['method'] + ' ' + bucket}"] += 1
            return receive
        first = True

        async def counted() -> Message:
            nonlocal first
            message = await receive()
            if first:
                first = False
                action = parse_qs(message.get("body", b"").decode("utf-8", "replace")).get("Action", ["?"])
                self._counts[f"{service} {action[0]}"] += 1
            return message

        return counted


if __name__ == "__main__":
    from ministack import app as ministack  # here: to bench.end_to_end this module is only a path

    ministack.app = Counting(ministack.app)
    ministack.main()
