"""The HTTP API as the command line uses it."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import urllib3

from pipeline.errors import DailiesError, InfrastructureError

PAGE_SIZE = 200  #: the API's largest
READ_S = 60.0  #: how long an answer is waited for
RETRIES = urllib3.Retry(total=3, backoff_factor=0.3, status=0)


class Api:
    """One API, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._http = urllib3.PoolManager(timeout=_timeout(READ_S), retries=RETRIES)

    def get(self, path: str, **query: object) -> dict[str, Any]:
        """The whole answer to ``GET /api/v1/<path>``: ``data`` and ``metadata``. None in a query is left out.

        Raises:
            InfrastructureError: when nobody answers.
            DailiesError: with the code and the sentence of the API's error.
        """
        return self._data(self._request("GET", self._v1(path), _given(query)))

    def post(self, path: str, body: dict[str, object], *, seconds: float = READ_S) -> dict[str, Any]:
        """The whole answer to ``POST /api/v1/<path>``. None in the body is left out.

        It is waited for ``seconds``, and asked for again only where it cannot have been heard. Raises as
        ``get`` does.
        """
        said = {name: value for name, value in body.items() if value is not None}
        return self._data(self._request("POST", self._v1(path), json=said, timeout=_timeout(seconds)))

    def delete(self, path: str, **query: object) -> dict[str, Any]:
        """The whole answer to ``DELETE /api/v1/<path>``. Raises as ``get`` does."""
        return self._data(self._request("DELETE", self._v1(path), _given(query)))

    def not_ready(self) -> list[str]:
        """What ``GET /ready`` finds wrong, each as a sentence. Raises as ``get`` does."""
        answer = self._request("GET", f"{self.url}/ready")
        checks = self._data(answer, HTTPStatus.SERVICE_UNAVAILABLE)["data"]["checks"]
        return [f"{name}: {check['error']}" for name, check in checks.items() if not check["ok"]]

    def _v1(self, path: str) -> str:
        return f"{self.url}/api/v1/{path}"

    def _data(self, answer: urllib3.BaseHTTPResponse, *fine: HTTPStatus) -> dict[str, Any]:
        try:
            body: dict[str, Any] = answer.json()
        except ValueError:
            body = {}
        if (answer.status >= HTTPStatus.BAD_REQUEST and answer.status not in fine) or "data" not in body:
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
        answer = self._request("GET", url)
        if answer.status != HTTPStatus.OK:
            raise InfrastructureError(f"{url} answered {answer.status}.", code="PICTURE_UNAVAILABLE")
        return answer.data

    def _request(
        self, method: str, url: str, fields: dict[str, str] | None = None, **more: Any
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._http.request(method, url, fields=fields, **more)
        except urllib3.exceptions.HTTPError as error:
            why = str(getattr(error, "reason", error)).rpartition("connection: ")[2]
            raise InfrastructureError(
                f"The API at {self.url} does not answer ({why}); `dailies ps` shows what runs.",
                code="API_UNAVAILABLE",
            ) from error


def _given(query: dict[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in query.items() if value is not None}


def _timeout(seconds: float) -> urllib3.Timeout:
    return urllib3.Timeout(connect=5, read=seconds)
