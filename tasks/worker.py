"""Celery's consumer as this system needs it: events in batches."""

from __future__ import annotations

import time

from celery.worker.consumer import Consumer as CeleryConsumer

#: Seconds that a task's event may wait for others. Each batch costs a request to SNS, and two to SQS for each
#: watcher; sent one by one, as Celery does, they cost more than the messages that carry the work.
EVENTS_EVERY = 0.5


class Consumer(CeleryConsumer):
    """Sends task events twice a second at the most, and what is left when it stops."""

    _planned_for = float("-inf")

    def on_send_event_buffered(self) -> None:
        """Plan to send what is buffered, unless that is planned already."""
        now = time.monotonic()
        # By the clock, not by a flag: a reset of the event loop forgets what was planned.
        if self.hub and now > self._planned_for:
            self._planned_for = now + EVENTS_EVERY
            self.hub.call_later(EVENTS_EVERY, self._flush_events)

    def stop(self) -> None:
        """Send what is buffered, then stop."""
        self._flush_events()
        super().stop()
