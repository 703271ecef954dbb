"""Part 3, whole outages: the AWS API (SQS, SNS and S3 are one process) stops, or dies and forgets."""

from __future__ import annotations

import shutil
import signal

from tests.faults.case import Run, case

DOWN_S = 8.0
BACK_S = 60.0  #: promised: after its return everything moves again within this


@case("broker-restart", part="3", title="Broker and object store stopped, back after 8 s with their state")
def broker_restart(run: Run) -> None:
    with run.fault():
        run.away("aws", DOWN_S, signal.SIGTERM)


@case(
    "broker-wiped",
    part="3",
    title="Broker killed, back after 8 s without messages, queues, notifications",
    recovers=BACK_S,
)
def broker_wiped(run: Run) -> None:
    with run.fault():
        run.stack.hold("aws")
        shutil.rmtree(run.stack.state.root / "aws" / "state", ignore_errors=True)
        run.wait(DOWN_S)
        run.stack.release("aws")
