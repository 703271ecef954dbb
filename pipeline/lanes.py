"""The lanes: which queue a row waits in."""

from __future__ import annotations

from enum import StrEnum

from pipeline.errors import InvalidRequestError
from pipeline.workflows import PRIORITY_MAX, PRIORITY_MIN


class Lane(StrEnum):
    """Queues of work, most urgent first; ``HEAVY`` is for stages that take minutes."""

    EXPRESS = "express"  #: priority 8 to 10
    STANDARD = "standard"  #: priority 4 to 7
    BULK = "bulk"  #: priority 1 to 3: backfills, re-runs
    HEAVY = "heavy"  #: transcode, analyze


EXPRESS_FROM, STANDARD_FROM = 8, 4


def lane_for(priority: int) -> Lane:
    """The lane of a job of ``priority`` (1 to 10). Raises InvalidRequestError for any other number."""
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise InvalidRequestError(
            f"Priority {priority} is not between {PRIORITY_MIN} and {PRIORITY_MAX}, the most urgent.",
            field="priority",
        )
    if priority >= EXPRESS_FROM:
        return Lane.EXPRESS
    return Lane.STANDARD if priority >= STANDARD_FROM else Lane.BULK
