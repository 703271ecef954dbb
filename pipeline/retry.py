"""The retry policy: a pure value, no clock and no broker in it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from pipeline.errors import InfrastructureError, PermanentStageError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, capped.

    ``base`` is the ceiling of the first wait; each further try doubles the ceiling up to ``cap``. The wait is
    drawn evenly below the ceiling, so that jobs which failed together do not come back together.
    """

    max_attempts: int = 3
    base: timedelta = timedelta(seconds=5)
    cap: timedelta = timedelta(minutes=10)
    floor: timedelta = timedelta(seconds=1)

    def ceiling(self, attempt: int) -> timedelta:
        """The longest wait after failed try number ``attempt`` (counted from 1)."""
        doublings = min(attempt - 1, 30)  # past 30 the cap holds for any sensible base, and 2**n stays small
        return min(self.base * (1 << doublings), self.cap)

    def delay_for(self, attempt: int, error: BaseException, *, draw: float | None = None) -> timedelta | None:
        """Return the wait before the next try, or None to give up.

        ``attempt`` counts from 1: the try that has just failed. Permanent errors are given up at once;
        infrastructure errors never are. ``draw`` in [0, 1) replaces the random draw.
        """
        if isinstance(error, PermanentStageError):
            return None
        if not isinstance(error, InfrastructureError) and attempt >= self.max_attempts:
            return None
        share = random.random() if draw is None else draw  # noqa: S311 - spreads load, guards nothing
        return max(self.floor, self.ceiling(attempt) * share)
