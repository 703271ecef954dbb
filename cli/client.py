"""The HTTP API as the command line uses it."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import urllib3

from pipeline.errors import DailiesError, InfrastructureError

PAGE_SIZE = 200  #: the API's largest
TIMEOUT = urllib3.Timeout(connect=5, read=60)
RETRIES = urllib3.Retry(total=3, backoff_factor=0.3, status=0)


class Api:
    """One API, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=RETRIES)

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """The whole answer to ``GET /api/v1/<path>``: ``data`` and ``metadata``. None in a query is left out.

        Raises:
            InfrastructureError: when nobody answers.
            DailiesError: with the code and the sentence of the API's error.
        """
        fields = {name: str(value) for name, value in query.items() if value is not None}
        answer = self._request(f"{self.url}/api/v1/{path}", fields)
        try:
            body: dict[str, Any] = answer.json()
        except ValueError:
            body = {}
        if answer.status >= HTTPStatus.BAD_REQUEST or "data" not in body:
            first: dict[str, str] = next(iter(body.get("errors", [])), {})
            raise DailiesError(
                first.get("message") or f"{self.url} answered {answer.status}.",
                code=first.get("code") or "UNEXPECTED_ANSWER",
            )
        return body

    def pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every entry of a list that is read by cursor."""
        cursor = None
        while True:
            answer = self.get(path, limit=PAGE_SIZE, cursor=cursor, **query)
            yield from answer["data"]
            cursor = answer["metadata"].get("next_cursor")
            if cursor is None:
                return

    def picture(self, url: str) -> bytes:
        """The bytes behind a URL of an answer; redirects are followed.

        Raises:
            InfrastructureError: when it does not open.
        """
        answer = self._request(url, {})
        if answer.status != HTTPStatus.OK:
            raise InfrastructureError(f"{url} answered {answer.status}.", code="PICTURE_UNAVAILABLE")
        return answer.data

    def _request(self, url: str, fields: dict[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._http.request("GET", url, fields=fields)
        except urllib3.exceptions.HTTPError as error:
            raise InfrastructureError(
                f"The API at {self.url} does not answer ({error}).", code="API_UNAVAILABLE"
            ) from error
