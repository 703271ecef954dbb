"""Row by row, so that one that cannot be had keeps no other from its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from uuid import UUID

import structlog

from db.session import guarded
from pipeline.errors import InfrastructureError
from tasks.dispatch import BROKER_UNAVAILABLE

log = structlog.get_logger(__name__)

#: So many failures one after the other are no matter of single rows.
MOST_FAILURES = 5


class Turns:
    """What a step does with rows one by one, in their order; a row that failed comes last from then on."""

    def __init__(self) -> None:
        self.late: set[UUID] = set()  #: the rows that failed when they were last tried

    def each(self, rows: Iterable[UUID], work: Callable[[UUID], bool]) -> int:
        """For how many of ``rows`` the work was done. Ends early when the broker or the database is away."""
        done, failures = 0, 0
        found = list(rows)
        self.late.intersection_update(found)
        for row_id in sorted(found, key=self.late.__contains__):
            try:
                with guarded():
                    done += work(row_id)
            except InfrastructureError as error:
                log.warning("row_left", row_id=str(row_id), error=error.message)
                if error.code == BROKER_UNAVAILABLE:
                    break
            except Exception:
                log.exception("row_left", row_id=str(row_id))
            else:
                self.late.discard(row_id)
                failures = 0
                continue
            self.late.add(row_id)
            failures += 1
            if failures == MOST_FAILURES:
                break
        return done
