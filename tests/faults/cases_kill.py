"""Part 1: SIGKILL, which no process hears."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from tests.faults.case import Run, case
from tests.faults.stack import SHORTENED

WORKERS = ("worker-1", "worker-2")
#: One slow row may be hit more often in half a minute than the budget of three allows it in its life.
MANY_CRASHES = {"DAILIES_MAX_CRASHES": "20"}
LEASE_S = float(SHORTENED["DAILIES_LEASE"])
#: Promised: what a dead worker held runs again within its lease and 10 s, what a dead child held within 10 s.
WORKER_BACK_S, CHILD_BACK_S = LEASE_S + 10, 10.0
#: Uploads at a rate that the workers carry: a row that is free again waits for those before it in its lane.
GENTLY_S = 120.0
MORE_SLOW = {"slow": 0.3}  #: so that whoever is hit is in the middle of something


def kill_worker(run: Run, role: str) -> None:
    """SIGKILL a worker's main process; the supervisor ends its pool and starts it again."""
    run.catch([run.stack.pid(role), *run.stack.children(role)])
    run.stack.kill(role)


def kill_child(run: Run, role: str) -> None:
    """SIGKILL one process of a worker's pool."""
    children = run.stack.children(role)
    if children:
        child = run.dice.choice(children)
        run.catch([child])
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@case("nothing", part="0", title="No fault, for comparison", repeats=False)
def nothing(run: Run) -> None:
    with run.fault():
        run.wait(1)


@case("no-steward", part="0", title="No fault and no steward: messages alone carry the load", repeats=False)
def no_steward(run: Run) -> None:
    with run.fault():
        # Told to end: killed, it may just have won the right to send a message, and nobody would send it.
        run.stack.hold("steward", signal.SIGTERM)


@case(
    "kill-workers",
    part="1",
    title="SIGKILL of a random worker every 5 s",
    settings=MANY_CRASHES,
    recovers=WORKER_BACK_S,
    seconds=GENTLY_S,
    load=MORE_SLOW,
)
def kill_workers(run: Run) -> None:
    with run.fault():
        for _ in range(4):
            kill_worker(run, run.dice.choice(WORKERS))
            run.wait(5)


@case(
    "kill-children",
    part="1",
    title="SIGKILL of a random pool process every 2 s",
    settings=MANY_CRASHES,
    recovers=CHILD_BACK_S,
    seconds=GENTLY_S,
    load=MORE_SLOW,
)
def kill_children(run: Run) -> None:
    with run.fault():
        for _ in range(8):
            kill_child(run, run.dice.choice(WORKERS))
            run.wait(2)


@case(
    "kill-all-workers",
    part="1",
    title="SIGKILL of all workers at once, twice",
    settings=MANY_CRASHES,
    recovers=WORKER_BACK_S,
    seconds=GENTLY_S,
    load=MORE_SLOW,
)
def kill_all_workers(run: Run) -> None:
    with run.fault():
        for _ in range(2):
            run.catch([pid for role in WORKERS for pid in (run.stack.pid(role), *run.stack.children(role))])
            for role in WORKERS:
                run.stack.kill(role)
            run.until(run.recovered, seconds=60)
            run.wait(5)


@case("kill-listener", part="1", title="SIGKILL of the listener, three times")
def kill_listener(run: Run) -> None:
    with run.fault():
        for _ in range(3):
            run.stack.kill("listener")
            run.wait(3)


@case("kill-steward", part="1", title="SIGKILL of the steward, three times")
def kill_steward(run: Run) -> None:
    with run.fault():
        for _ in range(3):
            run.stack.kill("steward")
            run.wait(3)


@case("kill-api", part="1", title="SIGKILL of the API in the middle of a request, four times", asks=0.3)
def kill_api(run: Run) -> None:
    caught = 0
    with run.fault():
        for _ in range(4):
            caught += run.load.asking.wait(10)
            run.stack.kill("api")
            run.wait(3)
    run.note(f"{caught} requests were under way")
