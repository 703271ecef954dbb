"""The supervisor on real, small processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.stack.process import Identity
from cli.stack.roles import Role
from cli.stack.state import RoleRecord
from cli.stack.supervisor import Supervisor
from pipeline.errors import InfrastructureError

SLEEP = "import time; time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"
LIMIT_S = 20.0

Make = Callable[..., Supervisor]


def role(name: str, script: str = SLEEP, **given: object) -> Role:
    return Role(name=name, argv=[sys.executable, "-c", script], env=dict(os.environ), **given)  # type: ignore[arg-type]


def until(true: Callable[[], object], supervisor: Supervisor | None = None) -> None:
    limit = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < limit
        if supervisor:
            supervisor.check()
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def saved() -> list[list[RoleRecord]]:
    return []


@pytest.fixture
def make(tmp_path: Path, said: list[str], saved: list[list[RoleRecord]]) -> Iterator[Make]:
    made: list[Supervisor] = []

    def supervise(*roles: Role, grace: float = 5.0) -> Supervisor:
        made.append(Supervisor(roles, logs=tmp_path, say=said.append, save=saved.append, parts_grace=grace))
        return made[-1]

    yield supervise
    for supervisor in made:
        supervisor.stop()


def pid_of(supervisor: Supervisor, name: str) -> int:
    process = next(member.process for member in supervisor.members if member.role.name == name)
    assert process is not None
    return process.pid


def test_servers_are_ready_before_the_next_role_starts(make: Make, tmp_path: Path) -> None:
    part_started: list[bool] = []
    server = role(
        "server", server=True, on_ready=lambda: part_started.append((tmp_path / "part.log").exists())
    )
    supervisor = make(server, role("part"))
    supervisor.start()
    assert part_started == [False]
    assert [member.status for member in supervisor.members] == ["running", "running"]


def test_one_that_dies_is_started_again_and_said_so(make: Make, said: list[str], tmp_path: Path) -> None:
    supervisor = make(role("part"), role("other"))
    supervisor.start()
    first, other = pid_of(supervisor, "part"), pid_of(supervisor, "other")
    os.kill(first, signal.SIGKILL)
    until(lambda: said, supervisor)
    assert "part" in said[0]
    assert "signal 9" in said[0]
    assert said[0] in (tmp_path / "part.log").read_text()
    until(lambda: supervisor.members[0].status == "running", supervisor)
    assert pid_of(supervisor, "part") != first
    assert pid_of(supervisor, "other") == other


def test_children_of_one_that_died_are_ended_too(make: Make) -> None:
    supervisor = make(role("pool", PARENT))
    supervisor.start()
    main = pid_of(supervisor, "pool")
    until(lambda: children_of(main))
    child = Identity.of(children_of(main)[0])
    assert child is not None
    os.kill(main, signal.SIGKILL)
    until(lambda: not child.alive(), supervisor)


def test_stop_leaves_neither_the_stubborn_nor_their_children(make: Make) -> None:
    supervisor = make(
        role("server", server=True), role("stubborn", STUBBORN), role("pool", PARENT), grace=0.5
    )
    supervisor.start()
    pool = pid_of(supervisor, "pool")
    until(lambda: children_of(pool))
    pids = [pid_of(supervisor, name) for name in ("server", "stubborn", "pool")] + children_of(pool)
    known = [found for pid in pids if (found := Identity.of(pid))]
    assert len(known) == 4
    supervisor.stop()
    until(lambda: not any(one.alive() for one in known))
    assert {member.status for member in supervisor.members} == {"stopped"}


def test_servers_stop_last(make: Make, saved: list[list[RoleRecord]]) -> None:
    supervisor = make(role("first", server=True), role("second", server=True), role("third"))
    supervisor.start()
    saved.clear()
    supervisor.stop()
    running = [[one["role"] for one in record if one["status"] != "stopped"] for record in saved]
    assert running == [["first", "second"], ["first"], []]


def test_one_that_never_starts_is_an_error_with_the_end_of_its_log(make: Make) -> None:
    supervisor = make(
        role("broken", "raise SystemExit('no such database')", ready=lambda: False), role("part")
    )
    with pytest.raises(InfrastructureError, match="no such database") as raised:
        supervisor.start()
    assert raised.value.code == "STACK_START_FAILED"


def test_what_follows_a_restart_is_tried_until_it_works(make: Make, said: list[str]) -> None:
    outcomes: list[Exception | None] = [None, InfrastructureError("not yet"), None]

    def follow() -> None:
        outcome = outcomes.pop(0)
        if outcome:
            raise outcome

    supervisor = make(role("server", server=True, on_ready=follow))
    supervisor.start()
    os.kill(pid_of(supervisor, "server"), signal.SIGKILL)
    until(lambda: not outcomes, supervisor)
    assert supervisor.members[0].status == "running"
    assert "not yet" in said[-1]


def test_what_follows_the_first_start_must_work(make: Make) -> None:
    def fail() -> None:
        raise InfrastructureError("no migration")

    with pytest.raises(InfrastructureError, match="no migration"):
        make(role("server", server=True, on_ready=fail)).start()


def test_nothing_survives_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from cli.stack.roles import Role
from cli.stack.supervisor import Supervisor
role = Role(name="part", argv=[sys.executable, "-c", {SLEEP!r}], env={{}})
supervisor = Supervisor([role], logs=Path({str(tmp_path)!r}), say=print, save=lambda record: None)
supervisor.start()
print(supervisor.members[0].process.pid, flush=True)
time.sleep(600)
"""
    killed = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert killed.stdout is not None
    with killed:
        part = Identity.of(int(killed.stdout.readline()))
        assert part is not None
        killed.kill()
    until(lambda: not part.alive())
