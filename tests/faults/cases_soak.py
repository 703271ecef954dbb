"""Part 8: a random fault every ten seconds, out of those that need no proxy, for as long as is asked for."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Callable

from tests.faults.case import Run, case
from tests.faults.cases_clock import stop
from tests.faults.cases_deploy import restart
from tests.faults.cases_kill import WORKERS, kill_child, kill_worker
from tests.faults.cases_poison import foreign
from tests.faults.cases_postgres import THROW_OUT_ALL, THROW_OUT_ONE
from tests.faults.stack import PARTS

EVERY_S, DOWN_S = 10.0, 4.0
CALM_S = 20.0  #: at the end


def _worker_killed(run: Run) -> None:
    kill_worker(run, run.dice.choice(WORKERS))


def _child_killed(run: Run) -> None:
    kill_child(run, run.dice.choice(WORKERS))


def _workers_killed(run: Run) -> None:
    for role in WORKERS:
        run.stack.kill(role)


def _other_killed(run: Run) -> None:
    run.stack.kill(run.dice.choice([role for role in PARTS if role not in WORKERS]))


def _session_ended(run: Run) -> None:
    run.stack.sql(THROW_OUT_ONE)


def _sessions_ended(run: Run) -> None:
    run.stack.sql(THROW_OUT_ALL)


def _database_restarted(run: Run) -> None:
    run.away("postgres", DOWN_S, signal.SIGQUIT)


def _broker_restarted(run: Run) -> None:
    run.away("aws", DOWN_S, signal.SIGTERM)


def _broker_wiped(run: Run) -> None:
    run.stack.hold("aws")
    shutil.rmtree(run.stack.state.root / "aws" / "state", ignore_errors=True)
    run.wait(DOWN_S)
    run.stack.release("aws")


def _worker_stopped(run: Run) -> None:
    role = run.dice.choice(WORKERS)
    stop(run, [run.stack.pid(role), *run.stack.children(role)])


def _role_restarted(run: Run) -> None:
    restart(run, run.dice.choice(PARTS))


def _junk(run: Run) -> None:
    foreign(run, 10)


FAULTS: dict[str, Callable[[Run], None]] = {
    "worker killed": _worker_killed,
    "pool process killed": _child_killed,
    "all workers killed": _workers_killed,
    "listener, steward or API killed": _other_killed,
    "database session ended": _session_ended,
    "all database sessions ended": _sessions_ended,
    "database restarted": _database_restarted,
    "broker restarted": _broker_restarted,
    "broker wiped": _broker_wiped,
    "worker stopped past its lease": _worker_stopped,
    "role restarted": _role_restarted,
    "foreign messages": _junk,
}


@case(
    "soak",
    part="8",
    title="A random fault every 10 s",
    settings={"DAILIES_MAX_CRASHES": "50"},
    foreign=True,
    apart=True,
)
def soak(run: Run) -> None:
    counted: Counter[str] = Counter()
    with run.fault():
        while (left := run.left()) > CALM_S:
            name = run.dice.choice(list(FAULTS))
            counted[name] += 1
            FAULTS[name](run)
            run.wait(EVERY_S - (left - run.left()))  # some last longer than that
    run.note(", ".join(f"{count} x {name}" for name, count in sorted(counted.items())))
