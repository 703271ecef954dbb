"""What the tests ask of every answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from httpx2 import Response

#: As an operator's client asks: the API answers to no other host.
BASE_URL = "http://127.0.0.1"


def data_of(response: Response, status: int = 200) -> Any:
    """The data of a good answer, after a look at its envelope."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"data", "metadata"}
    assert body["metadata"]["schema_version"] == "1.0"
    assert datetime.fromisoformat(body["metadata"]["timestamp"]).utcoffset() is not None
    assert body["metadata"]["request_id"] == response.headers["X-Request-ID"]
    return body["data"]


def error_of(response: Response, status: int, code: str, field: str | None = None) -> str:
    """The sentence of an answer's only error, after a look at its envelope."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"errors", "metadata"}
    assert body["metadata"]["request_id"] == response.headers["X-Request-ID"]
    (error,) = body["errors"]
    assert (error["code"], error["field"]) == (code, field), error
    assert error["message"]
    return str(error["message"])
