"""The embedded stack as a whole: the two servers, or the servers and every part of Dailies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import urllib3

from cli.stack import aws, postgres
from cli.stack.environment import adopt, environment, isolated
from cli.stack.process import Identity, end_group
from cli.stack.roles import Role
from cli.stack.signals import undisturbed
from cli.stack.state import RoleRecord, State, identity
from cli.stack.supervisor import Supervisor
from pipeline.settings import get_settings

LEFTOVER_GRACE_S = 5.0

Say = Callable[[str], object]


def servers(state: State, *, durable: bool = True) -> list[Role]:
    """PostgreSQL and the AWS API, with nothing in them."""
    return [
        postgres.role(state, durable=durable, on_ready=lambda: None),
        aws.role(state, durable=durable, on_ready=lambda: None),
    ]


def everything(state: State, *, durable: bool = True) -> list[Role]:
    """Every role, in the order in which they start. The caller has adopted the stack's environment."""
    env = isolated(environment(state))
    ports = state.ports()
    return [
        postgres.role(state, durable=durable, on_ready=_migrate),
        aws.role(state, durable=durable, on_ready=_bootstrap),
        _part("api", env, ready=lambda: aws.answers(ports["api"], "/health")),
        _part("listener", env),
        _part("steward", env),
        _worker("worker", env),
        _worker("worker-heavy", env, "--concurrency", "1"),
        _part("flower", env, ready=lambda: _sees_workers(env)),
    ]


@contextmanager
def running(state: State, roles: Callable[[State], list[Role]], say: Say) -> Iterator[Supervisor]:
    """Run ``roles`` on ``state`` for the length of the block; afterwards no process and no record is left.

    Raises:
        ConflictError: when a stack runs on this state already.
        InfrastructureError: when one of the roles does not start.
    """
    state.create()
    with state.lock():
        end_leftovers(state)
        state.choose_ports()
        adopt(environment(state))
        me = _own_record()
        supervisor = Supervisor(
            roles(state), logs=state.logs, say=say, save=lambda records: state.write_record([me, *records])
        )
        try:
            supervisor.start()
            yield supervisor
        finally:
            with undisturbed():
                supervisor.stop()
                state.remove_record()


def end_leftovers(state: State) -> None:
    """End what a supervisor that was killed may have left. The caller holds the lock."""
    left = [(record, found) for record in state.read_record()[1:] if (found := identity(record))]
    limit = time.monotonic() + LEFTOVER_GRACE_S
    while time.monotonic() < limit and any(found.alive() for _, found in left):
        time.sleep(0.1)  # they have had their parent-death signal
    for _, found in left:
        if found.alive():
            end_group(found.pid)
    state.remove_record()


def _own_record() -> RoleRecord:
    me = Identity.of(os.getpid())
    return {
        "role": "supervisor",
        "pid": os.getpid(),
        "ticks": me.ticks if me else None,
        "started_at": datetime.now(UTC).isoformat(),
        "status": "running",
    }


def _sees_workers(env: dict[str, str]) -> bool:
    """Whether Flower has heard of a worker: until then it misses what the workers tell."""
    url = f"{env['DAILIES_FLOWER_URL']}/api/workers?status=1"
    headers = urllib3.make_headers(basic_auth=env["DAILIES_FLOWER_BASIC_AUTH"])
    try:
        answer = urllib3.request("GET", url, headers=headers, timeout=1, retries=False)
        return any(answer.json().values())
    except (urllib3.exceptions.HTTPError, ValueError):
        return False


def _part(name: str, env: dict[str, str], *args: str, ready: Callable[[], bool] = lambda: True) -> Role:
    command = args or (name,)
    # -P: a folder named "api" or "db" where the caller stands is not ours.
    return Role(name=name, argv=[sys.executable, "-P", "-m", "cli.main", *command], env=env, ready=ready)


def _worker(name: str, env: dict[str, str], *options: str) -> Role:
    from tasks.queues import WORKERS

    lanes = ",".join(WORKERS[name])
    return _part(name, env, "worker", "--queues", lanes, "--hostname", f"{name}@%h", *options)


def _migrate() -> None:
    from db.migrate import upgrade

    upgrade(get_settings().database_url.get_secret_value())


def _bootstrap() -> None:
    from tasks.bootstrap import bootstrap

    bootstrap(get_settings())
