"""Part 1, outages that last: sixty leases, which is an hour where a lease is a minute."""

from __future__ import annotations

import signal

from tests.faults.case import Run, case
from tests.faults.stack import SHORTENED

LEASES = 60
DOWN_S = LEASES * float(SHORTENED["DAILIES_LEASE"])
ASIDE = {"asks": 0.0, "apart": True}  #: who asks would ask the database first


@case("hour-without-postgres", part="1", title=f"PostgreSQL away for {LEASES} leases", **ASIDE)
def hour_without_postgres(run: Run) -> None:
    with run.fault():
        run.away("postgres", DOWN_S, signal.SIGQUIT)


@case("hour-without-aws", part="1", title=f"Broker and object store away for {LEASES} leases", **ASIDE)
def hour_without_aws(run: Run) -> None:
    with run.fault():
        run.away("aws", DOWN_S, signal.SIGTERM)
