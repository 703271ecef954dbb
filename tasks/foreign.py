"""Messages on a lane that are not ours: told from ours before Celery sees them, and kept."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from celery import Celery

from db import queue
from db.session import Sessions
from pipeline.errors import NotOursError
from pipeline.queues import Queue
from tasks.dispatch import is_newer

#: What our task names begin with.
OURS = "dailies."


def is_of_newer_release(app: Celery, body: str) -> bool:
    """Whether the message names a stage of ours that this release does not have."""
    try:
        name = _envelope(body)["headers"]["task"]
    except (NotOursError, KeyError, TypeError):
        return False
    return isinstance(name, str) and name.startswith(OURS) and name not in app.tasks


def ensure_ours(app: Celery, body: str) -> None:
    """Raise NotOursError, with the reason, unless Celery can read the message and has its task."""
    envelope = _envelope(body)
    headers = envelope.get("headers")
    if not isinstance(headers, dict) or not isinstance(headers.get("id"), str):
        raise NotOursError("The message has no Celery headers.")
    if any(headers.get(name) is not None for name in ("eta", "expires")):
        raise NotOursError("The message has an eta or an expiry; ours wait in their row, and never expire.")
    if not isinstance(headers.get("task"), str) or headers["task"] not in app.tasks:
        raise NotOursError(f"The message is for the task {headers.get('task')!r}, which is none of ours.")
    if envelope.get("content-type") != "application/json":
        raise NotOursError(f"The message's arguments are {envelope.get('content-type')!r}, not JSON.")
    _ensure_arguments(envelope)


def _ensure_arguments(envelope: dict[str, Any]) -> None:
    try:
        args, kwargs, embedded = json.loads(
            _plain(envelope["body"], envelope["properties"].get("body_encoding"))
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise NotOursError(f"The message's arguments cannot be read: {error}") from error
    if not isinstance(args, list) or not args:
        raise NotOursError("The message's arguments are no list, or an empty one.")
    if len(args) > 1 and is_newer(args[1]):
        return
    if kwargs or (isinstance(embedded, dict) and any(embedded.values())):
        raise NotOursError(
            "The message has named arguments, or tasks that are to follow it; ours have neither."
        )


def keep(sessions: Sessions, lane: Queue, body: str, error: NotOursError) -> None:
    """Keep it as a dead letter, so that nothing that arrived is lost. The steward sends its copy to SQS."""
    with sessions.begin() as session:
        queue.keep_foreign(session, source=lane, body=body, error=error)


def _envelope(body: str) -> dict[str, Any]:
    try:
        envelope = json.loads(_plain(body, None if body.lstrip()[:1] == "{" else "base64"))
    except (ValueError, TypeError, RecursionError) as error:
        raise NotOursError(f"The message cannot be read: {error}") from error
    if not isinstance(envelope, dict) or not isinstance(envelope.get("properties"), dict):
        raise NotOursError("The message has no Celery envelope.")
    return envelope


def _plain(text: str, encoding: str | None) -> str:
    return b64decode(text, validate=True).decode() if encoding == "base64" else text
