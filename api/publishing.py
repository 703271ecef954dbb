"""Publishing what a request has committed, without waiting long for a broker that does not answer.

What is not sent here says so in its row, and the steward sends it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import TimeoutError as TooSlowError
from contextvars import copy_context
from functools import partial
from uuid import UUID

import structlog

from api.asking import LIMIT_S, ask
from api.dependencies import Resources
from db import queue
from db.session import guarded
from pipeline.errors import InfrastructureError
from tasks.dispatch import publish_job

log = structlog.get_logger(__name__)


def publish_due(held: Resources, job_id: UUID) -> None:
    """Publish the row of the job that is due, if there is one."""
    in_time(held, partial(publish_job, held.sessions, job_id), late=partial(_take_back, held, job_id))


def _take_back(held: Resources, job_id: UUID) -> None:
    """The send hangs: the row says that it waits, and the steward sends one. Two do no harm."""
    with guarded(), held.sessions.begin() as session:
        queue.take_back(session, job_id)


def in_time(held: Resources, publish: Callable[[], int], *, late: Callable[[], object] = lambda: None) -> int:
    """How many messages ``publish`` has sent, as far as is known. Calls ``late`` when it takes too long.

    It goes on then, without the request. When as many do as there may be, it is not begun at all.
    """
    if not held.publishing.acquire(blocking=False):
        log.warning("publish_failed", error="Others have waited for an answer of SQS for too long.")
        return 0
    answer = ask(partial(copy_context().run, _publish, held, publish))
    try:
        with guarded():
            return answer.result(LIMIT_S)
    except TooSlowError:
        log.warning("publish_failed", error=f"SQS has not answered within {LIMIT_S:g} s.")
        late()
    except InfrastructureError as error:
        log.warning("publish_failed", code=error.code, error=error.message)
    return 0


def _publish(held: Resources, publish: Callable[[], int]) -> int:
    try:
        return publish()
    finally:
        held.publishing.release()
