"""The queues there are, and which of them a row waits in."""

from __future__ import annotations

from enum import StrEnum

from pipeline.errors import InvalidRequestError
from pipeline.workflows import PRIORITY_MAX, PRIORITY_MIN


class Queue(StrEnum):
    """Every queue, by its short name; on SQS it is prefixed per environment."""

    EXPRESS = "express"  #: priority 8 to 10
    STANDARD = "standard"  #: priority 4 to 7
    BULK = "bulk"  #: priority 1 to 3: backfills, re-runs
    HEAVY = "heavy"  #: stages that take minutes, whatever their priority: transcode, analyze
    EVENTS = "events"  #: raw S3 events
    DEAD_LETTER = "dead-letter"  #: copies of what was given up on, and what never reached our code
    EVENTS_DEAD_LETTER = "events-dead-letter"


#: Queues whose messages name rows, most urgent first.
LANES = (Queue.EXPRESS, Queue.STANDARD, Queue.BULK, Queue.HEAVY)

EXPRESS_FROM, STANDARD_FROM = 8, 4


def lane_for(priority: int) -> Queue:
    """The lane of a job of ``priority`` (1 to 10). Raises InvalidRequestError for any other number."""
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise InvalidRequestError(
            f"Priority {priority} is not between {PRIORITY_MIN} and {PRIORITY_MAX}, the most urgent.",
            field="priority",
        )
    if priority >= EXPRESS_FROM:
        return Queue.EXPRESS
    return Queue.STANDARD if priority >= STANDARD_FROM else Queue.BULK
