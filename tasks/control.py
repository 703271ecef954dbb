"""What the API may ask of the broker."""

from __future__ import annotations

from pipeline.errors import InfrastructureError
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks.queues import SQS_ERRORS, queues_of


def queues_reachable(settings: Settings) -> None:
    """Raise InfrastructureError unless every lane and the events queue answer."""
    queues = queues_of(settings)
    for queue in (*LANES, Queue.EVENTS):
        try:
            queues.waiting(queue)
        except SQS_ERRORS as error:
            raise InfrastructureError(
                f"The queue {queue} does not answer: {error}", code="QUEUE_UNAVAILABLE"
            ) from error
