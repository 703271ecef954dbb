"""Part 5: a worker that is stopped past its lease and comes back, and workers whose clocks are wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

from tests.faults.case import Arrangement, NotRun, Run, Servers, case
from tests.faults.cases_kill import MORE_SLOW

STOPPED_S = 12.0  #: twice the shortened lease
AHEAD, BEHIND = "+3600", "-3600"  #: seconds


@case(
    "stopped-past-lease",
    part="5",
    title="A worker and its pool SIGSTOPped for two leases, twice",
)
def stopped_past_lease(run: Run) -> None:
    with run.fault():
        for role in ("worker-1", "worker-2"):
            stop(run, [run.stack.pid(role), *run.stack.children(role)])


@case("stopped-children", part="5", title="Pool processes alone SIGSTOPped for two leases, twice")
def stopped_children(run: Run) -> None:
    with run.fault():
        for role in ("worker-1", "worker-2"):
            stop(run, run.stack.children(role))


@case("stopped-others", part="5", title="Listener and steward SIGSTOPped for two leases")
def stopped_others(run: Run) -> None:
    with run.fault():
        stop(run, [run.stack.pid("listener"), run.stack.pid("steward")])


def stop(run: Run, pids: list[int]) -> None:
    """Stop processes past the lease of what they hold, and let them go on as if nothing had been."""
    run.catch(pids)
    _send(pids, signal.SIGSTOP)
    run.wait(STOPPED_S)
    _send(pids, signal.SIGCONT)
    run.wait(3)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def clock(offset: str) -> Callable[[Servers], AbstractContextManager[Arrangement]]:
    """Let the first worker live ``offset`` seconds away from the others, by libfaketime."""

    def arrange(servers: Servers) -> AbstractContextManager[Arrangement]:
        env = {"LD_PRELOAD": str(_library()), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
        # A spool of its own: the processes of one machine have one clock.
        spool = {"DAILIES_SPOOL_DIR": f"{servers.env['DAILIES_SPOOL_DIR']}-elsewhere"}
        return nullcontext(Arrangement({"worker-1": {**env, **spool}, "listener": env}))

    return arrange


def _library() -> Path:
    spec = find_spec("libfaketime")
    if spec is None or spec.origin is None:
        reason = "libfaketime is not installed"
        raise NotRun(reason)
    return next(Path(spec.origin).parent.rglob("libfaketime.so.1"))


@case(
    "clock-ahead",
    part="5",
    title="A worker and the listener live an hour ahead",
    arrange=clock(AHEAD),
    load=MORE_SLOW,
)
def clock_ahead(run: Run) -> None:
    _as_is(run)


@case(
    "clock-behind",
    part="5",
    title="A worker and the listener live an hour behind",
    arrange=clock(BEHIND),
    load=MORE_SLOW,
)
def clock_behind(run: Run) -> None:
    _as_is(run)


def _as_is(run: Run) -> None:
    """The clocks are wrong all the time; a lost worker besides shows that nobody judges by them."""
    pid = run.stack.pid("worker-1")
    run.until(lambda: _completed_by(run, pid))
    with run.fault():
        run.catch([pid, *run.stack.children("worker-1")], seconds=15)
        run.stack.kill("worker-1")
        run.wait(10)
    later = run.stack.pid("worker-1")
    run.at_end.append(lambda: run.note(f"{_completed_by(run, pid, later)} stages completed by that worker"))


def _completed_by(run: Run, *pids: int) -> int:
    query = "SELECT count(*) FROM processing_attempts WHERE outcome = 'completed' AND worker LIKE %s"
    return sum(run.stack.sql(query, [f"%:{pid}/%"])[0][0] for pid in pids)
